//! Trials: a crash leaves a machine without the trial, with it, or with its end.

use ::store::{MachineChange, TrialRefusal};
use config::canary::{Decider, FarmTrial, TrialVerdict};

use super::*;

/// The revision that [`begin`] puts on trial.
const CANDIDATE: Revision = Revision(3);

/// Puts a new revision on trial.
fn begin(fixture: &Fixture) -> Result<()> {
    let source = Source::Subvolume(fixture.original());
    let publication = Publication {
        note: None,
        trial: Some(Decider::Host("1 of 1".parse().unwrap())),
    };
    let volume = &fixture.volume;
    let begun = volume.ingest_with(Intent::Upgrade, &linux(), source, publication);
    begun.map(drop)
}

/// Makes the image of the candidate, as a bootstrap does.
fn make_image(fixture: &Fixture, digit: &str) -> Result<()> {
    let (toolchain, tag) = ("default".parse().unwrap(), "bootstrap".parse().unwrap());
    let volume = &fixture.volume;
    let source = SnapshotSource::Candidate(CANDIDATE);
    let snapshot = volume.snapshot(&linux(), &source, &toolchain, &tag)?;
    let provenance = Provenance {
        revision_uuid: snapshot.source_revision().unwrap().uuid.to_string(),
        toolchain_id: digit.repeat(64).parse().unwrap(),
        bootstrap_version: 1,
    };
    volume.publish_trial_image(snapshot, CANDIDATE, &provenance)
}

fn on_trial() -> Fixture {
    let fixture = Fixture::new();
    begin(&fixture).unwrap();
    make_image(&fixture, "c").unwrap();
    fixture
}

fn candidate(fixture: &Fixture) -> Option<Revision> {
    let view = fixture.volume.view(&linux()).unwrap();
    view.candidate().map(|(view, _)| view.revision)
}

fn current(fixture: &Fixture) -> Revision {
    fixture.volume.view(&linux()).unwrap().current.unwrap()
}

#[test]
fn a_revision_on_trial_is_not_current() {
    let fixture = on_trial();
    assert_eq!(
        (current(&fixture), candidate(&fixture)),
        (Revision(2), Some(CANDIDATE))
    );
    let view = fixture.volume.view(&linux()).unwrap();
    assert_eq!(view.unmanaged, Vec::<String>::new());
    // Pruning keeps it, and its image stays beside the one of the current revision.
    let policy = ::store::prune::PrunePolicy {
        keep: 0,
        created_before: None,
        free_target: None,
    };
    let pruned = ::store::prune::plan([&view], &policy);
    assert_eq!(pruned, [(linux(), Revision(1))]);
    assert_eq!((view.images.len(), view.trial_images.len()), (1, 1));
    assert_eq!(clean::plan(&view), []);
}

#[test]
fn a_crashed_begin_of_a_trial_is_complete_or_undone() {
    check_crashes(Fixture::new, &["linux: revision 3 true"], begin);
}

#[test]
fn a_crashed_bootstrap_for_a_trial_leaves_the_old_or_the_new_image() {
    check_crashes(on_trial, &[], |fixture| make_image(fixture, "d"));
}

#[test]
fn a_crashed_end_of_a_trial_is_complete_or_undone() {
    let reject = |fixture: &Fixture| fixture.volume.reject(&linux(), CANDIDATE, "it is slow");
    let undisturbed = on_trial();
    let before = undisturbed.describe();
    reject(&undisturbed).unwrap();
    let after = undisturbed.describe();
    for calls in 0.. {
        let fixture = on_trial();
        fixture.backend.set_fuse(Some(calls));
        let crashed = reject(&fixture).is_err();
        fixture.backend.set_fuse(None);
        // The file with the verdict is the decision; the images follow.
        let report = fixture.volume.clean_after_boot();
        assert!(report.failed.is_empty(), "{:?}", report.failed);
        let cleaned = fixture.describe();
        assert!(
            cleaned == before || cleaned == after,
            "crash at call {calls}: {cleaned:#?}"
        );
        if !crashed {
            assert!(calls > 2, "only {calls} calls");
            break;
        }
    }
}

#[test]
fn a_crashed_promotion_is_continued() {
    let promote = |fixture: &Fixture| fixture.volume.promote(&linux(), CANDIDATE, "it is good");
    let undisturbed = on_trial();
    promote(&undisturbed).unwrap();
    let after = undisturbed.describe();
    let image = "linux: image default true Some(Digest(\"cccc";
    assert!(after.iter().any(|it| it.starts_with(image)), "{after:#?}");
    let mut interrupted = 0;
    for calls in 0.. {
        let fixture = on_trial();
        fixture.backend.set_fuse(Some(calls));
        let crashed = promote(&fixture).is_err();
        fixture.backend.set_fuse(None);
        let report = fixture.volume.clean_after_boot();
        assert!(report.failed.is_empty(), "{:?}", report.failed);
        let view = fixture.volume.view(&linux()).unwrap();
        if let Some(revision) = view.unfinished_promotion() {
            interrupted += 1;
            assert_eq!((revision, view.current), (CANDIDATE, Some(CANDIDATE)));
        } else {
            let is_undone = view.current == Some(Revision(2)) && candidate(&fixture).is_some();
            assert!(
                is_undone || fixture.describe() == after,
                "crash at call {calls}"
            );
        }
        if !crashed {
            assert_eq!(fixture.describe(), after);
            break;
        }
        if fixture.describe() != after {
            promote(&fixture).unwrap();
        }
        assert_eq!(
            fixture.describe(),
            after,
            "crash at call {calls}, continued"
        );
    }
    assert!(interrupted > 2, "{interrupted}");
}

#[test]
fn a_change_of_the_current_revision_ends_a_trial() {
    let fixture = on_trial();
    fixture.volume.set_current(&linux(), Revision(1)).unwrap();
    assert_eq!(
        (current(&fixture), candidate(&fixture)),
        (Revision(1), None)
    );
    let view = fixture.volume.view(&linux()).unwrap();
    let end = view.trials[&CANDIDATE].end.clone().unwrap();
    assert_eq!(end.verdict, TrialVerdict::RolledBack);
    assert_eq!(end.reason, "revision 1 was made current by hand");
    // Its image is deleted by the agent, or after a boot.
    let toolchain = "default".parse().unwrap();
    let change = fixture
        .volume
        .delete_trial_image(&linux(), CANDIDATE, &toolchain);
    assert_eq!(change.unwrap(), Change::Changed);

    // So it does if the revision was current before.
    let fixture = on_trial();
    let change = fixture.volume.set_current(&linux(), Revision(2)).unwrap();
    assert_eq!(change, Change::Changed);
    assert_eq!(
        (current(&fixture), candidate(&fixture)),
        (Revision(2), None)
    );
    let change = fixture.volume.set_current(&linux(), Revision(2)).unwrap();
    assert_eq!(change, Change::Unchanged);

    let fixture = on_trial();
    fixture.volume.set_current(&linux(), CANDIDATE).unwrap();
    let view = fixture.volume.view(&linux()).unwrap();
    assert_eq!(view.current, Some(CANDIDATE));
    let end = view.trials[&CANDIDATE].end.clone().unwrap();
    assert_eq!(end.verdict, TrialVerdict::Promoted);
    assert_eq!((view.images.len(), view.trial_images.len()), (1, 0));
}

#[test]
fn a_newer_revision_supersedes_a_candidate() {
    let fixture = on_trial();
    fixture.backend.delete(&fixture.original()).unwrap();
    begin(&fixture).unwrap();
    assert_eq!(
        (current(&fixture), candidate(&fixture)),
        (Revision(2), Some(Revision(4)))
    );
    let refused = fixture.volume.promote(&linux(), CANDIDATE, "").unwrap_err();
    assert_eq!(refused.kind(), Some(RefusalKind::NotFound));
    // The superseded trial does not come back when the newer one ends.
    fixture.volume.reject(&linux(), Revision(4), "").unwrap();
    assert_eq!(candidate(&fixture), None);
    // A person may try it again: the same content is put on trial a second time.
    assert!(fixture.volume.was_tried(&linux(), Revision(4)));
    begin(&fixture).unwrap();
    assert_eq!(candidate(&fixture), Some(Revision(4)));
    // Without a trial it becomes current, and the trial is over.
    fixture.ingest(Intent::Upgrade, "linux").unwrap();
    assert_eq!(
        (current(&fixture), candidate(&fixture)),
        (Revision(4), None)
    );
}

#[test]
fn a_revision_that_is_here_becomes_current_whatever_its_trial_has_found() {
    let advance = |fixture: &Fixture| fixture.volume.advance(&linux(), CANDIDATE, "published");
    let verdict = |fixture: &Fixture| {
        let view = fixture.volume.view(&linux()).unwrap();
        view.trials[&CANDIDATE].end.clone().unwrap().verdict
    };
    let fixture = on_trial();
    fixture.volume.reject(&linux(), CANDIDATE, "").unwrap();
    advance(&fixture).unwrap();
    assert_eq!(current(&fixture), CANDIDATE);
    assert_eq!(verdict(&fixture), TrialVerdict::Promoted);

    // The trial of a newer one goes on.
    let fixture = on_trial();
    fixture.backend.delete(&fixture.original()).unwrap();
    begin(&fixture).unwrap();
    for _ in 0..2 {
        advance(&fixture).unwrap();
        assert_eq!(
            (current(&fixture), candidate(&fixture)),
            (CANDIDATE, Some(Revision(4)))
        );
    }
}

#[test]
fn a_rollback_resumes_no_trial() {
    // The trial was superseded by a revision that became current at once.
    let fixture = on_trial();
    fixture.backend.delete(&fixture.original()).unwrap();
    fixture.ingest(Intent::Upgrade, "linux").unwrap();
    assert_eq!(current(&fixture), Revision(4));
    fixture
        .volume
        .roll_back(&linux(), Some(Revision(2)))
        .unwrap();
    assert_eq!(
        (current(&fixture), candidate(&fixture)),
        (Revision(2), None)
    );

    // The promotion was interrupted.
    let fixture = on_trial();
    fixture.backend.set_fuse(Some(5));
    fixture.volume.promote(&linux(), CANDIDATE, "").unwrap_err();
    fixture.backend.set_fuse(None);
    let view = fixture.volume.view(&linux()).unwrap();
    assert_eq!(view.unfinished_promotion(), Some(CANDIDATE));
    fixture
        .volume
        .roll_back(&linux(), Some(Revision(2)))
        .unwrap();
    assert_eq!(
        (current(&fixture), candidate(&fixture)),
        (Revision(2), None)
    );
}

#[test]
fn the_first_revision_of_a_machine_has_no_trial() {
    let fixture = Fixture::new();
    let source = Source::Subvolume(fixture.original());
    let publication = Publication {
        note: None,
        trial: Some(Decider::Host("1 of 1".parse().unwrap())),
    };
    let other: MachineName = "other".parse().unwrap();
    fixture
        .volume
        .ingest_with(Intent::Add, &other, source, publication)
        .unwrap();
    let view = fixture.volume.view(&other).unwrap();
    assert_eq!((view.current, view.trials.len()), (Some(Revision(1)), 0));
}

#[test]
fn a_trial_that_cannot_be_read_has_ended() {
    let fixture = on_trial();
    let path = fixture
        .volume
        .directory(&linux())
        .join(".buildhost.canary-3.json");
    sys::file::replace(&path, b"{").unwrap();
    assert_eq!(candidate(&fixture), None);
    let error = fixture.volume.promote(&linux(), CANDIDATE, "").unwrap_err();
    let expected = TrialRefusal::NotOnTrial(linux(), CANDIDATE).to_string();
    assert_eq!(error.to_string(), expected);
    let deleted = fixture
        .volume
        .delete(&linux(), Duration::ZERO, false)
        .unwrap();
    assert_eq!(deleted.unmanaged, Vec::<String>::new());
    assert!(!fixture.volume.directory(&linux()).exists());
}

fn of_farm(number: u64) -> FarmTrial {
    FarmTrial {
        controller: "ci".parse().unwrap(),
        number,
    }
}

#[test]
fn a_farm_adopts_the_trial_of_a_host_with_its_images() {
    let fixture = on_trial();
    let adopt = |number| {
        let volume = &fixture.volume;
        volume.adopt_trial(&linux(), CANDIDATE, of_farm(number))
    };
    adopt(1).unwrap();
    let view = fixture.volume.view(&linux()).unwrap();
    let (_, trial) = view.candidate().unwrap();
    assert_eq!(trial.decider(), Decider::Farm(of_farm(1)));
    assert_eq!(view.trial_image(&"default".parse().unwrap()), {
        let made = view.trial_images.first();
        made.map(|(_, image)| image)
    });
    let state = view.state(None);
    assert!(state.ends_with("on trial (farm ci decides)"), "{state}");
    // A revision that was rolled back is tried again, in a trial of its own.
    fixture.volume.reject(&linux(), CANDIDATE, "bad").unwrap();
    assert_eq!(candidate(&fixture), None);
    adopt(2).unwrap();
    assert_eq!(candidate(&fixture), Some(CANDIDATE));
    let view = fixture.volume.view(&linux()).unwrap();
    let ci = "ci".parse().unwrap();
    assert_eq!(view.trial_of_farm(&ci), Some((CANDIDATE, &of_farm(2))));
    assert_eq!(view.trial_of_farm(&"other".parse().unwrap()), None);
    fixture.volume.promote(&linux(), CANDIDATE, "good").unwrap();
    let refused = adopt(3).unwrap_err().to_string();
    assert!(
        refused.contains("not newer") || refused.contains("newer"),
        "{refused}"
    );
}

#[test]
fn a_change_by_a_person_says_that_the_trial_of_a_farm_goes_on() {
    let fixture = on_trial();
    let step = |change| fixture.volume.plan_change(&linux(), change).unwrap();
    let said = |change| step(change).report(Change::Changed);
    let elsewhere = "on this host; the trial of farm ci goes on elsewhere";
    let (promote, reject) = (MachineChange::Promote, MachineChange::Reject);
    assert!(!said(promote).contains("farm"));
    let volume = &fixture.volume;
    volume.adopt_trial(&linux(), CANDIDATE, of_farm(1)).unwrap();
    for change in [promote, reject, MachineChange::RollBack(None)] {
        assert!(said(change).ends_with(elsewhere), "{}", said(change));
        assert!(step(change).plan(&linux()).ends_with(elsewhere));
    }
}

#[test]
fn a_machine_without_a_current_revision_gets_no_trial_of_a_farm() {
    let fixture = Fixture::new();
    let name = "other".parse().unwrap();
    let publication = Publication {
        note: None,
        trial: Some(Decider::Farm(of_farm(1))),
    };
    let source = Source::Subvolume(fixture.original());
    let refused = fixture
        .volume
        .ingest_with(Intent::Add, &name, source, publication);
    assert!(refused.is_err());
    let view = fixture.volume.view(&name);
    assert!(view.is_ok_and(|it| it.current.is_none()) || fixture.volume.view(&name).is_err());
}
