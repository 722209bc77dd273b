//! Guests that fill the host's disk: real containers on a small volume.

use config::builds::State;
use config::task::Outcome;
use tests::agent::AgentHost;
use tests::wait_until;

/// A program that writes without end, and goes on when there is no room.
const GREEDY: &str = "#include <stdio.h>
#include <unistd.h>
int main(void) {
    static char much[1 << 20];
    FILE *file = fopen(\"/much\", \"w\");
    for (unsigned n = 0;; n++) {
        much[n % sizeof much] = n;
        if (fwrite(much, sizeof much, 1, file) == 0) clearerr(file);
        usleep(10000);
    }
}
";

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_build_that_fills_the_volume_is_ended_and_the_others_go_on() {
    let mut host = AgentHost::with_volume(1024, "builds.retries_max = 1\n");
    host.add_container("demo", |_| {});
    host.add_toolchain("0.1.0");
    host.start();
    let first = host.submit("demo", "before");
    assert_eq!(
        host.wait_for(first, State::Finished).outcome,
        Some(Outcome::Success)
    );
    let greedy = host.submit_code("demo", GREEDY);
    host.wait_for(greedy, State::Running);
    let patient = host.submit_code(
        "demo",
        "#include <unistd.h>\nint main(void) { sleep(6); return 0; }\n",
    );
    wait_until("it goes back into the queue", || {
        host.build(greedy).message.contains("is nearly full")
    });
    let build = host.wait_for(patient, State::Finished);
    assert_eq!((build.outcome, build.attempts), (Some(Outcome::Success), 1));
    let build = host.wait_for(greedy, State::Finished);
    assert_eq!(
        (build.outcome, build.attempts),
        (Some(Outcome::Abnormal), 2)
    );
    let words = "is nearly full, and this guest had written most there";
    assert!(build.message.ends_with(words), "{}", build.message);
    let last = host.submit("demo", "after");
    let build = host.wait_for(last, State::Finished);
    assert_eq!((build.outcome, build.attempts), (Some(Outcome::Success), 1));
    host.wait_until_torn_down();
}
