//! Thinks: from what is there to what is to be done next. Touches nothing.

mod attaching;
mod cleaning;
mod waiting;
mod yielding;

use std::collections::{BTreeMap, BTreeSet};

use config::builds::{Build, ImageState, Priority, Readiness, Submitter};
use config::queue::Drained;
use config::task::{BOOTSTRAP_VERSION, Digest, Provenance};
use config::{BuildId, MachineName, Revision, Tag, ToolchainName};
use jiff::Timestamp;
use store::prune::Rule;
use store::{ImageView, MachineView};

use super::admission::{Capacity, ResourceRequest, Rules, Shares};
use crate::state::guest_tag::CopyTag;
use crate::state::restore_history::Starting;

/// A machine and a toolchain: what an image is made for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageKey {
    /// The machine.
    pub machine: MachineName,
    /// The toolchain.
    pub toolchain: ToolchainName,
}

impl ImageKey {
    /// What a build is built on and with.
    pub fn of(build: &Build) -> Self {
        Self {
            machine: build.machine.clone(),
            toolchain: build.toolchain.clone(),
        }
    }
}

/// A machine as it was seen in a volume.
#[derive(Debug, Clone)]
pub struct MachineState {
    /// The volume, by its place in the settings.
    pub volume: usize,
    /// What its directory shows.
    pub view: MachineView,
}

/// A build that waits.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The build.
    pub id: BuildId,
    /// What it is built on and with.
    pub pair: ImageKey,
    /// Who asked for it.
    pub submitter: Submitter,
    /// How urgent it is.
    pub priority: Priority,
    /// Since when it waits.
    pub since: Timestamp,
    /// Before this it is not tried again.
    pub not_before: Option<Timestamp>,
    /// The builds that must have ended well before it begins.
    pub after: Vec<BuildId>,
    /// What it was last said to wait for.
    pub message: String,
}

/// How a build that others wait for stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It has not ended yet.
    Open,
    /// What comes after it may begin.
    Good,
    /// It ended otherwise, or nothing is known of it any more.
    Bad,
}

/// What must be known of a build that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Who asked for it.
    pub submitter: Submitter,
    /// Since when its guest runs.
    pub since: Timestamp,
}

/// What runs.
#[derive(Debug, Clone, Default)]
pub struct Jobs {
    /// Builds.
    pub builds: BTreeMap<BuildId, ImageKey>,
    /// Bootstraps, and what each is to make.
    pub bootstraps: BTreeMap<ImageKey, Provenance>,
    /// The volumes whose old revisions are being deleted.
    pub pruning: BTreeSet<usize>,
    /// The builds of which something is held, and whether that is a guest.
    pub held: BTreeMap<BuildId, (ImageKey, bool)>,
    /// The copies that people look into, and whether there was room for each.
    pub copies: BTreeMap<CopyTag, (ImageKey, bool)>,
}

impl Jobs {
    /// The copies that wait for room.
    fn waiting_copies(&self) -> impl Iterator<Item = (CopyTag, &ImageKey)> {
        let waiting = self.copies.iter().filter(|(_, (_, begun))| !begun);
        waiting.map(|(tag, (pair, _))| (*tag, pair))
    }
}

/// How often the bootstrap of an image failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was to be made; the failure counts only for this.
    pub wanted: Provenance,
    /// How often it was tried.
    pub attempts: u32,
    /// Why the last one failed.
    pub message: String,
}

/// Everything that a plan depends on.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The machines, each name once.
    pub machines: BTreeMap<MachineName, MachineState>,
    /// The toolchains and the identity of their content.
    pub toolchains: BTreeMap<ToolchainName, Digest>,
    /// The builds that wait, oldest first.
    pub queue: Vec<Waiting>,
    /// What ran before the machines were looked at.
    pub jobs: Jobs,
    /// The bootstraps that failed.
    pub failures: BTreeMap<ImageKey, Failure>,
    /// How builds with each image start.
    pub starts: BTreeMap<ImageKey, Starting>,
    /// The newest build that was ever recorded.
    pub newest: Option<BuildId>,
    /// Why nothing may start at all, when there is a reason.
    pub halt: Option<String>,
    /// Why nothing may start in a volume, for those that have a reason.
    pub halted: BTreeMap<usize, String>,
    /// Which old revisions may go; none when all stay.
    pub retention: Option<Rule>,
    /// The bytes that are free in each volume.
    pub free: BTreeMap<usize, u64>,
    /// When it was looked.
    pub now: Timestamp,
    /// Who asked for the builds that run.
    pub running: BTreeMap<BuildId, Running>,
    /// How the builds stand that others wait for.
    pub endings: BTreeMap<BuildId, Ending>,
    /// Whether nothing is to start at all.
    pub drained: Option<Drained>,
    /// What the host can give.
    pub capacity: Capacity,
    /// What guests take of it.
    pub demands: BTreeMap<ImageKey, ResourceRequest>,
    /// What submitters have had of it.
    pub shares: Shares,
    /// How long is long.
    pub rules: Rules,
    /// How often a failed bootstrap is tried again.
    pub retries_max: u32,
    /// Of how many builds something is held at once; of any number if `None`.
    pub held_max: Option<usize>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Go on with the deletions that were begun in a volume.
    FinishDeletions(usize),
    /// Delete a snapshot that nothing accounts for.
    DropSnapshot(ImageKey, Tag),
    /// Delete an image whose toolchain is gone.
    DropImage(ImageKey),
    /// Delete these old revisions in a volume.
    Prune(usize, Vec<(MachineName, Revision)>),
    /// End a bootstrap that is no longer wanted.
    CancelBootstrap(ImageKey),
    /// Make an image.
    Bootstrap(ImageKey, Provenance),
    /// Freeze a guest in an image, which was made from this.
    Freeze(ImageKey, Provenance),
    /// Start the guest of a build.
    Build(BuildId),
    /// Tell what a build waits for.
    Say(BuildId, String),
    /// Give a build up.
    Abort(BuildId, String),
    /// Give a build up because one that it was to come after did not end well.
    Skip(BuildId, String),
    /// End the guest that is held of a build.
    GiveWay(BuildId),
    /// Let go of all that is held of a build.
    Release(BuildId),
    /// Boot a copy of what is held of a build.
    Attach(CopyTag),
    /// Tell somebody who wants to look into a copy what it would wait for.
    TurnAway(CopyTag, String),
    /// End a copy.
    Detach(CopyTag),
}

impl Observed {
    /// What is to be done next, in order. A world in which all of it was done needs
    /// nothing more.
    pub fn plan(&self) -> Vec<Action> {
        self.decide().0
    }

    /// The plan, and the builds that could start in the order of their turns.
    pub fn decide(&self) -> (Vec<Action>, Vec<BuildId>) {
        let mut steps = self.cleaning();
        steps.extend(self.pruning());
        steps.extend(self.cancelling());
        let (starting, order) = self.starting();
        steps.extend(self.detaching());
        steps.extend(self.yielding(&starting, &order));
        steps.extend(starting);
        (steps, order)
    }

    /// What keeps the host from its work.
    pub fn notices(&self) -> Vec<String> {
        let drained = self
            .drained
            .as_ref()
            .map(|drained| format!("{}; `machinectl undrain` ends it", drained.message()));
        let halts = self.halt.iter().chain(self.halted.values()).cloned();
        drained.into_iter().chain(halts).collect()
    }

    /// Why nothing of this machine may start, when there is a reason.
    fn halt(&self, machine: &MachineName) -> Option<&String> {
        let volume = self.machines.get(machine).map(|seen| seen.volume);
        self.halt.as_ref().or_else(|| self.halted.get(&volume?))
    }

    /// How far each image is.
    pub fn readiness(&self) -> Vec<Readiness> {
        let live = self
            .machines
            .values()
            .filter(|seen| seen.view.current.is_some());
        let pairs = live.flat_map(|seen| {
            self.toolchains
                .keys()
                .map(|toolchain| pair(&seen.view, toolchain))
        });
        pairs.map(|pair| self.ready(pair)).collect()
    }

    /// What an image of `pair` must be made from now; `None` when there is nothing
    /// to make it from.
    pub fn wanted(&self, pair: &ImageKey) -> Option<Provenance> {
        let view = &self.machines.get(&pair.machine)?.view;
        let current = view.current?;
        let revision = view
            .revisions
            .iter()
            .find(|r| r.revision == current && r.complete)?;
        Some(Provenance {
            revision_uuid: revision.uuid.to_string(),
            toolchain_id: self.toolchains.get(&pair.toolchain)?.clone(),
            bootstrap_version: BOOTSTRAP_VERSION,
        })
    }

    /// The image that serves `pair`, up to date or not.
    fn image(&self, pair: &ImageKey) -> Option<&ImageView> {
        let view = &self.machines.get(&pair.machine)?.view;
        view.images
            .iter()
            .find(|image| image.toolchain == pair.toolchain && image.complete)
    }

    fn failure(&self, pair: &ImageKey) -> Option<&Failure> {
        let failure = self.failures.get(pair)?;
        (self.wanted(pair).as_ref() == Some(&failure.wanted)).then_some(failure)
    }

    fn given_up(&self, pair: &ImageKey) -> Option<&Failure> {
        self.failure(pair)
            .filter(|failure| failure.attempts > self.retries_max)
    }

    fn ready(&self, pair: ImageKey) -> Readiness {
        let provenance = self.image(&pair).map(|image| image.provenance.as_ref());
        let failure = self.given_up(&pair);
        let image = match (provenance, failure) {
            (Some(made), _) if made.is_some() && made == self.wanted(&pair).as_ref() => {
                ImageState::Ready
            }
            (Some(_), _) => ImageState::Outdated,
            (None, Some(_)) => ImageState::Failed,
            (None, None) => ImageState::Missing,
        };
        let message = if self.jobs.bootstraps.contains_key(&pair) && image == ImageState::Ready {
            "a guest is being frozen in it".to_owned()
        } else if self.jobs.bootstraps.contains_key(&pair) {
            "it is being bootstrapped".to_owned()
        } else {
            self.failure(&pair)
                .map(|failure| failure.message.clone())
                .unwrap_or_default()
        };
        let starting = self.starts.get(&pair).cloned().unwrap_or_default();
        Readiness {
            machine: pair.machine,
            toolchain: pair.toolchain,
            image,
            message,
            start: starting.start,
            start_message: starting.message,
            evictions: starting.evictions,
        }
    }

    fn cancelling(&self) -> Vec<Action> {
        let running = self.jobs.bootstraps.iter();
        let unwanted = running.filter(|(pair, made)| self.wanted(pair).as_ref() != Some(made));
        unwanted
            .map(|(pair, _)| Action::CancelBootstrap(pair.clone()))
            .collect()
    }

    /// The images to make, those that builds wait for first.
    fn needed(&self) -> Vec<ImageKey> {
        let awaited: BTreeSet<_> = self.queue.iter().map(|waiting| &waiting.pair).collect();
        let mut pairs: Vec<_> = self
            .readiness()
            .into_iter()
            .filter(|readiness| readiness.image != ImageState::Ready)
            .map(|r| ImageKey {
                machine: r.machine,
                toolchain: r.toolchain,
            })
            .filter(|pair| !self.jobs.bootstraps.contains_key(pair))
            .filter(|pair| self.given_up(pair).is_none() && self.halt(&pair.machine).is_none())
            .filter(|_| self.drained.is_none())
            .collect();
        pairs.sort_by_key(|pair| !awaited.contains(pair));
        pairs
    }
}

fn pair(view: &MachineView, toolchain: &ToolchainName) -> ImageKey {
    ImageKey {
        machine: view.name.clone(),
        toolchain: toolchain.clone(),
    }
}

#[cfg(test)]
mod tests;
