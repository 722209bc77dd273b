//! The ssh command, and the meaning of its messages.

use std::process::Command;
use std::str::FromStr;

use crate::command;

/// The options of an ssh that nobody watches: it asks no questions, it notices a lost connection,
/// and its messages have no banner of the host before the reason for a failure.
pub const UNATTENDED: [&str; 8] = [
    "-o",
    "BatchMode=yes",
    "-o",
    "ServerAliveInterval=15",
    "-o",
    "ConnectTimeout=20",
    "-o",
    "LogLevel=ERROR",
];

/// Parts of ssh's messages about logins that fail until a person has done something, with the
/// remedies. `HOST` stands for the host.
const LOGIN_FAULTS: [(&str, &str); 4] = [
    (
        "Permission denied (",
        "add your key there with `ssh-copy-id HOST`, or name another one with `--ssh \"ssh -i FILE\"`",
    ),
    (
        "Too many authentication failures",
        "name the right key with `--ssh \"ssh -o IdentitiesOnly=yes -i FILE\"`",
    ),
    (
        " host key is known for ",
        "log in once with `ssh HOST`, which shows its key and asks whether to accept it",
    ),
    (
        "Host key verification failed",
        "log in once with `ssh HOST`, which shows its key and asks whether to accept it",
    ),
];

/// The ssh command with its options, such as `ssh -p 2222`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshCommand(Vec<String>);

impl FromStr for SshCommand {
    type Err = &'static str;

    /// Splits a command line at blanks as a shell does, with its quotes and backslashes. An empty
    /// one stands for `ssh`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        shlex::split(text)
            .map(Self)
            .ok_or("a quote is not closed, or nothing follows the last backslash")
    }
}

impl SshCommand {
    /// Returns the command of these words. Without any, it is `ssh`.
    pub fn new(words: Vec<String>) -> Self {
        Self(words)
    }

    /// Returns the command, to which further arguments can be added.
    pub fn prepare(&self) -> Command {
        let mut words = self.0.iter();
        let program = words.next().map_or("ssh", String::as_str);
        let mut ssh = command::prepare(program);
        ssh.args(words);
        ssh
    }
}

/// A login that fails until a person has done something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginFault {
    /// The message of ssh.
    pub message: String,
    /// The remedy.
    pub remedy: String,
}

impl LoginFault {
    /// Returns the fault that the messages of an ssh to a host name, if they name one. The messages
    /// are separated by `; `.
    pub fn find(host: &str, stderr: &str) -> Option<Self> {
        let lines: Vec<_> = stderr.split("; ").map(str::trim).collect();
        changed_key(&lines).or_else(|| known(host, &lines))
    }
}

/// Returns the fault of a line that is listed in [`LOGIN_FAULTS`].
fn known(host: &str, lines: &[&str]) -> Option<LoginFault> {
    LOGIN_FAULTS.iter().find_map(|(part, remedy)| {
        let line = lines.iter().find(|line| line.contains(part))?;
        Some(LoginFault {
            message: line.trim_end_matches('.').to_owned(),
            remedy: remedy.replace("HOST", host),
        })
    })
}

/// Returns the fault of the long message about a changed host key.
fn changed_key(lines: &[&str]) -> Option<LoginFault> {
    let find = |start: &str| lines.iter().find(|line| line.starts_with(start));
    let (changed, remedy) = (find("Host key for ")?, find("ssh-keygen ")?);
    Some(LoginFault {
        message: changed.trim_end_matches('.').to_owned(),
        remedy: format!("if the new key is right, `{remedy}` removes the old one"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_as_a_shell_does() {
        for (text, line) in [
            ("", &["ssh"][..]),
            ("ssh -p  2222", &["ssh", "-p", "2222"]),
            (
                r#"ssh -i "/my keys/id" -i 'a "b"' -i c\ d"#,
                &["ssh", "-i", "/my keys/id", "-i", r#"a "b""#, "-i", "c d"],
            ),
        ] {
            let command: SshCommand = text.parse().unwrap();
            let prepared = command.prepare();
            let words = std::iter::once(prepared.get_program()).chain(prepared.get_args());
            assert!(
                words.eq(line.iter().map(std::ffi::OsStr::new)),
                "{prepared:?}"
            );
        }
        for text in ["ssh -i '/my keys/id", "ssh \"", "ssh \\"] {
            assert!(text.parse::<SshCommand>().is_err(), "{text}");
        }
    }
}
