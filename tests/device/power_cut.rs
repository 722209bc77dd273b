//! The power is cut after every flush, and in between, while machines are added,
//! upgraded and deleted: what was acknowledged is there, and nothing is ever broken.

use std::path::Path;

use ::store::Volume;
use tests::crash_consistency::OldOrNew;
use tests::hosts::{Answer, BuildHost, DevelopmentHost, listing, run};
use tests::recorded_disk::RecordedDisk;

/// Does something on a recorded disk and then cuts the power at many moments of it.
fn survives(
    what: &[&str],
    input: &[u8],
    prepare: impl Fn(&BuildHost),
    apart: &'static [&'static str],
) {
    let host = BuildHost::new(128);
    prepare(&host);
    let old = host.listing();
    let image = host.mount.unmount();
    let disk = RecordedDisk::start(image.path());
    let begun = disk.told().len();
    call(&disk.path().join("machines"), what, input).good();
    let acknowledged = disk.told().len();
    let new = listing(&disk.path().join("machines"));
    assert_ne!(old, new);
    let goes_on = true;
    let expected = OldOrNew {
        old,
        new,
        apart,
        goes_on,
    };
    let mut replay = disk.replay();
    let mut cuts = 0;
    let told = replay.told().to_vec();
    for entries in begun..=acknowledged {
        let flushed = entries > 0 && told[entries - 1].is_flush();
        let sampled = tests::is_long() || entries % 5 == 0;
        if !(flushed || entries == acknowledged || sampled) {
            continue;
        }
        cuts += 1;
        let mount = replay.cut(entries);
        let volume = Volume::open(&mount.path().join("machines")).unwrap();
        if entries == acknowledged {
            assert_eq!(listing(volume.path()), expected.new, "it was acknowledged");
        }
        let told = format!("cut after {entries}");
        expected.survives(&volume, &told, cuts % 2 == 0, || {
            call(volume.path(), what, input)
        });
    }
    println!(
        "{what:?}: the power was cut {cuts} times in {} writes",
        acknowledged - begun
    );
    assert!(cuts > 3, "{cuts}");
}

fn call(volume: &Path, arguments: &[&str], input: &[u8]) -> Answer {
    let mut machinectl = ::sys::command::prepare(tests::program("machinectl"));
    machinectl.args(arguments).arg("--volume").arg(volume);
    run(machinectl, input)
}

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
fn add_survives_a_power_cut_at_any_time() {
    let (one, _) = streams();
    survives(&["add", "linux"], &one, |_| (), &[]);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn upgrade_survives_a_power_cut_at_any_time() {
    let (one, two) = streams();
    let prepare = |host: &BuildHost| drop(host.machinectl(&["add", "linux"], &one).good());
    survives(&["upgrade", "linux"], &two, prepare, &["linux/linux-2"]);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn delete_survives_a_power_cut_at_any_time() {
    let (one, _) = streams();
    let prepare = |host: &BuildHost| drop(host.machinectl(&["add", "linux"], &one).good());
    survives(&["delete", "linux"], b"", prepare, &[]);
}
