//! The verbs that build the same again: on the machine as it is, on an older revision
//! of it, or on one after another until the first bad one is found.
//!
//! An older revision is built on through a stand-in: a machine of its own, made of a
//! snapshot of that revision, which takes no time and no space. The agent makes an
//! image of it as of any other machine, and it is deleted like any other.

mod search;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Subcommand;
use config::builds::{Build, State, Status};
use config::layout::Entry;
use config::task::Outcome;
use config::{BuildId, MachineName, Revision};
use store::{Intent, MachineRefusal, MachineView, Source, StoreError, Volume};

use super::{FOLLOW_PAUSE, get, submit, submitted};
use crate::{Common, Ending, Failure, Rehearsal, Voice};
use client::Client;
use search::Search;

/// How long the agent may take to notice a machine.
const NOTICE_MAX: Duration = Duration::from_mins(1);
/// How long the builds on a stand-in may hold it up when it is to go.
const DELETE_MAX: Duration = Duration::from_mins(1);

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Build the same again: the same sources and toolchain, on the machine as it is now
    Rebuild {
        /// The build
        build: BuildId,
        /// On this revision of the machine, through a stand-in for it
        ///
        /// A machine MACHINE-at-NUMBER is made, which takes no space. With --follow it
        /// is deleted again; otherwise it is there until you delete it.
        #[arg(long, value_name = "NUMBER")]
        on_revision: Option<Revision>,
        /// Show the log until the build is over, and fail if it did
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
    /// Find the revision of a machine since which a build fails; prints its number
    ///
    /// Builds the same on older revisions that are still there, the oldest first, and
    /// then on those between a good and a bad one. The package revisions that these
    /// builds ask for are as real as any.
    Bisect {
        /// A build that failed
        build: BuildId,
        /// A revision that is known to be good
        #[arg(long, value_name = "NUMBER")]
        good: Option<Revision>,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
}

pub(crate) fn run(verb: &Verb, common: &Common, voice: &Voice) -> Result<(), Failure> {
    let client = Client::new(&common.socket)?;
    match verb {
        Verb::Rebuild {
            build,
            on_revision: None,
            follow,
            rehearsal,
        } => {
            let before = get(&client, *build)?;
            if rehearsal.dry_run {
                return voice.would(format!(
                    "build {} on {} again",
                    before.target, before.machine
                ));
            }
            let machine = before.machine.clone();
            let again = submit::again(&client, &before, machine, voice)?;
            submitted(&client, &again, *follow, voice)
        }
        Verb::Rebuild {
            build,
            on_revision: Some(revision),
            follow,
            rehearsal,
        } => {
            let again = Again::new(&client, get(&client, *build)?, common, voice)?;
            again.on_one(*revision, *follow, rehearsal.dry_run)
        }
        Verb::Bisect {
            build,
            good,
            rehearsal,
        } => {
            let before = get(&client, *build)?;
            let bad = known_bad(&before)?;
            let again = Again::new(&client, before, common, voice)?;
            again.bisect(*good, bad, rehearsal.dry_run)
        }
    }
}

/// A build, and where it may be built again.
struct Again<'a> {
    client: &'a Client,
    voice: &'a Voice,
    volume: Volume,
    before: Build,
    view: MachineView,
}

impl<'a> Again<'a> {
    fn new(
        client: &'a Client,
        before: Build,
        common: &Common,
        voice: &'a Voice,
    ) -> Result<Self, Failure> {
        let volume = Volume::open(&common.volume)?;
        let view = volume.look(&before.machine)?;
        Ok(Self {
            client,
            voice,
            volume,
            before,
            view,
        })
    }

    fn on_one(&self, revision: Revision, follow: bool, rehearsed: bool) -> Result<(), Failure> {
        let name = self.stand_in_name(revision)?;
        if rehearsed {
            self.check(revision)?;
            return self.voice.would(format!(
                "build {} on {name}, a stand-in for revision {revision} of {}",
                self.before.target, self.before.machine
            ));
        }
        self.stand_in(revision, &name)?;
        let again = submit::again(self.client, &self.before, name.clone(), self.voice)?;
        if !follow {
            self.voice.say(format!(
                "machine {name} stands in for revision {revision} of {0}; `machinectl delete {name}` when it is not needed any more",
                self.before.machine
            ));
        }
        let built = submitted(self.client, &again, follow, self.voice);
        if follow {
            self.volume.delete(&name, DELETE_MAX, false)?;
        }
        built
    }

    fn bisect(
        &self,
        good: Option<Revision>,
        bad: Revision,
        rehearsed: bool,
    ) -> Result<(), Failure> {
        let revisions = self.candidates(good, bad)?;
        let mut tried: BTreeMap<_, _> = good.map(|good| (good, true)).into_iter().collect();
        loop {
            match search::next(&revisions, &tried) {
                Some(Search::Try(revision)) if rehearsed => {
                    return self.voice.would(format!(
                        "build {} on revision {revision} of {} first, one of {} before {bad}",
                        self.before.target,
                        self.before.machine,
                        revisions.len() - 1
                    ));
                }
                Some(Search::Try(revision)) => {
                    tried.insert(revision, self.is_good(revision)?);
                }
                Some(Search::Found { good, bad }) => {
                    self.voice
                        .say(format!("revision {good} is good, and {bad} is not"));
                    return self.voice.print(&format!("{bad}\n"));
                }
                Some(Search::AllBad(_)) | None => {
                    return Err(Failure::new(
                        Ending::NotFound,
                        format!(
                            "no good revision of {} is there any more",
                            self.before.machine
                        ),
                    ));
                }
            }
        }
    }

    /// The revisions that are there up to the bad one, from the good one on.
    fn candidates(&self, good: Option<Revision>, bad: Revision) -> Result<Vec<Revision>, Failure> {
        if let Some(good) = good {
            self.check(good)?;
        }
        let complete = self.view.revisions.iter().filter(|it| it.complete);
        let older = complete.map(|it| it.revision).filter(|it| *it < bad);
        let mut revisions: Vec<_> = older.filter(|it| good.is_none_or(|g| *it >= g)).collect();
        revisions.push(bad);
        Ok(revisions)
    }

    /// Builds on a revision and tells whether that went well.
    fn is_good(&self, revision: Revision) -> Result<bool, Failure> {
        let name = self.stand_in_name(revision)?;
        self.stand_in(revision, &name)?;
        let built = self.built(&name);
        self.volume.delete(&name, DELETE_MAX, false)?;
        let built = built?;
        let good = match built.outcome {
            Some(Outcome::Error) => false,
            _ if built.succeeded() => true,
            _ => {
                let (id, message) = (built.id, built.message);
                let words =
                    format!("build {id} on revision {revision} says nothing of it: {message}");
                return Err(Failure::new(Ending::Failed, words));
            }
        };
        let word = if good { "good" } else { "bad" };
        self.voice.say(format!(
            "revision {revision} is {word} (build {})",
            built.id
        ));
        Ok(good)
    }

    /// Builds on a machine, to the end.
    fn built(&self, machine: &MachineName) -> Result<Build, Failure> {
        let again = submit::again(self.client, &self.before, machine.clone(), self.voice)?;
        loop {
            let build = get(self.client, again.id)?;
            if build.state == State::Finished {
                return Ok(build);
            }
            std::thread::sleep(FOLLOW_PAUSE);
        }
    }

    fn stand_in_name(&self, revision: Revision) -> Result<MachineName, Failure> {
        format!("{}-at-{revision}", self.before.machine)
            .parse()
            .map_err(|error| Failure::new(Ending::Refused, error))
    }

    /// A revision that can be built on.
    fn check(&self, revision: Revision) -> Result<(), Failure> {
        let there = |it: &store::RevisionView| it.complete && it.revision == revision;
        if self.view.revisions.iter().any(there) {
            return Ok(());
        }
        let machine = self.before.machine.clone();
        Err(StoreError::from(MachineRefusal::NoRevision(machine, revision)).into())
    }

    /// Makes the stand-in for a revision, and waits until the agent knows it.
    fn stand_in(&self, revision: Revision, name: &MachineName) -> Result<(), Failure> {
        self.check(revision)?;
        let path = self
            .volume
            .entry(&self.before.machine, &Entry::Revision(revision));
        self.volume
            .bring_in(Intent::Add, name, Source::Subvolume(path))?;
        let deadline = Instant::now() + NOTICE_MAX;
        loop {
            let status: Status = self.client.get("status")?;
            if status.machines.iter().any(|it| it.machine == *name) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Failure::new(
                    Ending::Failed,
                    format!(
                        "the agent does not see machine {name}; is {} one of its volumes?",
                        self.volume.path().display()
                    ),
                ));
            }
            std::thread::sleep(FOLLOW_PAUSE);
        }
    }
}

/// The revision that a build failed on.
fn known_bad(build: &Build) -> Result<Revision, Failure> {
    let id = build.id;
    let refuse = |words: String| Err(Failure::new(Ending::Refused, words));
    match (build.outcome, build.revision) {
        (Some(Outcome::Error), Some(revision)) => Ok(revision),
        (Some(Outcome::Error), None) => refuse(format!(
            "the revision that build {id} ran on is not recorded"
        )),
        (Some(outcome), _) => refuse(format!(
            "build {id} ended with {outcome}; only one that ended with error can be bisected"
        )),
        (None, _) => refuse(format!("build {id} is {}", build.state)),
    }
}
