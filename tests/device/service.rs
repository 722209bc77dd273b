//! The agent as a service: a reload of its settings, reports to the service manager, and a start
//! that is refused.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;
use tests::agent::AgentHost;
use tests::wait_until;

fn wait_for_log(host: &AgentHost, text: &str) {
    wait_until(text, || host.log().contains(text));
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_reload_applies_what_can_change_and_names_what_needs_a_restart() {
    let mut host = AgentHost::new("guests.parallel_max = 3");
    host.start();
    let guests_max = |host: &AgentHost| {
        let queue = host.machinectl(&["top", "--json", "--once"]).success();
        let queue: serde_json::Value = serde_json::from_str(&queue.stdout).unwrap();
        queue["guests"]["total"].clone()
    };
    wait_until("the first status", || guests_max(&host) == 3);
    let pid = host.pid();

    host.change_settings("guests.parallel_max = 5\nhttp.group = \"adm\"");
    host.signal(Signal::HUP);
    wait_for_log(
        &host,
        "changed settings need a restart of the agent kept=\"http\"",
    );
    assert!(host.log().contains("applied=\"guests\""), "{}", host.log());
    wait_until("the new limit", || guests_max(&host) == 5);
    assert_eq!(host.pid(), pid);

    host.change_settings("guests.parallel_max = 7\nguests.paralel = 2");
    host.signal(Signal::HUP);
    wait_for_log(&host, "cannot reload the settings");
    assert!(
        host.log().contains("`guests.paralel` is not a setting"),
        "{}",
        host.log()
    );
    assert_eq!(guests_max(&host), 5);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_service_manager_is_told_the_state_of_the_agent() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_mins(1)))
        .unwrap();
    let receive = || {
        let mut message = [0; 256];
        let length = manager.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length])
            .trim()
            .to_owned()
    };
    let mut host = AgentHost::new("");
    host.start_in_environment(&[("NOTIFY_SOCKET", path.as_os_str())]);
    let mut told = vec![receive(), receive()];
    told.sort();
    assert_eq!(told, ["READY=1", "WATCHDOG=1"]);
    assert_eq!(host.stop(Signal::TERM), Some(0));
    let stopping = std::iter::repeat_with(receive).find(|it| it != "WATCHDOG=1");
    assert_eq!(stopping.as_deref(), Some("STOPPING=1"));
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_agent_without_a_volume_is_refused_and_names_the_first_steps() {
    let mut host = AgentHost::new("");
    host.add_first_volume("/no/such/volume".into());
    for check in [true, false] {
        let mut command = host.command();
        command.args(check.then_some("--check"));
        let answer = command
            .stderr(std::process::Stdio::piped())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&answer.stderr);
        assert_eq!(answer.status.code(), Some(3), "{said}");
        for step in [
            "there is no volume `/no/such/volume`",
            "1. `buildhost init /no/such/volume`",
            "2. `buildhost toolchain add default DIRECTORY`",
            "3. `systemctl start buildhost-agent`",
        ] {
            assert!(said.contains(step), "{said}");
        }
    }
}
