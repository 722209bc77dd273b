//! The report of a result: a manifest of the session, then that of the result.

use config::manifest::{self, Manifest};
use config::task::Outcome;

use super::AGENT_CHECKSUM;
use crate::Ending;

/// The largest size of a report that controllers take.
pub const RESULT_BYTES_MAX: usize = 15 << 20;

/// Returns the text of a report. A result of the guest keeps its bytes, unless the report would be too
/// large: then only its status is sent.
pub(super) fn print(
    session: &str,
    challenge: Option<&str>,
    (package, version): (&str, &str),
    ending: &Ending,
) -> Vec<u8> {
    let mut header = Manifest::new().with("session", session);
    if let Some(challenge) = challenge {
        header = header.with("challenge", challenge);
    }
    let header = header.with("agent-checksum", AGENT_CHECKSUM);
    let mut text = manifest::print(&[header]).into_bytes();
    text.extend(b":\n");
    match ending {
        Ending::Result(result) if text.len() + result.len() <= RESULT_BYTES_MAX => {
            text.extend(without_version(result));
        }
        Ending::Result(_) => text.extend(status(package, version, Outcome::Abnormal)),
        Ending::Status(outcome) | Ending::Script { outcome, .. } => {
            text.extend(status(package, version, *outcome));
        }
    }
    text
}

/// Returns a result without the line with the version: a list has only one.
fn without_version(result: &[u8]) -> &[u8] {
    let mut offset = 0;
    for line in result.split_inclusive(|byte| *byte == b'\n') {
        let content = line.trim_ascii();
        offset += line.len();
        if content.first() == Some(&b':') {
            return &result[offset..];
        }
        // Comments and empty lines before it.
        if !content.is_empty() && content[0] != b'#' {
            break;
        }
    }
    result
}

/// Returns the manifest of a result that has a status only, without the line with the version.
fn status(package: &str, version: &str, outcome: Outcome) -> Vec<u8> {
    let status = match outcome {
        Outcome::Abort | Outcome::Interrupt => outcome,
        // Without a result of the guest nothing is known about the package.
        Outcome::Skip
        | Outcome::Success
        | Outcome::Warning
        | Outcome::Error
        | Outcome::Abnormal => Outcome::Abnormal,
    };
    let result = Manifest::new()
        .with("name", package)
        .with("version", version)
        .with("status", &status);
    let text = manifest::print(&[result]);
    without_version(text.as_bytes()).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(ending: &Ending, challenge: Option<&str>) -> String {
        let text = print("t/x/1/123", challenge, ("x", "1"), ending);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn the_result_of_a_guest_keeps_its_bytes() {
        let result = "name: x\nversion: 1\nstatus: success\nupdate-log:\n\\\nlong \\\nline\n\\\n";
        for version in [": 1\n", "# a comment\n\n: 1\n", ":1\n"] {
            let given = Ending::Result(format!("{version}{result}").into_bytes());
            let expected = format!(
                ": 1\nsession: t/x/1/123\nchallenge: c2ln\nagent-checksum: {AGENT_CHECKSUM}\n:\n{result}"
            );
            assert_eq!(text(&given, Some("c2ln")), expected);
        }
    }

    #[test]
    fn without_a_result_of_the_guest_only_a_status_is_sent() {
        for (outcome, status) in [
            (Outcome::Abort, "abort"),
            (Outcome::Interrupt, "interrupt"),
            (Outcome::Abnormal, "abnormal"),
            (Outcome::Error, "abnormal"),
            (Outcome::Success, "abnormal"),
        ] {
            let expected = format!(
                ": 1\nsession: t/x/1/123\nagent-checksum: {AGENT_CHECKSUM}\n:\nname: x\nversion: 1\nstatus: {status}\n"
            );
            assert_eq!(text(&Ending::Status(outcome), None), expected);
        }
    }

    #[test]
    fn a_report_is_not_larger_than_controllers_take() {
        let result =
            |bytes| Ending::Result(format!(": 1\nx: {}\n", "y".repeat(bytes)).into_bytes());
        let large = text(&result(RESULT_BYTES_MAX), None);
        assert!(large.ends_with("status: abnormal\n"));
        let header = text(&result(0), None).len();
        let fits = text(&result(RESULT_BYTES_MAX - header - 4), None);
        assert!(fits.ends_with("yyy\n") && fits.len() <= RESULT_BYTES_MAX);
    }
}
