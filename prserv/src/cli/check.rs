//! `prserv check`.

use std::io::Write;
use std::path::PathBuf;

use prserv::store::sqlite::check::{Repair, check};

use super::Ending;

/// `prserv check`'s arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The SQLite file.
    #[arg(long, value_name = "FILE", default_value = "prserv.sqlite3")]
    db: PathBuf,

    /// Mend what can be mended. No server may be running on the file.
    #[arg(long)]
    repair: bool,
}

/// Prints a line for everything found.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let repair = if arguments.repair {
        Repair::Yes
    } else {
        Repair::No
    };
    let findings = check(&arguments.db, repair)?;
    let mut out = std::io::stdout().lock();
    let mut ending = Ending::Done;
    for finding in &findings {
        let is_repairable = finding.fault.is_repairable();
        let mark = match (is_repairable, arguments.repair) {
            (false, _) => "note",
            (true, false) => "fault",
            (true, true) => "repaired",
        };
        if is_repairable && !arguments.repair {
            ending = Ending::Found;
        }
        writeln!(out, "{mark}: {finding}")?;
    }
    Ok(ending)
}
