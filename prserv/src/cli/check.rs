//! `prserv check`.

use std::io::Write;
use std::path::PathBuf;

use prserv::store::sqlite::check::{Repair, check};

use super::ExitStatus;

/// The arguments of `prserv check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The SQLite file.
    #[arg(long, value_name = "FILE", default_value = "prserv.sqlite3")]
    db: PathBuf,

    /// Repair the defects. No server may be running on the file.
    #[arg(long)]
    repair: bool,
}

/// Prints one line per finding.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitStatus> {
    let repair = if arguments.repair {
        Repair::Yes
    } else {
        Repair::No
    };
    let findings = check(&arguments.db, repair)?;
    let mut out = std::io::stdout().lock();
    let mut status = ExitStatus::Success;
    for finding in &findings {
        let is_repairable = finding.defect.is_repairable();
        let label = match (is_repairable, arguments.repair) {
            (false, _) => "note",
            (true, false) => "fault",
            (true, true) => "repaired",
        };
        if is_repairable && !arguments.repair {
            status = ExitStatus::DefectsFound;
        }
        writeln!(out, "{label}: {finding}")?;
    }
    Ok(status)
}
