//! Bootstraps and checkpoints: the images that builds need come first, and bootstraps that
//! nobody asked for yield to everything that was asked for.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use config::builds::{ImageState, Readiness};
use config::task::Provenance;
use config::{BuildId, ImageKey, Revision};

use super::{Action, ImageStart, Observed, key};
use crate::admission::{Candidate, ResourcePool, Unschedulable, admit, listed};
use crate::{JobId, ResourceRequest};

/// The builds and asked bootstraps that start, and the verdicts on the others.
pub(super) struct Placed {
    /// The starts.
    pub(super) actions: Vec<Action>,
    /// The ready builds in scheduling order.
    pub(super) order: Vec<BuildId>,
    /// The verdicts on them.
    pub(super) verdicts: BTreeMap<BuildId, Result<(), Unschedulable>>,
    /// The asked bootstraps that do not start, each with the reason.
    waiting: BTreeMap<ImageKey, Unschedulable>,
}

impl Placed {
    /// Returns true if this starts something that `other` does not.
    fn starts_more_than(&self, other: &Self) -> bool {
        let waits = |(id, verdict): (&BuildId, &Result<(), Unschedulable>)| {
            verdict.is_ok() && other.verdicts.get(id).is_some_and(Result::is_err)
        };
        let is_new = |key: &ImageKey| !self.waiting.contains_key(key);
        self.verdicts.iter().any(waits) || other.waiting.keys().any(is_new)
    }

    /// Returns the jobs that wait for what an unasked bootstrap of `key` with this request would
    /// take.
    fn competitors(&self, key: &ImageKey, request: &ResourceRequest) -> Vec<JobId> {
        let builds = self.order.iter().filter(|id| {
            let reason = self.verdicts.get(id).and_then(|it| it.as_ref().err());
            reason.is_some_and(|reason| reason.competes_with(&key.machine, request))
        });
        let images = self
            .waiting
            .iter()
            .filter(|(_, reason)| reason.competes_with(&key.machine, request));
        builds
            .map(|id| JobId::Build(*id))
            .chain(images.map(|(key, _)| JobId::Bootstrap(key.clone())))
            .collect()
    }
}

impl Observed {
    /// Returns the readiness of every image; `waits` are the reasons for which bootstraps
    /// wait.
    pub fn readiness(&self, waits: &BTreeMap<ImageKey, String>) -> Vec<Readiness> {
        self.machines
            .values()
            .filter(|state| state.view.current.is_some())
            .flat_map(|state| {
                self.toolchains
                    .keys()
                    .map(|toolchain| key(&state.view, toolchain))
            })
            .map(|key| self.readiness_of_image(key, waits))
            .collect()
    }

    fn readiness_of_image(&self, key: ImageKey, waits: &BTreeMap<ImageKey, String>) -> Readiness {
        let provenance = self.image(&key).map(|image| image.provenance.as_ref());
        let image = match (provenance, self.final_failure(&key)) {
            (Some(made), _) if made.is_some() && made == self.inputs(&key).as_ref() => {
                ImageState::Ready
            }
            (Some(_), _) => ImageState::Outdated,
            (None, Some(_)) => ImageState::Failed,
            (None, None) => ImageState::Missing,
        };
        let under_way = self.jobs.images.contains_key(&key);
        let failure = self.bootstrap_failure(&key);
        let bootstrap_error = failure.map(|failure| failure.message.clone());
        let bootstrap_error = bootstrap_error.unwrap_or_default();
        let bootstrap_wait = waits.get(&key).cloned().unwrap_or_else(|| {
            let halt = self
                .halt(&key.machine)
                .filter(|_| image != ImageState::Ready);
            halt.map_or_else(String::new, |halt| {
                format!("its bootstrap waits because {halt}")
            })
        });
        let on_trial = self.trial_under_way(&key);
        let message = if let Some(revision) = on_trial {
            format!("the image of revision {revision}, which is on trial, is being made")
        } else if under_way && image == ImageState::Ready {
            "a checkpoint is being made".to_owned()
        } else if under_way {
            "it is being bootstrapped".to_owned()
        } else if bootstrap_error.is_empty() {
            bootstrap_wait.clone()
        } else {
            bootstrap_error.clone()
        };
        let mode = self.start_modes.get(&key).cloned().unwrap_or_default();
        Readiness {
            machine: key.machine,
            toolchain: key.toolchain,
            image,
            message,
            start: mode.start,
            start_message: mode.message,
            evictions: mode.restore_failures,
            bootstrap_error,
            bootstrap_wait,
        }
    }

    /// Returns the revision on trial whose image is being made.
    fn trial_under_way(&self, key: &ImageKey) -> Option<Revision> {
        let (revision, inputs) = self.trial_inputs(key)?;
        (self.jobs.images.get(key) == Some(&inputs)).then_some(revision)
    }

    pub(super) fn cancel_bootstraps(&self) -> Vec<Action> {
        self.jobs
            .images
            .iter()
            .filter(|(key, inputs)| {
                let candidate = self.trial_inputs(key).map(|(_, inputs)| inputs);
                self.inputs(key).as_ref() != Some(inputs) && candidate.as_ref() != Some(inputs)
            })
            .map(|(key, _)| Action::CancelBootstrap(key.clone()))
            .collect()
    }

    /// Returns true if the images of the machine are about to be replaced by those of its trial.
    fn is_being_promoted(&self, key: &ImageKey) -> bool {
        let state = self.machines.get(&key.machine);
        state.is_some_and(|state| state.view.unfinished_promotion().is_some())
    }

    /// Returns the inputs of the image that is made next for a key, and its revision if that is on
    /// trial. The image of the current revision comes first.
    fn next_inputs(&self, key: &ImageKey, kind: Kind) -> Option<(Option<Revision>, Provenance)> {
        if kind == Kind::Bootstrap && self.needs_trial_image(key) {
            let (candidate, inputs) = self.trial_inputs(key)?;
            return Some((Some(candidate), inputs));
        }
        Some((None, self.inputs(key)?))
    }

    /// Returns the images that are to be made, those of revisions on trial included.
    pub(super) fn missing_images(&self) -> Vec<ImageKey> {
        if self.drained.is_some() {
            return Vec::new();
        }
        self.readiness(&BTreeMap::new())
            .into_iter()
            .map(|readiness| {
                let key = ImageKey {
                    machine: readiness.machine,
                    toolchain: readiness.toolchain,
                };
                (key, readiness.image)
            })
            .filter(|(key, image)| match image {
                ImageState::Ready => {
                    self.needs_trial_image(key) && self.final_trial_failure(key).is_none()
                }
                _ => self.final_failure(key).is_none() && !self.is_being_promoted(key),
            })
            .map(|(key, _)| key)
            .filter(|key| !self.jobs.images.contains_key(key))
            .filter(|key| self.halt(&key.machine).is_none())
            .collect()
    }

    /// Returns true if a build needs the image: it is queued, or it runs on an older image
    /// that more builds will want to be renewed.
    pub(super) fn is_asked(&self, key: &ImageKey) -> bool {
        let is_queued = self.queue.iter().any(|queued| queued.key == *key);
        is_queued || self.jobs.builds.values().any(|used| used == key)
    }

    /// Returns the images to make that builds need: first those that do not exist, in the
    /// order of the builds that wait for them, then those that are out of date.
    fn asked_images(&self) -> Vec<ImageKey> {
        let mut keys = self.missing_images();
        keys.retain(|key| self.is_asked(key));
        let first_build = |key: &ImageKey| {
            let waiting = self.queue.iter().filter(|queued| queued.key == *key);
            let rank = waiting.map(|queued| (Reverse(queued.priority), queued.id));
            rank.min().map_or((true, None), |rank| (false, Some(rank)))
        };
        keys.sort_by_key(|key| (self.image(key).is_some(), first_build(key)));
        keys
    }

    /// Returns the running bootstraps that have to yield when something does not fit.
    fn yielding_bootstraps(&self) -> Vec<ImageKey> {
        let unasked = self.jobs.unasked.iter();
        unasked.filter(|key| !self.is_asked(key)).cloned().collect()
    }

    /// Allocates resources for builds and asked bootstraps. Also returns the bootstraps that
    /// must yield for more of them: those that do not fit beside what would start without
    /// any unasked bootstrap.
    pub(super) fn place_asked(
        &self,
        candidates: &[Candidate],
        pool: &mut ResourcePool,
    ) -> (Vec<ImageKey>, Placed) {
        let mut yields = self.yielding_bootstraps();
        let ended = yields.iter().cloned().map(JobId::Bootstrap).collect();
        let mut ideal = pool.without(&ended);
        let placed = self.place(candidates, pool);
        if yields.is_empty() || !self.place(candidates, &mut ideal).starts_more_than(&placed) {
            return (Vec::new(), placed);
        }
        yields.retain(|key| {
            let fits = self.check_bootstrap(key, &ideal).is_none();
            if fits {
                ideal.allocate(self.allocation(JobId::Bootstrap(key.clone()), key));
            }
            !fits
        });
        (yields, placed)
    }

    /// Allocates resources for builds and asked bootstraps. One asked bootstrap at least is
    /// under way when one is needed; otherwise builds go first.
    fn place(&self, candidates: &[Candidate], pool: &mut ResourcePool) -> Placed {
        let mut actions = Vec::new();
        let mut missing = self.asked_images();
        let yielding = self.yielding_bootstraps();
        if self.jobs.images.keys().all(|key| yielding.contains(key)) {
            self.start_images(&mut missing, Kind::Bootstrap, 1, pool, &mut actions);
        }
        let verdicts = admit(candidates, pool, &self.shares, &self.rules, self.now);
        let order: Vec<_> = verdicts.iter().map(|(id, _)| *id).collect();
        let verdicts: BTreeMap<_, _> = verdicts.into_iter().collect();
        let by_id: BTreeMap<_, _> = candidates.iter().map(|it| (it.id, it)).collect();
        let admitted = order.iter().filter(|id| verdicts[id].is_ok());
        actions.extend(admitted.map(|id| self.start_build(by_id[id])));
        self.start_images(
            &mut missing,
            Kind::Bootstrap,
            usize::MAX,
            pool,
            &mut actions,
        );
        let reason = |key: ImageKey| Some((key.clone(), self.check_bootstrap(&key, pool)?));
        let waiting = missing.into_iter().filter_map(reason).collect();
        Placed {
            actions,
            order,
            verdicts,
            waiting,
        }
    }

    /// Starts the bootstraps that no build needs, behind all builds that could start.
    /// Returns the reasons for which bootstraps wait, asked ones included.
    pub(super) fn start_unasked(
        &self,
        placed: &Placed,
        pool: &mut ResourcePool,
        actions: &mut Vec<Action>,
    ) -> BTreeMap<ImageKey, String> {
        let waits_for = |reason: &Unschedulable| format!("its bootstrap waits for {reason}");
        let asked = placed.waiting.iter();
        let mut waits: BTreeMap<_, _> = asked
            .map(|(key, reason)| (key.clone(), waits_for(reason)))
            .collect();
        let mut free = Vec::new();
        for key in self.missing_images() {
            if self.is_asked(&key) {
                continue;
            }
            let competitors = placed.competitors(&key, &self.request(&key));
            if competitors.is_empty() {
                free.push(key);
            } else {
                let jobs = listed(&competitors);
                let reason = format!(
                    "its bootstrap waits for the start of {jobs}: no build needs this image yet"
                );
                waits.insert(key, reason);
            }
        }
        self.start_images(&mut free, Kind::Bootstrap, usize::MAX, pool, actions);
        for key in free {
            if let Some(reason) = self.check_bootstrap(&key, pool) {
                waits.insert(key, waits_for(&reason));
            }
        }
        waits
    }

    /// Starts to make the checkpoints for which there are resources.
    pub(super) fn start_checkpoints(&self, pool: &mut ResourcePool, actions: &mut Vec<Action>) {
        let mut checkpoints = self.missing_checkpoints();
        self.start_images(
            &mut checkpoints,
            Kind::Checkpoint,
            usize::MAX,
            pool,
            actions,
        );
    }

    pub(super) fn check_bootstrap(
        &self,
        key: &ImageKey,
        pool: &ResourcePool,
    ) -> Option<Unschedulable> {
        let mut request = self.request(key);
        // The limit of a machine is one of its builds.
        request.machine_max = None;
        pool.check(&key.machine, self.volume(key), &request)
    }

    /// Starts at most `most` of these images for which there are resources, and removes
    /// them from `keys`.
    fn start_images(
        &self,
        keys: &mut Vec<ImageKey>,
        kind: Kind,
        most: usize,
        pool: &mut ResourcePool,
        actions: &mut Vec<Action>,
    ) {
        let mut left = most;
        keys.retain(|key| {
            let Some((candidate, inputs)) = self.next_inputs(key, kind) else {
                return false;
            };
            if left == 0 || self.check_bootstrap(key, pool).is_some() {
                return true;
            }
            left -= 1;
            pool.allocate(self.allocation(JobId::Bootstrap(key.clone()), key));
            let start = ImageStart {
                key: key.clone(),
                volume: self.volume(key),
                inputs,
                candidate,
                unasked: kind == Kind::Bootstrap && !self.is_asked(key),
            };
            actions.push(match kind {
                Kind::Bootstrap => Action::StartBootstrap(start),
                Kind::Checkpoint => Action::StartCheckpoint(start),
            });
            false
        });
    }

    /// Returns the images that lack a checkpoint. They serve without it meanwhile.
    fn missing_checkpoints(&self) -> Vec<ImageKey> {
        if self.drained.is_some() {
            return Vec::new();
        }
        let is_due = |key: &ImageKey| {
            let made = self.image(key).and_then(|image| image.provenance.as_ref());
            made.is_some()
                && made == self.inputs(key).as_ref()
                && !self.jobs.images.contains_key(key)
                && self.halt(&key.machine).is_none()
        };
        self.start_modes
            .iter()
            .filter(|(key, mode)| mode.checkpoint_due && is_due(key))
            .map(|(key, _)| key.clone())
            .collect()
    }
}

/// The kind of a job that changes an image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bootstrap,
    Checkpoint,
}
