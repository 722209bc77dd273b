//! Tests of what recipients are told of problems, on real files.

use config::doctor::Id;
use config::notify::ProblemId;
use config::settings::Settings;
use telemetry::Telemetry;

use super::*;
use crate::EndRules;

/// A rule for all problems, and one for those of disks.
const RULES: &str = "[[notify]]\nname = \"all\"\nmail = [\"a@example.org\"]\nproblems = [\"*\"]\n\
                     [[notify]]\nname = \"disks\"\nmail = [\"a@example.org\"]\nproblems = [\"low-*\"]\n";

fn open(path: &std::path::Path, rules: &str) -> Records {
    let notify = Settings::parse(rules).unwrap().notify;
    let records = Records::open(path, Telemetry::default()).unwrap();
    records.with_end_rules(EndRules {
        notify,
        ..EndRules::default()
    })
}

fn problem(id: Id, subject: &str) -> Problem {
    Problem {
        id: ProblemId::Host(id),
        subject: subject.to_owned(),
        proof: "proof".to_owned(),
        advice: "advice".to_owned(),
        since: Timestamp::UNIX_EPOCH,
    }
}

async fn tell(records: &Records, problems: &[Problem]) -> usize {
    let tell = records.tell_problems(problems.to_vec(), Timestamp::UNIX_EPOCH);
    tell.await.unwrap()
}

#[tokio::test]
async fn each_rule_is_told_of_its_problems_once_even_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let (full, pressed) = (
        problem(Id::LowSpace, "/volume"),
        problem(Id::HostPressure, "memory"),
    );
    let both = [full.clone(), pressed.clone()];
    assert_eq!(tell(&open(&path, RULES), &both).await, 3);
    let records = open(&path, RULES);
    assert_eq!(tell(&records, &both).await, 0);
    assert_eq!(records.told_problems().await.unwrap().len(), 2);
    assert_eq!(tell(&records, &[pressed]).await, 2, "the end of the other");
    for (rule, expected) in [("all", 3), ("disks", 2)] {
        let counts = records.notification_counts().await.unwrap();
        let count = counts.iter().find(|it| it.rule == rule).unwrap();
        assert_eq!(count.waiting, expected, "{rule}");
    }
    let next = records.next_notification("disks".parse().unwrap()).await;
    let notice = next.unwrap().unwrap().content;
    assert_eq!(notice.kind, NotifyKind::ProblemBegan);
    assert_eq!(notice.data.problem, Some(full));
}

#[tokio::test]
async fn a_rule_that_was_removed_is_told_from_the_begin_when_it_returns() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let full = [problem(Id::LowSpace, "/volume")];
    assert_eq!(tell(&open(&path, RULES), &full).await, 2);
    assert_eq!(tell(&open(&path, ""), &full).await, 0);
    assert_eq!(tell(&open(&path, RULES), &full).await, 2);
}
