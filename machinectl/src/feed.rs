//! The commands about package feeds.

use clap::Subcommand;
use config::FeedName;
use config::feeds::{FeedRebuilt, FeedRepository, FeedStatus};

use crate::exit_code::{ExitStatus, Failure};
use crate::options::GlobalOptions;
use crate::output::{Output, Table, or_empty, time};

/// The feeds are sections `[[feeds]]` of the agent's settings; docs/feeds.md tells how to make a key, and
/// how to set up a client.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the repositories of all feeds, with their packages and faults
    List,
    /// Show a feed: its keys, its repositories, and the packages that were refused
    Show {
        /// The name of the feed
        name: FeedName,
    },
    /// Make the indexes of a feed again from its packages, and sign them with the keys of the settings
    ///
    /// Compares the hashes of all packages, and leaves out those that are missing or have changed. Clients
    /// see the indexes before until the new ones are complete.
    Rebuild {
        /// The name of the feed
        name: FeedName,
    },
}

pub(crate) fn run(
    command: &Command,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    let client = options.client()?;
    match command {
        Command::List => list(&client.feeds()?, output),
        Command::Show { name } => {
            let feeds = client.feeds()?;
            let feed = feeds.iter().find(|feed| feed.name == *name);
            let feed = feed.ok_or_else(|| {
                let text =
                    format!("there is no feed {name}; `buildhost feed list` lists all feeds");
                Failure::new(ExitStatus::Failure, text)
            })?;
            show(feed, output)
        }
        Command::Rebuild { name } => rebuilt(&client.rebuild_feed(name)?, output),
    }
}

fn list(feeds: &[FeedStatus], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(&feeds);
    }
    let headings = [
        "NAME",
        "MACHINE",
        "DEB",
        "IPK",
        "PUBLISHED",
        "WAITING",
        "REFUSED",
        "FAULT",
    ];
    let mut table = Table::new(headings);
    for feed in feeds {
        let row = |machine: String, repository: Option<&FeedRepository>| {
            let number = |of: fn(&FeedRepository) -> usize| repository.map_or(0, of).to_string();
            [
                feed.name.to_string(),
                machine,
                number(|it| it.debs),
                number(|it| it.ipks),
                or_empty(repository.and_then(|it| it.published).map(time)),
                feed.waiting.to_string(),
                number(|it| it.refused.len()),
                fault(feed, repository),
            ]
        };
        if feed.repositories.is_empty() {
            table.add(row("-".to_owned(), None));
        }
        for repository in &feed.repositories {
            table.add(row(repository.machine.to_string(), Some(repository)));
        }
    }
    output.print_table(&table)
}

/// Returns the worst fault of a repository; empty without one.
fn fault(feed: &FeedStatus, repository: Option<&FeedRepository>) -> String {
    let of_repository = repository.map(|it| match it.missing.len() {
        _ if !it.fault.is_empty() => it.fault.clone(),
        0 if it.stale => "signed by other keys; `buildhost feed rebuild` signs again".to_owned(),
        0 => String::new(),
        missing => format!("{missing} files are missing"),
    });
    let faults = [feed.key_fault.clone(), feed.failure.clone()];
    let mut faults = faults.into_iter().chain(of_repository);
    faults.find(|fault| !fault.is_empty()).unwrap_or_default()
}

fn show(feed: &FeedStatus, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(feed);
    }
    let mut lines = vec![
        format!("Feed {}", feed.name),
        format!("  directory  {}", feed.path),
        format!("  served     {}", if feed.served { "yes" } else { "no" }),
        format!("  waiting    {}", feed.waiting),
    ];
    lines.extend(feed.keys.iter().map(|key| format!("  key        {key}")));
    for fault in [&feed.key_fault, &feed.failure] {
        if !fault.is_empty() {
            lines.push(format!("  fault      {fault}"));
        }
    }
    for repository in &feed.repositories {
        lines.extend(repository_lines(feed, repository));
    }
    output.print(&format!("{}\n", lines.join("\n")))
}

fn repository_lines(feed: &FeedStatus, repository: &FeedRepository) -> Vec<String> {
    let mut lines = vec![
        String::new(),
        format!("{}", repository.machine),
        format!("  location       {}", repository.location),
        format!("  generation     {}", repository.generation),
        format!(
            "  published      {}",
            or_empty(repository.published.map(time))
        ),
        format!("  architectures  {}", repository.architectures.join(", ")),
        format!(
            "  packages       {} deb, {} ipk",
            repository.debs, repository.ipks
        ),
    ];
    let fault = fault(feed, Some(repository));
    if !fault.is_empty() {
        lines.push(format!("  fault          {fault}"));
    }
    for path in &repository.missing {
        lines.push(format!("  missing        {path}"));
    }
    for refused in &repository.refused {
        let build = refused
            .build
            .map_or_else(|| "-".to_owned(), |build| build.to_string());
        let (file, reason) = (&refused.file, &refused.reason);
        lines.push(format!(
            "  refused        {file} of build {build}: {reason}"
        ));
    }
    lines
}

fn rebuilt(rebuilt: &[FeedRebuilt], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(&rebuilt);
    }
    for FeedRebuilt {
        machine,
        generation,
        lost,
    } in rebuilt
    {
        output.status(format!(
            "rebuilt the repository of {machine}, generation {generation}"
        ));
        for lost in lost {
            output.status(format!("{machine} has lost {lost}"));
        }
    }
    Ok(())
}
