//! Power cuts after every flush, and between flushes, while a machine is added, upgraded or
//! deleted: what was acknowledged is durable, and nothing is broken.

use std::path::Path;

use ::store::Volume;
use tests::crash_consistency::OldOrNew;
use tests::hosts::{BuildHost, CommandOutput, DevelopmentHost, listing, run};
use tests::recorded_disk::RecordedDisk;

/// Calls `machinectl` on a recorded disk, replays the writes up to each flush and between flushes,
/// and checks the volume that a power cut at that point leaves.
fn check_power_cuts(
    arguments: &[&str],
    input: &[u8],
    prepare: impl Fn(&BuildHost),
    separate_parts: &'static [&'static str],
) {
    let host = BuildHost::new(128);
    prepare(&host);
    let old = host.listing();
    let image = host.mount.unmount();
    let disk = RecordedDisk::start(image.path());
    let start = disk.log().len();
    call(&disk.path().join("machines"), arguments, input).success();
    let acknowledged = disk.log().len();
    let new = listing(&disk.path().join("machines"));
    assert_ne!(old, new);
    let expected = OldOrNew {
        old,
        new,
        separate_parts,
        is_repeatable: true,
    };
    let mut replay = disk.replay();
    let mut cuts = 0;
    let log = replay.log().to_vec();
    for entries in start..=acknowledged {
        let is_flushed = entries > 0 && log[entries - 1].is_flush();
        let is_sampled = tests::is_long_run() || entries % 5 == 0;
        if !(is_flushed || entries == acknowledged || is_sampled) {
            continue;
        }
        cuts += 1;
        let mount = replay.cut(entries);
        let volume = Volume::open(&mount.path().join("machines")).unwrap();
        if entries == acknowledged {
            assert_eq!(listing(volume.path()), expected.new, "acknowledged");
        }
        let context = format!("power cut after {entries} writes");
        expected.check_recovery(&volume, &context, cuts % 2 == 0, || {
            call(volume.path(), arguments, input)
        });
    }
    println!(
        "{arguments:?}: {cuts} power cuts within {} writes",
        acknowledged - start
    );
    assert!(cuts > 3, "{cuts}");
}

fn call(volume: &Path, arguments: &[&str], input: &[u8]) -> CommandOutput {
    let mut machinectl = ::sys::command::prepare(tests::program("machinectl"));
    machinectl.args(arguments).arg("--volume").arg(volume);
    run(machinectl, input)
}

/// Returns a full stream of revision 1 and an incremental stream of revision 2.
fn streams() -> (Vec<u8>, Vec<u8>) {
    let development = DevelopmentHost::new(256);
    let disk = vec![1; 300_000];
    development.image(
        "linux-1",
        None,
        &[("disk.img", &disk), ("manifest", b": 1\n")],
    );
    development.image(
        "linux-2",
        Some("linux-1"),
        &[("disk.img", b"two"), ("kernel", b"k")],
    );
    let incremental = development.send("linux-2", Some("linux-1"));
    (development.send("linux-1", None), incremental)
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn add_survives_power_cuts() {
    let (one, _) = streams();
    check_power_cuts(&["add", "linux"], &one, |_| (), &[]);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn upgrade_survives_power_cuts() {
    let (one, two) = streams();
    let prepare = |host: &BuildHost| drop(host.machinectl(&["add", "linux"], &one).success());
    check_power_cuts(&["upgrade", "linux"], &two, prepare, &["linux/linux-2"]);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn delete_survives_power_cuts() {
    let (one, _) = streams();
    let prepare = |host: &BuildHost| drop(host.machinectl(&["add", "linux"], &one).success());
    check_power_cuts(&["delete", "linux"], b"", prepare, &[]);
}
