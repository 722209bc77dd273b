//! Trials of new revisions: the builds that run on the candidate, and the end of the trial.

use config::builds::{StartKind, TrialStatus};
use config::canary::{Evidence, TrialRun, TrialVerdict};
use config::task::{BOOTSTRAP_VERSION, Provenance};
use config::{BuildId, ImageKey, Revision};
use store::{ImageView, MachineView};

use super::{Action, BootstrapFailure, BuildStart, Observed, QueuedBuild, key};

impl Observed {
    fn evidence(&self, view: &MachineView) -> Option<Evidence<'_>> {
        let (_, trial) = view.candidate()?;
        let builds = self.trial_builds.get(&view.name);
        let builds = builds.map_or(&[][..], Vec::as_slice);
        let mut evidence = Evidence::new(trial.terms, builds);
        // Their records do not say yet that they run on the candidate.
        let starting = self.jobs.builds.iter().filter(|(id, key)| {
            let running = self.running.get(id);
            key.machine == view.name
                && trial.terms.select(**id)
                && running.is_some_and(|it| it.may_be_on_trial)
        });
        evidence.running += starting.count();
        Some(evidence)
    }

    /// Returns the states of the trials.
    pub fn trials(&self) -> Vec<TrialStatus> {
        let views = self.machines.values().map(|state| &state.view);
        let status = |view: &MachineView| {
            let ((candidate, trial), evidence) = (view.candidate()?, self.evidence(view)?);
            Some(TrialStatus {
                machine: view.name.clone(),
                revision: candidate.revision,
                terms: trial.terms,
                since: trial.since,
                succeeded: evidence.succeeded,
                needed: evidence.needed(),
                strikes: evidence.strikes.len(),
                running: evidence.running,
                repeating: evidence.repeating,
                farm: trial.farm.as_ref().map(|it| it.controller.clone()),
            })
        };
        views.filter_map(status).collect()
    }

    /// Returns the verdicts on candidates, and the ends of interrupted promotions.
    pub(super) fn end_trials(&self) -> Vec<Action> {
        let machines = self.machines.values();
        let ends = machines.filter_map(|state| {
            let view = &state.view;
            let (revision, (verdict, reason)) = match view.unfinished_promotion() {
                Some(revision) => {
                    let reason = "it was made current".to_owned();
                    (revision, (TrialVerdict::Promoted, reason))
                }
                None => (view.candidate()?.0.revision, self.verdict(view)?),
            };
            Some(Action::EndTrial {
                volume: state.volume,
                machine: view.name.clone(),
                revision,
                verdict,
                reason,
            })
        });
        ends.collect()
    }

    /// Returns the verdict on the candidate of a machine; `None` if a farm decides. It is promoted with
    /// all images that it replaces, so that no toolchain is tested after the promotion only.
    fn verdict(&self, view: &MachineView) -> Option<(TrialVerdict, String)> {
        let (_, trial) = view.candidate()?;
        if trial.farm.is_some() {
            return None;
        }
        let keys = || self.toolchains.keys().map(|toolchain| key(view, toolchain));
        let failed = keys().find_map(|key| {
            let failure = self.final_trial_failure(&key)?;
            Some((key.toolchain, failure.message.clone()))
        });
        if let Some((toolchain, message)) = failed {
            let reason = format!("its bootstrap with toolchain {toolchain} failed: {message}");
            return Some((TrialVerdict::RolledBack, reason));
        }
        let verdict = self.evidence(view)?.verdict(view.current?)?;
        let lacks_images = keys().any(|key| self.needs_trial_image(&key));
        (verdict.0 == TrialVerdict::RolledBack || !lacks_images).then_some(verdict)
    }

    /// Returns the inputs of the image of a candidate.
    pub(super) fn trial_inputs(&self, key: &ImageKey) -> Option<(Revision, Provenance)> {
        let (candidate, _) = self.machines.get(&key.machine)?.view.candidate()?;
        let inputs = Provenance {
            revision_uuid: candidate.uuid.to_string(),
            toolchain_id: self.toolchains.get(&key.toolchain)?.clone(),
            bootstrap_version: BOOTSTRAP_VERSION,
        };
        Some((candidate.revision, inputs))
    }

    /// Returns the image of a candidate, if it is up to date.
    pub(super) fn trial_image(&self, key: &ImageKey) -> Option<&ImageView> {
        let (_, inputs) = self.trial_inputs(key)?;
        let image = self
            .machines
            .get(&key.machine)?
            .view
            .trial_image(&key.toolchain)?;
        let is_ready = image.complete && image.provenance.as_ref() == Some(&inputs);
        is_ready.then_some(image)
    }

    /// Returns true if the image of a candidate is missing, and the current revision has one. A
    /// toolchain that the current revision lacks, too, says nothing about the candidate.
    pub(super) fn needs_trial_image(&self, key: &ImageKey) -> bool {
        let made = self.image(key).and_then(|image| image.provenance.as_ref());
        let is_comparable = made.is_some() && made == self.inputs(key).as_ref();
        is_comparable && self.trial_inputs(key).is_some() && self.trial_image(key).is_none()
    }

    /// Returns the failure of the bootstrap of a candidate that is not retried any more.
    pub(super) fn final_trial_failure(&self, key: &ImageKey) -> Option<&BootstrapFailure> {
        let failure = self.bootstrap_failures.get(key)?;
        let (_, inputs) = self.trial_inputs(key)?;
        let is_final = failure.inputs == inputs && failure.attempts > self.retries_max;
        (is_final && self.needs_trial_image(key)).then_some(failure)
    }

    /// Returns the reason for which a build cannot run on the revision on trial that it was granted for.
    pub(super) fn trial_fault(&self, queued: &QueuedBuild) -> Option<String> {
        let (revision, ImageKey { machine, toolchain }) = (queued.granted_trial?, &queued.key);
        let candidate = self.trial_inputs(&queued.key);
        if candidate.is_none_or(|(candidate, _)| candidate != revision) {
            return Some(format!(
                "revision {revision} of {machine} is not on trial here any more"
            ));
        }
        let lacks_image = self.trial_image(&queued.key).is_none();
        lacks_image.then(|| {
            format!("revision {revision} of {machine} has no image with toolchain {toolchain} here")
        })
    }

    /// Lets starting builds run on candidates: those that were granted for them, and the agreed share of
    /// others, as far as the verdicts of this host need more builds.
    pub(super) fn route_to_candidates(&self, actions: &mut [Action]) {
        for state in self.machines.values() {
            let view = &state.view;
            let (Some((candidate, trial)), Some(evidence)) =
                (view.candidate(), self.evidence(view))
            else {
                continue;
            };
            let run = TrialRun {
                revision: candidate.revision,
                since: trial.since,
                result: None,
            };
            let (granted, others): (Vec<_>, Vec<_>) = actions
                .iter_mut()
                .filter_map(|action| match action {
                    Action::StartBuild(start) if start.key.machine == view.name => Some(start),
                    _ => None,
                })
                .partition(|start| self.is_granted(start.id, candidate.revision));
            for start in granted {
                if let Some(image) = self.trial_image(&start.key) {
                    put_on_trial(start, image, &run);
                }
            }
            if trial.farm.is_some() || self.verdict(view).is_some() {
                continue;
            }
            let others = others.into_iter();
            others
                .filter(|start| trial.terms.select(start.id) && self.may_be_on_trial(start.id))
                .filter_map(|start| Some((self.trial_image(&start.key)?, start)))
                .take(evidence.vacancies())
                .for_each(|(image, start)| put_on_trial(start, image, &run));
        }
    }

    /// Returns true if a queued build may run on a candidate: the first attempt of a build that
    /// nobody waits for at a console or a hold.
    fn may_be_on_trial(&self, id: BuildId) -> bool {
        let queued = self.queue.iter().find(|it| it.id == id);
        queued.is_some_and(|it| it.may_be_on_trial)
    }

    /// Returns true if a queued build was granted for a revision on trial.
    fn is_granted(&self, id: BuildId, revision: Revision) -> bool {
        let queued = self.queue.iter().find(|it| it.id == id);
        queued.is_some_and(|it| it.granted_trial == Some(revision))
    }

    /// Returns the images that were made for trials that have ended.
    pub(super) fn obsolete_trial_images(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for state in self.machines.values().filter(|state| !state.view.deleting) {
            for (revision, image) in state.view.obsolete_trial_images() {
                let key = key(&state.view, &image.toolchain);
                actions.push(Action::DeleteTrialImage(state.volume, key, revision));
            }
        }
        actions
    }
}

fn put_on_trial(start: &mut BuildStart, image: &ImageView, run: &TrialRun) {
    start.image = Some(image.uuid);
    // A restore would test the checkpoint, not the revision.
    start.start = StartKind::Cold;
    start.trial = Some(run.clone());
}

#[cfg(test)]
mod tests;
