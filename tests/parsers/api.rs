//! Bodies and queries of the agent's HTTP API.

use std::collections::BTreeSet;

use agent::triggers::schedule::{resolve_timing, with_next};
use config::builds::{ListQuery, Request, Submitter};
use config::doctor::FindingKey;
use config::queue::Drain;
use config::schedule::{NewSchedule, Schedule};
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use crate::harness::Parser;

const BUILD: &str = r#"{"machine":"linux","toolchain":"default","sources":[{"name":"hello.tar.gz",
"sha256":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}],"interactive":"warning",
"hold":true,"target":"hello","priority":7,"after":[1,2,3],"submitter":"nightly","attach":false}"#;

/// Returns a parser of a message.
fn body<T: DeserializeOwned + 'static>(
    valid: &[&str],
    mut check: impl FnMut(T) + 'static,
) -> Parser {
    Parser::of_text(valid, 64, move |text| {
        if let Ok(message) = serde_json::from_str(text) {
            check(message);
        }
    })
}

pub(crate) fn build_requests() -> Parser {
    body(
        &[BUILD, r#"{"machine":"x","sources":[]}"#],
        |request: Request| {
            let text = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        },
    )
}

/// Requests for schedules, with the computation of their next runs.
pub(crate) fn schedules() -> Parser {
    let now: Timestamp = "2026-03-28T12:34:56Z".parse().unwrap();
    let submitter: Submitter = "nightly".parse().unwrap();
    let build = r#""build":{"machine":"x","sources":[]}"#;
    let timings = [
        r#"{"cron":{"pattern":"0 3 * * MON-FRI","zone":"Europe/Berlin"}}"#,
        r#"{"cron":{"pattern":"*/15 1-23/2 29 2,12 5#2","zone":"America/Sao_Paulo"}}"#,
        r#"{"cron":{"pattern":"0 0 LW * *"}}"#,
        r#"{"cron":{"pattern":"@hourly","zone":"UTC"}}"#,
        r#"{"every":"PT1H30M"}"#,
        r#"{"at":"2026-10-25T01:30:00Z"}"#,
    ];
    let valid = timings.map(|timing| {
        format!(r#"{{"name":"nightly","timing":{timing},{build},"replace":true,"rehearse":false}}"#)
    });
    let valid: Vec<_> = valid.iter().map(String::as_str).collect();
    let mut parser = body(&valid, move |new: NewSchedule| {
        let Ok(timing) = resolve_timing(new.timing, now) else {
            return;
        };
        let schedule = Schedule {
            name: new.name,
            timing,
            build: new.build,
            project: new.project,
            submitter: submitter.clone(),
            added: now,
            since: now,
            last: None,
            next: None,
        };
        drop(with_next(schedule, now));
    });
    // Time zones are read from files and kept.
    parser.memory_constant = 1 << 20;
    parser
}

/// The reason of a drain, and the findings to repair.
pub(crate) fn small_bodies() -> Parser {
    let valid = [
        r#"{"reason":"a new disk \u00e4"}"#,
        r#"["stray-guest/17","unusable-manifest/linux"]"#,
        r#"[{"kind":"stray-guest","subject":"17"}]"#,
    ];
    Parser::of_text(&valid, 64, |text| {
        let _ = serde_json::from_str::<Drain>(text);
        let _ = serde_json::from_str::<BTreeSet<FindingKey>>(text);
    })
}

pub(crate) fn list_queries() -> Parser {
    let valid = [
        "machine=linux&toolchain=default&outcome=success&state=finished&submitter=a&schedule=n",
        "package=hello&since=2026-01-01T00:00:00Z&until=2026-02-01T00:00:00Z&before=12&sort=seconds\
         &reverse=true&from=1.5%7C12&count=100",
    ];
    Parser::of_text(&valid, 64, |text| {
        if let Ok(query) = serde_urlencoded::from_str::<ListQuery>(text) {
            let text = serde_urlencoded::to_string(&query).unwrap();
            assert_eq!(
                serde_urlencoded::from_str::<ListQuery>(&text).unwrap(),
                query
            );
        }
    })
}
