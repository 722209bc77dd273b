//! `rebuild`: the same build again, on the current or an older revision of its machine.

use clap::Subcommand;
use client::Client;
use config::builds::Build;
use config::{BuildId, FileName, Revision};

use super::follow::finish_submission;
use super::replace::{self, Replacement};
use super::resources::ResourceOptions;
use super::submit::resubmit;
use super::temporary_machine::Origin;
use crate::exit_code::Failure;
use crate::options::{DryRun, Follow, GlobalOptions};
use crate::output::Output;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Submit a build again, with the same sources and toolchain
    ///
    /// Single sources can be edited or replaced, and the guest can get other resources; everything
    /// else stays the same.
    Rebuild {
        /// The build
        build: BuildId,
        /// Build on this revision of the machine, which a temporary machine provides
        ///
        /// The temporary machine is called MACHINE-at-NUMBER and takes no space. With --follow it
        /// is deleted after the build; otherwise it stays until it is deleted by hand.
        #[arg(long, value_name = "NUMBER")]
        on_revision: Option<Revision>,
        /// Edit this source of the build with $VISUAL or $EDITOR, and build with the result
        #[arg(long, value_name = "SOURCE")]
        edit: Option<FileName>,
        /// Build with this file in the place of a source; may be repeated
        #[arg(long, value_name = "SOURCE=PATH")]
        replace: Vec<Replacement>,
        #[command(flatten)]
        resources: ResourceOptions,
        #[command(flatten)]
        follow: Follow,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

pub(super) fn run(
    command: &Command,
    client: &Client,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    let Command::Rebuild {
        build,
        on_revision,
        edit,
        replace,
        resources,
        follow,
        dry_run,
    } = command;
    let mut build = client.build(*build)?;
    replace::check(&build, replace, edit.as_ref())?;
    build.resources = resources.or(&build.resources)?;
    if !dry_run.enabled {
        build.sources = replace::sources(client, &build, replace, edit.as_ref(), output)?;
    }
    if let Some(revision) = on_revision {
        let origin = Origin::of(&build, options)?;
        return on_older(
            client,
            &build,
            &origin,
            *revision,
            (*follow, *dry_run),
            output,
        );
    }
    if dry_run.enabled {
        let (target, machine) = (&build.target, &build.machine);
        return output.plan(format_args!("build {target} on {machine} again"));
    }
    let again = resubmit(client, &build, build.machine.clone(), output)?;
    finish_submission(client, &again, *follow, output)
}

/// Builds again on an older revision.
fn on_older(
    client: &Client,
    build: &Build,
    origin: &Origin,
    revision: Revision,
    (follow, dry_run): (Follow, DryRun),
    output: &Output,
) -> Result<(), Failure> {
    let machine = &build.machine;
    if dry_run.enabled {
        origin.require(revision)?;
        let name = origin.temporary_name(revision)?;
        return output.plan(format_args!(
            "build {} on {name}, a temporary machine for revision {revision} of {machine}",
            build.target
        ));
    }
    let name = origin.create(client, revision)?;
    let again = resubmit(client, build, name.clone(), output)?;
    if !follow.enabled {
        output.status(format_args!(
            "created temporary machine {name} for revision {revision} of {machine}; \
             `buildhost delete {name}` deletes it"
        ));
    }
    let finished = finish_submission(client, &again, follow, output);
    if follow.enabled {
        origin.delete(&name)?;
    }
    finished
}
