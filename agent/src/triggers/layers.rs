//! The sources of layers: fixtures when the agent starts, and layer indexes by the clock and by
//! request.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use config::layers::Update;
use tokio::time::{MissedTickBehavior, interval};

use jiff::Timestamp;
use sys::blocking::blocking;
use sys::error_report::chain;
use tracing::{info, warn};
use yocto::CatalogError;
use yocto::catalog::SourceKey;
use yocto::fixtures::{self, Fixture};
use yocto::layer_index::{self, Address, AddressError, Synced};

use state::AgentState;

/// The delay of the first update by the clock after the start of the agent.
const FIRST_DELAY: Duration = Duration::from_mins(5);
/// The endings of the files of fixtures.
const ENDINGS: [&str; 2] = ["xml", "json"];

/// Loads the fixtures of the settings. If one has a fault, the earlier ones stay, and the list of
/// sources has the fault. Blocks.
pub(crate) fn load_fixtures(agent: &AgentState) {
    let directory = &agent.settings().layers.fixtures;
    let loaded = match read(directory) {
        Ok(files) => agent.catalog.load_fixtures(&files, true, Timestamp::now()),
        Err(error) => {
            let (error, directory) = (&error as &dyn Error, directory.display());
            warn!(error, %directory, "cannot read the fixtures; the earlier ones stay");
            return ignore_files(agent, &error.to_string());
        }
    };
    match loaded {
        Ok(loaded) => {
            let (files, releases) = (loaded.objects.len(), loaded.content.releases.len());
            if files > 0 {
                info!(files, releases, "loaded the fixtures");
            }
            for note in loaded.notes {
                warn!(note, "a fixture is probably not as meant");
            }
        }
        Err(error) => {
            let error = &error as &dyn Error;
            warn!(error, "cannot load the fixtures; the earlier ones stay");
            ignore_files(agent, &error.to_string());
        }
    }
}

/// Makes the content of the fixtures that were loaded before, and records the fault of the files.
fn ignore_files(agent: &AgentState, fault: &str) {
    let now = Timestamp::now();
    let loaded = agent.catalog.load_fixtures(&[], false, now);
    let recorded = loaded.and_then(|_| {
        agent
            .catalog
            .record_update(&SourceKey::Fixtures, fault, now)
    });
    if let Err(error) = recorded {
        let error = &error as &dyn Error;
        warn!(error, "cannot use the fixtures that were loaded before");
    }
}

/// Reads the fixtures of a directory, which need not exist, in the order of their loading.
fn read(directory: &Path) -> io::Result<Vec<Fixture>> {
    let entries = match sys::file::entries(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for path in entries {
        let ending = path.extension().and_then(|ending| ending.to_str());
        let name = path.file_name().and_then(|name| name.to_str());
        let (Some(name), Some(true)) = (name, ending.map(|it| ENDINGS.contains(&it))) else {
            continue;
        };
        files.push(Fixture {
            name: name.to_owned(),
            text: sys::trusted::read_text(&path)?,
        });
    }
    files.sort_by_key(|file| (fixtures::position(&file.name), file.name.clone()));
    Ok(files)
}

/// A failure to update the layers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpdateError {
    /// The address of an index is invalid.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The settings name no index.
    #[error(
        "the setting layers.indexes names no layer index, and neither do the fixtures; name one with `--url`"
    )]
    NoIndex,
    /// The catalog cannot be used.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// Updates the layers by the clock, until the agent stops.
pub(crate) async fn run(agent: Arc<AgentState>) {
    let Some(period) = agent.settings().layers.update else {
        return;
    };
    tokio::select! {
        () = agent.stopping.cancelled() => return,
        () = tokio::time::sleep(FIRST_DELAY.min(period)) => {}
    }
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = agent.stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        tokio::select! {
            // What was not stored yet changes nothing.
            () = agent.stopping.cancelled() => return,
            updated = update(&agent, None) => if let Err(error) = updated {
                warn!(error = &error as &dyn Error, "cannot update the layers");
            }
        }
    }
}

/// Updates the layers from one index, or from all that the fixtures or else the settings name.
/// Each index is one transaction; a failure of one is in its result.
///
/// # Errors
/// There is no index, an address is invalid, or the catalog cannot be used.
pub(crate) async fn update(
    agent: &Arc<AgentState>,
    url: Option<String>,
) -> Result<Vec<Update>, UpdateError> {
    let agent = Arc::clone(agent);
    blocking(move || {
        let indexes = indexes(&agent, url)?;
        if indexes.is_empty() {
            return Err(UpdateError::NoIndex);
        }
        let update = |(address, place)| update_one(&agent, &address, place);
        indexes.into_iter().map(update).collect()
    })
    .await
}

/// Returns the addresses of the indexes with their places in the settings.
fn indexes(agent: &AgentState, url: Option<String>) -> Result<Vec<(Address, u32)>, UpdateError> {
    let custom = agent.catalog.settings()?;
    let mut custom = custom.into_iter().filter(|it| it.name == fixtures::INDEX);
    let known = match custom.next() {
        Some(setting) => vec![setting.value],
        None => agent.settings().layers.indexes.clone(),
    };
    let known = known
        .iter()
        .map(|text| Address::parse(text))
        .collect::<Result<Vec<_>, _>>()?;
    let places = || known.iter().cloned().zip(0u32..);
    let Some(url) = url else {
        return Ok(places().collect());
    };
    let wanted = Address::parse(&url)?;
    // The credentials of the settings, and the place there.
    let same = places().find(|(address, _)| address.shown() == wanted.shown());
    let last = u32::try_from(known.len()).unwrap_or(u32::MAX);
    Ok(vec![same.unwrap_or((wanted, last))])
}

/// Updates the layers from one index.
fn update_one(agent: &AgentState, address: &Address, place: u32) -> Result<Update, UpdateError> {
    let catalog = &agent.catalog;
    let key = SourceKey::Index(address.shown(), place);
    let asked = layer_index::sync(address, &catalog.releases()?, &catalog.mark(&key)?);
    let now = Timestamp::now();
    let mut update = Update {
        source: address.shown(),
        changed: false,
        layers: 0,
        left: 0,
        notes: address.note().into_iter().collect(),
        fault: String::new(),
    };
    match asked {
        Ok(Synced::Changed {
            content,
            mark,
            notes,
        }) => {
            let replaced = catalog.replace(&key, &content, &mark, now)?;
            (update.changed, update.layers, update.left) = (true, replaced.layers, replaced.left);
            update.notes.extend(notes);
            info!(
                index = update.source,
                layers = update.layers,
                left = update.left,
                "updated the layers"
            );
        }
        Ok(Synced::Unchanged) => {
            catalog.record_update(&key, "", now)?;
            let sources = catalog.sources()?;
            let own = sources.iter().find(|it| it.name == update.source);
            update.layers = own.map_or(0, |it| it.layers);
        }
        Err(error) => {
            update.fault = chain(&error);
            catalog.record_update(&key, &update.fault, now)?;
            let error = &error as &dyn Error;
            warn!(
                index = update.source,
                error, "cannot update the layers from an index"
            );
        }
    }
    Ok(update)
}
