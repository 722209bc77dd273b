//! The verbs over revisions: `rollback`, `pin`, `unpin`, `prune`.

use std::time::{Duration, SystemTime};

use std::num::NonZeroU32;

use clap::{Args, Subcommand};
use config::{MachineName, Revision};
use store::init::Size;
use store::prune::{self, Pruned, Rule};
use store::{Change, MachineRefusal, StoreError, Volume};

use crate::{Common, Failure, Rehearsal, Voice};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make an older revision of a machine current again
    Rollback {
        /// The machine
        name: MachineName,
        /// The revision; without it the one before the current one
        revision: Option<Revision>,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
    /// Keep a revision when others are pruned
    Pin {
        /// The machine
        name: MachineName,
        /// The revision
        revision: Revision,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
    /// Let a revision be pruned again
    Unpin {
        /// The machine
        name: MachineName,
        /// The revision
        revision: Revision,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
    /// Compare a revision with the record of its content
    Verify {
        /// The machine
        name: MachineName,
        /// The revision; without it the current one
        revision: Option<Revision>,
    },
    /// Delete old revisions, but never a current or a pinned one
    Prune {
        /// The machines; without any, all of the volume
        names: Vec<MachineName>,
        /// How many revisions of each machine stay
        #[arg(long, value_name = "NUMBER", default_value_t = 2)]
        keep: usize,
        /// Only those that were made so many days ago
        #[arg(long, value_name = "DAYS")]
        older_than: Option<u32>,
        /// Stop as soon as so much space is free
        #[arg(long, value_name = "SIZE")]
        until_free: Option<Size>,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
}

/// For verbs that bring a revision in.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Retention {
    /// Then keep only so many of the newest revisions where this one is now current
    ///
    /// As `prune --keep` does; the agent may do so by itself, see its settings.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) keep: Option<NonZeroU32>,
}

impl Retention {
    fn rule(self) -> Option<Rule> {
        Some(Rule {
            keep: usize::try_from(self.keep?.get()).unwrap_or(usize::MAX),
            made_before: None,
            until_free: None,
        })
    }

    /// Prunes a machine after a new revision has become current. That is done:
    /// what stays for now is told, and is no failure.
    pub(crate) fn apply(self, volume: &Volume, name: &MachineName, voice: &Voice) {
        let Some(rule) = self.rule() else {
            return;
        };
        match volume.prune(std::slice::from_ref(name), &rule) {
            Ok(pruned) => {
                tell(&pruned, voice);
                for (_, _, error) in &pruned.failed {
                    voice.warn(error);
                }
            }
            Err(error) => voice.warn(&error),
        }
    }

    /// What [`Retention::apply`] would do when `next` is current.
    pub(crate) fn rehearse(
        self,
        volume: &Volume,
        name: &MachineName,
        next: Revision,
        voice: &Voice,
    ) -> Result<(), Failure> {
        let (Some(mut rule), Ok(mut view)) = (self.rule(), volume.look(name)) else {
            return Ok(());
        };
        if view.revision(next).is_none() {
            rule.keep = rule.keep.saturating_sub(1);
        }
        view.current = Some(next);
        for (machine, revision) in prune::plan([&view], &rule) {
            voice.would(format!("delete revision {revision} of {machine}"))?;
        }
        Ok(())
    }
}

pub(crate) fn run(verb: &Verb, common: &Common, voice: &Voice) -> Result<(), Failure> {
    let volume = Volume::open(&common.volume)?;
    match verb {
        Verb::Rollback {
            name,
            revision,
            rehearsal,
        } => roll_back(&volume, name, *revision, rehearsal.dry_run, voice),
        Verb::Pin {
            name,
            revision,
            rehearsal,
        } => {
            if rehearsal.dry_run {
                need(&volume, name, *revision)?;
                return voice.would(format!("pin revision {revision} of {name}"));
            }
            let change = volume.pin(name, *revision)?;
            voice.say(format!(
                "{name}: revision {revision} is pinned{}",
                already(change)
            ));
            Ok(())
        }
        Verb::Unpin {
            name,
            revision,
            rehearsal,
        } => {
            if rehearsal.dry_run {
                volume.look(name)?;
                return voice.would(format!("unpin revision {revision} of {name}"));
            }
            let change = volume.unpin(name, *revision)?;
            voice.say(format!(
                "{name}: revision {revision} is not pinned{}",
                already(change)
            ));
            Ok(())
        }
        Verb::Verify { name, revision } => {
            let checked = volume.verify(name, *revision)?;
            let mebibytes = checked.bytes >> 20;
            voice.say(format!(
                "{name}: {} files and {mebibytes} MiB are as recorded",
                checked.items
            ));
            Ok(())
        }
        Verb::Prune {
            names,
            keep,
            older_than,
            until_free,
            rehearsal,
        } => {
            let age = older_than.map(|days| Duration::from_hours(24 * u64::from(days)));
            let rule = Rule {
                keep: *keep,
                made_before: age.and_then(|age| SystemTime::now().checked_sub(age)),
                until_free: until_free.map(Size::bytes),
            };
            prune(&volume, names, &rule, rehearsal.dry_run, voice)
        }
    }
}

fn already(change: Change) -> &'static str {
    match change {
        Change::Unchanged => " (as before)",
        Change::Changed => "",
    }
}

fn need(volume: &Volume, name: &MachineName, revision: Revision) -> Result<(), StoreError> {
    match volume.look(name)?.revision(revision) {
        Some(view) if view.complete => Ok(()),
        _ => Err(MachineRefusal::NoRevision(name.clone(), revision).into()),
    }
}

fn roll_back(
    volume: &Volume,
    name: &MachineName,
    to: Option<Revision>,
    rehearsed: bool,
    voice: &Voice,
) -> Result<(), Failure> {
    if rehearsed {
        let to = volume.plan_roll_back(name, to)?;
        return voice.would(format!("make revision {to} of {name} current"));
    }
    let revision = volume.roll_back(name, to)?;
    voice.say(format!("{name}: revision {revision} is current"));
    Ok(())
}

fn prune(
    volume: &Volume,
    names: &[MachineName],
    rule: &Rule,
    rehearsed: bool,
    voice: &Voice,
) -> Result<(), Failure> {
    let names = if names.is_empty() {
        volume.machines()?
    } else {
        names.to_vec()
    };
    if rehearsed {
        let views: Result<Vec<_>, _> = names.iter().map(|name| volume.look(name)).collect();
        for (machine, revision) in prune::plan(&views?, rule) {
            voice.would(format!("delete revision {revision} of {machine}"))?;
        }
        return Ok(());
    }
    let pruned = volume.prune(&names, rule)?;
    tell(&pruned, voice);
    if pruned.done.is_empty() && pruned.failed.is_empty() && pruned.origins.is_empty() {
        voice.say("nothing to prune");
    }
    let mut failed = pruned.failed.into_iter();
    let Some((_, _, first)) = failed.next() else {
        return Ok(());
    };
    for (_, _, error) in failed {
        voice.error(&error);
    }
    Err(first.into())
}

fn tell(pruned: &Pruned, voice: &Voice) {
    for (machine, revision) in &pruned.done {
        voice.say(format!("{machine}: revision {revision} is deleted"));
    }
    for (machine, revision) in &pruned.origins {
        voice.say(format!(
            "{machine}: revision {revision} stays, because an image or a build uses it"
        ));
    }
}
