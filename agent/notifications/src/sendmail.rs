//! The mail program of the host, `sendmail -t -i`, which all mail servers for Linux have.
//!
//! It runs with the rights of the agent: the programs of mail servers change their user or group by
//! themselves, which a confined program could not. It gets the message on its standard input and
//! nothing of others on its command line.

use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sys::command;

use crate::Delivery;

/// The places of the program.
const PROGRAMS: [&str; 2] = ["/usr/sbin/sendmail", "/usr/lib/sendmail"];

/// Hands a message to the mail program. Blocks.
pub(crate) fn send(message: &str, limit: Duration) -> Delivery {
    match program() {
        Ok(program) => hand_over(&program, message, limit),
        Err(missing) => Delivery::Failed(missing),
    }
}

/// Finds the mail program.
pub(crate) fn program() -> Result<PathBuf, String> {
    let found = PROGRAMS.iter().find_map(command::find);
    let found = found.or_else(|| command::find("sendmail"));
    found.ok_or_else(|| {
        format!(
            "{} is missing: install a mail server, such as msmtp-mta",
            PROGRAMS[0]
        )
    })
}

fn hand_over(program: &Path, message: &str, limit: Duration) -> Delivery {
    let mut sendmail = command::prepare(program);
    sendmail.args(["-t", "-i"]);
    match unnamed(message) {
        Ok(file) => sendmail.stdin(file),
        Err(error) => return Delivery::Failed(format!("cannot store a message: {error}")),
    };
    match command::run(sendmail, limit) {
        Ok(_) => Delivery::Delivered("the mail program has it".to_owned()),
        Err(error) => Delivery::Failed(sys::error_report::chain(&error)),
    }
}

/// Returns a file without a name that has this content.
fn unnamed(content: &str) -> io::Result<std::fs::File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(content.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Runs a mail program that is this script.
    fn send_by(script: &str) -> Delivery {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("sendmail");
        let seen = directory.path().join("seen");
        let text = format!("#!/bin/sh\nseen={}\n{script}\n", seen.display());
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let delivery = hand_over(&program, "To: a\n\ntext\n.\n", Duration::from_mins(1));
        if let Ok(seen) = fs::read_to_string(seen) {
            assert_eq!(seen, "-t -i\nTo: a\n\ntext\n.\n");
        }
        delivery
    }

    #[test]
    fn the_mail_program_gets_the_message_on_its_standard_input() {
        let good = send_by(r#"{ echo "$*"; cat; } >"$seen""#);
        assert!(matches!(good, Delivery::Delivered(_)), "{good:?}");
        let Delivery::Failed(failure) = send_by("echo no route to host >&2; exit 75") else {
            panic!("the program fails");
        };
        assert!(failure.contains("no route to host"), "{failure}");
    }
}
