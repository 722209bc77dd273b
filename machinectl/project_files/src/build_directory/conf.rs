//! The two files of a build directory; pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use config::projects::{BitbakeTarget, ConfLine};

/// The variables that become variables of the project.
const VARIABLES: [&str; 2] = ["MACHINE", "DISTRO"];
/// The variables of a host and its disks.
const OF_HOST: [&str; 12] = [
    "BB_DISKMON_DIRS",
    "BB_HASHSERVE",
    "BB_HASHSERVE_UPSTREAM",
    "BB_NUMBER_PARSE_THREADS",
    "BB_NUMBER_THREADS",
    "DL_DIR",
    "PARALLEL_MAKE",
    "PRSERV_HOST",
    "SSTATE_DIR",
    "SSTATE_MIRRORS",
    "TMPDIR",
    "TOPDIR",
];

/// The content of `local.conf`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LocalConf {
    /// The values of [`VARIABLES`].
    pub(super) variables: Vec<(&'static str, String)>,
    /// All other lines.
    pub(super) lines: Vec<ConfLine>,
    /// The variables of the host that were left out, each once.
    pub(super) left_out: Vec<String>,
    /// The image that is built by default.
    pub(super) default_image: Option<BitbakeTarget>,
}

/// An assignment of a configuration file.
#[derive(Debug, PartialEq, Eq)]
struct Assignment<'a> {
    name: &'a str,
    operator: &'a str,
    value: &'a str,
}

/// Returns the lines without comments, each with its number and with those that continue it.
fn lines(text: &str) -> Vec<(usize, String)> {
    let mut all: Vec<(usize, String)> = Vec::new();
    let mut continues = false;
    for (index, line) in text.lines().enumerate() {
        let (part, more) = match line.strip_suffix('\\') {
            Some(part) => (part, true),
            None => (line, false),
        };
        match all.last_mut() {
            Some((_, whole)) if continues => whole.push_str(part),
            _ => all.push((index + 1, part.to_owned())),
        }
        continues = more;
    }
    all.retain(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    all
}

/// Parses a line; `None` if it is no assignment.
fn assignment(line: &str) -> Option<Assignment<'_>> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || "-_.+:/~${}".contains(c);
    let end = line.find(|c| !is_of_name(c)).unwrap_or(line.len());
    // The operators `+=`, `.=` and `:=` begin with characters of names.
    let name = line[..end].trim_end_matches(['+', '.', ':']);
    let rest = line[name.len()..].trim_start();
    let operators = ["??=", "?=", "+=", "=+", ".=", "=.", ":=", "="];
    let operator = operators.into_iter().find(|it| rest.starts_with(it))?;
    let value = rest[operator.len()..].trim();
    let quote = value.chars().next().filter(|c| "\"'".contains(*c))?;
    let value = value.strip_prefix(quote)?.strip_suffix(quote)?;
    (!name.is_empty()).then_some(Assignment {
        name,
        operator,
        value,
    })
}

/// The values that a file has given to variables.
#[derive(Debug, Default)]
struct Values(BTreeMap<String, String>);

impl Values {
    /// Applies an assignment as BitBake does. A default (`??=`) counts as a weak one (`?=`).
    fn assign(&mut self, it: &Assignment<'_>) {
        let (name, operator) = match it.name.rsplit_once(':') {
            Some((name, "append")) => (name, "append"),
            Some((name, "prepend")) => (name, "prepend"),
            _ => (it.name, it.operator),
        };
        let old = self.0.get(name).cloned();
        let value = it.value;
        let new = match (operator, old) {
            ("?=" | "??=", Some(old)) => old,
            ("+=", Some(old)) => format!("{old} {value}"),
            ("=+", Some(old)) => format!("{value} {old}"),
            (".=" | "append", Some(old)) => format!("{old}{value}"),
            ("=." | "prepend", Some(old)) => format!("{value}{old}"),
            _ => value.to_owned(),
        };
        self.0.insert(name.to_owned(), new);
    }

    /// Replaces the references to variables that have values.
    fn expand(&self, text: &str) -> String {
        let mut text = text.to_owned();
        // A value may refer to others, and a circle ends.
        for _ in 0..8 {
            for (name, value) in &self.0 {
                text = text.replace(&format!("${{{name}}}"), value);
            }
        }
        text
    }
}

/// Returns the directories of the layers in `bblayers.conf`.
///
/// # Errors
/// There are none, or one has a variable without a value.
pub(super) fn layers(text: &str, directory: &Path) -> Result<Vec<PathBuf>, String> {
    let mut values = Values::default();
    let top = directory.display().to_string();
    values.0.insert("TOPDIR".to_owned(), top);
    for (_, line) in lines(text) {
        if let Some(assignment) = assignment(&line) {
            values.assign(&assignment);
        }
    }
    let layers = values.0.get("BBLAYERS").map_or("", String::as_str);
    let layers = values.expand(layers);
    if let Some(unknown) = layers.split_whitespace().find(|it| it.contains("${")) {
        return Err(format!(
            "the layer {unknown} has a variable without a value"
        ));
    }
    let paths: Vec<_> = layers
        .split_whitespace()
        .map(|path| directory.join(path.trim_end_matches('/')))
        .collect();
    if paths.is_empty() {
        return Err("BBLAYERS names no layer".to_owned());
    }
    Ok(paths)
}

/// Parses `local.conf`.
///
/// # Errors
/// A line includes another file, or cannot be a line of a project.
pub(super) fn local(text: &str) -> Result<LocalConf, String> {
    let mut local = LocalConf::default();
    let mut values = Values::default();
    for (number, line) in lines(text) {
        if let Some(word @ ("require" | "include")) = line.split_whitespace().next() {
            return Err(format!(
                "line {number}: `{word}` is not carried over; move the lines of that file here"
            ));
        }
        let assignment = assignment(&line);
        let base = assignment.as_ref().map_or("", |it| base_name(it.name));
        match &assignment {
            Some(it) if VARIABLES.contains(&it.name) => values.assign(it),
            Some(_) if OF_HOST.contains(&base) => {
                if !local.left_out.iter().any(|it| it == base) {
                    local.left_out.push(base.to_owned());
                }
            }
            _ => {
                if let Some(it) = assignment.filter(|it| it.name == "DEFAULT_IMAGE") {
                    local.default_image = it.value.parse().ok();
                }
                let line = line.parse();
                let line = line.map_err(|error| format!("line {number}: {error}"))?;
                local.lines.push(line);
            }
        }
    }
    for name in VARIABLES {
        if let Some(value) = values.0.remove(name) {
            local.variables.push((name, value));
        }
    }
    Ok(local)
}

/// Returns the name of a variable without operators and overrides, as in `DL_DIR:append`.
fn base_name(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_recognized_by_their_quotes() {
        for (line, parsed) in [
            (
                r#"MACHINE ??= "qemux86-64""#,
                Some(("MACHINE", "??=", "qemux86-64")),
            ),
            ("A+='b'", Some(("A", "+=", "b"))),
            (r#"A =. "b""#, Some(("A", "=.", "b"))),
            (r#"A:append = " b""#, Some(("A:append", "=", " b"))),
            (r#"A := "${B}""#, Some(("A", ":=", "${B}"))),
            ("A = b", None),
            ("inherit a", None),
            ("require a.conf", None),
            (r#" = "b""#, None),
        ] {
            let found = assignment(line).map(|it| (it.name, it.operator, it.value));
            assert_eq!(found, parsed, "{line}");
        }
    }

    #[test]
    fn layers_are_listed_with_their_variables() {
        let directory = Path::new("/srv/build");
        let text = "# A comment\nBBPATH = \"${TOPDIR}\"\nOE = \"/srv/oe-core\"\nBBLAYERS ?= \" \\\n  \
                    ${OE}/meta \\\n  ${TOPDIR}/../meta-own/ \\\n\"\nBBLAYERS += \"meta-here\"\n\
                    BBLAYERS:append = \" /srv/last\"\n";
        let found = layers(text, directory).unwrap();
        let expected = [
            "/srv/oe-core/meta",
            "/srv/build/../meta-own",
            "/srv/build/meta-here",
            "/srv/last",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
        for (text, fault) in [
            ("", "names no layer"),
            (
                "BBLAYERS = \"${NOWHERE}/meta\"\n",
                "the layer ${NOWHERE}/meta has a variable without",
            ),
        ] {
            assert!(
                layers(text, directory).unwrap_err().contains(fault),
                "{text}"
            );
        }
    }

    #[test]
    fn lines_are_carried_over_except_those_of_the_host() {
        let text = "MACHINE ??= \"qemux86-64\"\nMACHINE ?= \"qemuarm64\"\nDISTRO = \"poky\"\n#DISTRO = \"no\"\n\
                    DL_DIR ?= \"/srv/downloads\"\nDL_DIR:append = \"/x\"\nPARALLEL_MAKE = \"-j 8\"\n\
                    IMAGE_INSTALL:append = \" \\\n  nano\"\nDEFAULT_IMAGE = \"core-image-minimal\"\n\
                    INHERIT += \"rm_work\"\n";
        let local = local(text).unwrap();
        let variables = [("MACHINE", "qemux86-64"), ("DISTRO", "poky")];
        assert_eq!(
            local.variables,
            variables.map(|(name, value)| (name, value.to_owned()))
        );
        assert_eq!(local.left_out, ["DL_DIR", "PARALLEL_MAKE"]);
        let lines: Vec<_> = local.lines.iter().map(ConfLine::as_str).collect();
        let expected = [
            "IMAGE_INSTALL:append = \"   nano\"",
            "DEFAULT_IMAGE = \"core-image-minimal\"",
            "INHERIT += \"rm_work\"",
        ];
        assert_eq!(lines, expected);
        assert_eq!(local.default_image.unwrap().as_str(), "core-image-minimal");
        let fault = super::local("\nrequire site.conf\n").unwrap_err();
        assert!(
            fault.starts_with("line 2: `require` is not carried over"),
            "{fault}"
        );
    }
}
