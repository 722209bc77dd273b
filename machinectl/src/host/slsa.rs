//! `slsa check`: the requirements of the SLSA build track, and what holds each on the host.

use clap::Subcommand;
use config::printable;
use config::slsa::{self, Requirement};

use crate::exit_code::{ExitStatus, Failure};
use crate::output::{Output, Table};

/// The highest level of the build track.
const LEVEL_MAX: u8 = 3;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what holds each requirement of the SLSA build track on this host
    ///
    /// Fails with exit status 3 if the host cannot reach Build L3. Each build's own level is in
    /// its provenance.
    Check,
}

/// Prints the requirements. Fails if one is not met.
pub(super) fn check(requirements: &[Requirement], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        output.print_json(&requirements)?;
    } else {
        output.print_table(&table(requirements))?;
    }
    let level = slsa::level(requirements);
    if level == LEVEL_MAX {
        output.status("this host meets SLSA Build L3");
        return Ok(());
    }
    let text = format!("this host meets SLSA Build L{level}, not L{LEVEL_MAX}");
    Err(Failure::new(ExitStatus::Refused, text))
}

fn table(requirements: &[Requirement]) -> Table {
    let mut table = Table::new(["LEVEL", "HELD", "REQUIREMENT", "BY"]);
    for Requirement {
        level,
        requirement,
        held,
        by,
    } in requirements
    {
        table.add([
            format!("L{level}"),
            if *held { "yes" } else { "no" }.to_owned(),
            requirement.clone(),
            printable(by).to_string(),
        ]);
    }
    table
}
