//! Rebuilds on older revisions of a machine, and the bisection of its revisions.

use std::fs;
use std::path::Path;

use ::store::SubvolumeBackend;
use ::store::subvolumes::BtrfsBackend;
use config::builds::State;
use config::task::Outcome;
use tests::agent::AgentHost;
use tests::write_file;

const MARKER: &str = "root/etc/marker.h";
const PROGRAM: &str = "#include \"/etc/marker.h\"\nint main(void) { return 0; }\n";

/// Upgrades the machine `demo` after a change of its files.
pub(crate) fn upgrade(host: &AgentHost, change: impl FnOnce(&Path)) {
    let mount = host.host.mount.path();
    let work = mount.join("work");
    if !work.exists() {
        BtrfsBackend.snapshot(&mount.join("demo-1"), &work).unwrap();
    }
    change(&work);
    let work = work.display().to_string();
    host.machinectl(&["upgrade", "demo", "--from", &work])
        .success();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn bisect_finds_the_revision_since_which_a_build_fails() {
    let mut host = AgentHost::new("");
    host.add_container("demo", |files| write_file(&files.join(MARKER), ""));
    host.add_toolchain("0.1.0");
    host.start();
    upgrade(&host, |files| write_file(&files.join("root/etc/more"), "2"));
    upgrade(&host, |files| fs::remove_file(files.join(MARKER)).unwrap());
    upgrade(&host, |files| write_file(&files.join("root/etc/more"), "4"));

    let id = host.submit_code("demo", PROGRAM);
    let build = host.wait_for(id, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Error), "{build:?}");
    let machines = host.machinectl(&["list", "--no-legend"]).success().stdout;
    let id = id.to_string();

    let plan = host
        .machinectl(&["bisect", &id, "--dry-run"])
        .success()
        .stdout;
    assert_eq!(
        plan,
        "would build hello on revision 1 of demo first, one of 3 before 4\n"
    );
    let found = host.machinectl(&["bisect", &id]).success();
    assert_eq!(found.stdout, "3\n", "{found:?}");
    assert!(
        found
            .stderr
            .contains("revision 2 is good, revision 3 is bad"),
        "{found:?}"
    );

    host.machinectl(&["rebuild", &id, "--on-revision", "2", "--follow"])
        .success();
    host.machinectl(&["rebuild", &id, "--on-revision", "9"])
        .refused(10, "9");
    host.machinectl(&["bisect", "2"])
        .refused(3, "can be bisected");
    let after = host.machinectl(&["list", "--no-legend"]).success().stdout;
    assert_eq!(after, machines, "no temporary machine is left");
    host.wait_until_torn_down();
}
