//! Thinks: which guests start, and what every build that waits waits for.

use std::collections::{BTreeMap, BTreeSet};

use config::BuildId;
use config::builds::{Build, Submitter};
use config::task::Provenance;
use jiff::Timestamp;

use super::super::admission::{
    Allocation, Candidate, JobId, Refusal, Room, Run, Shares, UsageInterval, admit,
};
use super::{Action, Ending, ImageKey, Observed, Waiting};

/// How a waiting build stands.
enum BuildReadiness {
    /// It could start now.
    Ready(Candidate),
    /// It waits for this.
    Waits(String),
    /// It waits for its image.
    Image,
    /// What it waits for was said when it was put back into the queue.
    Rests,
    /// It is over.
    Over(Action),
}

impl Observed {
    /// The guests to start while there is room, what the other builds wait for, and
    /// the builds in the order of their turns. One bootstrap at least is under way
    /// when one is needed; then builds go first.
    pub(super) fn starting(&self) -> (Vec<Action>, Vec<BuildId>) {
        let mut room = self.room();
        let mut steps = self.attaching(&mut room);
        let mut needed = self.needed();
        if self.jobs.bootstraps.is_empty() {
            self.make(&mut needed, Action::Bootstrap, 1, &mut room, &mut steps);
        }
        let stands = self
            .queue
            .iter()
            .map(|waiting| (waiting, self.stand(waiting)));
        let stands: Vec<_> = stands.collect();
        let candidates = stands.iter().filter_map(|(_, stand)| match stand {
            BuildReadiness::Ready(candidate) => Some(candidate.clone()),
            _ => None,
        });
        let candidates: Vec<_> = candidates.collect();
        let verdicts = admit(&candidates, &mut room, &self.shares, &self.rules, self.now);
        let order = verdicts.iter().map(|(id, _)| *id).collect();
        let starts = verdicts.iter().filter(|(_, verdict)| verdict.is_ok());
        steps.extend(starts.map(|(id, _)| Action::Build(*id)));
        let all = usize::MAX;
        self.make(&mut needed, Action::Bootstrap, all, &mut room, &mut steps);
        self.make(
            &mut self.freezing(),
            Action::Freeze,
            all,
            &mut room,
            &mut steps,
        );
        let refused = verdicts
            .into_iter()
            .filter_map(|(id, verdict)| Some((id, verdict.err()?)));
        let refused: BTreeMap<_, _> = refused.collect();
        for (waiting, stand) in stands {
            let words = match stand {
                BuildReadiness::Ready(_) => match refused.get(&waiting.id) {
                    Some(refusal) => format!("for {refusal}"),
                    None => continue,
                },
                BuildReadiness::Waits(words) => words,
                BuildReadiness::Image => self.image_words(&waiting.pair, &steps, &room),
                BuildReadiness::Rests => continue,
                BuildReadiness::Over(step) => {
                    steps.push(step);
                    continue;
                }
            };
            if words != waiting.message {
                steps.push(Action::Say(waiting.id, words));
            }
        }
        (steps, order)
    }

    /// The room of the host, and who has taken how much of it.
    pub fn room(&self) -> Room {
        let builds = self.jobs.builds.iter();
        let builds = builds.map(|(id, pair)| self.holding(JobId::Build(*id), pair));
        let bootstraps = self.jobs.bootstraps.keys();
        let bootstraps = bootstraps.map(|pair| self.holding(JobId::Bootstrap(pair.clone()), pair));
        // A suspended guest keeps its memory.
        let held = self.jobs.held.iter().filter(|(_, (_, guest))| *guest);
        let held = held.map(|(id, (pair, _))| self.holding(JobId::Build(*id), pair));
        let copies = self.jobs.copies.iter().filter(|(_, (_, begun))| *begun);
        let copies = copies.map(|(tag, (pair, _))| self.holding(JobId::Copy(*tag), pair));
        let all = builds.chain(bootstraps).chain(held).chain(copies);
        Room::new(self.capacity.clone(), all.collect())
    }

    /// The builds that run, as the shares of their submitters count them.
    pub fn runs(&self) -> BTreeMap<BuildId, Run> {
        let run = |(id, pair): (&BuildId, &ImageKey)| {
            let running = self.running.get(id)?;
            let run = Run {
                submitter: running.submitter.clone(),
                since: running.since,
                demand: self.demands.get(pair).copied().unwrap_or_default(),
            };
            Some((*id, run))
        };
        self.jobs.builds.iter().filter_map(run).collect()
    }

    /// What submitters have had, by the records of earlier builds.
    pub fn shares_of(&self, builds: &[Build]) -> Shares {
        let stretches = builds.iter().flat_map(|build| {
            let (machine, toolchain) = (build.machine.clone(), build.toolchain.clone());
            let demand = self.demands.get(&ImageKey { machine, toolchain });
            UsageInterval::all_of(build, demand.copied().unwrap_or_default())
        });
        Shares::of_the_past(&stretches.collect::<Vec<_>>(), &self.room())
    }

    /// The builds that these steps start, likewise.
    pub fn begun(&self, steps: &[Action]) -> BTreeMap<BuildId, Run> {
        let starts = |id: BuildId| steps.contains(&Action::Build(id));
        let begun = self.queue.iter().filter(|waiting| starts(waiting.id));
        let run = |waiting: &Waiting| Run {
            submitter: waiting.submitter.clone(),
            since: self.now,
            demand: self.demands.get(&waiting.pair).copied().unwrap_or_default(),
        };
        begun.map(|waiting| (waiting.id, run(waiting))).collect()
    }

    /// The submitters with a build that could start if there were room.
    pub fn contenders(&self) -> BTreeSet<Submitter> {
        let ready = |waiting: &&Waiting| matches!(self.stand(waiting), BuildReadiness::Ready(_));
        let ready = self.queue.iter().filter(ready);
        ready.map(|waiting| waiting.submitter.clone()).collect()
    }

    /// When something is to be looked at again that only time changes.
    pub fn wake_at(&self) -> Option<Timestamp> {
        let rests = self.queue.iter().filter_map(|waiting| waiting.not_before);
        rests.filter(|time| *time > self.now).min()
    }

    pub(super) fn holding(&self, holder: JobId, pair: &ImageKey) -> Allocation {
        Allocation {
            holder,
            machine: pair.machine.clone(),
            volume: self
                .machines
                .get(&pair.machine)
                .map_or(0, |seen| seen.volume),
            demand: self.demands.get(pair).copied().unwrap_or_default(),
        }
    }

    fn bootstrap_refusal(&self, pair: &ImageKey, room: &Room) -> Option<Refusal> {
        let mut holding = self.holding(JobId::Bootstrap(pair.clone()), pair);
        // The limit of a machine is one of its builds.
        holding.demand.machine_max = None;
        room.refuse(&holding.machine, holding.volume, &holding.demand)
    }

    /// Makes at most so many of these images for whose guests there is room.
    fn make(
        &self,
        pairs: &mut Vec<ImageKey>,
        step: fn(ImageKey, Provenance) -> Action,
        most: usize,
        room: &mut Room,
        steps: &mut Vec<Action>,
    ) {
        let mut left = most;
        pairs.retain(|pair| {
            let Some(wanted) = self.wanted(pair) else {
                return false;
            };
            if left == 0 || self.bootstrap_refusal(pair, room).is_some() {
                return true;
            }
            left -= 1;
            room.hold(self.holding(JobId::Bootstrap(pair.clone()), pair));
            steps.push(step(pair.clone(), wanted));
            false
        });
    }

    /// The images that a guest is to be frozen in; they serve without it, too.
    fn freezing(&self) -> Vec<ImageKey> {
        let wanted = self.starts.iter().filter(|(_, starting)| starting.wanted);
        let ready = wanted.filter(|(pair, _)| {
            let made = self.image(pair).and_then(|image| image.provenance.as_ref());
            made.is_some()
                && made == self.wanted(pair).as_ref()
                && !self.jobs.bootstraps.contains_key(pair)
                && self.halt(&pair.machine).is_none()
        });
        let ready = ready.filter(|_| self.drained.is_none());
        ready.map(|(pair, _)| pair.clone()).collect()
    }

    fn stand(&self, waiting: &Waiting) -> BuildReadiness {
        let ImageKey { machine, toolchain } = &waiting.pair;
        let there = self.machines.get(machine);
        let Some(seen) = there.filter(|seen| !seen.view.deleting) else {
            let words = format!("machine {machine} was deleted");
            return BuildReadiness::Over(Action::Abort(waiting.id, words));
        };
        if let Some(stand) = self.dependencies(waiting) {
            return stand;
        }
        if waiting.not_before.is_some_and(|time| time > self.now) {
            return BuildReadiness::Rests;
        }
        if let Some(drained) = &self.drained {
            return BuildReadiness::Waits(format!("because {}", drained.message()));
        }
        if seen.view.current.is_none() {
            return BuildReadiness::Waits(format!(
                "because machine {machine} has no current revision"
            ));
        }
        if !self.toolchains.contains_key(toolchain) {
            return BuildReadiness::Waits(format!("because toolchain {toolchain} is not there"));
        }
        if let Some(halt) = self.halt(machine) {
            return BuildReadiness::Waits(format!("because {halt}"));
        }
        if self.image(&waiting.pair).is_none() {
            return BuildReadiness::Image;
        }
        BuildReadiness::Ready(Candidate {
            id: waiting.id,
            submitter: waiting.submitter.clone(),
            priority: waiting.priority,
            since: waiting.since,
            machine: machine.clone(),
            volume: seen.volume,
            demand: self.demands.get(&waiting.pair).copied().unwrap_or_default(),
        })
    }

    /// Whether a build waits for others, or is given up because of one.
    fn dependencies(&self, waiting: &Waiting) -> Option<BuildReadiness> {
        let ending = |id: &BuildId| self.endings.get(id).copied().unwrap_or(Ending::Bad);
        if let Some(bad) = waiting.after.iter().find(|id| ending(id) == Ending::Bad) {
            let words = format!("build {bad}, which it was to come after, did not end well");
            return Some(BuildReadiness::Over(Action::Skip(waiting.id, words)));
        }
        let open = waiting.after.iter().filter(|id| ending(id) == Ending::Open);
        let open: Vec<_> = open.map(|id| JobId::Build(*id)).collect();
        if open.is_empty() {
            return None;
        }
        let words = super::super::admission::listed(&open);
        Some(BuildReadiness::Waits(format!(
            "for {words}, which it is to come after"
        )))
    }

    /// What a build waits for whose image is not there.
    fn image_words(&self, pair: &ImageKey, steps: &[Action], room: &Room) -> String {
        let ImageKey { machine, toolchain } = pair;
        let image = format!("for the image of {machine} with toolchain {toolchain}");
        let begins = |step: &Action| matches!(step, Action::Bootstrap(begun, _) if begun == pair);
        if self.jobs.bootstraps.contains_key(pair) || steps.iter().any(begins) {
            return format!("{image}, which is being bootstrapped");
        }
        if let Some(failure) = self.given_up(pair) {
            return format!(
                "{image}, which could not be bootstrapped ({}); that is tried again when the machine or the toolchain changes",
                failure.message
            );
        }
        match self.bootstrap_refusal(pair, room) {
            Some(refusal) => format!("{image}, whose bootstrap waits for {refusal}"),
            None => format!("{image}, which is to be bootstrapped first"),
        }
    }
}
