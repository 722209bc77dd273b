//! Settings that change while the agent runs.

use std::sync::{Arc, PoisonError, RwLock};

use super::{Guests, Log, Paths, Settings};

/// The settings of a running agent, shared by its parts. Clones see the same settings.
#[derive(Debug, Clone)]
pub struct CurrentSettings(Arc<RwLock<Arc<Settings>>>);

impl CurrentSettings {
    /// Shares settings.
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(settings))))
    }

    /// Returns the settings of this moment. An activity that must see the same ones throughout
    /// keeps them.
    pub fn get(&self) -> Arc<Settings> {
        let settings = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&settings)
    }

    /// Replaces the settings.
    pub fn set(&self, settings: Settings) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(settings);
    }
}

/// The settings after a reload.
#[derive(Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// The settings: the new ones, except those that need a restart.
    pub settings: Settings,
    /// The sections and keys that have changed and are in effect.
    pub applied: Vec<&'static str>,
    /// The sections and keys that have changed and need a restart; the old ones stay in effect.
    pub kept: Vec<&'static str>,
}

impl Settings {
    /// Returns the settings of an agent that reads `new` while it runs with these.
    #[must_use]
    pub fn reload(&self, new: Self) -> Reloaded {
        let mut changes = Changes::default();
        let settings = self.merge(new, &mut changes);
        Reloaded {
            settings,
            applied: changes.applied,
            kept: changes.kept,
        }
    }

    /// Returns the names of all sections and keys, and whether a change of each needs a restart.
    pub(super) fn effects(&self) -> Vec<(&'static str, bool)> {
        let mut changes = Changes::default();
        self.merge(self.clone(), &mut changes);
        changes.effects
    }

    /// Every field is named here, so that a new one does not compile until its kind is decided.
    fn merge(&self, new: Self, changes: &mut Changes) -> Self {
        Self {
            name: changes.keep("host.name", &self.name, &new.name),
            paths: self.paths.merge(new.paths, changes),
            machines: changes.apply("machines", &self.machines, new.machines),
            guests: self.guests.merge(new.guests, changes),
            bootstrap: changes.apply("bootstrap", &self.bootstrap, new.bootstrap),
            builds: changes.apply("builds", &self.builds, new.builds),
            records: changes.apply("records", &self.records, new.records),
            caches: changes.keep("caches", &self.caches, &new.caches),
            feeds: changes.keep("feeds", &self.feeds, &new.feeds),
            notify: changes.keep("notify", &self.notify, &new.notify),
            provenance: changes.apply("provenance", &self.provenance, new.provenance),
            pr: changes.keep("pr", &self.pr, &new.pr),
            hashserv: changes.keep("hashserv", &self.hashserv, &new.hashserv),
            layers: changes.keep("layers", &self.layers, &new.layers),
            controllers: changes.keep("controllers", &self.controllers, &new.controllers),
            http: changes.keep("http", &self.http, &new.http),
            log: self.log.merge(new.log, changes),
        }
    }
}

impl Paths {
    fn merge(&self, new: Self, changes: &mut Changes) -> Self {
        Self {
            volumes: changes.keep("paths.volumes", &self.volumes, &new.volumes),
            toolchains: changes.keep("paths.toolchains", &self.toolchains, &new.toolchains),
            state: changes.keep("paths.state", &self.state, &new.state),
            run: changes.keep("paths.run", &self.run, &new.run),
            pressure: changes.apply("paths.pressure", &self.pressure, new.pressure),
            reserve_bytes: changes.apply(
                "paths.reserve_mib",
                &self.reserve_bytes,
                new.reserve_bytes,
            ),
        }
    }
}

impl Guests {
    /// The users of guests are in use; everything else concerns later guests.
    fn merge(&self, mut new: Self, changes: &mut Changes) -> Self {
        new.uids = changes.keep("guests.uids", &self.uids, &new.uids);
        changes.apply("guests", self, new)
    }
}

impl Log {
    fn merge(&self, new: Self, changes: &mut Changes) -> Self {
        Self {
            filter: changes.apply("log.filter", &self.filter, new.filter),
            json: changes.keep("log.format", &self.json, &new.json),
        }
    }
}

/// The changes between two settings.
#[derive(Debug, Default)]
struct Changes {
    applied: Vec<&'static str>,
    kept: Vec<&'static str>,
    /// All names, and whether a change needs a restart.
    effects: Vec<(&'static str, bool)>,
}

impl Changes {
    /// Returns the new value.
    fn apply<T: PartialEq>(&mut self, name: &'static str, old: &T, new: T) -> T {
        self.effects.push((name, false));
        if *old != new {
            self.applied.push(name);
        }
        new
    }

    /// Returns the old value, because a change needs a restart.
    fn keep<T: PartialEq + Clone>(&mut self, name: &'static str, old: &T, new: &T) -> T {
        self.effects.push((name, true));
        if old != new {
            self.kept.push(name);
        }
        old.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        Settings::parse(text).unwrap()
    }

    #[test]
    fn equal_settings_change_nothing() {
        let reloaded = settings("").reload(settings(""));
        assert_eq!(reloaded.settings, settings(""));
        assert_eq!((reloaded.applied, reloaded.kept), (vec![], vec![]));
    }

    #[test]
    fn settings_that_can_change_are_applied_and_others_are_named() {
        let old = settings("");
        let new = settings(
            "[host]\nname = \"other\"\n[paths]\nreserve_mib = 7\n[builds]\nretries_max = 9\n\
             [guests]\nuids = \"1900000000-1900099999\"\nready_max = 1\n[log]\nfilter = \"debug\"\n",
        );
        let reloaded = old.reload(new.clone());
        let applied = ["paths.reserve_mib", "guests", "builds", "log.filter"];
        assert_eq!(reloaded.applied, applied);
        assert_eq!(reloaded.kept, ["host.name", "guests.uids"]);
        assert_eq!(reloaded.settings.name, old.name);
        assert_eq!(reloaded.settings.guests.uids, old.guests.uids);
        assert_eq!(reloaded.settings.builds, new.builds);
        assert_eq!(reloaded.settings.guests.ready_max, 1);
    }

    #[test]
    fn clones_see_a_replacement_and_activities_keep_what_they_have() {
        let current = CurrentSettings::new(settings(""));
        let (clone, before) = (current.clone(), current.get());
        current.set(settings("[builds]\nretries_max = 9\n"));
        assert_ne!(clone.get().builds, before.builds);
        assert_eq!(before.builds, settings("").builds);
    }
}
