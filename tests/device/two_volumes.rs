//! A host with two volumes: a machine belongs to the first on which it is complete.

use std::fs;

use config::builds::State;
use config::task::Outcome;
use rustix::process::Signal;
use tests::agent::{AgentHost, GATED_PROGRAM};

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_build_runs_on_the_volume_on_which_its_machine_is_complete() {
    let mut host = AgentHost::new("");
    host.add_container("demo", |_| {});
    host.add_toolchain("0.1.0");
    // A machine without a current revision, as a deletion leaves it that was interrupted.
    let other = host.host.mount.path().join("other");
    fs::create_dir_all(other.join("demo")).unwrap();
    host.add_first_volume(other);
    host.start();
    let build = host.submit_code("demo", GATED_PROGRAM);
    let running = host.wait_for(build, State::Running);
    assert_eq!(running.volume.as_deref(), Some(host.host.volume.path()));
    // The next agent finds the guest and its snapshot by the record.
    host.stop(Signal::KILL);
    host.start();
    host.open_gate("demo", build);
    let finished = host.wait_for(build, State::Finished);
    assert_eq!(finished.outcome, Some(Outcome::Success), "{finished:?}");
    host.wait_until_torn_down();
}
