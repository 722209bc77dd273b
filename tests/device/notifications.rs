//! Notifications of an agent that is killed while it sends, and mail by a real mail program.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use config::builds::State;
use config::task::Outcome;
use rustix::process::Signal;
use serde_json::Value;
use tests::agent::AgentHost;
use tests::webhooks::{HangingWebhook, MailSink};

/// A toolchain's `build` that fails.
const FAIL: &str = "#!/bin/sh\necho 'hello.c:1: error: no'\nexit 1\n";

/// Returns a host whose container `demo` fails to build. Its agent is not started.
fn host(settings: &str) -> AgentHost {
    let host = AgentHost::new(settings);
    host.add_container("demo", |_| {});
    host.add_build_program("default", FAIL);
    host
}

fn fail(host: &AgentHost, text: &str) {
    let id = host.submit_script(text, &[]);
    assert_eq!(
        host.wait_for(id, State::Finished).outcome,
        Some(Outcome::Error)
    );
}

fn rules(host: &AgentHost) -> Vec<Value> {
    let listed = host.machinectl(&["notify", "list", "--json"]).success();
    serde_json::from_str(&listed.stdout).unwrap()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_notification_that_a_killed_agent_was_sending_arrives_with_its_id() {
    let webhook = HangingWebhook::start();
    let mut host = host(&format!(
        "[[notify]]\nname = \"chat\"\nwebhook = \"{}\"\non = \"failure\"\nrequest_seconds_max = 600\n",
        webhook.url()
    ));
    host.start();
    fail(&host, "one");
    let first = webhook.next_id();
    for _ in 0..3 {
        host.stop(Signal::KILL);
        host.start();
        assert_eq!(
            webhook.next_id(),
            first,
            "the same notification is sent again"
        );
        assert_eq!(rules(&host)[0]["waiting"], 1, "it is recorded once");
    }
    fail(&host, "two");
    webhook.answer();
    let second = webhook.next_id();
    assert_ne!(second, first);
    tests::wait_until("both are delivered", || rules(&host)[0]["waiting"] == 0);
    assert_eq!(rules(&host)[0]["given_up"], 0);
}

/// Makes a directory with `sendmail`, which is msmtp with this server.
fn mail_program(directory: &Path, port: u16) {
    let settings = directory.join(".msmtprc");
    let text = format!(
        "account default\nhost 127.0.0.1\nport {port}\nfrom buildhost@example.org\ntls off\nauth off\n"
    );
    tests::write_file(&settings, &text);
    fs::set_permissions(&settings, fs::Permissions::from_mode(0o600)).unwrap();
    symlink("/usr/bin/msmtp", directory.join("sendmail")).unwrap();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn mail_goes_through_the_mail_program_of_the_host() {
    assert!(
        !Path::new("/usr/sbin/sendmail").exists(),
        "the mail program of this host would be used"
    );
    let sink = MailSink::start();
    let directory = tempfile::tempdir().unwrap();
    mail_program(directory.path(), sink.port);
    let mut host = host("[[notify]]\nname = \"team\"\nmail = [\"team@example.org\"]\n");
    let path = format!(
        "{}:{}",
        directory.path().display(),
        std::env::var("PATH").unwrap()
    );
    host.start_in_environment(&[
        ("PATH", OsStr::new(&path)),
        ("HOME", directory.path().as_os_str()),
    ]);
    fail(&host, "one");
    let mail = sink.next();
    assert!(
        mail.contains("To: team@example.org") && mail.contains("hello.c:1: error: no"),
        "{mail}"
    );
    tests::wait_until("the mail is delivered", || rules(&host)[0]["waiting"] == 0);
    let tested = host.machinectl(&["notify", "test", "team"]).success();
    assert!(
        tested.stderr.contains("the mail program has it"),
        "{}",
        tested.stderr
    );
    sink.next();
}
