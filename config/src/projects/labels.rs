//! Texts of BitBake's configuration that a project may have.

use std::str::FromStr;

use crate::newtype::text_newtype;

/// The longest name of a variable or a target, in bytes.
const NAME_MAX: usize = 200;
/// The longest value of a variable, or line of a configuration, in bytes.
const VALUE_MAX: usize = 16 * 1024;

/// The error of parsing a text of a project.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} cannot be {kind}: {expected}")]
pub struct ProjectError {
    text: String,
    kind: &'static str,
    expected: &'static str,
}

impl ProjectError {
    fn new(text: &str, kind: &'static str, expected: &'static str) -> Self {
        let text = text.chars().take(80).collect();
        Self {
            text,
            kind,
            expected,
        }
    }
}

text_newtype!(
    /// The name of a variable, with overrides and flags: `IMAGE_INSTALL:append`,
    /// `PREFERRED_VERSION_linux-yocto`.
    VariableName,
    ProjectError
);

text_newtype!(
    /// The value of a variable. BitBake expands `${…}` in it.
    VariableValue,
    ProjectError
);

text_newtype!(
    /// A target of BitBake with an optional task: `core-image-minimal`, `busybox:do_compile`,
    /// `mc:musl:busybox`.
    BitbakeTarget,
    ProjectError
);

text_newtype!(
    /// A line of a configuration.
    ConfLine,
    ProjectError
);

impl FromStr for VariableName {
    type Err = ProjectError;

    fn from_str(text: &str) -> Result<Self, ProjectError> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.+:".contains(c);
        let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
        let is_good = text.starts_with(is_first) && text.chars().all(is_allowed);
        if is_good && text.len() <= NAME_MAX && text.split(':').all(|part| !part.is_empty()) {
            return Ok(Self(text.to_owned()));
        }
        let expected = "a letter is expected, and then letters, digits and `-_.+:`";
        Err(ProjectError::new(text, "the name of a variable", expected))
    }
}

impl FromStr for VariableValue {
    type Err = ProjectError;

    fn from_str(text: &str) -> Result<Self, ProjectError> {
        let refuse = |expected| Err(ProjectError::new(text, "the value of a variable", expected));
        if text.len() > VALUE_MAX {
            return refuse("it is longer than 16 KiB");
        }
        if text.chars().any(|c| c.is_control() && c != '\t') {
            return refuse("line ends and control characters are not allowed");
        }
        // The value is written between them, and BitBake has no way to escape them.
        if text.contains('"') {
            return refuse("`\"` is not allowed; BitBake accepts `'` in its place");
        }
        if text.ends_with('\\') {
            return refuse("`\\` at its end would continue the line");
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for BitbakeTarget {
    type Err = ProjectError;

    fn from_str(text: &str) -> Result<Self, ProjectError> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.+:/%@".contains(c);
        let is_good = text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(is_allowed)
            && text.split(':').all(|part| !part.is_empty());
        if is_good && text.len() <= NAME_MAX {
            return Ok(Self(text.to_owned()));
        }
        let expected = "NAME or NAME:TASK is expected, of letters, digits and `-_.+/%@`";
        Err(ProjectError::new(text, "a target", expected))
    }
}

impl FromStr for ConfLine {
    type Err = ProjectError;

    fn from_str(text: &str) -> Result<Self, ProjectError> {
        let is_good = text.len() <= VALUE_MAX && !text.chars().any(|c| c.is_control() && c != '\t');
        if is_good {
            return Ok(Self(text.to_owned()));
        }
        let expected = "one line without control characters, of at most 16 KiB, is expected";
        Err(ProjectError::new(text, "a line of local.conf", expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_written_between_quotes_as_it_is() {
        for text in ["", "a b", "${@'x' if True else ''}", "\t/srv/dl", "a\\b"] {
            text.parse::<VariableValue>().unwrap();
        }
        for (text, reason) in [
            ("a\"b", "`\"` is not allowed"),
            ("a\nb", "line ends"),
            ("a\rb", "line ends"),
            ("a\0", "control"),
            ("a\\", "continue the line"),
        ] {
            let error = text.parse::<VariableValue>().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn names_and_targets_have_the_characters_of_bitbake() {
        for text in [
            "MACHINE",
            "IMAGE_INSTALL:append",
            "PREFERRED_VERSION_linux-yocto",
            "_x",
        ] {
            text.parse::<VariableName>().unwrap();
        }
        for text in ["", "A B", "A=B", "A:", "1A", "A\n", "A[doc]", "-A"] {
            text.parse::<VariableName>().unwrap_err();
        }
        for text in [
            "core-image-minimal",
            "busybox:do_compile",
            "mc:musl:gtk+",
            "virtual/kernel",
        ] {
            text.parse::<BitbakeTarget>().unwrap();
        }
        for text in ["", "-c", "a b", "a:", ":a", "a;b", "a\"b"] {
            text.parse::<BitbakeTarget>().unwrap_err();
        }
    }
}
