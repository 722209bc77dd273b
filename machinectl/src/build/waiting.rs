//! Submitting a build and waiting for it, as a step of a CI system does: its files are fetched, and it
//! is canceled when the step is.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use client::{Client, ClientError};
use config::BuildId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use super::artifacts::Produced;
use super::follow;
use super::submit::{self, BuildArguments};
use crate::exit_code::{ExitStatus, Failure};
use crate::options::{DryRun, Follow};
use crate::output::Output;

/// The options of a caller that waits for its build.
#[derive(Debug, Args)]
pub(crate) struct WaitingOptions {
    #[command(flatten)]
    follow: Follow,
    /// Fetch the files of the build and their provenance into this directory if it succeeds
    #[arg(short, long, value_name = "DIR", requires = "follow")]
    output: Option<PathBuf>,
    /// Cancel the build on SIGINT, SIGTERM or SIGHUP, unless it was requested before
    #[arg(long, requires = "follow")]
    cancel_on_signal: bool,
}

impl WaitingOptions {
    /// Returns true if the build is followed.
    pub(crate) fn follows(&self) -> bool {
        self.follow.enabled
    }

    /// Returns the directory into which the files of the build are fetched.
    pub(crate) fn output(&self) -> Option<&Path> {
        self.output.as_deref()
    }

    /// Returns a flag that the first signal sets, if the build is canceled on signals. From here on a signal
    /// waits until the number of the build is known.
    pub(crate) fn signal(&self) -> Result<Option<Arc<AtomicBool>>, Failure> {
        let signal = self.cancel_on_signal.then(flag_of_signals).transpose();
        signal.map_err(|error| Failure::new(ExitStatus::Failure, error))
    }
}

/// Submits a build, and waits for it if the options ask for it.
pub(super) fn submit(
    client: &Client,
    arguments: &BuildArguments,
    options: &WaitingOptions,
    output: &Output,
) -> Result<(), Failure> {
    let request = submit::upload(client, arguments, output)?;
    let mut signal = options.signal()?;
    let submitted = submit::request_build(client, &request, output)?;
    if let (false, Some(flag)) = (submitted.is_new, &signal) {
        // The build stays, and a signal ends the program.
        flag.store(true, Ordering::SeqCst);
        signal = None;
    }
    if !options.follow.enabled {
        return follow::print_submitted(&submitted.value, output);
    }
    let build = submitted.value.id;
    follow::run_with(client, build, false, output, &mut || {
        cancel_on_signal(client, build, &mut signal, output)
    })?;
    match options.output() {
        None => Ok(()),
        Some(directory) => {
            let dry_run = DryRun { enabled: false };
            let produced = Produced::of(&client.build(build)?);
            produced.fetch(client, directory, dry_run, output)
        }
    }
}

/// Cancels a build at the first signal.
fn cancel_on_signal(
    client: &Client,
    build: BuildId,
    signal: &mut Option<Arc<AtomicBool>>,
    output: &Output,
) -> Result<(), Failure> {
    let has_come = signal.take_if(|signal| signal.load(Ordering::SeqCst));
    if has_come.is_none() {
        return Ok(());
    }
    match client.cancel(build) {
        Ok(_) => output.status(format_args!("cancelling build {build}")),
        // It is about to finish.
        Err(ClientError::Refused { detail, .. }) => output.status(detail),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Returns a flag that the first signal sets. A second one ends the program.
fn flag_of_signals() -> io::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register_conditional_default(signal, Arc::clone(&flag))?;
        flag::register(signal, Arc::clone(&flag))?;
    }
    Ok(flag)
}
