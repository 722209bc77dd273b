//! What a guest puts at the end: how it went, and the packages that came out.

use serde::{Deserialize, Serialize};

use super::{Outcome, TaskError, need};
use crate::manifest::{self, Manifest};
use crate::names::FileName;

/// A package that a build made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// The file below [`ARTIFACTS`](super::ARTIFACTS).
    pub file: FileName,
    /// The package's name: `hello`.
    pub name: String,
    /// Its version: `1.0`.
    pub version: String,
    /// The revision in its recipe: `r0`.
    pub recipe_revision: String,
    /// The architecture that it is for.
    pub architecture: String,
    /// What its content was made from: the same checksum, the same package.
    pub checksum: String,
}

impl Package {
    /// The version as a PR service is asked for it: `hello-1.0-r0`.
    pub fn pr_version(&self) -> String {
        format!("{}-{}-{}", self.name, self.version, self.recipe_revision)
    }

    /// This package as one manifest of a list.
    pub fn manifest(&self) -> Manifest {
        Manifest::new()
            .with("package", &self.name)
            .with("version", &self.version)
            .with("recipe-revision", &self.recipe_revision)
            .with("architecture", &self.architecture)
            .with("checksum", &self.checksum)
            .with("file", &self.file)
    }

    /// Reads one manifest of a list.
    ///
    /// # Errors
    /// The first value that is missing or cannot be used.
    pub fn read(manifest: &Manifest) -> Result<Self, TaskError> {
        Ok(Self {
            file: need(manifest, "file")?.parse()?,
            name: word(manifest, "package")?,
            version: word(manifest, "version")?,
            recipe_revision: word(manifest, "recipe-revision")?,
            architecture: word(manifest, "architecture")?,
            checksum: word(manifest, "checksum")?,
        })
    }

    /// Reads a list of packages, as a toolchain's `build` writes it.
    ///
    /// # Errors
    /// The first thing that cannot be used.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, TaskError> {
        manifest::parse(text)?.iter().map(Self::read).collect()
    }
}

/// No message of a guest is longer; what is more is cut off.
const MESSAGE_MAX: usize = 4000;

/// What came of a build or of a bootstrap, as the guest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskResult {
    /// How it ended.
    pub status: Outcome,
    /// One line for people; empty when all is said.
    pub message: String,
    /// The packages that came out.
    pub packages: Vec<Package>,
}

impl TaskResult {
    /// A result without a word and without packages.
    pub fn new(status: Outcome) -> Self {
        Self {
            status,
            message: String::new(),
            packages: Vec::new(),
        }
    }

    /// The text of [`RESULT`](super::RESULT) or [`BOOTSTRAP`](super::BOOTSTRAP).
    pub fn print(&self) -> String {
        let mut head = Manifest::new().with("status", &self.status);
        if !self.message.is_empty() {
            head = head.with("message", &self.message);
        }
        let packages = self.packages.iter().map(Package::manifest);
        manifest::print(&std::iter::once(head).chain(packages).collect::<Vec<_>>())
    }

    /// Reads [`RESULT`](super::RESULT) or [`BOOTSTRAP`](super::BOOTSTRAP). Values that we do not know are passed over.
    ///
    /// # Errors
    /// The first thing that cannot be used.
    pub fn parse(text: &str) -> Result<Self, TaskError> {
        let list = manifest::parse(text)?;
        let (head, packages) = list.split_first().ok_or(TaskError::Empty)?;
        let message = head.get("message").unwrap_or_default();
        Ok(Self {
            status: need(head, "status")?.parse()?,
            message: message.chars().take(MESSAGE_MAX).collect(),
            packages: packages
                .iter()
                .map(Package::read)
                .collect::<Result<_, _>>()?,
        })
    }
}

/// A value without blanks or control characters: it goes into file names, other
/// protocols and tables.
fn word(manifest: &Manifest, name: &'static str) -> Result<String, TaskError> {
    let value = need(manifest, name)?;
    let fine = value.len() <= 200 && value.chars().all(|c| c.is_ascii_graphic());
    if fine {
        Ok(value.to_owned())
    } else {
        Err(TaskError::Value(name, value.chars().take(40).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_read_as_it_was_written() {
        let result = TaskResult {
            status: Outcome::Warning,
            message: "two lines\nof words".into(),
            packages: vec![Package {
                file: "hello_1.0_x86.ipk".parse().unwrap(),
                name: "hello".into(),
                version: "1.0".into(),
                recipe_revision: "r0".into(),
                architecture: "x86_64".into(),
                checksum: "c0ffee".into(),
            }],
        };
        insta::assert_snapshot!(result.print());
        assert_eq!(result.packages[0].pr_version(), "hello-1.0-r0");
        assert_eq!(TaskResult::parse(&result.print()), Ok(result));
    }

    #[test]
    fn what_a_hostile_guest_puts_is_refused_with_a_reason() {
        let package =
            "package: p\nversion: 1\nrecipe-revision: r0\narchitecture: all\nchecksum: c\n";
        let table = [
            (String::new(), "the manifest is empty"),
            (": 1\n".into(), "the value `status` is missing"),
            (
                ": 1\nstatus: fine\n".into(),
                "the value `status` cannot be `fine`",
            ),
            (
                format!(": 1\nstatus: success\n:\n{package}"),
                "the value `file` is missing",
            ),
            (
                format!(": 1\nstatus: success\n:\n{package}file: ../x\n"),
                "`../x` cannot be the name of a file of a build",
            ),
            (
                ": 1\nstatus: success\n:\npackage: a b\nfile: f\n".into(),
                "the value `package` cannot be `a b`",
            ),
        ];
        for (text, fault) in table {
            let error = TaskResult::parse(&text).unwrap_err().to_string();
            assert!(error.starts_with(fault), "{error}");
        }
    }
}
