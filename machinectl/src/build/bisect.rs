//! `bisect`: the first revision of a machine on which a build fails.

pub(crate) mod search;

use std::collections::BTreeMap;

use clap::Subcommand;
use client::Client;
use config::builds::Build;
use config::task::Outcome;
use config::{BuildId, Revision};
use serde_json::json;

use super::follow;
use super::submit::resubmit;
use super::temporary_machine::Origin;
use crate::exit_code::{ExitStatus, Failure};
use crate::options::{DryRun, GlobalOptions};
use crate::output::Output;
use search::Search;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Find the first revision of a machine on which a build fails, and print its number
    ///
    /// Builds again on older revisions, first on the oldest and then between a good and a bad
    /// one, on temporary machines. The package revisions that these builds get are used up like
    /// those of any build.
    Bisect {
        /// A build that failed
        build: BuildId,
        /// A revision on which the build is known to succeed
        #[arg(long, value_name = "NUMBER")]
        good: Option<Revision>,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

/// A failed build and the means to build it again.
struct Bisection<'a> {
    client: &'a Client,
    output: &'a Output,
    build: Build,
    origin: Origin,
}

pub(super) fn run(
    command: &Command,
    client: &Client,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    let Command::Bisect {
        build,
        good,
        dry_run,
    } = command;
    let build = client.build(*build)?;
    let bad = failed_revision(&build)?;
    let origin = Origin::of(&build, options)?;
    let bisection = Bisection {
        client,
        output,
        build,
        origin,
    };
    bisection.run(*good, bad, *dry_run)
}

impl Bisection<'_> {
    fn run(&self, good: Option<Revision>, bad: Revision, dry_run: DryRun) -> Result<(), Failure> {
        let machine = &self.build.machine;
        let revisions = self.candidates(good, bad)?;
        let mut tried: BTreeMap<_, _> = good.map(|good| (good, true)).into_iter().collect();
        loop {
            match search::next(&revisions, &tried) {
                Some(Search::Try(revision)) if dry_run.enabled => {
                    return self.output.plan(format_args!(
                        "build {} on revision {revision} of {machine} first, one of {} before {bad}",
                        self.build.target,
                        revisions.len() - 1
                    ));
                }
                Some(Search::Try(revision)) => {
                    tried.insert(revision, self.is_good(revision)?);
                }
                Some(Search::Found { good, bad }) => {
                    self.output.status(format_args!(
                        "revision {good} is good, revision {bad} is bad"
                    ));
                    if self.output.is_json() {
                        return self.output.print_json(&json!({ "good": good, "bad": bad }));
                    }
                    return self.output.print(&format!("{bad}\n"));
                }
                Some(Search::AllBad(_)) | None => {
                    let text = format!("{machine} has no revision on which the build succeeds");
                    return Err(Failure::new(ExitStatus::NotFound, text));
                }
            }
        }
    }

    /// Returns the complete revisions from the good one up to the bad one.
    fn candidates(&self, good: Option<Revision>, bad: Revision) -> Result<Vec<Revision>, Failure> {
        if let Some(good) = good {
            self.origin.require(good)?;
        }
        let is_candidate = |it: &Revision| *it < bad && good.is_none_or(|good| *it >= good);
        let mut revisions: Vec<_> = self
            .origin
            .complete_revisions()
            .filter(is_candidate)
            .collect();
        revisions.push(bad);
        Ok(revisions)
    }

    /// Builds on a revision. Returns true if that succeeds.
    fn is_good(&self, revision: Revision) -> Result<bool, Failure> {
        let name = self.origin.create(self.client, revision)?;
        let built = resubmit(self.client, &self.build, name.clone(), self.output)
            .and_then(|build| Ok(follow::wait(self.client, build.id)?));
        self.origin.delete(&name)?;
        let built = built?;
        let is_good = built.succeeded();
        if !is_good && built.outcome != Some(Outcome::Error) {
            let text = format!(
                "build {} on revision {revision} is inconclusive: {}",
                built.id, built.message
            );
            return Err(Failure::new(ExitStatus::Failure, text));
        }
        let verdict = if is_good { "good" } else { "bad" };
        self.output.status(format_args!(
            "revision {revision} is {verdict} (build {})",
            built.id
        ));
        Ok(is_good)
    }
}

/// Returns the revision on which a build has failed.
fn failed_revision(build: &Build) -> Result<Revision, Failure> {
    let id = build.id;
    let reason = match (build.outcome, build.revision) {
        (Some(Outcome::Error), Some(revision)) => return Ok(revision),
        (Some(Outcome::Error), None) => format!("the revision of build {id} is not recorded"),
        (Some(outcome), _) => format!(
            "build {id} finished with {outcome}; only a build that finished with error can be bisected"
        ),
        (None, _) => format!("build {id} is {}", build.state),
    };
    Err(Failure::new(ExitStatus::Refused, reason))
}
