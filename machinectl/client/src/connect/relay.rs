//! The relay: an ssh that runs `buildhost relay` on another host, which copies between its standard
//! input and output and the agent's socket there.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sys::command::{CommandError, Running};
use sys::ssh::{LoginFault, UNATTENDED};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Stream;
use crate::endpoint::{Endpoint, SshEndpoint};
use crate::error::ConnectError;

/// The beginning of the line that a relay prints when it is connected to the agent. The version of
/// the program follows.
const GREETING: &str = "buildhost relay ";
/// The length of a greeting.
const GREETING_BYTES_MAX: usize = 200;
/// The time limit for a greeting.
const GREETING_LIMIT: Duration = Duration::from_mins(1);
/// The time limit for the end of an ssh that has closed its output.
const END_LIMIT: Duration = Duration::from_secs(10);
/// The exit code of an ssh that has failed itself.
const SSH_FAILED: i32 = 255;
/// The exit code of a `buildhost` that does not know the command.
const USAGE: i32 = 2;
/// The exit code of a shell that does not find the program.
const NO_PROGRAM: i32 = 127;

/// Returns the line that a relay prints.
pub fn greeting() -> String {
    format!("{GREETING}{}\n", env!("CARGO_PKG_VERSION"))
}

/// Starts a relay and waits until it is connected to the agent.
pub(super) async fn start(ssh: &SshEndpoint) -> Result<Stream, ConnectError> {
    let place = || Endpoint::Ssh(ssh.clone()).place();
    let failed = |source| ConnectError::NotReached {
        place: place(),
        source,
    };
    let (own, other) = net::UnixStream::pair().map_err(failed)?;
    let running = Running::start(command(ssh, other).map_err(failed)?)
        .map_err(|error| explain(ssh, &error))?;
    own.set_nonblocking(true).map_err(failed)?;
    let mut io = UnixStream::from_std(own).map_err(failed)?;
    let answered = timeout(GREETING_LIMIT, read_greeting(&mut io)).await;
    match answered {
        Err(_) => Err(ConnectError::TimedOut {
            place: place(),
            limit: GREETING_LIMIT,
        }),
        Ok(Ok(true)) => Ok(Stream::Unix {
            io,
            relay: Some(running),
        }),
        Ok(Ok(false) | Err(_)) => {
            drop(io);
            Err(match running.finish(END_LIMIT) {
                Err(error) => explain(ssh, &error),
                Ok(()) => ConnectError::Relay {
                    place: place(),
                    code: None,
                    message: "its shell prints something before the program's answer; it must print nothing".to_owned(),
                },
            })
        }
    }
}

/// Returns the command line of an ssh whose standard input and output are one end of a socket.
fn command(ssh: &SshEndpoint, end: net::UnixStream) -> io::Result<Command> {
    let mut command = ssh.ssh.prepare();
    let end = OwnedFd::from(end);
    command.stdin(end.try_clone()?).stdout(end);
    command.args(UNATTENDED).arg("--").arg(ssh.host.as_str());
    command.arg(line(&ssh.program, ssh.socket.as_deref()));
    Ok(command)
}

/// Returns the command line on the other host, which a shell parses.
fn line(program: &str, socket: Option<&Path>) -> String {
    match socket {
        None => format!("{program} relay"),
        Some(path) => {
            let path = path.display().to_string().replace('\'', r"'\''");
            format!("{program} relay --socket '{path}'")
        }
    }
}

/// Reads the greeting byte by byte, because what follows belongs to the agent. Returns false if
/// something else arrives.
async fn read_greeting(io: &mut UnixStream) -> io::Result<bool> {
    let mut line = Vec::new();
    while line.len() < GREETING_BYTES_MAX {
        match io.read_u8().await {
            Ok(b'\n') => return Ok(line.starts_with(GREETING.as_bytes())),
            Ok(byte) => line.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Returns the meaning of a failed ssh.
fn explain(ssh: &SshEndpoint, error: &CommandError) -> ConnectError {
    let place = Endpoint::Ssh(ssh.clone()).place();
    let (code, stderr) = match error {
        CommandError::Failed { status, stderr, .. } => (status.code(), stderr.as_str()),
        error => {
            let reason = sys::error_report::chain(error);
            return ConnectError::Ssh { place, reason };
        }
    };
    let program = &ssh.program;
    let message = match code {
        None | Some(SSH_FAILED) => {
            let reason = match LoginFault::find(ssh.host.as_str(), stderr) {
                Some(LoginFault { message, remedy }) => format!("{message}; {remedy}"),
                None if stderr.is_empty() => "ssh ended without a message".to_owned(),
                None => stderr.to_owned(),
            };
            return ConnectError::Ssh { place, reason };
        }
        Some(USAGE) => format!("its `{program}` is older than this one; upgrade it first"),
        Some(NO_PROGRAM) => format!(
            "there is no program `{program}`; install Buildhost there, or name the program in a context (`buildhost context add --program`)"
        ),
        Some(code) if stderr.is_empty() => format!("`{program}` failed without a message ({code})"),
        Some(_) => without_program(stderr).to_owned(),
    };
    ConnectError::Relay {
        place,
        code,
        message,
    }
}

/// Returns a message without the name of the program before it.
fn without_program(message: &str) -> &str {
    ["buildhost: ", "machinectl: "]
        .iter()
        .find_map(|prefix| message.strip_prefix(prefix))
        .unwrap_or(message)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn endpoint() -> SshEndpoint {
        SshEndpoint {
            ssh: "ssh -p 22".parse().unwrap(),
            host: "root@h".parse().unwrap(),
            program: "buildhost".to_owned(),
            socket: None,
        }
    }

    #[test]
    fn the_path_of_a_socket_is_quoted_for_the_shell_there() {
        assert_eq!(line("buildhost", None), "buildhost relay");
        let path = Path::new("/a b/it's");
        assert_eq!(
            line("/opt/buildhost", Some(path)),
            r"/opt/buildhost relay --socket '/a b/it'\''s'"
        );
    }

    #[test]
    fn a_failed_ssh_is_explained() {
        for (code, stderr, expected) in [
            (
                255,
                "root@h: Permission denied (publickey).",
                "ssh:root@h cannot be reached: root@h: Permission denied (publickey); add your key there",
            ),
            (
                255,
                "ssh: connect to host h port 22: Connection refused",
                "ssh:root@h cannot be reached: ssh: connect to host h port 22: Connection refused",
            ),
            (
                255,
                "",
                "ssh:root@h cannot be reached: ssh ended without a message",
            ),
            (
                2,
                "error: unrecognized subcommand",
                "ssh:root@h: its `buildhost` is older",
            ),
            (
                127,
                "sh: buildhost: not found",
                "ssh:root@h: there is no program `buildhost`",
            ),
            (
                4,
                "buildhost: no agent answers at /run/buildhost/agent.sock",
                "ssh:root@h: no agent answers at /run/buildhost/agent.sock",
            ),
            (
                1,
                "",
                "ssh:root@h: `buildhost` failed without a message (1)",
            ),
        ] {
            let error = CommandError::Failed {
                command: "ssh".to_owned(),
                status: ExitStatus::from_raw(code << 8),
                stderr: stderr.to_owned(),
            };
            let text = explain(&endpoint(), &error).to_string();
            assert!(text.starts_with(expected), "{text}");
        }
    }

    #[tokio::test]
    async fn only_a_greeting_is_accepted_and_nothing_behind_it_is_read() {
        for (text, expected) in [
            (format!("{}HTTP", greeting()), true),
            ("Welcome!\n".to_owned(), false),
            ("x".repeat(500), false),
            (String::new(), false),
        ] {
            let (mut own, other) = UnixStream::pair().unwrap();
            let mut writer = other;
            tokio::io::AsyncWriteExt::write_all(&mut writer, text.as_bytes())
                .await
                .unwrap();
            drop(writer);
            assert_eq!(read_greeting(&mut own).await.unwrap(), expected, "{text}");
            if expected {
                let mut rest = String::new();
                own.read_to_string(&mut rest).await.unwrap();
                assert_eq!(rest, "HTTP");
            }
        }
    }
}
