//! What must hold after a death, a failure or a power cut: everything is as it was
//! before or as it would be after, and nothing is ever broken.

use std::collections::BTreeMap;

use store::Volume;

use crate::hosts::{Answer, listing};

/// The two states of a volume, as [`listing`] shows them, that a change may leave.
#[derive(Debug, Clone)]
pub struct OldOrNew {
    /// Before the change.
    pub old: Vec<String>,
    /// After it.
    pub new: Vec<String>,
    /// Parts that change one after the other, by how their names begin; all the rest
    /// changes together. A whole revision is such a part when its link comes later.
    pub apart: &'static [&'static str],
    /// Whether the same call leads from any state between to the new one; one that
    /// makes something of its own each time does not.
    pub goes_on: bool,
}

impl OldOrNew {
    /// Whether the volume is in the new state.
    pub fn is_new(&self, volume: &Volume) -> bool {
        meant(&listing(volume.path())) == meant(&self.new)
    }

    /// Checks what is left, also after a clean-up if there was a boot, and that the
    /// same call then leads to the new state.
    ///
    /// # Panics
    /// When it is not so.
    pub fn survives(
        &self,
        volume: &Volume,
        told: &str,
        booted: bool,
        again: impl FnOnce() -> Answer,
    ) {
        links_are_whole(volume, told);
        if booted {
            self.check(volume, told);
        }
        let is_old = meant(&listing(volume.path())) == meant(&self.old);
        if !self.goes_on && !is_old {
            return self.check(volume, told);
        }
        if !self.is_new(volume) {
            let again = again();
            assert_eq!(again.code, Some(0), "{told}, then again: {again:?}");
        }
        self.check(volume, told);
        let found = listing(volume.path());
        assert!(self.is_new(volume), "{told}, then again: {found:#?}");
    }

    /// Looks at what is left, cleans it as the agent does after a boot, and looks
    /// again: everything can be cleaned and is old or new then, and what a person put
    /// there is both.
    fn check(&self, volume: &Volume, told: &str) {
        let found = listing(volume.path());
        let report = volume.clean_after_boot();
        assert!(report.failed.is_empty(), "{told}: {:?}", report.failed);
        links_are_whole(volume, told);
        let cleaned = self.parts(&listing(volume.path()));
        let (old, new) = (self.parts(&self.old), self.parts(&self.new));
        for name in self.apart.iter().chain([&""]) {
            let part = &cleaned[name];
            assert!(
                *part == old[name] || *part == new[name],
                "{told}: {found:#?}, cleaned {part:#?}"
            );
        }
    }

    /// The parts by their names; the rest has none.
    fn parts(&self, lines: &[String]) -> BTreeMap<&'static str, Vec<String>> {
        let names = self.apart.iter().chain([&""]);
        let mut parts: BTreeMap<_, _> = names.map(|name| (*name, Vec::new())).collect();
        for line in meant(lines) {
            let name = self.apart.iter().find(|name| line.starts_with(**name));
            parts
                .entry(name.copied().unwrap_or(""))
                .or_default()
                .push(line);
        }
        parts
    }
}

/// Every current link leads to a complete revision.
#[expect(clippy::expect_used, reason = "a test cannot go on without it")]
fn links_are_whole(volume: &Volume, told: &str) {
    for machine in volume.machines().expect("the machines") {
        let view = volume.look(&machine).expect("a machine");
        assert_eq!(view.link_fault, None, "{told}");
    }
}

/// A listing without empty directories, of which nobody knows whose they are.
fn meant(lines: &[String]) -> Vec<String> {
    let is_empty = |line: &String| {
        let inside = format!("{line}/");
        !line.contains(['/', ' ']) && !lines.iter().any(|other| other.starts_with(&inside))
    };
    let kept = lines.iter().filter(|line| !is_empty(line));
    kept.cloned().collect()
}
