//! The state of a feed, as the API, the doctor and the metrics show it. Blocks.

use config::MachineName;
use config::feeds::{FeedRepository, FeedStatus, RefusedPackage};
use config::settings::FeedRules;
use feeds::index;
use feeds::package::PackageKind;
use feeds::repository::Repository;
use feeds::signature::FeedKey;
use feeds::state::{Refused, State};
use records::FeedCounts;
use sys::error_report::chain;

/// The largest number of missing files and of refused packages that are shown.
const SHOWN_MAX: usize = 20;

/// Returns the state of a feed.
pub(super) fn of(rules: &FeedRules, counts: FeedCounts) -> FeedStatus {
    let (keys, key_fault) = match super::keys(rules) {
        Ok(keys) => (keys, String::new()),
        Err(error) => (Vec::new(), chain(&error)),
    };
    let machines = super::machines(rules).unwrap_or_default();
    let repositories = machines
        .iter()
        .map(|machine| of_machine(rules, machine, &keys));
    FeedStatus {
        name: rules.name.clone(),
        path: rules.path.display().to_string(),
        served: rules.serve,
        waiting: counts.waiting,
        failure: counts.failure,
        keys: keys.iter().map(FeedKey::fingerprint).collect(),
        key_fault,
        repositories: repositories.collect(),
    }
}

fn of_machine(rules: &FeedRules, machine: &MachineName, keys: &[FeedKey]) -> FeedRepository {
    let repository = super::repository(rules, machine);
    let (state, fault) = match repository.state() {
        Ok(state) => (state, String::new()),
        Err(error) => (None, chain(&error)),
    };
    let mut shown = FeedRepository {
        machine: machine.clone(),
        location: format!("/feed/{}/{machine}", rules.name),
        fault,
        generation: 0,
        published: None,
        architectures: Vec::new(),
        debs: 0,
        ipks: 0,
        missing: Vec::new(),
        stale: false,
        refused: Vec::new(),
    };
    if let Some(state) = state {
        show(&mut shown, &state, &repository, keys);
    }
    shown
}

fn show(shown: &mut FeedRepository, state: &State, repository: &Repository, keys: &[FeedKey]) {
    let count = |kind| state.entries.iter().filter(|it| it.id.kind == kind).count();
    shown.generation = state.generation;
    shown.published = Some(state.published);
    shown.architectures = index::architectures(&state.entries)
        .into_iter()
        .map(str::to_owned)
        .collect();
    (shown.debs, shown.ipks) = (count(PackageKind::Deb), count(PackageKind::Ipk));
    shown.missing = repository.missing().unwrap_or_default();
    shown.missing.truncate(SHOWN_MAX);
    // Without usable keys, their fault is what matters.
    shown.stale = !keys.is_empty() && repository.needs_signature(state, keys);
    let refused = state.refused.iter().rev().take(SHOWN_MAX).rev();
    shown.refused = refused.map(refused_package).collect();
}

fn refused_package(refused: &Refused) -> RefusedPackage {
    let Refused {
        file,
        build,
        reason,
        at,
    } = refused.clone();
    RefusedPackage {
        file,
        build,
        reason,
        at,
    }
}
