//! Consoles of guests, breakpoints, held guests and the time limits of guests.

use config::builds::{HoldKind, State};
use config::task::Outcome;
use rustix::process::Signal;
use tests::agent::AgentHost;
use tests::wait_until;

/// The start of a worker that is a shell script. The commands of a build follow.
const WORKER: &str = r"#!/bin/sh
host=169.254.111.222
cd /tmp
put() { printf ': 1\nstatus: %s\n' $2 >$1; tftp -p -l $1 -r $1 $host; }
if [ $1 = bootstrap ]; then put bootstrap.manifest success; exit; fi
tftp -g -r task.manifest $host
";

fn host_with_worker(settings: &str, build: &str) -> AgentHost {
    AgentHost::with_worker(settings, &format!("{WORKER}{build}"))
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn one_client_types_on_a_console_while_others_watch_also_after_a_restart() {
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
    let mut typist = host.terminal(&["console", &id]);
    typist.wait_for("the word?");
    let mut watcher = host.terminal(&["console", "demo", "--read-only"]);
    watcher.wait_for("the word?");
    host.machinectl(&["console", &id])
        .refused(3, "another person types on this console");
    watcher.type_in("this is ignored\r");
    typist.type_in("sesame\r");
    for terminal in [&typist, &watcher] {
        terminal.wait_for("heard sesame");
    }
    typist.type_in("\x1d");
    assert_eq!(typist.wait(), Some(0));
    typist.wait_for("disconnected; the guest keeps running");

    host.stop(Signal::KILL);
    assert_eq!(watcher.wait(), Some(0));
    host.start();
    let mut typist = host.terminal(&["console", "demo"]);
    typist.wait_for("connected");
    typist.type_in("mellon\r");
    typist.wait_for("heard mellon");
    assert_eq!(typist.wait(), Some(0));
    typist.wait_for("the guest has ended");
    let build = host.wait_for(1, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    let recorded =
        std::fs::read_to_string(host.state_directory().join("builds/1/console")).unwrap();
    assert!(recorded.contains("heard sesame") && recorded.contains("heard mellon"));

    host.machinectl(&["console", &id])
        .refused(3, "build 1 has finished: success");
    host.machinectl(&["console", "99"])
        .refused(10, "there is no build 99");
    host.machinectl(&["console", "nothing"])
        .refused(10, "no guest of a machine nothing runs");
    assert_eq!(host.machinectl(&["console", "../x"]).code, Some(2));
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_idle_timeout_is_restarted_by_console_output_and_transfers() {
    // The activities are 4 s apart, and last longer than the timeout.
    let host = host_with_worker(
        "builds.silence_seconds_max = 10\n",
        r"
sleep 4; echo one >/dev/console
sleep 4; tftp -g -r nothing $host
sleep 4; echo two >/dev/console
sleep 1000
",
    );
    let build = host.wait_for(host.submit("demo", "hello"), State::Finished);
    assert_eq!((build.outcome, build.attempts), (Some(Outcome::Abort), 1));
    let reason = "the guest was idle for 10 s";
    assert!(build.message.starts_with(reason), "{}", build.message);
    let recorded =
        std::fs::read_to_string(host.state_directory().join("builds/1/console")).unwrap();
    assert!(recorded.contains("two"), "{recorded}");
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn packets_that_belong_to_no_build_do_not_restart_the_idle_timeout() {
    // As a resolver, a time daemon and a monitor send them.
    let host = host_with_worker(
        "builds.silence_seconds_max = 5\nbuilds.total_seconds_max = 60\n",
        r"
while :; do
    nslookup 0.debian.pool.ntp.org $host
    echo now | nc -u -w 1 $host 123
    ping -c 1 $host
done >/dev/null 2>&1
",
    );
    let build = host.wait_for(host.submit("demo", "hello"), State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Abort));
    let reason = "the guest was idle for 5 s: no log, no console output, no transfer";
    assert!(build.message.starts_with(reason), "{}", build.message);
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_guest_is_ended_as_soon_as_its_result_is_stored() {
    // It would never shut down, also not when its power button is pressed.
    let host = host_with_worker(
        "",
        r"
trap '' TERM INT; killall -9 acpid
echo the last line >/dev/console
put result.manifest success
while :; do sleep 1000; done
",
    );
    let build = host.wait_for(host.submit("demo", "hello"), State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    assert!(!host.log().contains("does not shut down"));
    let recorded =
        std::fs::read_to_string(host.state_directory().join("builds/1/console")).unwrap();
    assert!(recorded.contains("the last line"), "{recorded}");
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_guest_of_a_bootstrap_has_its_own_time_to_shut_down() {
    let mut host = AgentHost::new("guests.frozen = \"off\"\nbootstrap.retries_max = 0\n");
    let delay = |seconds: u32| {
        move |files: &std::path::Path| {
            let manifest = files.join("manifest");
            let text = std::fs::read_to_string(&manifest).unwrap();
            tests::write_file(
                &manifest,
                &format!("{text}shutdown-seconds-max: {seconds}\n"),
            );
        }
    };
    host.add("patient", delay(120));
    host.add("hasty", delay(1));
    // It delays its power-off.
    let worker = format!("{WORKER}put result.manifest success\n").replace(
        "put bootstrap.manifest success; exit",
        "put bootstrap.manifest success; sleep 8; exit",
    );
    host.add_worker("default", &worker);
    host.start();
    let build = host.wait_for(host.submit("patient", "hello"), State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    wait_until("the other bootstrap fails", || {
        host.log()
            .contains("did not shut itself down within 1 s of its result")
    });
    host.wait_until_torn_down();
}

const BAD: &str = "int main(void) { return nonsense; }\n";
const GOOD: &str = "int main(void) { return 0; }\n";

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_build_continues_after_a_login_at_a_breakpoint() {
    let mut host = AgentHost::ready("builds.total_seconds_max = 600\n");
    let source = host.source(GOOD);
    let mut terminal = host.terminal(&["login", "demo", &source]);
    terminal.wait_for("connected");
    terminal.type_in("\recho it is $((41 + 1)); cat ../sources/*.gz | wc -c; tty\r");
    terminal.wait_for("it is 42");
    terminal.wait_for("/dev/ttyS0");
    let table = host.machinectl(&["builds"]).success().stdout;
    assert!(
        table.contains("waits at its breakpoint until 20"),
        "{table}"
    );
    terminal.type_in("\x1d");
    assert_eq!(terminal.wait(), Some(0));
    host.stop(Signal::KILL);
    host.start();
    assert_eq!(held(&host, 1), Some(HoldKind::Breakpoint));
    host.machinectl(&["resume", "1"]).success();
    let build = host.wait_for(1, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    host.machinectl(&["resume", "1"])
        .refused(3, "build 1 does not wait at a breakpoint");

    let mut terminal = host.terminal(&["login", "demo", &host.source(BAD), "--at", "error"]);
    terminal.wait_for("stopped after the result `error`");
    terminal.type_in("\rexit\r");
    assert_eq!(terminal.wait(), Some(30));
    let build = host.wait_for(2, State::Finished);
    assert_eq!((build.outcome, build.attempts), (Some(Outcome::Error), 1));
    assert_eq!(build.interactive.held, None);
    host.wait_until_torn_down();
}

fn held(host: &AgentHost, id: u64) -> Option<HoldKind> {
    host.build(id).interactive.held.map(|held| held.kind)
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_breakpoint_ends_at_its_time_limit() {
    let host = host_with_worker(
        "builds.hold_seconds_max = 2\n",
        r"
state() { printf ': 1\nstate: %s\n' $1 >breakpoint.manifest; tftp -p -l breakpoint.manifest $host; }
state waiting
until tftp -g -r resume.manifest $host; do sleep 0.3; done
state over
put result.manifest success
",
    );
    let source = host.source(GOOD);
    let verb = ["build", "demo", &source, "--interactive", "error"];
    host.machinectl(&verb).success();
    let build = host.wait_for(1, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    // The breakpoint lasts for 2 s only, but its messages stay in the log.
    let log = host.log();
    let message = "the guest waits at its breakpoint";
    assert!(log.contains(message), "{log}");
    assert!(
        log.contains("the guest continues from its breakpoint"),
        "{log}"
    );
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_guest_of_a_failed_build_is_held_until_it_is_released() {
    let mut host = AgentHost::ready("");
    let source = host.source(BAD);
    host.machinectl(&["build", "demo", &source, "--hold"])
        .success();
    let build = host.wait_for(1, State::Finished);
    assert_eq!((build.outcome, build.attempts), (Some(Outcome::Error), 1));
    assert_eq!(held(&host, 1), Some(HoldKind::Guest), "{build:?}");
    let guests = host.guests();
    assert_eq!(guests.len(), 1);

    host.stop(Signal::KILL);
    host.start();
    assert_eq!(host.guests(), guests, "the guest is adopted");
    let findings = host.machinectl(&["doctor"]).stdout;
    assert!(!findings.contains("guest"), "{findings}");
    let mut terminal = host.terminal(&["console", "1"]);
    terminal.wait_for("connected");
    terminal.type_in("\recho it is $((41 + 1)); pwd\r");
    terminal.wait_for("it is 42");
    terminal.wait_for("/buildhost/build/work");
    terminal.type_in("\x1d");
    assert_eq!(terminal.wait(), Some(0));
    host.machinectl(&["release", "1"]).success();
    wait_until("nothing is held", || held(&host, 1).is_none());
    host.wait_until_torn_down();
    host.machinectl(&["release", "1"])
        .refused(3, "nothing is held of build 1");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_held_guest_is_evicted_for_a_build_and_its_snapshot_under_disk_pressure() {
    let host = AgentHost::ready("paths.reserve_mib = 2500\nguests.parallel_max = 1\n");
    let source = host.source(BAD);
    host.machinectl(&["build", "demo", &source, "--hold"])
        .success();
    host.wait_for(1, State::Finished);
    assert_eq!(held(&host, 1), Some(HoldKind::Guest));
    let build = host.wait_for(host.submit("demo", "hello"), State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    assert_eq!(held(&host, 1), Some(HoldKind::Snapshot));
    wait_until("no guest runs", || host.guests().is_empty());

    let filler = host.host.volume.path().join("filler");
    let file = std::fs::File::create(filler).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 2 << 30).unwrap();
    file.sync_all().unwrap();
    wait_until("nothing is held", || held(&host, 1).is_none());
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_guest_that_exceeds_its_total_time_is_held_until_the_hold_expires() {
    let settings =
        "builds.total_seconds_max = 5\nbuilds.hold_seconds_max = 15\nbuilds.hold = \"always\"\n";
    let host = host_with_worker(settings, "sleep 1000\n");
    let build = host.wait_for(host.submit("demo", "hello"), State::Finished);
    assert_eq!((build.outcome, build.attempts), (Some(Outcome::Abort), 1));
    assert_eq!(build.message, "the guest took longer than 5 s");
    let kind = build.interactive.held.map(|held| held.kind);
    assert_eq!(kind, Some(HoldKind::Guest), "{build:?}");
    wait_until("nothing is held", || held(&host, 1).is_none());
    host.wait_until_torn_down();
}
