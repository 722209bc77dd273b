//! Notifications of a farm: coordinators that weigh, send and die, with real receivers.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::time::Duration;

use config::task::Outcome;
use farm::coordinator::{Coordinator, Telling};
use farm::settings::Written;
use farm_core::messages::{Poll, PollId, Reply, Report, Request, Subject};
use farm_core::{HostId, Lease};
use farm_store::Store;
use nix::sys::signal::Signal;
use notifications::watch::Pace;
use server_tests::receivers::{HangingWebhook, MailSink, Webhook};
use server_tests::{Cluster, RunningProgram};
use tokio::task::block_in_place;

use super::farm::{TERMS, number, open, submission, wait_for};
use super::host::offer;
use super::program::{program, text, write};

/// A pace at which an absence is certain after a few looks.
const PACE: Pace = Pace {
    look: Duration::from_millis(20),
    begin: Duration::ZERO,
    end: Duration::from_millis(200),
};

const WAITING: &str = "SELECT count(*) FROM notifications WHERE settled IS NULL";

/// Returns rules as they are written in settings.
pub(crate) fn telling(rules: &str) -> Telling {
    Telling {
        farm: "works".to_owned(),
        rules: Written::parse(rules).unwrap().notify,
        pace: PACE,
    }
}

/// Starts a coordinator with rules.
fn coordinator(store: &Store, rules: &str) -> Arc<Coordinator> {
    let coordinator = Coordinator::new(store.clone(), TERMS).telling(telling(rules));
    let coordinator = Arc::new(coordinator);
    let (watched, told) = (Arc::clone(&coordinator), Arc::clone(&coordinator));
    tokio::spawn(async move { watched.watch().await });
    tokio::spawn(async move { told.tell().await });
    coordinator
}

/// Runs a build of the target `hello` on host 1, which ends with an outcome and a message.
async fn build(coordinator: &Coordinator, key: &str, outcome: Outcome, message: &str) {
    let mut submission = submission(key);
    submission.subject = Subject {
        target: Some("hello".parse().unwrap()),
        project: None,
    };
    let submit = Request::Submit(submission);
    while !matches!(
        coordinator.handle(submit.clone()).await,
        Reply::Submitted(_)
    ) {}
    let lease = granted(coordinator).await;
    let report = Report {
        lease,
        outcome,
        message: Some(message.to_owned().into()),
    };
    let report = Request::Report(HostId(1), report);
    while coordinator.handle(report.clone()).await != Reply::Recorded(lease) {}
}

/// Polls until host 1 has a lease.
async fn granted(coordinator: &Coordinator) -> Lease {
    for number in 1.. {
        let poll = Poll {
            id: PollId {
                incarnation: 1,
                number,
            },
            held: Vec::new(),
            hold_ms: 300,
            offer: offer(0),
        };
        if let Reply::Leases(answer) = coordinator.handle(Request::Poll(HostId(1), poll)).await
            && let Some(grant) = answer.leases.first()
        {
            return grant.lease;
        }
    }
    unreachable!("the loop ends with a lease")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn two_coordinators_tell_of_each_change_once_also_when_the_database_restarts() {
    let mut cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 1).await;
    let webhook = Webhook::start();
    let rules = format!(
        "[[notify]]\nname = \"team\"\nwebhook = \"{}\"\nlink = \"http://f/builds/\"\n",
        webhook.url()
    );
    let (one, two) = (coordinator(&store, &rules), coordinator(&store, &rules));
    build(&one, "1", Outcome::Error, "make failed").await;
    build(&two, "2", Outcome::Error, "again").await;
    build(&one, "3", Outcome::Success, "done").await;
    block_in_place(|| cluster.restart());
    build(&two, "4", Outcome::Error, "make failed later").await;

    let received: Vec<_> = (0..3).map(|_| block_in_place(|| webhook.next())).collect();
    let told = received.iter().map(|it| {
        let (kind, data) = (&it.body["type"], &it.body["data"]);
        (
            kind.as_str().unwrap(),
            data["build"]["message"].as_str().unwrap(),
        )
    });
    let told: Vec<_> = told.collect();
    let expected = [
        ("build.failed", "make failed"),
        ("build.fixed", "done"),
        ("build.failed", "make failed later"),
    ];
    assert_eq!(told, expected);
    let data = &received[0].body["data"];
    assert_eq!(data["farm"], "works");
    assert_eq!(data["link"], "http://f/builds/1");
    assert_eq!(data["build"]["host"], "host1");
    assert_eq!(received[1].body["data"]["before"]["build"], 1);
    wait_for(&cluster, WAITING, |it| it == 0).await;
    wait_for(&cluster, "SELECT count(*) FROM notify_ends", |it| it == 0).await;
    assert!(webhook.rest().is_empty(), "each is told once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn two_coordinators_tell_of_problems_once_and_of_their_ends() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 1).await;
    let webhook = Webhook::start();
    let rules = format!(
        "[[notify]]\nname = \"operators\"\nwebhook = \"{}\"\non = \"never\"\nproblems = [\"*\"]\n",
        webhook.url()
    );
    let change = |sql: &str| {
        let sql = format!("WITH changed AS ({sql} RETURNING 1) SELECT count(*) FROM changed");
        assert!(number(&cluster, &sql) > Some(0), "{sql}");
    };
    change("UPDATE hosts SET seen = now() - interval '1 hour'");
    change(
        "INSERT INTO coordinators (url, key_hash, keeps_sources, seen)
         VALUES ('http://gone', '', true, now() - interval '1 hour')",
    );
    change(
        "INSERT INTO uploads (build, epoch, host, ended, due)
         VALUES (7, 1, 1, now() - interval '2 hours', now() + interval '9 min')",
    );
    change(
        "INSERT INTO builds (id, submitter, priority, machine, requirements, submitted, sources)
         VALUES (8, 's', 0, 'linux',
            '{\"machine\":\"linux\",\"toolchain\":\"default\",\"cpus\":1,\"memory_mib\":1}', now(), '{a}')",
    );
    let (_one, _two) = (coordinator(&store, &rules), coordinator(&store, &rules));
    let next = |count: usize| {
        let received = (0..count).map(|_| {
            let body = block_in_place(|| webhook.next()).body;
            let problem = &body["data"]["problem"];
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            (
                text(&body["type"]),
                text(&problem["id"]),
                text(&problem["subject"]),
            )
        });
        let mut received: Vec<_> = received.collect();
        received.sort();
        received
    };
    let of = |kind: &str, problems: &[(&str, &str)]| {
        let own = |(id, subject): &(&str, &str)| {
            (kind.to_owned(), (*id).to_owned(), (*subject).to_owned())
        };
        problems.iter().map(own).collect::<Vec<_>>()
    };
    let all = [
        ("coordinator-gone", "http://gone"),
        ("host-silent", "host1"),
        ("sources-lost", ""),
        ("uploads-failing", ""),
    ];
    assert_eq!(next(4), of("problem.began", &all));
    change("UPDATE hosts SET drained = true");
    change("DELETE FROM coordinators");
    change("DELETE FROM uploads");
    change("DELETE FROM builds");
    assert_eq!(next(4), of("problem.ended", &all));
    wait_for(&cluster, WAITING, |it| it == 0).await;
    assert!(webhook.rest().is_empty(), "each is told once");
}

/// Writes settings with rules, and returns a coordinator that serves with them.
fn serve(cluster: &Cluster, rules: &str) -> RunningProgram {
    let directory = tempfile::tempdir().unwrap();
    let url = cluster.url();
    let listen = "listen = \"127.0.0.1:0\"";
    let settings = format!("database = \"{url}\"\n{listen}\n{rules}");
    let config = write(directory.path(), "farm.toml", &settings);
    let mut serve = program();
    serve.arg("--config").arg(config).arg("serve");
    RunningProgram::launch(serve)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_notification_that_a_killed_coordinator_was_sending_arrives_with_its_id() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 1).await;
    let webhook = HangingWebhook::start();
    let rules = format!(
        "[[notify]]\nname = \"chat\"\nwebhook = \"{}\"\non = \"failure\"\nrequest_seconds_max = 2\n",
        webhook.url()
    );
    let first = block_in_place(|| serve(&cluster, &rules));
    let local = Coordinator::new(store.telling(&["chat".parse().unwrap()]), TERMS);
    build(&local, "1", Outcome::Error, "make failed").await;
    let id = block_in_place(|| webhook.next_id());
    let _second = block_in_place(|| serve(&cluster, &rules));
    first.signal(Signal::SIGKILL);
    assert_eq!(block_in_place(|| webhook.next_id()), id, "it is sent again");
    webhook.answer();
    wait_for(&cluster, WAITING, |it| it == 0).await;
    let recorded = "SELECT count(*) FROM notifications WHERE NOT given_up";
    assert_eq!(number(&cluster, recorded), Some(1), "it is recorded once");
}

#[test]
#[ignore = "needs msmtp"]
fn a_test_of_a_rule_goes_through_the_mail_program() {
    let directory = tempfile::tempdir().unwrap();
    let sink = MailSink::start();
    let port = sink.port;
    let account = format!(
        "account default\nhost 127.0.0.1\nport {port}\nfrom farm@example.org\ntls off\nauth off\n"
    );
    let msmtp = write(directory.path(), ".msmtprc", &account);
    std::fs::set_permissions(msmtp, std::fs::Permissions::from_mode(0o600)).unwrap();
    symlink("/usr/bin/msmtp", directory.path().join("sendmail")).unwrap();
    let rules = "database = \"postgres://farm@db/farm\"\nname = \"works\"\n\
                 [[notify]]\nname = \"team\"\nmail = [\"team@example.org\"]\n";
    let config = write(directory.path(), "farm.toml", rules);
    let mut test = program();
    test.env("HOME", directory.path())
        .env("PATH", directory.path());
    test.arg("--config")
        .arg(config)
        .args(["notify", "test", "team"]);
    let output = test.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stdout),
        "notified team: the mail program has it\n"
    );
    let message = sink.next();
    assert!(
        message.contains("Subject: [works] test of team"),
        "{message}"
    );
    assert!(message.contains("From: buildhost@works"), "{message}");
}

#[test]
fn a_check_says_which_rule_cannot_be_used_and_why() {
    let directory = tempfile::tempdir().unwrap();
    let check = |rule: &str| {
        let settings = format!("database = \"postgres://farm@db/farm\"\n[[notify]]\n{rule}");
        let config = write(directory.path(), "farm.toml", &settings);
        let mut check = program();
        check.env_remove("RUST_LOG");
        let output = check
            .arg("--config")
            .arg(config)
            .arg("check")
            .output()
            .unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let (status, stderr) = check("name = \"chat\"\nwebhook = \"ftp://x\"\n");
    assert_eq!(status, Some(2), "{stderr}");
    assert!(stderr.contains("line 4: `notify.webhook`"), "{stderr}");
    let key = write(directory.path(), "key", "whsec_");
    let hook =
        |key: &str| format!("name = \"chat\"\nwebhook = \"http://x/\"\nsecret = \"{key}\"\n");
    let key = key.display().to_string();
    for (key, part) in [
        (&key[..], "has no key"),
        ("/nowhere", "cannot read the key"),
    ] {
        let (status, stderr) = check(&hook(key));
        assert_eq!(status, Some(3), "{stderr}");
        assert!(stderr.contains("chat cannot be notified"), "{stderr}");
        assert!(stderr.contains(part), "{stderr}");
    }
}
