//! The command that finds the first commit of a layer with which a project fails.

use std::collections::BTreeMap;

use clap::Args;
use client::Client;
use config::layers::Reference;
use config::projects::{BitbakeTarget, CommitRange, LayerCommit, ProjectBuild};
use config::task::Outcome;
use config::{LayerName, MachineName, ProjectName, ToolchainName};

use crate::build::search::{self, Search};
use crate::build::wait;
use crate::exit_code::{ExitStatus, Failure};
use crate::options::DryRun;
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Bisect {
    /// The project
    name: ProjectName,
    /// The layer, whose repository is searched
    layer: LayerName,
    /// A commit, branch or tag with which the build succeeds
    #[arg(long, value_name = "COMMIT")]
    good: Reference,
    /// A later one with which it fails; by default that of the project
    #[arg(long, value_name = "COMMIT")]
    bad: Option<Reference>,
    /// A target in place of those of the project; may be repeated
    #[arg(long = "target", value_name = "TARGET[:TASK]")]
    targets: Vec<BitbakeTarget>,
    /// The machine of this host; by default that of the project
    #[arg(long, value_name = "MACHINE")]
    host_machine: Option<MachineName>,
    /// The toolchain; by default `bitbake`
    #[arg(long, value_name = "NAME")]
    toolchain: Option<ToolchainName>,
    #[command(flatten)]
    dry_run: DryRun,
}

impl Bisect {
    /// Builds the project with commits between the good and the bad one, until two neighbors
    /// differ, and prints the bad one.
    pub(super) fn run(&self, client: &Client, output: &Output) -> Result<(), Failure> {
        let range = CommitRange {
            layer: self.layer.clone(),
            from: self.good.clone(),
            to: self.bad.clone(),
        };
        // The first candidate is the good commit, the last one is bad.
        let mut commits = client.layer_commits(&self.name, &range)?;
        commits.insert(0, self.good.clone());
        let candidates: Vec<usize> = (0..commits.len()).collect();
        let mut tried = BTreeMap::from([(0, true)]);
        loop {
            match search::next(&candidates, &tried) {
                Some(Search::Try(at)) if self.dry_run.enabled => {
                    return output.plan(format_args!(
                        "build {} with {} at {} first, one of {} commits",
                        self.name,
                        self.layer,
                        commits[at],
                        commits.len() - 1
                    ));
                }
                Some(Search::Try(at)) => {
                    let is_good = self.is_good(client, &commits[at], output)?;
                    tried.insert(at, is_good);
                }
                Some(Search::Found { bad, .. }) => {
                    let commit = &commits[bad];
                    if output.is_json() {
                        return output.print_json(&serde_json::json!({ "commit": commit }));
                    }
                    return output.print(&format!("{commit}\n"));
                }
                Some(Search::AllBad(_)) | None => {
                    let text = format!("{} has no commits after {}", self.layer, self.good);
                    return Err(Failure::new(ExitStatus::NotFound, text));
                }
            }
        }
    }

    /// Builds the project with a commit of the layer. Returns true if that succeeds.
    fn is_good(
        &self,
        client: &Client,
        commit: &Reference,
        output: &Output,
    ) -> Result<bool, Failure> {
        let layer = self.layer.clone();
        let reference = commit.clone();
        let request = ProjectBuild {
            targets: self.targets.clone(),
            host_machine: self.host_machine.clone(),
            toolchain: self.toolchain.clone(),
            at: vec![LayerCommit { layer, reference }],
            coalesce: true,
            ..ProjectBuild::default()
        };
        let submitted = client.build_project(&self.name, &request)?.value.build;
        let Some(submitted) = submitted else {
            let text = "the agent submitted no build";
            return Err(Failure::new(ExitStatus::Failure, text));
        };
        let built = wait(client, submitted.id)?;
        let is_good = built.succeeded();
        if !is_good && built.outcome != Some(Outcome::Error) {
            let (id, message) = (built.id, &built.message);
            let text = format!("build {id} with commit {commit} is inconclusive: {message}");
            return Err(Failure::new(ExitStatus::Failure, text));
        }
        let verdict = if is_good { "good" } else { "bad" };
        output.status(format_args!(
            "commit {commit} is {verdict} (build {})",
            built.id
        ));
        Ok(is_good)
    }
}
