//! The store on a fake pool: it crashes before every call, and is whole after.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::store::clean;
use ::store::subvolumes::FakeBackend;
use ::store::{Change, Intent, Result, SnapshotSource, Source, SubvolumeBackend, Volume};
use config::layout::Entry;
use config::task::Provenance;
use config::{MachineName, Revision};
use tempfile::TempDir;
use tests::backend_contract;

#[test]
fn the_fake_pool_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    backend_contract::check(&FakeBackend::default(), directory.path());
}

/// A volume on a fake pool, with a machine of two revisions and one image.
struct World {
    directory: TempDir,
    backend: Arc<FakeBackend>,
    volume: Volume,
}

impl World {
    fn new() -> Self {
        let world = Self::without_image();
        world.bootstrap("a").unwrap();
        world
    }

    fn without_image() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let backend = Arc::new(FakeBackend::default());
        let path = directory.path().join("volume");
        std::fs::create_dir(&path).unwrap();
        let volume = Volume::with_backend(&path.canonicalize().unwrap(), backend.clone());
        let world = Self {
            directory,
            backend,
            volume,
        };
        for _ in 0..2 {
            let intent = if world.volume.machines().unwrap().is_empty() {
                Intent::Add
            } else {
                Intent::Upgrade
            };
            world.ingest(intent, "linux").unwrap();
            // The next revision comes from another image.
            world.backend.delete(&world.original()).unwrap();
        }
        world.original();
        world
    }

    /// The image that machines are made of.
    fn original(&self) -> std::path::PathBuf {
        let path = self.directory.path().join("original");
        if !path.exists() {
            self.backend.create(&path).unwrap();
            self.backend.write(&path.join("disk.img"), b"disk").unwrap();
            self.backend.make_read_only(&path).unwrap();
        }
        path
    }

    fn ingest(&self, intent: Intent, machine: &str) -> Result<()> {
        let source = Source::Subvolume(self.original());
        let machine = machine.parse().unwrap();
        self.volume.ingest(intent, &machine, source).map(|_| ())
    }

    /// Bootstraps a toolchain whose identity is a repeated digit.
    fn bootstrap(&self, digit: &str) -> Result<()> {
        let (machine, toolchain) = (linux(), "default".parse().unwrap());
        let tag = "bootstrap".parse().unwrap();
        let snapshot =
            self.volume
                .snapshot(&machine, &SnapshotSource::Current, &toolchain, &tag)?;
        let provenance = Provenance {
            revision_uuid: snapshot.source_revision().unwrap().uuid.to_string(),
            toolchain_id: digit.repeat(64).parse().unwrap(),
            bootstrap_version: 1,
        };
        self.volume.publish_image(snapshot, &provenance)
    }

    /// What there is, without identities that differ from run to run.
    fn show(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for machine in self.volume.machines().unwrap() {
            let view = self.volume.view(&machine).unwrap();
            if view.is_unmanaged() {
                continue;
            }
            let fault = view.link_fault.clone();
            assert_eq!(
                fault, None,
                "a current link always leads to a complete revision"
            );
            lines.push(format!(
                "{machine}: {:?} deleting: {}",
                view.current, view.deleting
            ));
            for it in &view.revisions {
                lines.push(format!(
                    "{machine}: revision {} {}",
                    it.revision, it.complete
                ));
            }
            for it in &view.images {
                let id = it.provenance.as_ref().map(|it| it.toolchain_id.clone());
                lines.push(format!(
                    "{machine}: image {} {} {id:?}",
                    it.toolchain, it.complete
                ));
            }
            for it in &view.snapshots {
                lines.push(format!("{machine}: snapshot {} {}", it.tag, it.in_use));
            }
            lines.extend(
                view.unmanaged
                    .iter()
                    .map(|name| format!("{machine}: stranger {name}")),
            );
        }
        lines
    }
}

fn linux() -> MachineName {
    "linux".parse().unwrap()
}

/// Crashes before every change that `act` makes; afterwards a reboot's clean-up
/// must lead to the state before or after, and doing it again to the one after.
/// A complete revision whose link was not made yet may stay: it is `between`.
fn survives(make: fn() -> World, between: Option<&str>, act: impl Fn(&World) -> Result<()>) {
    let calm = make();
    let before = calm.show();
    act(&calm).unwrap();
    let after = calm.show();
    assert_ne!(before, after);
    for calls in 0.. {
        let world = make();
        world.backend.set_fuse(Some(calls));
        let crashed = act(&world).is_err();
        world.backend.set_fuse(None);
        // It shows nothing that is broken even before anything is repaired.
        world.show();
        let report = world.volume.clean_after_boot();
        assert!(
            report.failed.is_empty(),
            "crash at call {calls}: {:?}",
            report.failed
        );
        let cleaned = world.show();
        let is_before = cleaned
            .iter()
            .filter(|line| Some(line.as_str()) != between)
            .eq(&before);
        assert!(
            is_before || cleaned == after,
            "crash at call {calls}: {cleaned:#?}"
        );
        if !crashed {
            assert_eq!(cleaned, after);
            assert!(calls > 2, "{calls} calls cannot be all");
            break;
        }
        if cleaned != after {
            act(&world).unwrap();
            assert_eq!(world.show(), after, "crash at call {calls}, then again");
        }
    }
}

#[test]
fn add_is_whole_or_gone_wherever_it_crashes() {
    survives(World::new, None, |world| world.ingest(Intent::Add, "other"));
}

#[test]
fn upgrade_is_whole_or_gone_wherever_it_crashes() {
    let between = Some("linux: revision 3 true");
    survives(World::new, between, |world| {
        world.ingest(Intent::Upgrade, "linux")
    });
}

#[test]
fn a_bootstrapped_image_is_the_old_or_the_new_one_wherever_it_crashes() {
    survives(World::new, None, |world| world.bootstrap("b"));
}

#[test]
fn a_first_bootstrapped_image_is_whole_or_gone_wherever_it_crashes() {
    survives(World::without_image, None, |world| world.bootstrap("b"));
}

#[test]
fn rollback_is_done_or_not_wherever_it_crashes() {
    survives(World::new, None, |world| {
        world.volume.set_current(&linux(), Revision(1)).map(|_| ())
    });
}

#[test]
fn a_deletion_that_crashes_is_finished_or_was_never_begun() {
    let delete = |world: &World| {
        world
            .volume
            .delete(&linux(), Duration::ZERO, false)
            .map(|_| ())
    };
    for calls in 0.. {
        let world = World::new();
        let before = world.show();
        world.backend.set_fuse(Some(calls));
        let crashed = delete(&world).is_err();
        world.backend.set_fuse(None);
        let shown = world.show();
        let report = world.volume.finish_deletions();
        assert!(
            report.failed.is_empty(),
            "crash at call {calls}: {:?}",
            report.failed
        );
        if shown == before {
            assert_eq!(world.show(), before, "nobody deletes what is not marked");
            delete(&world).unwrap();
        } else if world.volume.directory(&linux()).exists() {
            // Killed between the last mark and the directory: nothing is in it.
            assert!(
                world.volume.view(&linux()).unwrap().is_unmanaged(),
                "{shown:?}"
            );
            continue;
        }
        assert!(
            world.show().is_empty(),
            "crash at call {calls}: {:?}",
            world.show()
        );
        if !crashed {
            break;
        }
    }
}

#[test]
fn a_clean_up_that_crashes_is_finished_by_the_next_one() {
    let dirty = || {
        let world = World::new();
        let at = |name: &str| world.volume.directory(&linux()).join(name);
        world.backend.create(&at("linux-9")).unwrap();
        world.backend.create(&at("linux-default-1")).unwrap();
        world
            .backend
            .symlink(Path::new("linux-1"), &at(".buildhost.new"))
            .unwrap();
        world
            .backend
            .create_directory(&world.volume.path().join("gone"))
            .unwrap();
        world
            .backend
            .create(&world.volume.path().join("gone/gone-1"))
            .unwrap();
        world
    };
    for calls in 0.. {
        let world = dirty();
        world.backend.set_fuse(Some(calls));
        let first = world.volume.clean_after_boot();
        world.backend.set_fuse(None);
        assert!(world.volume.clean_after_boot().failed.is_empty());
        assert_eq!(world.show(), World::new().show(), "crash at call {calls}");
        for machine in world.volume.machines().unwrap() {
            let view = world.volume.view(&machine).unwrap();
            assert!(clean::plan(&view).is_empty(), "it is settled");
        }
        if first.failed.is_empty() {
            break;
        }
    }
}

#[test]
fn a_bad_entry_does_not_stop_the_rest_of_a_clean_up() {
    let world = World::new();
    let at = |name: &str| world.volume.directory(&linux()).join(name);
    for tag in 1..=3 {
        world
            .backend
            .create(&at(&format!("linux-default-{tag}")))
            .unwrap();
    }
    let held =
        world
            .volume
            .adopt_snapshot(&linux(), &"default".parse().unwrap(), &"2".parse().unwrap());
    let report = world.volume.clean_after_boot();
    assert!(report.failed.is_empty(), "what is in use is no failure");
    let left: Vec<_> = world.volume.view(&linux()).unwrap().snapshots;
    assert_eq!(left.len(), 1);
    assert!(left[0].in_use);
    drop(held);
    assert_eq!(world.volume.clean_after_boot().done.len(), 1);

    for tag in 1..=3 {
        world
            .backend
            .create(&at(&format!("linux-default-{tag}")))
            .unwrap();
    }
    world.backend.set_fault(Some("linux-default-2"));
    let report = world.volume.clean_after_boot();
    assert_eq!((report.done.len(), report.failed.len()), (2, 1));
    let failure = &report.failed[0];
    assert_eq!(
        failure.to_string(),
        "machine `linux`: cannot delete snapshot 2 of toolchain default"
    );
    let entry = Entry::Snapshot("default".parse().unwrap(), "2".parse().unwrap());
    assert_eq!(
        failure.step.as_ref().and_then(|step| step.entry()),
        Some(&entry)
    );
}

#[test]
fn a_locked_machine_says_who_holds_it() {
    let world = World::new();
    let volume = world.volume.clone().with_lock_timeout(Duration::ZERO);
    let held = std::fs::File::open(volume.directory(&linux())).unwrap();
    held.lock().unwrap();
    let error = volume
        .set_current(&linux(), Revision(1))
        .unwrap_err()
        .to_string();
    let pid = format!("(process {})", std::process::id());
    assert!(
        error.starts_with("machine `linux` is locked by ") && error.contains(&pid),
        "{error}"
    );
    drop(held);
    volume.set_current(&linux(), Revision(1)).unwrap();
}

#[test]
fn a_copy_of_a_snapshot_is_a_snapshot_of_its_own() {
    let world = World::new();
    let (linux, toolchain) = (linux(), "default".parse().unwrap());
    let (held, copy) = ("42".parse().unwrap(), "42-a1".parse().unwrap());
    let origin = SnapshotSource::Snapshot("42".parse().unwrap());
    let take =
        |origin: &SnapshotSource, tag| world.volume.snapshot(&linux, origin, &toolchain, tag);
    let missing = take(&origin, &copy).unwrap_err().to_string();
    assert!(missing.starts_with("there is no snapshot `"), "{missing}");
    let image = SnapshotSource::Image("default".parse().unwrap());
    let original = take(&image, &held).unwrap();
    let file = |path: &Path| path.join("result");
    world.backend.write(&file(original.path()), b"bad").unwrap();
    let copied = take(&origin, &copy).unwrap();
    let read = |path: &Path| std::fs::read_to_string(file(path)).unwrap();
    assert_eq!(read(copied.path()), "bad");
    world.backend.write(&file(copied.path()), b"good").unwrap();
    assert_eq!(read(original.path()), "bad");
    drop((original, copied));
    let gone = world.volume.delete_snapshot(&linux, &toolchain, &copy);
    assert_eq!(gone.unwrap(), Change::Changed);
    let view = world.volume.view(&linux).unwrap();
    assert_eq!(view.snapshots.len(), 1);
}
