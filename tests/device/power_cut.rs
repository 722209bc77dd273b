//! Power cuts after every flush, and between flushes, while a machine is added, upgraded or
//! deleted: what was acknowledged is durable, and nothing is broken.

use std::collections::BTreeSet;
use std::path::Path;

use ::store::{SnapshotSource, Volume};
use config::Revision;
use config::canary::TrialVerdict;
use config::task::Provenance;
use tests::crash_consistency::OldOrNew;
use tests::hosts::{BuildHost, CommandOutput, DevelopmentHost, listing, run};
use tests::recorded_disk::RecordedDisk;
use tests::transfers::{rest, whole};

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
    check_recovery(host, arguments, input, true, separate_parts);
}

/// Checks that each power cut during a call leads to the old or the new state.
fn check_recovery(
    host: BuildHost,
    arguments: &[&str],
    input: &[u8],
    is_repeatable: bool,
    separate_parts: &'static [&'static str],
) {
    let old = host.listing();
    let mut cuts = 0;
    for_each_power_cut(host, arguments, input, 0, |volume, new, context| {
        let expected = OldOrNew {
            old: old.clone(),
            new: new.to_vec(),
            separate_parts,
            is_repeatable,
        };
        cuts += 1;
        expected.check_recovery(volume, context, cuts % 2 == 0, || {
            call(volume.path(), arguments, input)
        });
    });
}

/// Makes a call that ends with this exit code on the host's recorded disk, and passes each volume
/// that a power cut leaves to `check`, with the listing after the call.
fn for_each_power_cut(
    host: BuildHost,
    arguments: &[&str],
    input: &[u8],
    code: i32,
    mut check: impl FnMut(&Volume, &[String], &str),
) {
    let old = host.listing();
    let image = host.mount.unmount();
    let disk = RecordedDisk::start(image.path());
    let start = disk.log().len();
    let output = call(&disk.path().join("machines"), arguments, input);
    assert_eq!(output.code, Some(code), "{output:?}");
    let acknowledged = disk.log().len();
    let new = listing(&disk.path().join("machines"));
    assert_ne!(old, new);
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
        // A refused call acknowledges nothing.
        if entries == acknowledged && code == 0 {
            assert_eq!(listing(volume.path()), new, "acknowledged");
        }
        check(&volume, &new, &format!("power cut after {entries} writes"));
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
fn record_survives_power_cuts() {
    let (one, _) = streams();
    let prepare = |host: &BuildHost| drop(host.machinectl(&["add", "linux"], &one).success());
    check_power_cuts(&["record", "linux"], b"", prepare, &[]);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn delete_survives_power_cuts() {
    let (one, _) = streams();
    let prepare = |host: &BuildHost| {
        host.machinectl(&["add", "linux", "--record"], &one)
            .success();
    };
    check_power_cuts(&["delete", "linux"], b"", prepare, &[]);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_continued_transfer_survives_power_cuts() {
    let (one, two) = streams();
    let host = BuildHost::new(128);
    host.machinectl(&["add", "linux"], &one).success();
    let begin = whole(&two[..two.len() / 2]);
    let cut = host.machinectl(&["receive", "linux"], &begin);
    assert_eq!(cut.code, Some(14), "{cut:?}");
    let rest = rest(&host.volume, &"linux".parse().unwrap(), &two);
    assert!(rest.len() < whole(&two).len());
    let parts = &["linux/linux-2", "linux/.buildhost.partial-2"];
    // What has arrived is discarded with the old state.
    check_recovery(host, &["receive", "linux"], &rest, false, parts);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn what_arrives_of_a_cut_transfer_survives_power_cuts() {
    let (one, two) = streams();
    let host = BuildHost::new(128);
    host.machinectl(&["add", "linux"], &one).success();
    let begin = whole(&two[..two.len() / 2]);
    let receive = ["receive", "linux"];
    let (mut kept, mut lost) = (0, 0);
    for_each_power_cut(host, &receive, &begin, 14, |volume, _, context| {
        let report = volume.clean_after_boot();
        assert!(report.failed.is_empty(), "{context}: {:?}", report.failed);
        let linux = "linux".parse().unwrap();
        let view = volume.view(&linux).unwrap();
        let revisions: Vec<_> = view.revisions.iter().map(|it| it.revision.0).collect();
        assert_eq!(revisions, [1], "{context}");
        if volume.partial_revision(&view).is_some() {
            kept += 1;
        } else {
            lost += 1;
            let is_clean = view.partial.is_empty() && view.partial_states.is_empty();
            assert!(is_clean, "{context}: {view:?}");
        }
        let continued = call(volume.path(), &receive, &rest(volume, &linux, &two));
        assert_eq!(continued.code, Some(0), "{context}: {continued:?}");
        let new = listing(&volume.path().join("linux/linux-2"));
        assert_eq!(new.len(), 3, "{context}: {new:?}");
    });
    assert!(kept > 0 && lost > 0, "{kept} {lost}");
}

/// The state of a trial in a machine's directory: the current revision, the candidate, and the
/// verdict on revision 2.
type TrialState = (u32, Option<u32>, Option<TrialVerdict>);

fn trial_state(volume: &Volume) -> TrialState {
    let view = volume.view(&"linux".parse().unwrap()).unwrap();
    assert_eq!((&view.link_fault, view.unmanaged.len()), (&None, 0));
    let candidate = view.candidate().map(|(view, _)| view.revision.0);
    let end = view.trials.get(&Revision(2)).and_then(|it| it.end.as_ref());
    (view.current.unwrap().0, candidate, end.map(|it| it.verdict))
}

/// Checks that each power cut during a call leaves one of these states, and that the repeated call
/// leads to the last one.
fn check_trial(host: BuildHost, arguments: &[&str], input: &[u8], states: &[TrialState]) {
    let last = *states.last().unwrap();
    let mut seen = BTreeSet::new();
    for_each_power_cut(host, arguments, input, 0, |volume, _, context| {
        let report = volume.clean_after_boot();
        assert!(report.failed.is_empty(), "{context}: {:?}", report.failed);
        let state = trial_state(volume);
        assert!(states.contains(&state), "{context}: {state:?}");
        seen.insert(states.iter().position(|it| *it == state));
        if state != last {
            let repeated = call(volume.path(), arguments, input);
            assert_eq!(repeated.code, Some(0), "{context}: {repeated:?}");
        }
        assert_eq!(trial_state(volume), last, "{context}");
        volume.clean_after_boot();
        let view = volume.view(&"linux".parse().unwrap()).unwrap();
        assert_eq!(view.obsolete_trial_images().count(), 0, "{context}");
    });
    assert!(seen.len() > 1, "{seen:?}");
}

/// Returns a host with revision 2 on trial, and with images of both revisions.
fn host_with_trial() -> BuildHost {
    let (one, two) = streams();
    let host = BuildHost::new(128);
    let upgrade = ["upgrade", "linux", "--canary", "1/1"];
    host.machinectl(&["add", "linux"], &one).success();
    make_image(&host.volume, &SnapshotSource::Current);
    host.machinectl(&upgrade, &two).success();
    make_image(&host.volume, &SnapshotSource::Candidate(Revision(2)));
    host
}

/// Publishes an image of a revision, as a bootstrap does.
fn make_image(volume: &Volume, source: &SnapshotSource) {
    let (machine, toolchain) = ("linux".parse().unwrap(), "default".parse().unwrap());
    let tag = "bootstrap".parse().unwrap();
    let snapshot = volume.snapshot(&machine, source, &toolchain, &tag).unwrap();
    let provenance = Provenance {
        revision_uuid: snapshot.source_revision().unwrap().uuid.to_string(),
        toolchain_id: "a".repeat(64).parse().unwrap(),
        bootstrap_version: 1,
    };
    match source {
        SnapshotSource::Candidate(revision) => {
            volume.publish_trial_image(snapshot, *revision, &provenance)
        }
        _ => volume.publish_image(snapshot, &provenance),
    }
    .unwrap();
}

const ON_TRIAL: TrialState = (1, Some(2), None);

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_begin_of_a_trial_survives_power_cuts() {
    let (one, two) = streams();
    let host = BuildHost::new(128);
    host.machinectl(&["add", "linux"], &one).success();
    let upgrade = ["upgrade", "linux", "--canary", "1/1"];
    check_trial(host, &upgrade, &two, &[(1, None, None), ON_TRIAL]);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_promotion_survives_power_cuts() {
    let promoted = (2, None, Some(TrialVerdict::Promoted));
    // An interrupted promotion is continued: revision 2 is current and has no verdict yet.
    let states = [ON_TRIAL, (2, None, None), promoted];
    check_trial(host_with_trial(), &["promote", "linux"], b"", &states);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_rollback_of_a_trial_survives_power_cuts() {
    let states = [ON_TRIAL, (1, None, Some(TrialVerdict::RolledBack))];
    check_trial(host_with_trial(), &["rollback", "linux"], b"", &states);
}
