//! Admission on a host under pressure, with reports on pressure that the test writes.

use std::fs;
use std::path::Path;

use config::builds::{State, Status};
use config::pressure::PressureKind;
use config::task::Outcome;
use tests::agent::{AgentHost, GATED_PROGRAM};
use tests::{wait_until, write_file};

/// Writes the reports of a host whose programs were all stalled for lack of memory for this share
/// of the last ten seconds, in percent, and were never stalled for another reason.
fn report(directory: &Path, percent: u32) {
    for kind in PressureKind::ALL {
        let share = if kind == PressureKind::Memory {
            percent
        } else {
            0
        };
        let line = |name| format!("{name} avg10={share}.00 avg60=0.00 avg300=0.00 total=1\n");
        let text = format!("{}{}", line("some"), line("full"));
        // Whole, as the kernel writes it: the agent may read at any time.
        let new = directory.join("new");
        write_file(&new, &text);
        fs::rename(new, directory.join(kind.file())).unwrap();
    }
}

fn status(host: &AgentHost) -> Status {
    let answer = host.machinectl(&["host", "status", "--json"]).success();
    serde_json::from_str(&answer.stdout).unwrap()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn under_pressure_one_build_runs_at_a_time_and_later_builds_start_when_it_has_passed() {
    let reports = tempfile::tempdir().unwrap();
    report(reports.path(), 0);
    let settings = format!("paths.pressure = {:?}\n", reports.path());
    let host = AgentHost::ready_with_container(&settings);
    let calm = host.submit("demo", "calm");
    let built = host.wait_for(calm, State::Finished);
    assert_eq!(built.outcome, Some(Outcome::Success), "{built:?}");
    host.wait_until_torn_down();

    report(reports.path(), 43);
    // One build may always run.
    let first = host.submit_code("demo", GATED_PROGRAM);
    host.wait_for_gate(first);
    let second = host.submit_code("demo", GATED_PROGRAM);
    let explanation = || host.machinectl(&["explain", &second.to_string()]).success();
    wait_until("the build has the reason for its wait", || {
        let reason = "for less memory pressure on the host: it rose above 20 %";
        explanation().stdout.contains(reason)
    });
    let pressed = status(&host);
    assert!(
        pressed.notices[0].contains("guests.memory_pressure_percent_max"),
        "{pressed:?}"
    );
    let memory = pressed.pressure[0];
    assert_eq!((memory.percent, memory.percent_max), (43, Some(20)));
    assert!(memory.high_since.is_some());
    let text = host.machinectl(&["host", "status"]).success().stdout;
    let line = "pressure: memory 43 % of at most 20 %, I/O 0 %, processor 0 %\n";
    assert!(text.contains(line), "{text}");
    let doctor = host.machinectl(&["doctor"]);
    assert!(doctor.stdout.contains("host-pressure"), "{doctor:?}");

    // The first build still runs when the second one starts.
    report(reports.path(), 0);
    host.wait_for_gate(second);
    assert_eq!(host.build(first).state, State::Running);
    for id in [first, second] {
        host.open_gate("demo", id);
        let built = host.wait_for(id, State::Finished);
        assert_eq!(
            (built.outcome, built.attempts),
            (Some(Outcome::Success), 1),
            "{built:?}"
        );
    }
    wait_until("the notice is gone", || status(&host).notices.is_empty());
    assert!(host.log().contains("the host is under pressure"));
    assert!(host.log().contains("the pressure on the host is low again"));
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_kernel_that_reports_no_pressure_limits_nothing_and_the_doctor_says_so() {
    let nothing = tempfile::tempdir().unwrap();
    let settings = format!("paths.pressure = {:?}\n", nothing.path());
    let mut host = AgentHost::new(&settings);
    host.start();
    wait_until("the lack is logged", || {
        let line = "the kernel does not report the pressure on the host";
        host.log().matches(line).count() == 1
    });
    let status = status(&host);
    assert_eq!((status.notices.len(), status.pressure.len()), (0, 0));
    let doctor = host.machinectl(&["doctor"]);
    assert!(doctor.stdout.contains("unknown-pressure"), "{doctor:?}");
}
