//! The meaning of a failed ssh.

use std::process::ExitStatus;

use sys::ssh::LoginFault;

use super::RemoteRefusal;

/// Returns the refusal for an ssh that has failed, or has ended without an exit code.
pub(super) fn refusal(host: &str, status: ExitStatus, stderr: &str) -> RemoteRefusal {
    let fault = LoginFault::find(host, stderr);
    let host = host.to_owned();
    match fault {
        Some(LoginFault { message, remedy }) => RemoteRefusal::Login {
            host,
            message,
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

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

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
