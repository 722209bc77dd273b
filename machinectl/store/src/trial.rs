//! Trials of new revisions. A file beside the revision says that it is on trial, on which terms,
//! and how the trial has ended. Until then the current link stays as it is.

use config::canary::{Decider, FarmTrial, Terms, Trial, TrialEnd, TrialVerdict};
use config::layout::Entry;
use config::{ControllerName, MachineName, Revision, ToolchainName};
use jiff::Timestamp;

use crate::ingest::IngestRefusal;
use crate::{
    ImageView, MachineRefusal, MachineView, Refusal, RefusalKind, Result, RevisionView, Volume,
};
use btrfs::error::IoContext;

/// The maximum size of a trial's file, in bytes.
const BYTES_MAX: u64 = 64 << 10;
/// The maximum number of characters of a reason.
const CHARACTERS_MAX: usize = 2000;

/// The refusal to decide a trial.
#[derive(Debug, thiserror::Error)]
pub enum TrialRefusal {
    /// The revision is not on trial.
    #[error("revision {1} of `{0}` is not on trial; `buildhost status {0}` shows its revisions")]
    NotOnTrial(MachineName, Revision),
    /// No revision is on trial.
    #[error("no revision of `{0}` is on trial; `buildhost upgrade --canary` puts one on trial")]
    NoTrial(MachineName),
}

impl Refusal for TrialRefusal {
    fn kind(&self) -> RefusalKind {
        RefusalKind::NotFound
    }
}

impl MachineView {
    /// Returns the newest trial of the machine, decided or not.
    fn newest_trial(&self) -> Option<(&RevisionView, &Trial)> {
        let trials = self.trials.iter();
        let (revision, trial) = trials.max_by_key(|(revision, trial)| (trial.since, **revision))?;
        let view = self.revision(*revision).filter(|it| it.complete)?;
        (view.uuid.to_string() == trial.revision_uuid).then_some((view, trial))
    }

    /// Returns the candidate: the revision on trial, if the trial is not decided. Only the newest
    /// trial counts, and only for a revision that is newer than the current one.
    pub fn candidate(&self) -> Option<(&RevisionView, &Trial)> {
        let (view, trial) = self.newest_trial()?;
        let is_newer = !self.deleting && Some(view.revision) > self.current && self.is_live();
        (trial.end.is_none() && is_newer).then_some((view, trial))
    }

    /// Returns the current revision if its trial has no end yet: its promotion was interrupted, or
    /// a person has changed the link.
    pub fn unfinished_promotion(&self) -> Option<Revision> {
        let (view, trial) = self.newest_trial()?;
        (trial.end.is_none() && self.current == Some(view.revision)).then_some(view.revision)
    }

    /// Returns the image of the candidate for a toolchain.
    pub fn trial_image(&self, toolchain: &ToolchainName) -> Option<&ImageView> {
        let candidate = self.candidate()?.0.revision;
        let mut images = self.trial_images.iter();
        let found =
            images.find(|(revision, it)| *revision == candidate && it.toolchain == *toolchain);
        found.map(|(_, image)| image)
    }

    /// Returns the images that no trial needs any more.
    pub fn obsolete_trial_images(&self) -> impl Iterator<Item = (Revision, &ImageView)> {
        let candidate = self.candidate().map(|(view, _)| view.revision);
        let used = candidate.or(self.unfinished_promotion());
        let images = self.trial_images.iter();
        images
            .filter(move |(revision, image)| Some(*revision) != used || !image.complete)
            .map(|(revision, image)| (*revision, image))
    }

    /// Returns the revision if it is on trial.
    pub(crate) fn require_candidate(&self, revision: Revision) -> Result<&RevisionView> {
        let candidate = self.candidate().map(|(view, _)| view);
        let candidate = candidate.filter(|it| it.revision == revision);
        candidate.ok_or_else(|| TrialRefusal::NotOnTrial(self.name.clone(), revision).into())
    }

    /// Returns the last trial of the machine that a farm has asked for, with its revision.
    pub fn trial_of_farm(&self, farm: &ControllerName) -> Option<(Revision, &FarmTrial)> {
        let trials = self.trials.iter();
        let of_farm = trials.filter_map(|(revision, it)| Some((*revision, it.farm.as_ref()?)));
        of_farm
            .filter(|(_, it)| it.controller == *farm)
            .max_by_key(|(_, it)| it.number)
    }

    /// Returns the revision on trial.
    ///
    /// # Errors
    /// No revision is on trial.
    pub fn require_trial(&self) -> Result<Revision> {
        let candidate = self.candidate().map(|(view, _)| view.revision);
        candidate.ok_or_else(|| TrialRefusal::NoTrial(self.name.clone()).into())
    }
}

impl Volume {
    /// Makes a revision on trial the current one, with the images that were made for the trial.
    /// Continues an interrupted promotion.
    ///
    /// A crash leaves the trial as it was, or a current revision whose promotion is continued.
    ///
    /// # Errors
    /// The revision is not on trial.
    pub fn promote(&self, machine: &MachineName, revision: Revision, reason: &str) -> Result<()> {
        let _lock = self.lock(machine)?;
        let view = self.view(machine)?;
        if view.unfinished_promotion() != Some(revision) {
            view.require_candidate(revision)?;
        }
        self.promote_locked(&view, revision, reason)
    }

    /// Promotes a revision. The caller holds the lock.
    pub(crate) fn promote_locked(
        &self,
        view: &MachineView,
        revision: Revision,
        reason: &str,
    ) -> Result<()> {
        let machine = &view.name;
        if view.current != Some(revision) {
            self.publish_revision(machine, revision)?;
        }
        for (_, image) in view.trial_images.iter().filter(|(of, _)| *of == revision) {
            self.promote_image(view, revision, image)?;
        }
        // The last step: the file says that the promotion is not finished.
        self.end_trial(view, revision, TrialVerdict::Promoted, reason)?;
        self.commit()
    }

    /// Puts the image of a promoted revision in the place of the machine's image. The caller holds
    /// the lock.
    fn promote_image(
        &self,
        view: &MachineView,
        revision: Revision,
        image: &ImageView,
    ) -> Result<()> {
        let toolchain = &image.toolchain;
        let path = self.entry(&view.name, &Entry::TrialImage(revision, toolchain.clone()));
        let trial = view.trials.get(&revision);
        let made_from = image.provenance.as_ref().map(|it| &it.revision_uuid);
        if image.complete && made_from == trial.map(|it| &it.revision_uuid) {
            let serving = self.entry(&view.name, &Entry::Image(toolchain.clone()));
            return self.replace_image(&path, &serving);
        }
        // An interrupted promotion has exchanged it: this is the image that served before.
        self.delete_subvolume(&path).map(drop)
    }

    /// Ends the trial of a revision for a reason. The current revision stays, and so do the builds
    /// that run on the candidate.
    ///
    /// # Errors
    /// The revision is not on trial.
    pub fn reject(&self, machine: &MachineName, revision: Revision, reason: &str) -> Result<()> {
        let _lock = self.lock(machine)?;
        let view = self.view(machine)?;
        view.require_candidate(revision)?;
        self.end_trial(&view, revision, TrialVerdict::RolledBack, reason)?;
        for (of, image) in view.trial_images.iter().filter(|(of, _)| *of == revision) {
            let image = Entry::TrialImage(*of, image.toolchain.clone());
            let path = self.entry(machine, &image);
            self.delete_subvolume(&path)?;
        }
        self.commit()
    }

    /// Puts a revision that is here already on trial for a farm, which decides it from then on.
    ///
    /// # Errors
    /// The revision is not complete or not newer than the current one, or the machine has none or is
    /// being deleted.
    pub fn adopt_trial(
        &self,
        machine: &MachineName,
        revision: Revision,
        trial: FarmTrial,
    ) -> Result<()> {
        let _lock = self.lock(machine)?;
        let view = self.view(machine)?;
        if view.deleting {
            return Err(MachineRefusal::Deleting(machine.clone()).into());
        }
        let current = view.require_current()?.revision;
        view.require_complete(revision)?;
        if revision <= current {
            let machine = machine.clone();
            return Err(IngestRefusal::NotNewer {
                machine,
                revision,
                current,
            }
            .into());
        }
        self.begin_trial(&view, revision, Decider::Farm(trial))?;
        self.commit()
    }

    /// Puts a complete revision on trial. The caller holds the lock, and commits.
    pub(crate) fn begin_trial(
        &self,
        view: &MachineView,
        revision: Revision,
        decider: Decider,
    ) -> Result<()> {
        // The content must be on the disk before a guest may use it.
        self.commit()?;
        let uuid = self.revision_uuid(view, revision)?;
        let earlier = view.trials.values().map(|it| it.since).max();
        let after_earlier =
            earlier.and_then(|it| it.checked_add(jiff::Span::new().nanoseconds(1)).ok());
        let (terms, farm) = match decider {
            Decider::Host(terms) => (terms, None),
            Decider::Farm(trial) => (Terms::default(), Some(trial)),
        };
        let trial = Trial {
            terms,
            since: after_earlier.map_or(Timestamp::now(), |it| it.max(Timestamp::now())),
            revision_uuid: uuid,
            end: None,
            farm,
        };
        self.write_trial(&view.name, revision, &trial)?;
        let arriving = self.entry(&view.name, &Entry::Arriving(revision));
        self.backend
            .unlink(&arriving)
            .context("remove", &arriving)
            .map(drop)
    }

    fn revision_uuid(&self, view: &MachineView, revision: Revision) -> Result<String> {
        let path = self.entry(&view.name, &Entry::Revision(revision));
        let subvolume = self.backend.info(&path).context("inspect", &path)?;
        let refusal = || crate::MachineRefusal::NoRevision(view.name.clone(), revision);
        Ok(subvolume.ok_or_else(refusal)?.uuid.to_string())
    }

    /// Records the end of a trial. The caller holds the lock, and commits.
    pub(crate) fn end_trial(
        &self,
        view: &MachineView,
        revision: Revision,
        verdict: TrialVerdict,
        reason: &str,
    ) -> Result<()> {
        let refusal = || TrialRefusal::NotOnTrial(view.name.clone(), revision);
        let trial = view.trials.get(&revision).ok_or_else(refusal)?;
        let end = TrialEnd {
            verdict,
            reason: reason.chars().take(CHARACTERS_MAX).collect(),
            at: Timestamp::now(),
        };
        let trial = Trial {
            end: Some(end),
            ..trial.clone()
        };
        self.write_trial(&view.name, revision, &trial)
    }

    fn write_trial(&self, machine: &MachineName, revision: Revision, trial: &Trial) -> Result<()> {
        let path = self.entry(machine, &Entry::Trial(revision));
        let text = serde_json::to_vec(trial).map_err(std::io::Error::other);
        let written = text.and_then(|it| self.backend.write(&path, &it));
        written.context("write", &path)
    }

    /// Reads the trial of a revision. One that cannot be read has ended: nothing may run on its
    /// revision.
    pub(crate) fn read_trial(&self, machine: &MachineName, revision: Revision) -> Trial {
        let directory = self.directory(machine);
        let name = Entry::Trial(revision).name(machine);
        let text = sys::untrusted::read_text(&directory, name, BYTES_MAX).ok();
        let trial = text.and_then(|it| serde_json::from_str(&it).ok());
        trial.unwrap_or_else(unreadable)
    }

    /// Returns true if a revision is on trial, or if its trial has rolled it back: only a person
    /// brings it in again.
    pub fn was_tried(&self, machine: &MachineName, revision: Revision) -> bool {
        let view = self.view(machine).ok();
        let trial = view.as_ref().and_then(|it| it.trials.get(&revision));
        let is_promoted = |it: &Trial| {
            let end = it.end.as_ref();
            end.is_some_and(|it| it.verdict == TrialVerdict::Promoted)
        };
        trial.is_some_and(|it| !is_promoted(it))
    }
}

/// Returns the trial of a file that cannot be read. It is older than all others.
fn unreadable() -> Trial {
    Trial {
        terms: Terms::default(),
        since: Timestamp::MIN,
        revision_uuid: String::new(),
        end: Some(TrialEnd {
            verdict: TrialVerdict::RolledBack,
            reason: "the file with its trial cannot be read".to_owned(),
            at: Timestamp::MIN,
        }),
        farm: None,
    }
}
