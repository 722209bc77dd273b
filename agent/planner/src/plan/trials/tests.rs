//! The verdicts on candidates, and the builds and images that trials lead to.

use std::collections::BTreeMap;
use std::time::Duration;

use config::canary::{FarmTrial, Terms, Trial, TrialBuild, TrialResult};
use config::task::{Digest, Outcome};
use config::{MachineName, ToolchainName};
use jiff::Timestamp;
use store::{Located, Uuid, VolumeId};

use super::super::{Capacity, PlannedStart, QueuedBuild};
use super::*;
use crate::durations::ExpectedDuration;
use crate::plan::tests::revision;

fn terms(text: &str) -> Terms {
    text.parse().unwrap()
}

/// Returns a build that runs on the candidate, or has succeeded there.
fn tried(succeeded: bool) -> TrialBuild {
    TrialBuild {
        id: BuildId(1),
        target: "hello".to_owned(),
        result: succeeded.then_some(TrialResult::Succeeded),
        outcome: succeeded.then_some(Outcome::Success),
    }
}

fn machine() -> MachineName {
    "linux".parse().unwrap()
}

fn toolchain() -> ToolchainName {
    "default".parse().unwrap()
}

fn key_of_linux() -> ImageKey {
    ImageKey {
        machine: machine(),
        toolchain: toolchain(),
    }
}

fn image(inputs: Provenance, number: u8) -> ImageView {
    ImageView {
        toolchain: toolchain(),
        uuid: Uuid::from_bytes([number; 16]),
        complete: true,
        provenance: Some(inputs),
    }
}

/// Observes a machine with revision 1, its image, and revision 2 on trial.
fn on_trial(text: &str) -> Observed {
    let mut view = MachineView::new(machine());
    view.current = Some(Revision(1));
    view.revisions = vec![revision(1, true), revision(2, true)];
    let trial = Trial {
        terms: terms(text),
        since: Timestamp::UNIX_EPOCH,
        revision_uuid: revision(2, true).uuid.to_string(),
        end: None,
        farm: None,
    };
    view.trials = [(Revision(2), trial)].into();
    let located = Located {
        volume: VolumeId(0),
        view,
    };
    let digest: Digest = "a".repeat(64).parse().unwrap();
    let mut observed = Observed {
        machines: [(machine(), located)].into(),
        toolchains: [(toolchain(), digest)].into(),
        capacity: Capacity {
            guests: Some(20),
            cpus: 64,
            memory: 4096,
            available: 1 << 20,
            disk: BTreeMap::new(),
            counts: BTreeMap::new(),
            pressure: None,
        },
        newest_build: Some(BuildId(100)),
        ..Observed::default()
    };
    let inputs = observed.inputs(&key_of_linux()).unwrap();
    view_of(&mut observed).images = vec![image(inputs, 11)];
    observed
}

fn view_of(observed: &mut Observed) -> &mut MachineView {
    &mut observed.machines.get_mut(&machine()).unwrap().view
}

/// Observes the same machine with an image of revision 2.
fn ready(text: &str) -> Observed {
    let mut observed = on_trial(text);
    let (_, inputs) = observed.trial_inputs(&key_of_linux()).unwrap();
    view_of(&mut observed).trial_images = vec![(Revision(2), image(inputs, 12))];
    observed
}

fn queued(id: u64) -> QueuedBuild {
    QueuedBuild {
        id: BuildId(id),
        key: key_of_linux(),
        submitter: config::builds::Submitter::root(),
        priority: config::builds::Priority(0),
        since: Timestamp::UNIX_EPOCH,
        backoff: None,
        after: Vec::new(),
        message: String::new(),
        resources: config::builds::Resources::default(),
        auxiliaries: Vec::new(),
        may_be_on_trial: true,
        granted_trial: None,
    }
}

/// Returns the builds that a plan starts, on the current revision and on the candidate.
fn started(observed: &Observed) -> (Vec<u64>, Vec<u64>) {
    let (mut current, mut on_trial) = (Vec::new(), Vec::new());
    for action in observed.plan() {
        if let Action::StartBuild(start) = action {
            let image = start.image.unwrap().as_bytes()[0];
            assert_eq!(image, if start.trial.is_some() { 12 } else { 11 });
            let builds = if start.trial.is_some() {
                &mut on_trial
            } else {
                &mut current
            };
            builds.push(start.id.0);
        }
    }
    (current, on_trial)
}

#[test]
fn a_forecast_passes_over_trials() {
    let durations = (1..=3).map(|id| {
        let expected = ExpectedDuration {
            duration: Duration::from_mins(1),
            builds: 5,
            same_package: true,
        };
        (BuildId(id), expected)
    });
    let durations = durations.collect();
    let mut observed = on_trial("2 of 2");
    observed.capacity.guests = Some(1);
    observed.queue = (1..=3).map(queued).collect();
    let starts = |observed: &Observed| -> Vec<_> {
        let forecast = observed.forecast(&durations, observed.now);
        let start = |it: &PlannedStart| (it.id.0, it.at.as_second());
        forecast.iter().map(start).collect()
    };
    assert_eq!(starts(&observed), [(1, 0), (2, 60), (3, 120)]);
    // The image of the candidate is being made.
    let (_, inputs) = observed.trial_inputs(&key_of_linux()).unwrap();
    let images = &mut observed.jobs.images;
    images.insert(key_of_linux(), inputs);
    assert_eq!(starts(&observed), [(1, 0), (2, 60), (3, 120)]);
}

#[test]
fn the_image_of_a_candidate_is_made_while_builds_run_on_the_current_revision() {
    let mut observed = on_trial("2 of 2");
    observed.queue = vec![queued(1)];
    let actions = observed.plan();
    let made = actions.iter().find_map(|action| match action {
        Action::StartBootstrap(start) => Some((start.candidate, start.inputs.clone())),
        _ => None,
    });
    assert_eq!(
        made,
        Some(
            observed
                .trial_inputs(&key_of_linux())
                .map(|(it, inputs)| (Some(it), inputs))
                .unwrap()
        )
    );
    assert_eq!(started(&observed), (vec![1], vec![]));
    // It is not made twice, and continues.
    let (_, inputs) = observed.trial_inputs(&key_of_linux()).unwrap();
    observed.jobs.images.insert(key_of_linux(), inputs);
    let jobs = |it: &Action| matches!(it, Action::StartBootstrap(_) | Action::CancelBootstrap(_));
    assert!(!observed.plan().iter().any(jobs));
    // It ends with the trial.
    view_of(&mut observed).trials.clear();
    assert_eq!(observed.plan()[0], Action::CancelBootstrap(key_of_linux()));
}

#[test]
fn the_agreed_number_of_builds_runs_on_a_candidate() {
    let mut observed = ready("2 of 2");
    observed.queue = (1..=5).map(queued).collect();
    assert_eq!(started(&observed), (vec![3, 4, 5], vec![1, 2]));
    // Retries, and builds that a person attends, run on the current revision.
    observed.queue[0].may_be_on_trial = false;
    assert_eq!(started(&observed), (vec![1, 4, 5], vec![2, 3]));
    let running = vec![tried(false)];
    observed.trial_builds.insert(machine(), running);
    assert_eq!(started(&observed), (vec![1, 3, 4, 5], vec![2]));
    // A build that has just been started may be the one that is needed.
    observed.trial_builds.clear();
    observed.jobs.builds.insert(BuildId(9), key_of_linux());
    let starting = super::super::RunningBuild {
        submitter: config::builds::Submitter::root(),
        since: Timestamp::UNIX_EPOCH,
        may_be_on_trial: true,
    };
    observed.running.insert(BuildId(9), starting);
    assert_eq!(started(&observed), (vec![1, 3, 4, 5], vec![2]));
    observed.running.clear();
    // Without its image nothing waits for it.
    view_of(&mut observed).trial_images.clear();
    assert_eq!(started(&observed), (vec![1, 2, 3, 4, 5], vec![]));
}

#[test]
fn about_the_agreed_share_of_builds_runs_on_a_candidate() {
    let mut observed = ready("20 of 100");
    observed.queue = (1..=20).map(queued).collect();
    let (current, on_trial) = started(&observed);
    assert!((1..=8).contains(&on_trial.len()), "{on_trial:?}");
    assert_eq!(current.len() + on_trial.len(), 20);
}

fn end(observed: &Observed) -> Option<(TrialVerdict, String)> {
    observed.plan().into_iter().find_map(|action| match action {
        Action::EndTrial {
            verdict, reason, ..
        } => Some((verdict, reason)),
        _ => None,
    })
}

#[test]
fn a_decided_trial_ends_and_no_build_starts_on_it() {
    let mut observed = ready("1 of 1");
    observed.queue = vec![queued(7)];
    assert_eq!(end(&observed), None);
    observed.trial_builds.insert(machine(), vec![tried(true)]);
    assert_eq!(end(&observed).unwrap().0, TrialVerdict::Promoted);
    assert_eq!(started(&observed), (vec![7], vec![]));
    // The other toolchains are tried first.
    let other: ToolchainName = "other".parse().unwrap();
    let digest: Digest = "b".repeat(64).parse().unwrap();
    observed.toolchains.insert(other.clone(), digest);
    let other_key = ImageKey {
        toolchain: other.clone(),
        ..key_of_linux()
    };
    let inputs = observed.inputs(&other_key).unwrap();
    let of_other = ImageView {
        toolchain: other,
        ..image(inputs, 13)
    };
    view_of(&mut observed).images.push(of_other);
    assert_eq!(end(&observed), None);
}

#[test]
fn a_bootstrap_that_fails_on_the_candidate_only_rolls_it_back() {
    let mut observed = on_trial("1 of 1");
    let (_, inputs) = observed.trial_inputs(&key_of_linux()).unwrap();
    let failure = BootstrapFailure {
        inputs,
        attempts: 1,
        message: "no shell".to_owned(),
    };
    observed.bootstrap_failures.insert(key_of_linux(), failure);
    let (verdict, reason) = end(&observed).unwrap();
    assert_eq!(verdict, TrialVerdict::RolledBack);
    assert_eq!(
        reason,
        "its bootstrap with toolchain default failed: no shell"
    );
    // It may be tried again first.
    observed.retries_max = 1;
    assert_eq!(end(&observed), None);
    observed.retries_max = 0;
    // Without an image of the current revision there is nothing to compare it with.
    view_of(&mut observed).images.clear();
    assert_eq!(end(&observed), None);
}

#[test]
fn an_interrupted_promotion_is_finished_before_images_are_made() {
    let mut observed = ready("1 of 1");
    view_of(&mut observed).current = Some(Revision(2));
    assert_eq!(end(&observed).unwrap().0, TrialVerdict::Promoted);
    assert_eq!(observed.plan().len(), 1, "{:?}", observed.plan());
}

#[test]
fn the_images_of_an_ended_trial_are_deleted() {
    let mut observed = ready("1 of 1");
    view_of(&mut observed).trials.clear();
    let deleted = Action::DeleteTrialImage(VolumeId(0), key_of_linux(), Revision(2));
    assert_eq!(observed.plan(), [deleted]);
}

/// Observes the same machine, and a farm decides.
fn ready_for_farm() -> Observed {
    let mut observed = ready("1 of 1");
    let trial = view_of(&mut observed).trials.get_mut(&Revision(2));
    trial.unwrap().farm = Some(FarmTrial {
        controller: "ci".parse().unwrap(),
        number: 7,
    });
    observed
}

#[test]
fn a_farm_decides_its_trial_and_places_builds_on_it() {
    let mut observed = ready_for_farm();
    observed.queue = vec![queued(1)];
    assert_eq!(started(&observed), (vec![1], vec![]), "none of this host");
    let granted = |id, revision| QueuedBuild {
        may_be_on_trial: false,
        granted_trial: Some(Revision(revision)),
        ..queued(id)
    };
    observed.queue.push(granted(2, 2));
    assert_eq!(started(&observed), (vec![1], vec![2]));
    observed.trial_builds.insert(machine(), vec![tried(true)]);
    assert_eq!(end(&observed), None, "no verdict of this host");
    assert_eq!(observed.trials()[0].farm, "ci".parse().ok());
    // Nor if its bootstrap fails.
    view_of(&mut observed).trial_images.clear();
    let (_, inputs) = observed.trial_inputs(&key_of_linux()).unwrap();
    let failure = BootstrapFailure {
        inputs,
        attempts: 1,
        message: "no shell".to_owned(),
    };
    observed.bootstrap_failures.insert(key_of_linux(), failure);
    assert_eq!(end(&observed), None);
    let offered = observed.host_state().machines.remove(&machine()).unwrap();
    let candidate = offered.candidate.unwrap();
    assert!(candidate.toolchains.is_empty());
    assert_eq!(candidate.failures[&toolchain()], "no shell");
}

#[test]
fn a_build_that_was_granted_for_a_candidate_runs_nowhere_else() {
    let granted = |revision| QueuedBuild {
        may_be_on_trial: false,
        granted_trial: Some(Revision(revision)),
        ..queued(1)
    };
    let given_back = |observed: &Observed| {
        let plan = observed.plan();
        assert!(!plan.iter().any(|it| matches!(it, Action::StartBuild(_))));
        plan.into_iter().find_map(|action| match action {
            Action::GiveBack(BuildId(1), reason) => Some(reason),
            _ => None,
        })
    };
    let mut observed = ready_for_farm();
    observed.queue = vec![granted(3)];
    let reason = "revision 3 of linux is not on trial here any more";
    assert_eq!(given_back(&observed).as_deref(), Some(reason));
    observed.queue = vec![granted(2)];
    assert_eq!(started(&observed), (vec![], vec![1]));
    view_of(&mut observed).trial_images.clear();
    let reason = "revision 2 of linux has no image with toolchain default here";
    assert_eq!(given_back(&observed).as_deref(), Some(reason));
    view_of(&mut observed).trials.clear();
    assert!(given_back(&observed).unwrap().contains("any more"));
}

#[test]
fn a_farm_is_told_of_each_candidate_and_its_images() {
    let candidate = |observed: &Observed| {
        let mut machines = observed.host_state().machines;
        machines.remove(&machine()).unwrap().candidate
    };
    for mut observed in [ready("1 of 1"), ready_for_farm()] {
        let offered = candidate(&observed).unwrap();
        assert_eq!(offered.revision, Revision(2));
        assert_eq!(offered.toolchains, [toolchain()].into());
        assert!(offered.failures.is_empty());
        view_of(&mut observed).trials.clear();
        assert_eq!(candidate(&observed), None);
    }
}
