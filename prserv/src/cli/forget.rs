//! `prserv forget`.

use std::io::Write;

use anyhow::bail;
use prserv::forget::{Forget as Request, Plan, plan};
use prserv::store::{Filter, Row};
use prserv::{History, Package, Value};

use super::ExitStatus;
use super::backend::Backend;

/// The arguments of `prserv forget`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    backend: Backend,

    /// The version, such as `busybox-1.36.1-r0`.
    version: String,

    /// The architecture, such as `core2-64`.
    pkgarch: String,

    /// Remove only the rows with greater values, for example after an import by mistake.
    #[arg(long, value_name = "VALUE", value_parser = Value::from_record)]
    above: Option<Value>,

    /// The greatest value of the package, which `--dry-run` prints. Nothing is removed if it is
    /// another one by now.
    #[arg(long, value_name = "VALUE", value_parser = Value::from_record)]
    #[arg(required_unless_present = "dry_run")]
    greatest: Option<Value>,

    /// Print the rows that would be removed without removing them.
    #[arg(long, conflicts_with = "greatest")]
    dry_run: bool,
}

/// Removes rows of a package, or prints those that would be removed.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitStatus> {
    let package = Package::new(&arguments.version, &arguments.pkgarch);
    let mut out = std::io::stdout().lock();
    let Some(greatest) = arguments.greatest.clone() else {
        let plan = plan_of(arguments, &package)?;
        write_rows(&mut out, "would remove", &plan.rows)?;
        writeln!(out, "{plan}")?;
        writeln!(
            out,
            "to remove the rows, repeat with --greatest {}",
            plan.greatest
        )?;
        return Ok(ExitStatus::Success);
    };
    let request = Request {
        package,
        above: arguments.above.clone(),
        greatest,
    };
    let removed = arguments.backend.forget(&request)?;
    write_rows(&mut out, "removed", &removed)?;
    Ok(ExitStatus::Success)
}

fn plan_of(arguments: &Arguments, package: &Package) -> anyhow::Result<Plan> {
    let filter = Filter {
        version: Some(package.version.clone()),
        pkgarch: Some(package.pkgarch.clone()),
        checksum: None,
    };
    let rows = arguments.backend.rows(&filter, History::Keep)?;
    match plan(&rows, arguments.above.as_ref()) {
        Some(plan) => Ok(plan),
        None => bail!("{package} has no such rows"),
    }
}

fn write_rows(out: &mut impl Write, what: &str, rows: &[Row]) -> std::io::Result<()> {
    for Row { tuple, value } in rows {
        writeln!(out, "{what} {value}: {tuple}")?;
    }
    Ok(())
}
