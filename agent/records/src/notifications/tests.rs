//! Tests of the outbox of notifications.

use config::builds::{State, Submitter};
use config::notify::NotifyKind;
use config::settings::Settings;
use config::task::Outcome;
use telemetry::Telemetry;

use super::*;
use crate::EndRules;

fn open(directory: &std::path::Path, on: &str) -> Records {
    let text = format!("[[notify]]\nname = \"team\"\nmail = [\"root\"]\non = \"{on}\"\n");
    let rules = Settings::parse(&text).unwrap().notify;
    let path = directory.join("records.sqlite3");
    let records = Records::open(&path, Telemetry::default()).unwrap();
    records.with_end_rules(EndRules {
        notify: rules,
        ..EndRules::default()
    })
}

async fn end(records: &Records, outcome: Outcome) -> Build {
    let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
    let (toolchain, now) = ("default".parse().unwrap(), Timestamp::UNIX_EPOCH);
    let mut build = records
        .submit(request, toolchain, Submitter::root(), now)
        .await
        .unwrap();
    build.enter(State::Starting, now).unwrap();
    records.save(&mut build).await.unwrap();
    build.enter(State::Finished, now).unwrap();
    build.outcome = Some(outcome);
    records.save(&mut build).await.unwrap();
    build
}

async fn next(records: &Records) -> Option<Notification> {
    let rule = "team".parse().unwrap();
    records.next_notification(rule).await.unwrap()
}

#[tokio::test]
async fn changes_are_recorded_once_with_the_end_of_the_build() {
    let directory = tempfile::tempdir().unwrap();
    let records = open(directory.path(), "change");
    end(&records, Outcome::Success).await;
    assert_eq!(next(&records).await, None);
    let mut failed = end(&records, Outcome::Error).await;
    end(&records, Outcome::Skip).await;
    end(&records, Outcome::Error).await;
    // Later changes of a finished record are no end.
    failed.message = "changed".to_owned();
    records.save(&mut failed).await.unwrap();
    let fixed = end(&records, Outcome::Warning).await;
    // Another process sees the same.
    drop(records);
    let records = open(directory.path(), "change");
    let mut told = Vec::new();
    while let Some(it) = next(&records).await {
        records
            .notification_failed(it.id.clone(), "no route".to_owned())
            .await
            .unwrap();
        let again = next(&records).await.unwrap();
        assert_eq!((again.id.clone(), again.failures), (it.id, 1));
        let data = again.content.data;
        told.push((again.content.kind, data.build.unwrap().id, data.before));
        let settled =
            records.settle_notification(again.id, Settlement::Delivered, failed.submitted);
        settled.await.unwrap();
    }
    let [
        (NotifyKind::Failed, first, None | Some(_)),
        (NotifyKind::Fixed, last, Some(before)),
    ] = told.as_slice()
    else {
        panic!("{told:?}");
    };
    assert_eq!((*first, *last), (failed.id, fixed.id));
    assert_eq!((before.good, before.build), (false, failed.id));
    let counts = records.notification_counts().await.unwrap();
    assert_eq!((counts[0].waiting, counts[0].given_up), (0, 0));
    assert_eq!(counts[0].delivered, Some(failed.submitted));
}

#[tokio::test]
async fn what_is_given_up_is_counted_with_its_reason() {
    let directory = tempfile::tempdir().unwrap();
    let records = open(directory.path(), "always");
    end(&records, Outcome::Success).await;
    let waiting = next(&records).await.unwrap();
    assert_eq!(waiting.content.kind, NotifyKind::Finished);
    let reason = Settlement::GivenUp("no route".to_owned());
    let now = Timestamp::UNIX_EPOCH;
    records
        .settle_notification(waiting.id, reason, now)
        .await
        .unwrap();
    let counts = records.notification_counts().await.unwrap();
    assert_eq!((counts[0].waiting, counts[0].given_up), (0, 1));
    assert_eq!(counts[0].failure, "no route");
}
