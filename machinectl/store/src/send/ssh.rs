//! The ssh command, and the meaning of its messages.

use std::process::{Command, ExitStatus};
use std::str::FromStr;

use sys::command;

use super::RemoteRefusal;

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
    pub(super) fn prepare(&self) -> Command {
        let mut words = self.0.iter();
        let program = words.next().map_or("ssh", String::as_str);
        let mut ssh = command::prepare(program);
        ssh.args(words);
        ssh
    }
}

/// Returns the refusal for an ssh that has failed, or has ended without an exit code.
pub(super) fn refusal(host: &str, status: ExitStatus, stderr: &str) -> RemoteRefusal {
    let lines: Vec<_> = stderr.split("; ").map(str::trim).collect();
    let host = host.to_owned();
    if let Some((message, remedy)) = changed_key(&lines) {
        return RemoteRefusal::Login {
            host,
            message,
            remedy,
        };
    }
    let mut known = LOGIN_FAULTS.iter();
    let fault = known.find_map(|(part, remedy)| {
        let line = lines.iter().find(|line| line.contains(part))?;
        Some(((*line).to_owned(), remedy.replace("HOST", &host)))
    });
    match fault {
        Some((message, remedy)) => RemoteRefusal::Login {
            host,
            message: message.trim_end_matches('.').to_owned(),
            remedy,
        },
        None if stderr.is_empty() => RemoteRefusal::Unreachable {
            host,
            message: format!("ssh, or the program there, was ended without a message ({status})"),
        },
        None => RemoteRefusal::Unreachable {
            host,
            message: stderr.to_owned(),
        },
    }
}

/// Returns the fact and the remedy of the long message about a changed host key.
fn changed_key(lines: &[&str]) -> Option<(String, String)> {
    let find = |start: &str| lines.iter().find(|line| line.starts_with(start));
    let (changed, remedy) = (find("Host key for ")?, find("ssh-keygen ")?);
    let changed = changed.trim_end_matches('.').to_owned();
    let remedy = format!("if the new key is right, `{remedy}` removes the old one");
    Some((changed, remedy))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

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

    #[test]
    fn a_retry_is_advised_only_if_it_can_help() {
        let status = ExitStatus::from_raw(255 << 8);
        for (stderr, expected) in [
            (
                "root@h: Permission denied (publickey,password).",
                "cannot log in to h: root@h: Permission denied (publickey,password); retrying does not help: add your key there with `ssh-copy-id h`",
            ),
            (
                "No ED25519 host key is known for h and you have requested strict checking.; Host key verification failed.",
                "cannot log in to h: No ED25519 host key is known for h and you have requested strict checking; retrying does not help: log in once with `ssh h`",
            ),
            (
                "@@@; ssh-keygen -f k -R h; Host key for h has changed and you have requested strict checking.; Host key verification failed.",
                "cannot log in to h: Host key for h has changed and you have requested strict checking; retrying does not help: if the new key is right, `ssh-keygen -f k -R h` removes the old one",
            ),
            (
                "ssh: connect to host h port 22: Connection refused",
                "cannot reach h: ssh: connect to host h port 22: Connection refused; nothing there is left half done, so retry later",
            ),
            (
                "",
                "cannot reach h: ssh, or the program there, was ended without a message (exit status: 255); nothing",
            ),
        ] {
            let message = refusal("h", status, stderr).to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
