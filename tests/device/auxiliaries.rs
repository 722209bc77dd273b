//! Auxiliary machines of controllers' tasks: they are ready before the build, both reach each other,
//! and they end together, whatever is killed.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use config::builds::{Build, State};
use config::task::Outcome;
use rustix::process::{Signal, kill_process};
use tests::agent::AgentHost;
use tests::controller::TestController;
use tests::wait_until;

use crate::controllers::{builds, wait_for_result, wait_until_settled};
use crate::guest_failures::{guest_process, worker};

/// A worker of both kinds. As an auxiliary one, it serves the name of its environment at a port. As
/// that of a build, it asks for it there, waits at its gate if the name of its package begins with
/// `slow`, and reports the variables and the answer.
const WORKER: &str = r#"
if [ -z "${container:-}" ]; then
    printf '#!/bin/sh\ntest "$1" != bound || ifconfig $interface $ip netmask $subnet\n' >lease
    chmod +x lease
    udhcpc -i eth0 -n -q -s /tmp/lease
fi
tftp -g -r task.manifest $host || exit
name=$(sed -n 's/^environment-name: //p' task.manifest)
if grep -q '^role: auxiliary' task.manifest; then
    address=$(ip -4 addr show dev eth0 | sed -n 's/.*inet \([0-9.]*\).*/\1/p')
    tftp -g -r result.manifest $host && exit
    echo forged >result.manifest
    tftp -p -l result.manifest $host && exit
    while :; do echo "answer of $name" | nc -l -p 5432; done &
    echo "serving at $address"
    printf 'HOST=%s\nPORT=5432\n' $address >environment
    case $name in
    broken) echo 'no variable' >environment ;;
    silent) while :; do sleep 1; done ;;
    esac
    tftp -p -l environment -r environment $host
    while [ ! -e /gate ]; do sleep 1; done
    exit
fi
package=$(sed -n 's/^name: //p' task.manifest)
sed -n '/^auxiliary-environment:/,$p' task.manifest >variables
address=$(sed -n 's/^PGSQL_HOST=//p' variables)
answer=$(timeout 20 nc $address 5432 </dev/null)
echo "got $answer"
case $package in
slow*) echo waiting at the gate; while [ ! -e /gate ]; do sleep 1; done ;;
esac
printf ': 1\nname: %s\nversion: 1.0.0\nstatus: success\nupdate-status: success\n' $package >result.manifest
printf 'update-log:\n\\\n%s\n%s\n\\\n' "$answer" "$(grep = variables)" >>result.manifest
tftp -p -l result.manifest $host
"#;

const MACHINE: &str = "x86_64-pgsql";
const SETTINGS: &str = "auxiliary_memory_mib_max = 1024\n";

/// Adds a line to the manifest of a machine.
fn add_line(directory: &Path, line: &str) {
    let manifest = OpenOptions::new()
        .append(true)
        .open(directory.join("manifest"));
    writeln!(manifest.unwrap(), "{line}").unwrap();
}

/// Starts a host with a container for builds and one that is auxiliary.
fn host(controller: &TestController, settings: &str) -> AgentHost {
    let settings = format!("{settings}\n{}", controller.settings("ci", SETTINGS));
    let mut host = AgentHost::new(&settings);
    host.add_container("demo", |_| {});
    host.add_container(MACHINE, |directory| add_line(directory, "role: auxiliary"));
    host.add_worker("default", &worker(WORKER));
    host.start();
    host
}

/// Returns the newest build of a controller.
fn newest(host: &AgentHost) -> Option<Build> {
    let builds = builds(host).into_iter();
    builds
        .filter(|it| it.controller.is_some())
        .max_by_key(|it| it.id)
}

/// Waits until the newest build waits at its gate, and returns its number.
fn wait_at_gate(host: &AgentHost, id: u64) -> u64 {
    let live = host.state_directory().join(format!("builds/{id}/console"));
    wait_until("the build waits at its gate", || {
        fs::read_to_string(&live).is_ok_and(|text| text.contains("waiting at the gate"))
    });
    id
}

fn nothing_is_left(host: &AgentHost) {
    wait_until("no guest is left", || {
        fs::read_dir(host.run_directory().join("guests"))
            .unwrap()
            .next()
            .is_none()
    });
    let machines = host.machinectl(&["list", "--json"]).success().stdout;
    assert!(!machines.contains("-x1"), "{machines}");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_build_gets_the_variables_of_its_auxiliary_machine_and_reaches_it() {
    let controller = TestController::start();
    let host = host(&controller, "");
    let refused = host.machinectl(&["build", MACHINE, &host.source("int main;")]);
    assert!(
        refused.stderr.contains("is auxiliary"),
        "{}",
        refused.stderr
    );
    controller.add_with("libhello", "demo", &[("auxiliary-machine-pgsql", MACHINE)]);
    wait_for_result(&controller, "libhello", &["success"]);
    let state = controller.state();
    let [session] = state.sessions_of("libhello")[..] else {
        panic!("one session");
    };
    let log = session.result.as_ref().unwrap().get("update-log").unwrap();
    assert_eq!(
        log,
        "answer of pgsql\nPGSQL_HOST=169.254.111.2\nPGSQL_PORT=5432"
    );
    assert_eq!(state.bad_requests, [""; 0]);
    assert!(state.auxiliaries.contains_key(MACHINE));
    assert!(
        state
            .requests
            .iter()
            .all(|(_, machines)| machines.len() == 1)
    );
    drop(state);
    let build = newest(&host).unwrap();
    let shown = host
        .machinectl(&["builds", &build.id.to_string()])
        .success();
    assert!(
        shown.stdout.contains("x86_64-pgsql (pgsql)"),
        "{}",
        shown.stdout
    );
    let directory = host.state_directory().join(format!("builds/{}", build.id));
    let console = fs::read_to_string(directory.join("auxiliary-1/console")).unwrap();
    assert!(console.contains("serving at 169.254.111.2"), "{console}");
    let given = fs::read_to_string(directory.join("given.manifest")).unwrap();
    assert!(!given.contains("auxiliary-environment"), "{given}");
    nothing_is_left(&host);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_session_with_auxiliary_machines_survives_the_agent_as_a_whole() {
    let controller = TestController::start();
    let mut host = host(&controller, "");
    controller.add_with("slow-one", "demo", &[("auxiliary-machine-pgsql", MACHINE)]);
    wait_until("the task runs", || {
        newest(&host).is_some_and(|it| it.state == State::Running)
    });
    let id = wait_at_gate(&host, newest(&host).unwrap().id.0);
    let auxiliary = guest_process(&host, format!("{id}-x1"));
    host.stop(Signal::KILL);
    host.start();
    assert_eq!(guest_process(&host, format!("{id}-x1")), auxiliary);
    host.open_gate("demo", id);
    wait_for_result(&controller, "slow-one", &["success"]);
    wait_until_settled(&host);
    nothing_is_left(&host);

    // Without one of its guests, the session is ended as a whole, and repeated.
    controller.add_with("slow-two", "demo", &[("auxiliary-machine-pgsql", MACHINE)]);
    wait_until("the task runs", || {
        newest(&host).is_some_and(|it| it.id.0 != id && it.state == State::Running)
    });
    let id = wait_at_gate(&host, newest(&host).unwrap().id.0);
    let auxiliary = guest_process(&host, format!("{id}-x1"));
    let own = guest_process(&host, id);
    host.stop(Signal::KILL);
    kill_process(auxiliary, Signal::KILL).unwrap();
    host.start();
    wait_until("the build runs again", || {
        let build = host.build(id);
        build.attempts == 2 && build.state == State::Running
    });
    assert_ne!(guest_process(&host, id), own);
    wait_at_gate(&host, id);
    host.open_gate("demo", id);
    wait_for_result(&controller, "slow-two", &["success"]);
    nothing_is_left(&host);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_end_of_an_auxiliary_machine_ends_the_build_with_the_reason() {
    let controller = TestController::start();
    let host = host(&controller, "builds.retries_max = 0");
    controller.add_with("slow-one", "demo", &[("auxiliary-machine-pgsql", MACHINE)]);
    wait_until("the task runs", || {
        newest(&host).is_some_and(|it| it.state == State::Running)
    });
    let id = wait_at_gate(&host, newest(&host).unwrap().id.0);
    kill_process(guest_process(&host, format!("{id}-x1")), Signal::KILL).unwrap();
    wait_for_result(&controller, "slow-one", &["abnormal"]);
    let build = host.build(id);
    assert_eq!(build.outcome, Some(Outcome::Abnormal));
    let expected = "auxiliary machine x86_64-pgsql (pgsql) ended, and the build with it";
    assert!(build.message.contains(expected), "{}", build.message);
    assert!(build.message.contains("serving at"), "{}", build.message);
    nothing_is_left(&host);

    // What an auxiliary machine puts wrongly is not repeated.
    controller.add_with("two", "demo", &[("auxiliary-machine-broken", MACHINE)]);
    wait_for_result(&controller, "two", &["abnormal"]);
    let build = newest(&host).unwrap();
    assert_eq!(
        build.message,
        "auxiliary machine x86_64-pgsql (broken): line 1 of `environment`: `NAME=VALUE` is expected"
    );
    nothing_is_left(&host);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_auxiliary_machine_has_a_time_limit_for_its_start() {
    let controller = TestController::start();
    let settings = "builds.retries_max = 0\nbuilds.start_seconds_max = 15\n";
    let host = host(&controller, settings);
    controller.add_with("one", "demo", &[("auxiliary-machine-silent", MACHINE)]);
    wait_for_result(&controller, "one", &["abnormal"]);
    let message = newest(&host).unwrap().message;
    assert!(
        message.contains("x86_64-pgsql (silent) did not put its `environment` within 15 s"),
        "{message}"
    );
    nothing_is_left(&host);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn virtual_machines_and_containers_may_be_auxiliary_to_each_other() {
    let controller = TestController::start();
    let settings = controller.settings("ci", SETTINGS);
    let mut host = AgentHost::new(&format!("guests.frozen = \"off\"\n{settings}"));
    host.add("demo", |_| {});
    host.add_container("x86_64-box", |directory| {
        add_line(directory, "role: auxiliary");
    });
    host.add(MACHINE, |directory| add_line(directory, "role: auxiliary"));
    host.add_worker("default", &worker(WORKER));
    host.start();
    let machines = [
        ("auxiliary-machine-box", "x86_64-box"),
        ("auxiliary-machine-pgsql", MACHINE),
    ];
    controller.add_with("libhello", "demo", &machines);
    wait_for_result(&controller, "libhello", &["success"]);
    let state = controller.state();
    let result = state.sessions_of("libhello")[0].result.clone().unwrap();
    let log = result.get("update-log").unwrap();
    assert_eq!(
        log,
        "answer of pgsql\nBOX_HOST=169.254.111.2\nBOX_PORT=5432\nPGSQL_HOST=169.254.111.3\nPGSQL_PORT=5432"
    );
    drop(state);
    nothing_is_left(&host);
}
