//! The commands about caches between builds.

use clap::{Args, Subcommand};
use config::builds::Submitter;
use config::cache::{Cache, CacheContent, Deleted, EntryFilter, PruneRequest};
use config::{BuildId, CacheName, MIB};

use crate::exit_code::Failure;
use crate::options::{DryRun, GlobalOptions};
use crate::output::{Output, Table, mebibytes, time};

const EXAMPLES: &str = "\
Examples:
  buildhost cache delete yocto --build 42              # what one build has put
  buildhost cache delete yocto --path sstate-cache/    # all of BitBake's shared state
  buildhost cache delete yocto --all --dry-run         # the size of everything";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the caches
    List,
    /// Show a cache and its entries
    Show {
        /// The cache
        name: CacheName,
        /// Only entries whose paths begin with this text, such as `downloads/`
        #[arg(
            long,
            value_name = "PREFIX",
            default_value = "",
            hide_default_value = true
        )]
        path: String,
    },
    /// Delete the entries that were not used for the longest time, down to the size of the cache
    ///
    /// The agent does this by itself whenever a build has filled the cache.
    Prune {
        /// The cache
        name: CacheName,
        /// The size to prune it to, in MiB, instead of that in the settings
        #[arg(long, value_name = "MIB")]
        mib: Option<u64>,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Delete entries of a cache
    #[command(after_help = EXAMPLES)]
    Delete(Delete),
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The cache
    name: CacheName,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    dry_run: DryRun,
}

/// The entries to delete: those that have all that is given.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Selection {
    /// Entries whose paths begin with this text, such as `downloads/hello`
    #[arg(long, value_name = "PREFIX")]
    path: Option<String>,
    /// Entries that this build has put
    #[arg(long, value_name = "BUILD")]
    build: Option<BuildId>,
    /// All entries
    #[arg(long, conflicts_with_all = ["path", "build"])]
    all: bool,
}

pub(crate) fn run(
    command: &Command,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    let client = options.client()?;
    match command {
        Command::List => list(&client.caches()?, output),
        Command::Show { name, path } => show(&client.cache(name, path)?, output),
        Command::Prune { name, mib, dry_run } => {
            let request = PruneRequest {
                bytes_max: mib.map(|mib| mib.saturating_mul(MIB)),
                dry_run: dry_run.enabled,
            };
            let deleted = client.prune_cache(name, request)?;
            report(name, deleted, *dry_run, output)
        }
        Command::Delete(arguments) => {
            let Delete {
                name,
                selection,
                dry_run,
            } = arguments;
            let filter = EntryFilter {
                prefix: selection.path.clone().unwrap_or_default(),
                build: selection.build,
                dry_run: dry_run.enabled,
            };
            let deleted = client.delete_cache_entries(name, &filter)?;
            report(name, deleted, *dry_run, output)
        }
    }
}

fn list(caches: &[Cache], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(&caches);
    }
    let mut table = Table::new([
        "CACHE",
        "SIZE",
        "MAX",
        "ENTRIES",
        "MACHINES",
        "TOOLCHAINS",
        "WRITERS",
    ]);
    for cache in caches {
        table.add(row(cache));
    }
    output.print_table(&table)
}

fn row(cache: &Cache) -> [String; 7] {
    let writers: Vec<_> = cache.writers.iter().map(Submitter::as_str).collect();
    [
        cache.name.to_string(),
        mebibytes(cache.bytes),
        mebibytes(cache.bytes_max),
        cache.entries.to_string(),
        cache.machines.join(" "),
        cache.toolchains.join(" "),
        writers.join(" "),
    ]
}

fn show(content: &CacheContent, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(content);
    }
    let mut table = Table::new(["PATH", "SIZE", "BUILD", "PUBLISHED", "USED"]);
    for entry in &content.entries {
        table.add([
            entry.path.to_string(),
            mebibytes(entry.bytes),
            entry.build.to_string(),
            time(entry.published),
            time(entry.used),
        ]);
    }
    output.print_table(&table)
}

/// Prints the entries that were deleted, or would be.
fn report(
    name: &CacheName,
    deleted: Deleted,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    let Deleted { entries, bytes } = deleted;
    let noun = if entries == 1 { "entry" } else { "entries" };
    let text = format!("{entries} {noun} of cache {name}, {}", mebibytes(bytes));
    if dry_run.enabled {
        return output.plan(format_args!("delete {text}"));
    }
    if output.is_json() {
        return output.print_json(&deleted);
    }
    output.status(format_args!("deleted {text}"));
    Ok(())
}
