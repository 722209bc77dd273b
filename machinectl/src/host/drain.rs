//! `drain` and `undrain`: maintenance without running guests.

use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Subcommand;
use client::Client;
use config::queue::{Drain, Queue};

use crate::exit_code::{ExitStatus, Failure};
use crate::options::DryRun;
use crate::output::{Output, count};

/// The time between two requests for the queue.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Stop starting guests, for maintenance
    ///
    /// Running builds and bootstraps run to their end. Waiting and new builds wait until
    /// `buildhost undrain`, even if the agent or the host restarts.
    Drain {
        /// The host of a farm, with --farm
        host: Option<String>,
        /// With --farm: drain the host from this time on, such as 2026-12-02T14:00 or 02:00 with --each
        ///
        /// Before it only builds are placed that usually end in time.
        #[arg(long, value_name = "TIME", requires = "until")]
        from: Option<String>,
        /// With --farm: undrain the host at this time
        #[arg(long, value_name = "TIME", requires = "from")]
        until: Option<String>,
        /// With --farm: repeat that each week on these days, such as sat,sun
        #[arg(long, value_name = "DAYS", requires_all = ["from", "zone"])]
        each: Option<String>,
        /// The time zone of these times, such as Europe/Berlin
        #[arg(long, requires = "from")]
        zone: Option<String>,
        /// Wait until no guests are running
        #[arg(long)]
        wait: bool,
        /// The time limit for --wait
        #[arg(
            long,
            value_name = "SECONDS",
            default_value_t = 7200,
            requires = "wait"
        )]
        timeout: u64,
        /// The reason, shown with waiting builds
        #[arg(
            long,
            value_name = "TEXT",
            default_value = "",
            hide_default_value = true
        )]
        reason: String,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Start guests again after `drain`
    Undrain {
        /// The host of a farm, with --farm
        host: Option<String>,
        /// Take this maintenance window of the host away; `buildhost hosts HOST` lists them
        #[arg(long, value_name = "NUMBER", requires = "host")]
        window: Option<u64>,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

pub(super) fn run(command: &Command, client: &Client, output: &Output) -> Result<(), Failure> {
    match command {
        Command::Drain { host: Some(_), .. } | Command::Undrain { host: Some(_), .. } => {
            let text = "a host is named for a farm only; --farm names the farm, and --host the host of \
                        an agent";
            Err(Failure::new(ExitStatus::Usage, text))
        }
        Command::Drain { from: Some(_), .. } => {
            let text = "--from and --until have a meaning for a host of a farm only; name the farm with --farm";
            Err(Failure::new(ExitStatus::Usage, text))
        }
        Command::Drain { wait, dry_run, .. } if dry_run.enabled => {
            plan_drain(&client.queue()?, *wait, output)
        }
        Command::Drain {
            wait,
            timeout,
            reason,
            ..
        } => {
            let reason = reason.clone();
            output.status(client.drain(&Drain { reason })?.message());
            if *wait {
                wait_until_idle(client, Duration::from_secs(*timeout), output)?;
            }
            Ok(())
        }
        Command::Undrain { dry_run, .. } => undrain(client, *dry_run, output),
    }
}

fn undrain(client: &Client, dry_run: DryRun, output: &Output) -> Result<(), Failure> {
    let Some(drained) = client.queue()?.drained else {
        output.status("the host is not drained");
        return Ok(());
    };
    if dry_run.enabled {
        return output.plan(format_args!("start guests again; {}", drained.message()));
    }
    let queue = client.undrain()?;
    let builds = count(queue.waiting.len(), "waiting build");
    output.status(format_args!("starting guests again; {builds}"));
    Ok(())
}

fn plan_drain(queue: &Queue, wait: bool, output: &Output) -> Result<(), Failure> {
    output.plan("stop starting guests")?;
    if !wait {
        return Ok(());
    }
    for guest in &queue.running {
        output.plan(match guest.build {
            Some(id) if guest.is_debug_copy => {
                format!("wait for the end of a debug session of build {id}")
            }
            Some(id) => format!("wait for build {id} on {}", guest.machine),
            None => format!("wait for the bootstrap of {}", guest.machine),
        })?;
    }
    Ok(())
}

fn wait_until_idle(client: &Client, limit: Duration, output: &Output) -> Result<(), Failure> {
    let deadline = Instant::now() + limit;
    let mut last_number = None;
    loop {
        let queue = client.queue()?;
        let number = queue.running.len();
        let guests = count(number, "running guest");
        if number == 0 {
            output.status(guests);
            return Ok(());
        }
        if queue.drained.is_none() {
            let text = "another `undrain` has ended the drain";
            return Err(Failure::new(ExitStatus::Refused, text));
        }
        if Instant::now() >= deadline {
            let seconds = limit.as_secs();
            let text = format!("{guests} after {seconds} s; the host stays drained");
            return Err(Failure::new(ExitStatus::InUse, text));
        }
        if last_number != Some(number) {
            output.status(guests);
            last_number = Some(number);
        }
        sleep(POLL_INTERVAL);
    }
}
