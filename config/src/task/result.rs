//! The result that a guest puts last: the outcome and the packages.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Outcome, TaskError, required};
use crate::manifest::{self, Manifest};
use crate::names::FileName;

/// A package that a build produced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// The file below [`ARTIFACTS`](super::ARTIFACTS).
    pub file: FileName,
    /// The package's name: `hello`.
    pub name: String,
    /// The version: `1.0`.
    pub version: String,
    /// The revision in its recipe: `r0`.
    pub recipe_revision: String,
    /// The architecture.
    pub architecture: String,
    /// The checksum of the package's inputs: equal checksums mean equal packages.
    pub checksum: String,
    /// The revision that the guest got from the PR service by itself, as in
    /// [`BuiltPackage`](crate::builds::BuiltPackage); `None` if the host asks.
    #[serde(skip)]
    pub told_revision: Option<String>,
}

impl Package {
    /// Returns the version for a request to the PR service: `hello-1.0-r0`.
    pub fn pr_version(&self) -> String {
        format!("{}-{}-{}", self.name, self.version, self.recipe_revision)
    }

    /// Returns the package as a manifest of a list.
    pub fn manifest(&self) -> Manifest {
        let manifest = Manifest::new()
            .with("package", &self.name)
            .with("version", &self.version)
            .with("recipe-revision", &self.recipe_revision)
            .with("architecture", &self.architecture)
            .with("checksum", &self.checksum);
        let manifest = match &self.told_revision {
            Some(revision) => manifest.with(REVISION, revision),
            None => manifest,
        };
        manifest.with("file", &self.file)
    }

    /// Reads a package from a manifest of a list.
    ///
    /// # Errors
    /// The first missing or invalid value.
    pub fn read(manifest: &Manifest) -> Result<Self, TaskError> {
        let mut package = Self {
            file: required(manifest, "file")?.parse()?,
            name: printable_value(manifest, "package")?,
            version: printable_value(manifest, "version")?,
            recipe_revision: printable_value(manifest, "recipe-revision")?,
            architecture: printable_value(manifest, "architecture")?,
            checksum: printable_value(manifest, "checksum")?,
            told_revision: None,
        };
        package.told_revision = told_revision(manifest, &package.recipe_revision)?;
        Ok(package)
    }

    /// Parses the list of packages that a toolchain's `build` writes.
    ///
    /// # Errors
    /// The first missing or invalid value.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, TaskError> {
        manifest::parse_local(text)?
            .iter()
            .map(Self::read)
            .collect()
    }
}

/// The name of the revision that a guest got by itself.
const REVISION: &str = "revision";
/// The length at which a guest's message is truncated.
const MESSAGE_MAX: usize = 4000;
/// The number of packages that a result may have.
const PACKAGES_MAX: usize = 10_000;

/// The result of a build or a bootstrap, as the guest reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskResult {
    /// The outcome.
    pub status: Outcome,
    /// A line for people; may be empty.
    pub message: String,
    /// The packages.
    pub packages: Vec<Package>,
}

impl TaskResult {
    /// Creates a result without a message or packages.
    pub fn new(status: Outcome) -> Self {
        Self {
            status,
            message: String::new(),
            packages: Vec::new(),
        }
    }

    /// Returns the text of [`RESULT`](super::RESULT) or [`BOOTSTRAP`](super::BOOTSTRAP). Secrets
    /// can be masked in it: no line is continued within one.
    pub fn print(&self) -> String {
        let mut head = Manifest::new().with("status", &self.status);
        if !self.message.is_empty() {
            head = head.with("message", &self.message);
        }
        let packages = self.packages.iter().map(Package::manifest);
        manifest::print_local(&std::iter::once(head).chain(packages).collect::<Vec<_>>())
    }

    /// Parses [`RESULT`](super::RESULT) or [`BOOTSTRAP`](super::BOOTSTRAP). Unknown values
    /// are ignored.
    ///
    /// # Errors
    /// The first missing or invalid value.
    pub fn parse(text: &str) -> Result<Self, TaskError> {
        let list = manifest::parse_local(text)?;
        let (head, packages) = list.split_first().ok_or(TaskError::Empty)?;
        let message = head.get("message").unwrap_or_default();
        if packages.len() > PACKAGES_MAX {
            return Err(TaskError::TooManyPackages(PACKAGES_MAX));
        }
        Ok(Self {
            status: required(head, "status")?.parse()?,
            message: message.chars().take(MESSAGE_MAX).collect(),
            packages: distinct(packages.iter().map(Package::read))?,
        })
    }
}

impl TaskResult {
    /// Parses [`BOOTSTRAP`](super::BOOTSTRAP). A worker of build2 puts versions of libraries and no
    /// status there, which counts as success. Packages are ignored.
    ///
    /// # Errors
    /// The first missing or invalid value.
    pub fn parse_bootstrap(text: &str) -> Result<Self, TaskError> {
        let list = manifest::parse_local(text)?;
        let head = list.first().ok_or(TaskError::Empty)?;
        let status = head.get("status").map(str::parse).transpose()?;
        let message = head.get("message").unwrap_or_default();
        Ok(Self {
            status: status.unwrap_or(Outcome::Success),
            message: message.chars().take(MESSAGE_MAX).collect(),
            packages: Vec::new(),
        })
    }
}

/// Collects packages, each of which must have a file of its own.
fn distinct(
    packages: impl Iterator<Item = Result<Package, TaskError>>,
) -> Result<Vec<Package>, TaskError> {
    let (mut list, mut files) = (Vec::new(), BTreeSet::new());
    for package in packages {
        let package = package?;
        if !files.insert(package.file.clone()) {
            return Err(TaskError::TwoPackages(package.file));
        }
        list.push(package);
    }
    Ok(list)
}

/// Returns the revision that the guest got by itself: that of the recipe, or the same with a value
/// of the PR service.
fn told_revision(manifest: &Manifest, recipe: &str) -> Result<Option<String>, TaskError> {
    let Some(told) = manifest.get(REVISION) else {
        return Ok(None);
    };
    let is_integer = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
    let is_value = |value: &str| {
        let parts = value.strip_prefix('.');
        value.is_empty() || parts.is_some_and(|parts| parts.split('.').all(is_integer))
    };
    if told.len() <= 200 && told.strip_prefix(recipe).is_some_and(is_value) {
        return Ok(Some(told.to_owned()));
    }
    Err(TaskError::Value(REVISION, told.chars().take(40).collect()))
}

/// Returns a value without blanks or control characters, which is safe in file names,
/// other protocols and tables.
fn printable_value(manifest: &Manifest, name: &'static str) -> Result<String, TaskError> {
    let value = required(manifest, name)?;
    if value.len() <= 200 && value.chars().all(|c| c.is_ascii_graphic()) {
        Ok(value.to_owned())
    } else {
        Err(TaskError::Value(name, value.chars().take(40).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bootstrap_without_status_is_a_success() {
        let status = |text: &str| TaskResult::parse_bootstrap(text).map(|it| it.status);
        let versions = ": 1\nlibbutl-version: 0.17.0\nlibbbot-version: 0.17.0\n";
        assert_eq!(status(versions), Ok(Outcome::Success));
        assert_eq!(
            status(": 1\nstatus: error\nmessage: no\n"),
            Ok(Outcome::Error)
        );
        assert_eq!(status(""), Err(TaskError::Empty));
        assert!(status(": 1\nstatus: splendid\n").is_err());
        assert!(TaskResult::parse(versions).is_err(), "of a build");
    }

    #[test]
    fn a_written_result_parses_to_the_same_result() {
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
                told_revision: None,
            }],
        };
        insta::assert_snapshot!(result.print());
        assert_eq!(result.packages[0].pr_version(), "hello-1.0-r0");
        assert_eq!(TaskResult::parse(&result.print()), Ok(result));
    }

    #[test]
    fn a_revision_that_the_guest_got_begins_with_that_of_the_recipe() {
        let told = |revision: &str| {
            let text = format!(
                ": 1\nfile: p.deb\npackage: p\nversion: 1\nrecipe-revision: r0\n\
                 architecture: all\nchecksum: c\nrevision: {revision}\n"
            );
            let packages = Package::parse_list(&text)?;
            assert_eq!(
                Package::read(&packages[0].manifest()).as_ref(),
                Ok(&packages[0])
            );
            Ok::<_, TaskError>(packages[0].told_revision.clone().unwrap())
        };
        for revision in ["r0", "r0.3", "r0.3.12"] {
            assert_eq!(told(revision).as_deref(), Ok(revision));
        }
        for revision in ["r1.3", "r0.", "r0..1", "r0.x", "r03", "r0.1 2"] {
            let error = TaskError::Value("revision", revision.to_owned());
            assert_eq!(told(revision), Err(error));
        }
    }

    #[test]
    fn invalid_results_are_rejected_with_a_reason() {
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
            (
                format!(": 1\nstatus: success\n:\n{package}file: f\n:\n{package}file: f\n"),
                "two packages have the file f",
            ),
            (
                format!(
                    ": 1\nstatus: success\n{}",
                    ":\nx: y\n".repeat(PACKAGES_MAX + 1)
                ),
                "there are more than 10000 packages",
            ),
        ];
        for (text, fault) in table {
            let error = TaskResult::parse(&text).unwrap_err().to_string();
            assert!(error.starts_with(fault), "{error}");
        }
    }
}
