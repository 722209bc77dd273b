//! `prserv export`, `import`, `migrate-localcount` and `sync`.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use prserv::History;
use prserv::inc_file::{self, Lockdown};
use prserv::store::{Database, Filter, OpenMode, Row};
use prserv::sync_plan;

use super::backend::Backend;
use super::{ExitStatus, client};

/// The prefix of the versions that BitBake makes for recipes with AUTOINC.
const AUTOINC: &str = "AUTOINC-";

/// The arguments of `prserv export`.
#[derive(Debug, clap::Args)]
pub(crate) struct Export {
    #[command(flatten)]
    backend: Backend,

    /// The file to write. Its name must end with `.conf` or `.inc`; `-` is stdout.
    file: PathBuf,

    /// Export all rows, not only those with the greatest value of their package.
    #[arg(long)]
    history: bool,

    /// Omit `PRSERV_LOCKDOWN`, so that BitBake requests missing values from a server.
    #[arg(long)]
    no_lockdown: bool,
}

/// The arguments of `prserv import` and `prserv migrate-localcount`.
#[derive(Debug, clap::Args)]
pub(crate) struct Import {
    #[command(flatten)]
    backend: Backend,

    /// The file to read. Its name must end with `.conf` or `.inc`; `-` is stdin.
    file: PathBuf,
}

/// The arguments of `prserv sync`.
#[derive(Debug, clap::Args)]
pub(crate) struct Sync {
    /// The central server, `HOST:PORT` or `unix://PATH`.
    #[arg(value_name = "SERVER")]
    center: String,

    /// The local database, a SQLite file or the URL of a PostgreSQL database. It may be in use.
    #[arg(long, value_name = "FILE|URL", default_value = "prserv.sqlite3")]
    db: String,

    #[command(flatten)]
    client: client::Arguments,

    /// Print the rows that would be imported without importing them.
    #[arg(long)]
    dry_run: bool,
}

/// Exports rows to a file.
pub(crate) fn export(arguments: &Export) -> anyhow::Result<ExitStatus> {
    check_name(&arguments.file)?;
    let history = if arguments.history {
        History::Keep
    } else {
        History::Ignore
    };
    let lockdown = if arguments.no_lockdown {
        Lockdown::No
    } else {
        Lockdown::Yes
    };
    let rows = arguments.backend.rows(&Filter::default(), history)?;
    let formatted = inc_file::format(rows, lockdown);
    write_file(&arguments.file, &formatted.text)?;
    for row in &formatted.skipped {
        tracing::warn!(tuple = %row.tuple, "skipped a row: no variable can have this name");
    }
    if formatted.dotted > 0 {
        tracing::warn!(
            values = formatted.dotted,
            "the file contains dotted values, which oe-core's importer ignores"
        );
    }
    Ok(if formatted.skipped.is_empty() {
        ExitStatus::Success
    } else {
        ExitStatus::Failure
    })
}

/// Imports the rows of a file.
pub(crate) fn import(arguments: &Import) -> anyhow::Result<ExitStatus> {
    let (rows, status) = read_rows(&arguments.file)?;
    record(&arguments.backend, &rows, status)
}

/// Imports the greatest value of each tuple from a dump of LOCALCOUNTs.
pub(crate) fn migrate_localcount(arguments: &Import) -> anyhow::Result<ExitStatus> {
    let (mut rows, status) = read_rows(&arguments.file)?;
    rows.retain(|row| row.tuple.package.version.starts_with(AUTOINC));
    rows.sort_by(|a, b| a.tuple.cmp(&b.tuple).then(b.value.cmp(&a.value)));
    rows.dedup_by(|later, first| later.tuple == first.tuple);
    record(&arguments.backend, &rows, status)
}

/// Imports the rows of the local database that the central server lacks.
pub(crate) fn sync(arguments: &Sync) -> anyhow::Result<ExitStatus> {
    let local = Database::from(arguments.db.as_str())
        .open(OpenMode::Read)?
        .rows(&Filter::default())?;
    push(arguments, &local)
}

#[tokio::main(flavor = "current_thread")]
async fn push(arguments: &Sync, local: &[Row]) -> anyhow::Result<ExitStatus> {
    let mut center = arguments.client.connect_to(&arguments.center)?;
    let mut versions: Vec<&str> = local
        .iter()
        .map(|row| row.tuple.package.version.as_str())
        .collect();
    versions.dedup();
    let filters: Vec<Filter> = versions
        .into_iter()
        .map(|version| Filter {
            version: Some(version.to_owned()),
            ..Filter::default()
        })
        .collect();
    let central = center.export_all(&filters, History::Keep).await?.concat();
    let imports = sync_plan::plan(local, &central);
    let mut out = std::io::stdout().lock();
    if arguments.dry_run {
        for Row { tuple, value } in &imports {
            writeln!(out, "would import {value}: {tuple}")?;
        }
        return Ok(ExitStatus::Success);
    }
    let mut accepted = 0;
    for (Row { tuple, value }, is_accepted) in imports.iter().zip(center.import(&imports).await?) {
        if is_accepted {
            accepted += 1;
            writeln!(out, "imported {value}: {tuple}")?;
        }
    }
    tracing::info!(rows = imports.len(), accepted, "synchronized");
    if accepted < imports.len() {
        bail!(
            "{} refused imports: it is read-only or this client may not write; see --token-file",
            arguments.center
        );
    }
    Ok(ExitStatus::Success)
}

fn record(backend: &Backend, rows: &[Row], status: ExitStatus) -> anyhow::Result<ExitStatus> {
    let accepted = backend.import(rows)?;
    tracing::info!(rows = rows.len(), accepted, "imported");
    if accepted < rows.len() {
        bail!("the server accepted {accepted} of {} rows", rows.len());
    }
    Ok(status)
}

/// Returns the rows of a file. Logs malformed lines; the exit status is then a failure.
fn read_rows(file: &Path) -> anyhow::Result<(Vec<Row>, ExitStatus)> {
    check_name(file)?;
    let parsed = inc_file::parse(&read_file(file)?);
    for line in &parsed.malformed_lines {
        tracing::error!("{}:{line}: not a row", file.display());
    }
    for (line, tuple) in &parsed.long_values {
        tracing::error!(
            "{}:{line}: the value of {tuple} is too long",
            file.display()
        );
    }
    let status = if parsed.malformed_lines.is_empty() && parsed.long_values.is_empty() {
        ExitStatus::Success
    } else {
        ExitStatus::Failure
    };
    Ok((parsed.rows, status))
}

fn check_name(file: &Path) -> anyhow::Result<()> {
    let is_known = file
        .extension()
        .is_some_and(|extension| extension == "conf" || extension == "inc");
    if !is_known && file != Path::new("-") {
        bail!("{} must end with .conf or .inc", file.display());
    }
    Ok(())
}

fn read_file(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)
    } else {
        fs::File::open(file).and_then(|mut opened| opened.read_to_string(&mut text))
    };
    read.with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text)
}

/// Replaces a file atomically.
fn write_file(file: &Path, text: &str) -> anyhow::Result<()> {
    if file == Path::new("-") {
        return Ok(std::io::stdout().lock().write_all(text.as_bytes())?);
    }
    let directory = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let replace = || -> std::io::Result<()> {
        let mut temporary = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))?;
        temporary.write_all(text.as_bytes())?;
        temporary.as_file().sync_all()?;
        temporary.persist(file)?;
        Ok(())
    };
    replace().with_context(|| format!("cannot write {}", file.display()))
}
