//! `prserv export`, `import`, `migrate-localcount` and `sync`.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use prserv::History;
use prserv::client::{Client, Patience};
use prserv::inc::{self, Lockdown};
use prserv::store::{Database, Filter, Mode, Row};
use prserv::sync;

use super::place::Place;
use super::{Ending, proxy};

/// Versions that BitBake makes for recipes with AUTOINC begin like this.
const AUTOINC: &str = "AUTOINC-";

/// `prserv export`'s arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Export {
    #[command(flatten)]
    place: Place,

    /// A file that ends in `.conf` or `.inc`; `-` is the standard output.
    file: PathBuf,

    /// All rows, not only those with their package's greatest value.
    #[arg(long)]
    history: bool,

    /// Let BitBake ask a server for what the file lacks: leave out `PRSERV_LOCKDOWN`.
    #[arg(long)]
    no_lockdown: bool,
}

/// `prserv import`'s and `prserv migrate-localcount`'s arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Import {
    #[command(flatten)]
    place: Place,

    /// A file that ends in `.conf` or `.inc`; `-` is the standard input.
    file: PathBuf,
}

/// `prserv sync`'s arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Sync {
    /// The central server.
    #[arg(value_name = "HOST:PORT")]
    center: String,

    /// The local database, a SQLite file or a URL; it may be in use.
    #[arg(long, value_name = "FILE|URL", default_value = "prserv.sqlite3")]
    db: String,

    #[command(flatten)]
    proxy: proxy::Arguments,

    /// Only tell what would be imported.
    #[arg(long)]
    dry_run: bool,
}

/// Writes a file.
pub(crate) fn export(arguments: &Export) -> anyhow::Result<Ending> {
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
    let written = inc::write(arguments.place.rows(&Filter::default(), history)?, lockdown);
    write_file(&arguments.file, &written.text)?;
    for row in &written.left_out {
        tracing::warn!(tuple = %row.tuple, "left out: no variable can have this name");
    }
    if written.dotted > 0 {
        tracing::warn!(
            values = written.dotted,
            "oe-core's importer passes over dotted values"
        );
    }
    Ok(if written.left_out.is_empty() {
        Ending::Done
    } else {
        Ending::Failed
    })
}

/// Reads a file and records its rows.
pub(crate) fn import(arguments: &Import) -> anyhow::Result<Ending> {
    let (rows, ending) = read_rows(&arguments.file)?;
    record(&arguments.place, &rows, ending)
}

/// Reads a dump of LOCALCOUNTs and records the greatest of each tuple.
pub(crate) fn migrate_localcount(arguments: &Import) -> anyhow::Result<Ending> {
    let (mut rows, ending) = read_rows(&arguments.file)?;
    rows.retain(|row| row.tuple.package.version.starts_with(AUTOINC));
    rows.sort_by(|a, b| a.tuple.cmp(&b.tuple).then(b.value.cmp(&a.value)));
    rows.dedup_by(|later, first| later.tuple == first.tuple);
    record(&arguments.place, &rows, ending)
}

/// Imports at the center what it lacks.
pub(crate) fn sync(arguments: &Sync) -> anyhow::Result<Ending> {
    let local = Database::from(arguments.db.as_str())
        .open(Mode::Read)?
        .rows(&Filter::default())?;
    push(arguments, &local)
}

#[tokio::main(flavor = "current_thread")]
async fn push(arguments: &Sync, local: &[Row]) -> anyhow::Result<Ending> {
    let target = arguments.proxy.target(&arguments.center)?;
    let mut center = Client::new(target, Patience::default());
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
    let steps = sync::plan(local, &central);
    let mut out = std::io::stdout().lock();
    for Row { tuple, value } in &steps {
        writeln!(out, "{value} for {tuple}")?;
    }
    if arguments.dry_run {
        return Ok(Ending::Done);
    }
    let taken = center
        .import(&steps)
        .await?
        .into_iter()
        .filter(|taken| *taken)
        .count();
    tracing::info!(rows = steps.len(), taken, "synchronized");
    if taken < steps.len() {
        bail!("{} takes no imports from us", arguments.center);
    }
    Ok(Ending::Done)
}

fn record(place: &Place, rows: &[Row], ending: Ending) -> anyhow::Result<Ending> {
    let taken = place.import(rows)?;
    tracing::info!(rows = rows.len(), taken, "imported");
    if taken < rows.len() {
        bail!("the server took {taken} of {} rows", rows.len());
    }
    Ok(ending)
}

/// The rows of a file. Lines that are malformed are named, and make the ending a failure.
fn read_rows(file: &Path) -> anyhow::Result<(Vec<Row>, Ending)> {
    check_name(file)?;
    let parsed = inc::parse(&read_file(file)?);
    for line in &parsed.bad_lines {
        tracing::error!("{}:{line}: not a row", file.display());
    }
    let ending = if parsed.bad_lines.is_empty() {
        Ending::Done
    } else {
        Ending::Failed
    };
    Ok((parsed.rows, ending))
}

fn check_name(file: &Path) -> anyhow::Result<()> {
    let is_known = file
        .extension()
        .is_some_and(|extension| extension == "conf" || extension == "inc");
    if !is_known && file != Path::new("-") {
        bail!("{} must end with .conf or .inc!", file.display());
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

/// Replaces a file as a whole.
fn write_file(file: &Path, text: &str) -> anyhow::Result<()> {
    if file == Path::new("-") {
        return Ok(std::io::stdout().lock().write_all(text.as_bytes())?);
    }
    let directory = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let replace = || -> std::io::Result<()> {
        let mut whole = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))?;
        whole.write_all(text.as_bytes())?;
        whole.as_file().sync_all()?;
        whole.persist(file)?;
        Ok(())
    };
    replace().with_context(|| format!("cannot write {}", file.display()))
}
