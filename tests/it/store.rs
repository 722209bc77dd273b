//! The store on a fake backend that fails before each of its calls in turn: afterwards the volume
//! is in the state before or after the change.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::store::clean;
use ::store::subvolumes::FakeBackend;
use ::store::{
    Change, Intent, KnownContent, Note, Publication, RefusalKind, Result, SnapshotSource, Source,
    SubvolumeBackend, Volume,
};
use config::layout::Entry;
use config::task::Provenance;
use config::{MachineName, Revision};
use tempfile::TempDir;
use tests::backend_contract;

mod trials;

#[test]
fn the_fake_backend_fulfills_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    backend_contract::check(&FakeBackend::default(), directory.path());
}

/// A volume on a fake backend. Its machine `linux` has two revisions and, unless omitted, an image.
struct Fixture {
    directory: TempDir,
    backend: Arc<FakeBackend>,
    volume: Volume,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self::without_image();
        fixture.bootstrap("a").unwrap();
        fixture
    }

    fn without_image() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let backend = Arc::new(FakeBackend::default());
        let path = directory.path().join("volume");
        std::fs::create_dir(&path).unwrap();
        let volume = Volume::with_backend(&path.canonicalize().unwrap(), backend.clone());
        let fixture = Self {
            directory,
            backend,
            volume,
        };
        for _ in 0..2 {
            let intent = if fixture.volume.machines().unwrap().is_empty() {
                Intent::Add
            } else {
                Intent::Upgrade
            };
            fixture.ingest(intent, "linux").unwrap();
            // The next revision must come from another image.
            fixture.backend.delete(&fixture.original()).unwrap();
        }
        fixture.original();
        fixture
    }

    /// Returns the image for new revisions, and creates it if it is missing.
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
        let note = Note {
            text: "from a test".to_owned(),
            ..Note::default()
        };
        let publication = Publication {
            note: Some(&note),
            trial: None,
        };
        let ingested = self
            .volume
            .ingest_with(intent, &machine, source, publication);
        ingested.map(|_| ())
    }

    /// Publishes an image for a toolchain whose identity is a repeated digit.
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

    /// Describes the volume, without identities that differ between runs.
    fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for machine in self.volume.machines().unwrap() {
            let view = self.volume.view(&machine).unwrap();
            if view.is_unmanaged() {
                continue;
            }
            assert_eq!(view.link_fault, None);
            lines.push(format!(
                "{machine}: {:?} deleting: {}",
                view.current, view.deleting
            ));
            for note in &view.notes {
                let text = self.volume.note(&machine, *note).map(|it| it.text);
                lines.push(format!("{machine}: note on {note}: {text:?}"));
            }
            for record in &view.content_records {
                let revision = view.revision(*record);
                let known = revision.map(|it| self.volume.known_content(&machine, it));
                lines.push(format!("{machine}: content of {record}: {known:?}"));
            }
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
            for (revision, it) in &view.trial_images {
                let id = it.provenance.as_ref().map(|it| it.toolchain_id.clone());
                lines.push(format!(
                    "{machine}: image of {revision} {} {id:?}",
                    it.complete
                ));
            }
            for (revision, trial) in &view.trials {
                let end = trial.end.as_ref().map(|it| (it.verdict, &it.reason));
                lines.push(format!("{machine}: trial of {revision}: {end:?}"));
            }
            for it in &view.snapshots {
                lines.push(format!("{machine}: snapshot {} {}", it.tag, it.in_use));
            }
            lines.extend(
                view.unmanaged
                    .iter()
                    .map(|name| format!("{machine}: unmanaged {name}")),
            );
        }
        lines
    }
}

fn linux() -> MachineName {
    "linux".parse().unwrap()
}

/// Fails each call of the backend in turn while `change` runs. The clean-up after a boot must lead
/// to the state before or after the change, and a repeated change to the state after it.
/// `intermediate` describes a complete revision without its link, and the note on it, which the
/// clean-up may leave.
fn check_crashes(
    make: fn() -> Fixture,
    intermediate: &[&str],
    change: impl Fn(&Fixture) -> Result<()>,
) {
    let undisturbed = make();
    let before = undisturbed.describe();
    change(&undisturbed).unwrap();
    let after = undisturbed.describe();
    assert_ne!(before, after);
    for calls in 0.. {
        let fixture = make();
        fixture.backend.set_fuse(Some(calls));
        let crashed = change(&fixture).is_err();
        fixture.backend.set_fuse(None);
        // The links are valid even before the clean-up.
        fixture.describe();
        let report = fixture.volume.clean_after_boot();
        assert!(
            report.failed.is_empty(),
            "crash at call {calls}: {:?}",
            report.failed
        );
        let cleaned = fixture.describe();
        let is_before = cleaned
            .iter()
            .filter(|line| !intermediate.contains(&line.as_str()))
            .eq(&before);
        assert!(
            is_before || cleaned == after,
            "crash at call {calls}: {cleaned:#?}"
        );
        if !crashed {
            assert_eq!(cleaned, after);
            assert!(calls > 2, "only {calls} calls");
            break;
        }
        if cleaned != after {
            change(&fixture).unwrap();
            let context = format!("crash at call {calls}, repeated");
            assert_eq!(fixture.describe(), after, "{context}");
        }
    }
}

#[test]
fn a_crashed_add_is_complete_or_undone() {
    check_crashes(Fixture::new, &[], |fixture| {
        fixture.ingest(Intent::Add, "other")
    });
}

#[test]
fn a_crashed_upgrade_is_complete_or_undone() {
    let note = "linux: note on 3: Some(\"from a test\")";
    check_crashes(Fixture::new, &["linux: revision 3 true", note], |fixture| {
        fixture.ingest(Intent::Upgrade, "linux")
    });
}

#[test]
fn a_crashed_bootstrap_leaves_the_old_or_the_new_image() {
    check_crashes(Fixture::new, &[], |fixture| fixture.bootstrap("b"));
}

#[test]
fn a_crashed_first_bootstrap_is_complete_or_undone() {
    check_crashes(Fixture::without_image, &[], |fixture| {
        fixture.bootstrap("b")
    });
}

#[test]
fn a_crashed_rollback_is_complete_or_undone() {
    check_crashes(Fixture::new, &[], |fixture| {
        fixture
            .volume
            .set_current(&linux(), Revision(1))
            .map(|_| ())
    });
}

#[test]
fn a_crashed_record_is_complete_or_absent() {
    check_crashes(Fixture::new, &[], |fixture| {
        fixture.volume.record(&linux(), Revision(1)).map(drop)
    });
}

#[test]
fn the_record_of_a_changed_or_replaced_revision_does_not_count() {
    let fixture = Fixture::new();
    let known = || {
        fixture
            .volume
            .plan_record(&linux(), Some(Revision(1)))
            .unwrap()
            .1
    };
    let path = fixture.volume.directory(&linux()).join("linux-1");
    assert_eq!(known(), KnownContent::Unknown);
    fixture.volume.record(&linux(), Revision(1)).unwrap();
    assert_eq!(known(), KnownContent::Recorded);
    fixture.backend.make_writable(&path).unwrap();
    fixture
        .backend
        .write(&path.join("disk.img"), b"Disk")
        .unwrap();
    let refusal = fixture.volume.record(&linux(), Revision(1)).unwrap_err();
    assert_eq!(refusal.kind(), Some(RefusalKind::Invalid), "{refusal}");
    fixture.backend.make_read_only(&path).unwrap();
    assert_eq!(known(), KnownContent::Outdated);
    let refusal = fixture
        .volume
        .verify(&linux(), Some(Revision(1)))
        .unwrap_err();
    assert_eq!(refusal.kind(), Some(RefusalKind::Differs), "{refusal}");
    fixture.backend.delete(&path).unwrap();
    fixture.backend.create(&path).unwrap();
    fixture.backend.make_read_only(&path).unwrap();
    assert_eq!(known(), KnownContent::Unknown);
}

#[test]
fn a_crashed_deletion_is_finished_later_or_was_not_started() {
    let delete = |fixture: &Fixture| {
        fixture
            .volume
            .delete(&linux(), Duration::ZERO, false)
            .map(|_| ())
    };
    for calls in 0.. {
        let fixture = Fixture::new();
        fixture.volume.record(&linux(), Revision(1)).unwrap();
        let before = fixture.describe();
        fixture.backend.set_fuse(Some(calls));
        let crashed = delete(&fixture).is_err();
        fixture.backend.set_fuse(None);
        let described = fixture.describe();
        let report = fixture.volume.finish_deletions();
        assert!(
            report.failed.is_empty(),
            "crash at call {calls}: {:?}",
            report.failed
        );
        if described == before {
            assert_eq!(fixture.describe(), before, "the deletion is not marked");
            delete(&fixture).unwrap();
        } else if fixture.volume.directory(&linux()).exists() {
            // The crash came before the removal of the directory, which is empty.
            assert!(
                fixture.volume.view(&linux()).unwrap().is_unmanaged(),
                "{described:?}"
            );
            continue;
        }
        assert!(
            fixture.describe().is_empty(),
            "crash at call {calls}: {:?}",
            fixture.describe()
        );
        if !crashed {
            break;
        }
    }
}

#[test]
fn a_crashed_cleanup_is_finished_by_the_next_one() {
    let dirty = || {
        let fixture = Fixture::new();
        let at = |name: &str| fixture.volume.directory(&linux()).join(name);
        fixture.backend.create(&at("linux-9")).unwrap();
        fixture
            .backend
            .symlink(Path::new("linux-9"), &at(".buildhost.arriving-9"))
            .unwrap();
        fixture
            .backend
            .create_directory(&at(".buildhost.ingest"))
            .unwrap();
        fixture.backend.create(&at("linux-default-1")).unwrap();
        fixture
            .backend
            .symlink(Path::new("linux-1"), &at(".buildhost.new"))
            .unwrap();
        fixture
            .backend
            .create_directory(&fixture.volume.path().join("gone"))
            .unwrap();
        fixture
            .backend
            .create(&fixture.volume.path().join("gone/gone-1"))
            .unwrap();
        fixture
            .backend
            .make_read_only(&fixture.volume.path().join("gone/gone-1"))
            .unwrap();
        fixture
    };
    for calls in 0.. {
        let fixture = dirty();
        fixture.backend.set_fuse(Some(calls));
        let first = fixture.volume.clean_after_boot();
        fixture.backend.set_fuse(None);
        assert!(fixture.volume.clean_after_boot().failed.is_empty());
        assert_eq!(
            fixture.describe(),
            Fixture::new().describe(),
            "crash at call {calls}"
        );
        for machine in fixture.volume.machines().unwrap() {
            let view = fixture.volume.view(&machine).unwrap();
            assert!(clean::plan(&view).is_empty(), "nothing is left to clean");
        }
        if first.failed.is_empty() {
            break;
        }
    }
}

#[test]
fn a_failure_does_not_stop_the_rest_of_a_cleanup() {
    let fixture = Fixture::new();
    let at = |name: &str| fixture.volume.directory(&linux()).join(name);
    for tag in 1..=3 {
        fixture
            .backend
            .create(&at(&format!("linux-default-{tag}")))
            .unwrap();
    }
    let held =
        fixture
            .volume
            .adopt_snapshot(&linux(), &"default".parse().unwrap(), &"2".parse().unwrap());
    let report = fixture.volume.clean_after_boot();
    assert!(report.failed.is_empty(), "a snapshot in use is no failure");
    let snapshots: Vec<_> = fixture.volume.view(&linux()).unwrap().snapshots;
    assert_eq!(snapshots.len(), 1);
    assert!(snapshots[0].in_use);
    drop(held);
    assert_eq!(fixture.volume.clean_after_boot().done.len(), 1);

    for tag in 1..=3 {
        fixture
            .backend
            .create(&at(&format!("linux-default-{tag}")))
            .unwrap();
    }
    fixture.backend.set_fault(Some("linux-default-2"));
    let report = fixture.volume.clean_after_boot();
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
fn the_error_of_a_locked_machine_names_the_process() {
    let fixture = Fixture::new();
    let volume = fixture.volume.clone().with_lock_timeout(Duration::ZERO);
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
fn a_renamed_snapshot_stays_in_use_and_takes_no_other_ones_name() {
    let fixture = Fixture::new();
    let volume = fixture.volume.clone().with_lock_timeout(Duration::ZERO);
    let (linux, toolchain) = (linux(), "default".parse().unwrap());
    let [ready, build, other] = ["r1", "42", "43"].map(|tag| tag.parse().unwrap());
    let image = SnapshotSource::Image("default".parse().unwrap());
    let take = |tag| volume.snapshot(&linux, &image, &toolchain, tag).unwrap();
    let (snapshot, _other) = (take(&ready), take(&other));
    let source = snapshot.source_uuid();
    let renamed = volume.rename_snapshot(snapshot, &build).unwrap();
    assert_eq!((renamed.tag(), renamed.source_uuid()), (&build, source));
    assert!(renamed.path().is_dir() && !volume.has_snapshot(&linux, &toolchain, &ready).unwrap());
    assert!(volume.delete_snapshot(&linux, &toolchain, &build).is_err());
    let path = renamed.path().to_owned();
    let taken = volume.rename_snapshot(renamed, &other).unwrap_err();
    assert!(taken.to_string().contains("43"), "{taken}");
    assert!(path.is_dir());
}

#[test]
fn a_copy_of_a_snapshot_is_independent_of_it() {
    let fixture = Fixture::new();
    let (linux, toolchain) = (linux(), "default".parse().unwrap());
    let (held, copy) = ("42".parse().unwrap(), "42-a1".parse().unwrap());
    let origin = SnapshotSource::Snapshot("42".parse().unwrap());
    let take =
        |origin: &SnapshotSource, tag| fixture.volume.snapshot(&linux, origin, &toolchain, tag);
    let missing = take(&origin, &copy).unwrap_err().to_string();
    assert!(missing.starts_with("there is no snapshot `"), "{missing}");
    let image = SnapshotSource::Image("default".parse().unwrap());
    let original = take(&image, &held).unwrap();
    let file = |path: &Path| path.join("result");
    fixture
        .backend
        .write(&file(original.path()), b"bad")
        .unwrap();
    let copied = take(&origin, &copy).unwrap();
    let read = |path: &Path| std::fs::read_to_string(file(path)).unwrap();
    assert_eq!(read(copied.path()), "bad");
    fixture
        .backend
        .write(&file(copied.path()), b"good")
        .unwrap();
    assert_eq!(read(original.path()), "bad");
    drop((original, copied));
    let deleted = fixture.volume.delete_snapshot(&linux, &toolchain, &copy);
    assert_eq!(deleted.unwrap(), Change::Changed);
    let view = fixture.volume.view(&linux).unwrap();
    assert_eq!(view.snapshots.len(), 1);
}
