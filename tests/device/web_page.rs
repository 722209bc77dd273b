//! The web pages in a browser, with a real agent, a guest in QEMU and revisions on btrfs:
//! `tests/browser/guest.mjs` drives Chromium.

use std::net::TcpListener;
use std::time::Duration;

use config::builds::State;
use config::task::Outcome;
use store::subvolumes::{BtrfsBackend, SubvolumeBackend};
use sys::command;
use tests::agent::AgentHost;

/// A build that counts until it is canceled, in its log, in its progress and on the console.
const COUNTS: &str = "#!/bin/sh
number=0
while :; do
    number=$((number + 1))
    echo \"line $number of the guest\"
    [ $number -gt 90 ] || echo \"buildhost-progress: task $number:100\"
    echo \"console $number\" >/dev/console
    sleep 1
done
";

/// Adds a copy of the first revision of the machine `demo`, which becomes current.
fn upgrade(host: &AgentHost, number: u32) {
    let revision = host.host.mount.path().join(format!("demo-{number}"));
    let first = host.host.volume.path().join("demo/demo-1");
    BtrfsBackend.snapshot(&first, &revision).unwrap();
    tests::write_file(&revision.join("number"), &number.to_string());
    BtrfsBackend.make_read_only(&revision).unwrap();
    let from = revision.display().to_string();
    let upgrade = ["upgrade", "demo", "--from", &from];
    host.host.machinectl(&upgrade, b"").success();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces; Chromium and Node.js"]
fn a_guest_is_watched_and_canceled_and_revisions_are_managed_in_a_browser() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let mut host = AgentHost::new(&format!("http.listen = \"{address}\"\n"));
    host.add("demo", |_| {});
    host.add_build_program("default", COUNTS);
    host.start();
    let id = host.submit("demo", "hello");
    host.wait_for(id, State::Running);
    let link = host.machinectl(&["web"]).success().stdout;
    let browser = |part: &str, link: &str| {
        let mut node = command::prepare("node");
        node.args(["guest.mjs", part, link.trim(), &id.to_string()])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/browser"));
        // Its error has the step that failed.
        command::run(node, Duration::from_mins(3)).unwrap();
    };
    browser("build", &link);
    let build = host.wait_for(id, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Abort), "{build:?}");
    assert!(build.typists.is_empty(), "{build:?}");
    host.wait_until_torn_down();

    // No bootstrap uses a revision meanwhile.
    host.machinectl(&["drain"]).success();
    (2..=4).for_each(|number| upgrade(&host, number));
    let link = host.machinectl(&["web"]).success().stdout;
    browser("machine", &link);
    let view = host.host.view("demo");
    let revisions: Vec<_> = view.revisions.iter().map(|it| it.revision.0).collect();
    assert_eq!(revisions, [1, 3, 4]);
    assert_eq!(view.current, Some(config::Revision(3)));
}
