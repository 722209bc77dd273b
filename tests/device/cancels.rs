//! Cancellations at random moments around the end of an attempt: a cancellation is refused, or the
//! build ends with it. `BUILDHOST_LONG=1` makes 400 instead of 30.

use std::thread::sleep;
use std::time::Duration;

use config::builds::State;
use config::task::Outcome;
use rustix::process::Signal;
use tests::agent::AgentHost;
use tests::random::Xorshift;
use tests::wait_until;

use crate::guest_failures::worker;

/// The exit code of a refused command.
const REFUSED: i32 = 3;

/// Starts a host whose builds end without a result or with a good one, soon after their start.
fn host() -> AgentHost {
    let mut host = AgentHost::new("builds.retries_max = 100\nbuilds.retry_seconds = 1\n");
    host.add_container("demo", |_| {});
    let fetch = "tftp -g -r task.manifest $host; sleep 0.1";
    host.add_worker("dies", &worker(fetch));
    let result = "printf ': 1\\nstatus: success\\n' >result.manifest";
    let put = "tftp -p -l result.manifest -r result.manifest $host";
    host.add_worker("succeeds", &worker(&format!("{fetch}; {result}; {put}")));
    host.start();
    let image = |name: &str| host.host.volume.path().join(format!("demo/demo-{name}"));
    wait_until("both are bootstrapped", || {
        ["dies", "succeeds"].iter().all(|name| image(name).exists())
    });
    host
}

/// Cancels a build, and returns true if that was accepted.
fn cancel(host: &AgentHost, id: u64) -> bool {
    let answer = host.machinectl(&["cancel", &id.to_string()]);
    assert!(
        answer.code == Some(0) || answer.code == Some(REFUSED),
        "{answer:?}"
    );
    answer.code == Some(0)
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_accepted_cancellation_is_kept() {
    let host = host();
    let count = if tests::is_long_run() { 400 } else { 30 };
    let mut random = Xorshift::new(11);
    let (mut accepted, mut refused) = (0, 0);
    for number in 0..count {
        let toolchain = ["dies", "succeeds"][number % 2];
        let id = host.submit_to("demo", toolchain, &format!("{number}"));
        sleep(Duration::from_millis(random.below(1500)));
        if cancel(&host, id) {
            accepted += 1;
        } else {
            refused += 1;
            // A build that is retried can be canceled later.
            wait_until("the build has ended", || {
                host.build(id).outcome.is_some() || cancel(&host, id)
            });
            if toolchain == "succeeds" {
                host.wait_for(id, State::Finished);
                continue;
            }
        }
        let build = host.wait_for(id, State::Finished);
        assert_eq!(
            (build.outcome, build.message.as_str()),
            (Some(Outcome::Abort), "it was canceled"),
            "cancellation {number} was lost: {build:?}"
        );
    }
    println!("{accepted} cancellations were accepted and kept, {refused} were refused");
    assert!(accepted > 0 && refused > 0, "{accepted} {refused}");
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_accepted_cancellation_survives_the_end_of_the_agent() {
    let mut host = AgentHost::new("builds.retry_seconds = 1\n");
    host.add_container("demo", |_| {});
    host.add_worker(
        "waits",
        &worker("tftp -g -r task.manifest $host; sleep 1000"),
    );
    host.start();
    for (number, signal) in [Signal::KILL, Signal::USR2, Signal::TERM]
        .into_iter()
        .enumerate()
    {
        let id = host.submit_to("demo", "waits", &number.to_string());
        host.wait_for(id, State::Running);
        assert!(cancel(&host, id));
        host.stop(signal);
        host.start();
        let build = host.wait_for(id, State::Finished);
        assert_eq!(build.outcome, Some(Outcome::Abort), "{signal:?}: {build:?}");
    }
    host.wait_until_torn_down();
}
