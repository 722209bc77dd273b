//! The forecast: the starts of waiting builds, simulated with the planner's own rules.
//!
//! The simulation moves from one end of a guest to the next, and plans at each as the
//! scheduler does. It assumes that nothing is submitted or cancelled meanwhile, that builds
//! succeed, and that host pressure and debug sessions stay. The use of the host by submitters is
//! brought up to date at these ends only; it can change the order of builds in between, which puts
//! a start off by a minute at most.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use config::{BuildId, ImageKey};
use jiff::Timestamp;
use store::{ImageView, Uuid};

use super::{Action, BuildStart, DependencyState, ImageStart, Observed, RunningBuild};
use crate::JobId;
use crate::admission::RunningUsage;
use crate::durations::ExpectedDuration;

/// The largest number of waiting builds in a simulation, so that a long queue does not make
/// it slow. The next ones in scheduling order are simulated.
pub const FORECAST_MAX: usize = 200;
/// The largest number of plans for each build in a simulation.
const PLANS_MAX: usize = 4;

/// The simulated start of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStart {
    /// The build.
    pub id: BuildId,
    /// The time of its start.
    pub at: Timestamp,
    /// A job of unknown duration that had to end before. It was taken to end at once, so that
    /// the build does not start earlier than this.
    pub unknown: Option<JobId>,
    /// The number of earlier builds that the durations of all jobs before it come from, at
    /// least; `None` if no job had to end before.
    pub builds: Option<usize>,
    /// `true` if all these were builds of the same packages.
    pub same_package: bool,
}

impl Observed {
    /// Returns the starts of the waiting builds in their order, from the expected durations of
    /// builds. Builds that do not start as things are have none. `asked` is the present: no job
    /// that runs ends before it.
    pub fn forecast(
        &self,
        durations: &BTreeMap<BuildId, ExpectedDuration>,
        asked: Timestamp,
    ) -> Vec<PlannedStart> {
        let mut simulation = Simulation::new(self, durations, asked.max(self.now));
        let plans_max = PLANS_MAX * (simulation.world.queue.len() + 1);
        for _ in 0..plans_max {
            let changed = simulation.plan();
            if simulation.world.queue.is_empty() || !changed && !simulation.advance() {
                break;
            }
        }
        let mut starts = simulation.starts;
        for start in &mut starts {
            start.at = start.at.max(asked);
        }
        starts
    }

    /// Returns the time at which a build may start without the end of another one: when the
    /// priorities of builds rise, one may get before the build that resources are kept for.
    fn next_rise(&self) -> Option<Timestamp> {
        let aging = self.rules.aging.filter(|aging| !aging.is_zero())?;
        let waiting = self.kept_waiting();
        if waiting.is_empty() {
            return None;
        }
        let starts = waiting
            .iter()
            .filter_map(|(since, submitter)| Some(self.shares.last_start(submitter)?.max(*since)));
        let begins = waiting.iter().map(|(since, _)| *since).chain(starts);
        let rise = |begin: Timestamp| {
            let waited = self
                .now
                .duration_since(begin)
                .as_secs()
                .max(0)
                .unsigned_abs();
            let levels = waited / aging.as_secs().max(1) + 1;
            let seconds = levels.checked_mul(aging.as_secs().max(1))?;
            begin.checked_add(Duration::from_secs(seconds)).ok()
        };
        begins.filter_map(rise).min()
    }

    /// Returns the waiting builds that are simulated.
    fn forecast_queue(&self) -> BTreeSet<BuildId> {
        if self.queue.len() <= FORECAST_MAX {
            return self.queue.iter().map(|queued| queued.id).collect();
        }
        let order = self.start_jobs().order;
        let rest = self.queue.iter().map(|queued| queued.id);
        let mut chosen = BTreeSet::new();
        for id in order.into_iter().chain(rest) {
            if chosen.len() >= FORECAST_MAX {
                break;
            }
            chosen.insert(id);
        }
        chosen
    }
}

struct Simulation<'d> {
    world: Observed,
    durations: &'d BTreeMap<BuildId, ExpectedDuration>,
    asked: Timestamp,
    ends: BTreeSet<(Timestamp, JobId)>,
    starts: Vec<PlannedStart>,
    unknown: Option<JobId>,
    builds: Option<usize>,
    same_package: bool,
}

impl<'d> Simulation<'d> {
    fn new(
        observed: &Observed,
        durations: &'d BTreeMap<BuildId, ExpectedDuration>,
        asked: Timestamp,
    ) -> Self {
        let mut world = observed.clone();
        let chosen = observed.forecast_queue();
        world.queue.retain(|queued| chosen.contains(&queued.id));
        // Where a build of a trial runs changes its start by little.
        for state in world.machines.values_mut() {
            state.view.trials.clear();
        }
        for queued in &mut world.queue {
            queued.granted_trial = None;
        }
        // Checkpoints start when no build needs their resources.
        for mode in world.start_modes.values_mut() {
            mode.checkpoint_due = false;
        }
        world
            .jobs
            .debug_sessions
            .retain(|_, session| session.admitted);
        let mut simulation = Self {
            world,
            durations,
            asked,
            ends: BTreeSet::new(),
            starts: Vec::new(),
            unknown: None,
            builds: None,
            same_package: true,
        };
        for id in observed.jobs.builds.keys() {
            let running = observed.running.get(id);
            let since = running.map_or(observed.now, |running| running.since);
            simulation.schedule_build(*id, since);
        }
        for key in observed.jobs.images.keys() {
            simulation.schedule_bootstrap(key.clone());
        }
        simulation
    }

    /// Adds the end of a build. One of unknown duration ends at once.
    fn schedule_build(&mut self, id: BuildId, since: Timestamp) {
        let expected = self.durations.get(&id);
        let end = expected.and_then(|it| since.checked_add(it.duration).ok());
        let end = end.unwrap_or(since).max(self.asked).max(self.world.now);
        self.ends.insert((end, JobId::Build(id)));
    }

    /// Adds the end of a bootstrap. Their durations are not recorded.
    fn schedule_bootstrap(&mut self, key: ImageKey) {
        let end = self.asked.max(self.world.now);
        self.ends.insert((end, JobId::Bootstrap(key)));
    }

    /// Plans once, and starts what the plan starts. Returns true if another plan at the same
    /// time may start more.
    fn plan(&mut self) -> bool {
        self.account();
        let decision = self.world.start_jobs();
        let evicted = self.world.evict_holds(&decision.actions, &decision.order);
        let mut changed = false;
        for action in evicted.into_iter().chain(decision.actions) {
            match action {
                Action::StartBuild(start) => self.start_build(start),
                Action::StartBootstrap(start) => self.start_bootstrap(start),
                Action::YieldBootstrap(key) => {
                    self.ends
                        .retain(|(_, job)| *job != JobId::Bootstrap(key.clone()));
                    self.remove_bootstrap(&key);
                    changed = true;
                }
                Action::EvictHold(id) | Action::ReleaseHold(id) => {
                    if let Some(hold) = self.world.jobs.holds.remove(&id)
                        && hold.has_guest
                    {
                        self.release_memory(&JobId::Build(id), &hold.key);
                    }
                    changed = true;
                }
                Action::Abort(id, _) | Action::Skip(id, _) => {
                    self.world.queue.retain(|queued| queued.id != id);
                    self.world.dependencies.insert(id, DependencyState::Failed);
                    changed = true;
                }
                _ => {}
            }
        }
        changed
    }

    /// Updates the shares of submitters.
    fn account(&mut self) {
        let world = &mut self.world;
        let (usage, contenders) = (world.usage(), world.contenders());
        let pool = world.pool();
        world.shares.observe(usage, &contenders, &pool, world.now);
    }

    fn start_build(&mut self, start: BuildStart) {
        let world = &mut self.world;
        if let Some(queued) = world.queue.iter().find(|it| it.id == start.id) {
            let resources = queued.resources.clone();
            let auxiliaries: Vec<_> = queued.auxiliary_keys().collect();
            world.jobs.resources.insert(start.id, resources);
            if !auxiliaries.is_empty() {
                world.jobs.auxiliaries.insert(start.id, auxiliaries);
            }
        }
        world.queue.retain(|queued| queued.id != start.id);
        world.jobs.builds.insert(start.id, start.key.clone());
        let running = RunningBuild {
            submitter: start.submitter.clone(),
            since: world.now,
            may_be_on_trial: false,
        };
        world.running.insert(start.id, running);
        let usage = RunningUsage {
            submitter: start.submitter,
            since: world.now,
            request: start.request,
        };
        world.shares.begin(start.id, usage);
        self.take_memory(&JobId::Build(start.id), &start.key);
        self.schedule_build(start.id, self.world.now);
        self.starts.push(PlannedStart {
            id: start.id,
            at: self.world.now,
            unknown: self.unknown.clone(),
            builds: self.builds,
            same_package: self.same_package,
        });
    }

    fn start_bootstrap(&mut self, start: ImageStart) {
        let jobs = &mut self.world.jobs;
        if start.unasked {
            jobs.unasked.insert(start.key.clone());
        }
        jobs.images.insert(start.key.clone(), start.inputs);
        self.take_memory(&JobId::Bootstrap(start.key.clone()), &start.key);
        self.schedule_bootstrap(start.key);
    }

    /// Moves to the next time at which something ends. Returns `false` if nothing will.
    fn advance(&mut self) -> bool {
        // The scheduler has seen the builds that started before they end.
        self.account();
        let end = self.ends.first().map(|(end, _)| *end);
        let times = [end, self.world.wake_at(), self.world.next_rise()];
        let Some(now) = times.into_iter().flatten().min() else {
            return false;
        };
        self.world.now = now;
        while let Some((end, _)) = self.ends.first()
            && *end <= now
        {
            if let Some((_, job)) = self.ends.pop_first() {
                self.end(job);
            }
        }
        true
    }

    fn end(&mut self, job: JobId) {
        match &job {
            JobId::Build(id) => {
                self.world.running.remove(id);
                if let Some(key) = self.world.jobs.builds.remove(id) {
                    self.release_memory(&job, &key);
                }
                self.world.jobs.auxiliaries.remove(id);
                self.world.jobs.resources.remove(id);
                let dependencies = &mut self.world.dependencies;
                dependencies.insert(*id, DependencyState::Succeeded);
                if let Some(expected) = self.durations.get(id) {
                    let fewest = self.builds.unwrap_or(usize::MAX);
                    self.builds = Some(fewest.min(expected.builds));
                    self.same_package &= expected.same_package;
                    return;
                }
            }
            JobId::Bootstrap(key) => self.finish_bootstrap(key),
            JobId::Copy(_) | JobId::Fork(_) => return,
        }
        self.unknown.get_or_insert(job);
    }

    /// Makes the image of a bootstrap, unless it is one of a revision on trial.
    fn finish_bootstrap(&mut self, key: &ImageKey) {
        let inputs = self.world.inputs(key);
        let made = self.world.jobs.images.get(key).cloned();
        self.remove_bootstrap(key);
        if made != inputs {
            return;
        }
        let Some(state) = self.world.machines.get_mut(&key.machine) else {
            return;
        };
        let images = &mut state.view.images;
        images.retain(|image| image.toolchain != key.toolchain);
        images.push(ImageView {
            toolchain: key.toolchain.clone(),
            uuid: Uuid::nil(),
            complete: true,
            provenance: inputs,
        });
    }

    fn remove_bootstrap(&mut self, key: &ImageKey) {
        self.world.jobs.unasked.remove(key);
        if self.world.jobs.images.remove(key).is_some() {
            self.release_memory(&JobId::Bootstrap(key.clone()), key);
        }
    }

    /// Returns the memory of all guests of a job.
    fn memory_of(&self, job: &JobId, key: &ImageKey) -> u64 {
        match job {
            JobId::Build(id) => self.world.total_of(*id, key).memory,
            JobId::Bootstrap(_) | JobId::Copy(_) | JobId::Fork(_) => {
                self.world.request_of(job, key).memory
            }
        }
    }

    fn take_memory(&mut self, job: &JobId, key: &ImageKey) {
        let taken = self.memory_of(job, key);
        let available = &mut self.world.capacity.available;
        *available = available.saturating_sub(taken);
    }

    fn release_memory(&mut self, job: &JobId, key: &ImageKey) {
        let freed = self.memory_of(job, key);
        let available = &mut self.world.capacity.available;
        *available = available.saturating_add(freed);
    }
}
