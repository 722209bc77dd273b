//! The life of guests: their limits, and people at their consoles.

use config::builds::State;
use config::task::Outcome;
use rustix::process::Signal;
use tests::agent::AgentHost;
use tests::wait_until;

/// A worker that is a shell script; what it does when it has its task follows.
const WORKER: &str = r"#!/bin/sh
host=169.254.111.222
cd /tmp
put() { printf ': 1\nstatus: %s\n' $2 >$1; tftp -p -l $1 -r $1 $host; }
if [ $1 = bootstrap ]; then put bootstrap.manifest success; exit; fi
tftp -g -r task.manifest $host
";

fn host_with_worker(settings: &str, build: &str) -> AgentHost {
    let mut host = AgentHost::new(&format!("guests.frozen = \"off\"\n{settings}"));
    host.add("demo", |_| {});
    host.add_worker("default", &format!("{WORKER}{build}"));
    host.start();
    host
}

fn torn_down(host: &AgentHost) {
    wait_until("all is torn down", || host.networks().is_empty());
    host.assert_nothing_is_left();
}

#[test]
fn one_types_on_a_console_and_others_watch_also_after_a_restart() {
    if !tests::may_use_devices() {
        return;
    }
    let mut host = host_with_worker(
        "",
        r#"
exec </dev/console >/dev/console 2>&1
echo "the word?"; read -r word; echo "heard $word"
echo "the other word?"; read -r word; echo "heard $word"
put result.manifest success
"#,
    );
    let id = host.submit("demo", "hello").to_string();
    host.wait_for(1, State::Running);
    let mut person = host.terminal(&["console", &id]);
    person.wait_for("the word?");
    let mut other = host.terminal(&["console", "demo", "--read-only"]);
    other.wait_for("the word?");
    host.machinectl(&["console", &id])
        .refused(3, "somebody types on this console already");
    other.type_in("no one hears this\r");
    person.type_in("sesame\r");
    for terminal in [&person, &other] {
        terminal.wait_for("heard sesame");
    }
    person.type_in("\x1d");
    assert_eq!(person.ended(), Some(0));
    person.wait_for("left; the guest runs on");

    host.end(Signal::KILL);
    assert_eq!(other.ended(), Some(0));
    host.start();
    let mut person = host.terminal(&["console", "demo"]);
    person.wait_for("connected");
    person.type_in("mellon\r");
    person.wait_for("heard mellon");
    assert_eq!(person.ended(), Some(0));
    person.wait_for("the guest has ended");
    let build = host.wait_for(1, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    let recorded = std::fs::read_to_string(host.state().join("builds/1/console")).unwrap();
    assert!(recorded.contains("heard sesame") && recorded.contains("heard mellon"));

    host.machinectl(&["console", &id])
        .refused(3, "build 1 has finished: success");
    host.machinectl(&["console", "99"])
        .refused(10, "there is no build 99");
    host.machinectl(&["console", "nothing"])
        .refused(10, "no guest of a machine nothing runs");
    assert_eq!(host.machinectl(&["console", "../x"]).code, Some(2));
    torn_down(&host);
}

#[test]
fn a_guest_that_falls_silent_is_given_up_but_not_one_that_says_something() {
    if !tests::may_use_devices() {
        return;
    }
    let host = host_with_worker(
        "builds.silence_seconds_max = 3\n",
        r"
sleep 1; echo one >/dev/console; sleep 2; tftp -g -r nothing $host; sleep 2
echo two >/dev/console
sleep 1000
",
    );
    let build = host.wait_for(host.submit("demo", "hello"), State::Finished);
    assert_eq!((build.outcome, build.attempts), (Some(Outcome::Abort), 1));
    let words = "nothing was heard of the guest for 3 s";
    assert!(build.message.starts_with(words), "{}", build.message);
    let recorded = std::fs::read_to_string(host.state().join("builds/1/console")).unwrap();
    assert!(recorded.contains("two"), "{recorded}");
    torn_down(&host);
}
