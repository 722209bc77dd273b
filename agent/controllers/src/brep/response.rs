//! The answer to a request for a task.

use config::auxiliary::{self, AuxiliaryMachine};
use config::manifest::{self, Manifest};

use super::{AGENT_CHECKSUM, Terms};
use crate::{Offer, Taken};

/// The end of the names of addresses for uploads.
const UPLOAD_URL: &str = "-upload-url";
/// The largest length of a session.
const SESSION_BYTES_MAX: usize = 4096;
/// The values of a task by which a worker may skip the build.
const SKIP_CHECKSUMS: [&str; 2] = ["worker-checksum", "dependency-checksum"];

/// Returns the task in an answer; `None` without a task. `base` is the address of the request.
///
/// # Errors
/// The fault of the answer.
pub(super) fn parse(text: &str, offer: &Offer, base: &str) -> Result<Option<Taken>, String> {
    let fault = |fault: String| format!("its answer is not one to a request for a task: {fault}");
    let manifests = manifest::parse(text).map_err(|error| fault(error.to_string()))?;
    let header = manifests
        .first()
        .ok_or_else(|| fault("it is empty".to_owned()))?;
    let session = header
        .get("session")
        .ok_or_else(|| fault("`session` is missing".to_owned()))?;
    if session.is_empty() {
        return Ok(None);
    }
    if session.len() > SESSION_BYTES_MAX || session.chars().any(char::is_control) {
        return Err(fault("`session` is not usable".to_owned()));
    }
    let [_, task] = manifests.as_slice() else {
        return Err(fault("one task is expected".to_owned()));
    };
    let value = |name: &str| {
        let value = task.get(name).filter(|value| !value.is_empty());
        value.ok_or_else(|| fault(format!("`{name}` of the task is missing")))
    };
    let terms = terms(header, base).map_err(fault)?;
    let machine = value("machine")?;
    let offered = offer.machines.iter().find(|it| it.name.as_str() == machine);
    let Some(offered) = offered else {
        let machine = config::printable(machine);
        return Err(fault(format!("machine {machine} was not offered")));
    };
    let auxiliaries = auxiliaries(task, offer).map_err(fault)?;
    Ok(Some(Taken {
        session: session.to_owned(),
        package: value("name")?.to_owned(),
        version: value("version")?.to_owned(),
        machine: offered.name.clone(),
        auxiliaries,
        manifest: task_bytes(text, header, task).ok_or_else(|| fault("no task".to_owned()))?,
        script: None,
        terms: serde_json::to_string(&terms).map_err(|error| fault(error.to_string()))?,
    }))
}

/// Returns the auxiliary machines of a task, which were all offered as such.
fn auxiliaries(task: &Manifest, offer: &Offer) -> Result<Vec<AuxiliaryMachine>, String> {
    let auxiliaries = auxiliary::of_task(task)?;
    let is_offered = |it: &&AuxiliaryMachine| {
        offer
            .auxiliaries
            .iter()
            .any(|offered| offered.name == it.machine)
    };
    match auxiliaries.iter().find(|it| !is_offered(it)) {
        Some(other) => Err(format!(
            "auxiliary machine {} was not offered",
            other.machine
        )),
        None => Ok(auxiliaries),
    }
}

fn terms(header: &Manifest, base: &str) -> Result<Terms, String> {
    let result_url = header.get("result-url").ok_or("`result-url` is missing")?;
    check_url("result-url", result_url, base)?;
    let mut upload_urls = Vec::new();
    for (name, url) in header.pairs() {
        if let Some(kind) = name
            .strip_suffix(UPLOAD_URL)
            .filter(|kind| !kind.is_empty())
        {
            check_url(name, url, base)?;
            upload_urls.push((kind.to_owned(), url.clone()));
        }
    }
    let challenge = header.get("challenge").map(str::to_owned);
    // An RSA key signs it without a hash, so nothing but a challenge may be signed.
    let is_hex = |text: &String| {
        text.len() == 64
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    if challenge.as_ref().is_some_and(|text| !is_hex(text)) {
        return Err("`challenge` is not 64 hexadecimal digits".to_owned());
    }
    Ok(Terms {
        result_url: result_url.to_owned(),
        upload_urls,
        challenge,
    })
}

/// Checks the address for a report: a controller that is asked by HTTPS gets no result by HTTP.
fn check_url(name: &str, url: &str, base: &str) -> Result<(), String> {
    let is_secure = url.starts_with("https://");
    let is_plain = url.starts_with("http://") && !base.starts_with("https://");
    let is_clean = !url.contains(|c: char| c.is_whitespace() || c.is_control());
    if (is_secure || is_plain) && is_clean {
        Ok(())
    } else {
        Err(format!("`{name}` is not an address that may be used"))
    }
}

/// Returns the manifest of the task as a file of its own: its bytes as they were given, behind the line
/// with the version. If the checksum of the agent is not the one of the last result, nothing may be
/// skipped, and the values for that are left out.
fn task_bytes(text: &str, header: &Manifest, task: &Manifest) -> Option<Vec<u8>> {
    let checksum = header.get("agent-checksum");
    if checksum.is_some_and(|checksum| checksum != AGENT_CHECKSUM) {
        let kept = task.pairs().iter();
        let kept = kept.filter(|(name, _)| !SKIP_CHECKSUMS.contains(&name.as_str()));
        let task = kept.fold(Manifest::new(), |task, (name, value)| {
            task.with(name, value)
        });
        return Some(manifest::print(&[task]).into_bytes());
    }
    let body = manifest::bodies(text).ok()?.get(1).copied()?;
    Some(format!(": 1\n{body}").into_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::brep::tests::offer;

    const BASE: &str = "https://ci.example.org/?build-task";
    const HEADER: &str = ": 1\nsession: t/libhello/1.0/x/y/z/default/0.17.0/123\n\
                          result-url: https://ci.example.org/?build-result\n";
    const TASK: &str = "name: libhello\nversion: 1.0+2\nmachine: linux\ntarget: x86_64-linux-gnu\n";

    fn parse(text: &str) -> Result<Option<Taken>, String> {
        super::parse(text, &offer(&["linux"]), BASE)
    }

    #[test]
    fn a_task_is_passed_on_byte_for_byte() {
        let task = format!(
            "{TASK}environment:\n\\\na\n:\n# no comment\n\\\n#comment\ninteractive: error\n"
        );
        let taken = parse(&format!("{HEADER}:\n{task}")).unwrap().unwrap();
        assert_eq!(
            String::from_utf8(taken.manifest).unwrap(),
            format!(": 1\n{task}")
        );
        assert_eq!((&*taken.package, &*taken.version), ("libhello", "1.0+2"));
        assert_eq!(taken.session, "t/libhello/1.0/x/y/z/default/0.17.0/123");
        let terms: Terms = serde_json::from_str(&taken.terms).unwrap();
        assert_eq!(terms.result_url, "https://ci.example.org/?build-result");
        assert_eq!((terms.challenge, terms.upload_urls), (None, vec![]));
    }

    #[test]
    fn a_task_gets_only_auxiliary_machines_that_were_offered() {
        let mut offered = offer(&["linux"]);
        offered.auxiliaries = offer(&["x86_64-pgsql"]).machines;
        let take = |machine: &str| {
            let task = format!("{TASK}auxiliary-machine-db: {machine}\n");
            super::parse(&format!("{HEADER}:\n{task}"), &offered, BASE)
        };
        let taken = take("x86_64-pgsql").unwrap().unwrap();
        assert_eq!(taken.auxiliaries[0].label(), "db");
        for machine in ["x86_64-mysql", "linux"] {
            let error = take(machine).unwrap_err();
            assert!(error.contains("was not offered"), "{error}");
        }
    }

    #[test]
    fn nothing_is_skipped_after_a_change_of_the_agent() {
        let task = format!("{TASK}dependency-checksum: d\nworker-checksum: w\n");
        for (checksum, is_kept) in [(AGENT_CHECKSUM, true), ("other", false)] {
            let text = format!("{HEADER}agent-checksum: {checksum}\n:\n{task}");
            let taken = parse(&text).unwrap().unwrap();
            let manifest = String::from_utf8(taken.manifest).unwrap();
            assert_eq!(manifest.contains("worker-checksum"), is_kept, "{manifest}");
            assert_eq!(manifest.contains("dependency-checksum"), is_kept);
            assert!(manifest.contains("target: x86_64-linux-gnu\n"));
        }
    }

    #[test]
    fn the_addresses_and_the_challenge_are_the_terms() {
        let challenge = "0123456789abcdef".repeat(4);
        let header = format!(
            "{HEADER}challenge: {challenge}\narchive-upload-url: https://ci.example.org/?upload=archive\n"
        );
        let taken = parse(&format!("{header}:\n{TASK}")).unwrap().unwrap();
        let terms: Terms = serde_json::from_str(&taken.terms).unwrap();
        assert_eq!(terms.challenge, Some(challenge));
        let expected = (
            "archive".into(),
            "https://ci.example.org/?upload=archive".into(),
        );
        assert_eq!(terms.upload_urls, [expected]);
    }

    #[test]
    fn an_empty_session_means_that_there_is_no_task() {
        assert_eq!(parse(": 1\nsession:\n"), Ok(None));
    }

    #[test]
    fn an_answer_with_a_fault_is_refused() {
        let other = HEADER.replace("https:", "http:");
        for (text, expected) in [
            (String::new(), "it is empty"),
            ("<html>".to_owned(), "line 1"),
            (": 1\nx: y\n".to_owned(), "`session` is missing"),
            (HEADER.to_owned(), "one task is expected"),
            (
                format!("{HEADER}:\n{TASK}:\n{TASK}"),
                "one task is expected",
            ),
            (
                format!("{HEADER}:\n{}", TASK.replace("machine: linux\n", "")),
                "`machine` of the task",
            ),
            (
                format!("{HEADER}:\n{}", TASK.replace("linux\n", "bsd\n")),
                "bsd was not offered",
            ),
            (
                format!("{HEADER}:\n{}", TASK.replace("name: libhello\n", "")),
                "`name` of the task",
            ),
            (
                format!(": 1\nsession: x\n:\n{TASK}"),
                "`result-url` is missing",
            ),
            (
                format!("{other}:\n{TASK}"),
                "`result-url` is not an address",
            ),
            (
                format!("{HEADER}challenge: sign-this\n:\n{TASK}"),
                "`challenge` is not 64",
            ),
            (
                format!("{HEADER}x-upload-url: file:///etc\n:\n{TASK}"),
                "`x-upload-url` is not",
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_parser_panic(text in "[: 1a-z\\\\\n#]{0,200}") {
            let _ = parse(&text);
            let _ = parse(&format!("{HEADER}:\n{TASK}{text}"));
        }
    }
}
