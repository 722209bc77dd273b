//! The power is cut after every flush, and in between, while machines are added,
//! upgraded and deleted: what was acknowledged is there, and nothing is ever broken.

use ::store::Volume;
use tests::powercut::RecordedDisk;
use tests::shell::{Answer, BuildHost, DevelopmentHost, listing, run};

fn is_long() -> bool {
    std::env::var("BUILDHOST_LONG").is_ok_and(|value| value == "1")
}

/// Does something on a recorded disk and then cuts the power at many moments of it.
fn survives(what: &[&str], input: &[u8], prepare: impl Fn(&BuildHost), between: &str) {
    let host = BuildHost::new(128);
    prepare(&host);
    let before = host.listing();
    let image = host.mount.unmount();
    let disk = RecordedDisk::start(image.path());
    let begun = disk.told().len();
    call(&disk, what, input).good();
    let acknowledged = disk.told().len();
    let after = listing(&disk.path().join("machines"));
    assert_ne!(before, after);
    let mut replay = disk.replay();
    let mut cuts = 0;
    let told = replay.told().to_vec();
    for entries in begun..=acknowledged {
        let flushed = entries > 0 && told[entries - 1].is_flush();
        if !(flushed || entries == acknowledged || entries % if is_long() { 1 } else { 5 } == 0) {
            continue;
        }
        cuts += 1;
        let mount = replay.cut(entries);
        let volume = Volume::open(&mount.path().join("machines")).unwrap();
        for machine in volume.machines().unwrap() {
            assert_eq!(
                volume.look(&machine).unwrap().link_fault,
                None,
                "cut after {entries}"
            );
        }
        let found = listing(volume.path());
        if entries == acknowledged {
            assert_eq!(found, after, "it was acknowledged");
        }
        let report = volume.clean_after_boot();
        assert!(
            report.failed.is_empty(),
            "cut after {entries}: {:?}",
            report.failed
        );
        let mut cleaned = listing(volume.path());
        if cleaned != after {
            cleaned.retain(|line| between.is_empty() || !line.starts_with(between));
            // An empty directory of which nobody knows whose it is.
            cleaned.retain(|line| before.contains(line) || line.contains(['/', ' ']));
        }
        assert!(
            cleaned == before || cleaned == after,
            "cut after {entries}: {found:#?} {cleaned:#?}"
        );
    }
    println!(
        "{what:?}: the power was cut {cuts} times in {} writes",
        acknowledged - begun
    );
    assert!(cuts > 3, "{cuts}");
}

fn call(disk: &RecordedDisk, arguments: &[&str], input: &[u8]) -> Answer {
    let mut machinectl = ::store::command::prepare(tests::program("machinectl"));
    machinectl
        .args(arguments)
        .arg("--volume")
        .arg(disk.path().join("machines"));
    run(machinectl, input)
}

fn streams() -> Option<(Vec<u8>, Vec<u8>)> {
    if !tests::may_use_devices() {
        return None;
    }
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
    Some((development.send("linux-1", None), incremental))
}

#[test]
fn add_survives_a_power_cut_at_any_time() {
    let Some((one, _)) = streams() else { return };
    survives(&["add", "linux"], &one, |_| (), "");
}

#[test]
fn upgrade_survives_a_power_cut_at_any_time() {
    let Some((one, two)) = streams() else { return };
    let prepare = |host: &BuildHost| drop(host.machinectl(&["add", "linux"], &one).good());
    survives(&["upgrade", "linux"], &two, prepare, "linux/linux-2");
}

#[test]
fn delete_survives_a_power_cut_at_any_time() {
    let Some((one, _)) = streams() else { return };
    let prepare = |host: &BuildHost| drop(host.machinectl(&["add", "linux"], &one).good());
    survives(&["delete", "linux"], b"", prepare, "");
}
