//! A command in a guest, its end, and its record.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::builds::Submitter;

/// The largest size of the arguments and the environment of a command, together.
const BYTES_MAX: usize = 48 * 1024;

/// A command to run in a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The program and its arguments. A program without `/` is searched in `PATH`.
    pub command: Vec<String>,
    /// The variables that are set beside those of a build.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<EnvironmentName, String>,
    /// The working directory; by default that of a build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// The user, by name or number; by default the worker's, which is root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Leaves the output out of the build's log.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unlogged: bool,
}

/// The name of a variable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EnvironmentName(pub String);

/// A reason why a command cannot be run in any guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is no program.
    #[error("the command is empty; name a program and its arguments")]
    Empty,
    /// A text has a null byte, which no program can be given.
    #[error("{0} has a null byte")]
    Null(&'static str),
    /// A variable has no valid name.
    #[error("`{0}` cannot be the name of a variable")]
    Name(String),
    /// The command is too large.
    #[error(
        "the command and its variables have {0} bytes; at most {BYTES_MAX} are possible: send a \
         script by its input instead"
    )]
    TooLarge(usize),
}

impl Command {
    /// Checks a command, without the state of its guest.
    ///
    /// # Errors
    /// The first fault.
    pub fn check(&self) -> Result<(), CommandError> {
        if self.command.first().is_none_or(String::is_empty) {
            return Err(CommandError::Empty);
        }
        let has_null = |text: &String| text.contains('\0');
        let faults = [
            ("an argument", self.command.iter().any(has_null)),
            ("a variable", self.env.values().any(has_null)),
            ("the directory", self.cwd.iter().any(has_null)),
            ("the user", self.user.iter().any(has_null)),
        ];
        if let Some((place, _)) = faults.iter().find(|(_, is_fault)| *is_fault) {
            return Err(CommandError::Null(place));
        }
        let is_invalid = |name: &str| name.is_empty() || name.contains(['=', '\0']);
        if let Some(EnvironmentName(name)) = self.env.keys().find(|name| is_invalid(&name.0)) {
            return Err(CommandError::Name(name.chars().take(40).collect()));
        }
        let bytes = self.bytes();
        if bytes > BYTES_MAX {
            return Err(CommandError::TooLarge(bytes));
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        let arguments = self.command.iter().map(|text| text.len() + 1);
        let variables = self.env.iter();
        let variables = variables.map(|(name, value)| name.0.len() + value.len() + 2);
        let rest = [&self.cwd, &self.user].map(|text| text.as_ref().map_or(0, String::len));
        arguments.chain(variables).chain(rest).sum()
    }
}

/// The end of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommandEnd {
    /// It has ended with this status.
    Exited(u8),
    /// This signal has ended it.
    Signal(u8),
    /// Its client has left, and it was ended.
    Abandoned,
    /// Its guest or its agent has ended before it.
    Lost,
}

impl CommandEnd {
    /// Returns the exit status as a shell has it; `None` for one that is not known.
    pub fn code(self) -> Option<u8> {
        match self {
            Self::Exited(code) => Some(code),
            Self::Signal(signal) => Some(signal.saturating_add(128)),
            Self::Abandoned | Self::Lost => None,
        }
    }
}

impl fmt::Display for CommandEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Abandoned => f.write_str("its client left"),
            Self::Lost => f.write_str("lost"),
        }
    }
}

/// The record of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRecord {
    /// Its number in its build, from 1 on.
    pub number: u32,
    /// The program and its arguments, with secrets masked.
    pub command: Vec<String>,
    /// The client.
    pub submitter: Submitter,
    /// The time at which it was started.
    pub started: Timestamp,
    /// The time at which it ended; `None` while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Its end; `None` while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<CommandEnd>,
}

/// The time limits of a driven guest, in seconds. They only shorten those of its machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommandLimits {
    /// The time without a command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_seconds_max: Option<NonZeroU32>,
    /// The total time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_seconds_max: Option<NonZeroU32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> Command {
        Command {
            command: words.iter().map(|word| (*word).to_owned()).collect(),
            ..Command::default()
        }
    }

    #[test]
    fn a_command_names_a_program_and_fits_into_a_frame() {
        assert_eq!(command(&["true"]).check(), Ok(()));
        for empty in [&[][..], &[""][..]] {
            assert_eq!(command(empty).check(), Err(CommandError::Empty));
        }
        let fault = command(&["sh", "a\0b"]).check();
        assert_eq!(fault, Err(CommandError::Null("an argument")));
        let large = command(&["sh", &"x".repeat(BYTES_MAX)]);
        assert!(matches!(large.check(), Err(CommandError::TooLarge(_))));
        for name in ["", "A=B"] {
            let mut command = command(&["env"]);
            let name = EnvironmentName(name.into());
            command.env.insert(name.clone(), "value".into());
            assert_eq!(command.check(), Err(CommandError::Name(name.0)));
        }
    }

    #[test]
    fn a_signal_is_an_exit_status_as_in_a_shell() {
        let codes = [
            CommandEnd::Exited(3),
            CommandEnd::Signal(9),
            CommandEnd::Lost,
        ];
        assert_eq!(codes.map(CommandEnd::code), [Some(3), Some(137), None]);
    }

    #[test]
    fn unknown_keys_of_a_command_are_refused() {
        let parse = serde_json::from_str::<Command>;
        assert!(parse(r#"{"command": ["true"]}"#).is_ok());
        assert!(parse(r#"{"command": ["true"], "directory": "/"}"#).is_err());
    }
}
