//! The check after a kill, a failure or a power cut: the volume is in the state before the change
//! or in the state after it, and nothing is broken.

use std::collections::BTreeMap;

use config::doctor::{Id, Severity};
use store::Volume;

use crate::hosts::{CommandOutput, listing};

/// The name of partial revisions in a listing, without their numbers.
const PARTIAL: &str = "/.buildhost.partial-";

/// The states of a volume before and after a change, as [`listing`] shows them.
#[derive(Debug, Clone)]
pub struct OldOrNew {
    /// The state before the change.
    pub old: Vec<String>,
    /// The state after the change.
    pub new: Vec<String>,
    /// Prefixes of the names of parts that change separately; everything else changes together. A
    /// complete revision is such a part, because its link is replaced later.
    pub separate_parts: &'static [&'static str],
    /// True if a repeated call leads to the new state from any intermediate one. A call that
    /// creates something different each time does not.
    pub is_repeatable: bool,
}

impl OldOrNew {
    /// Returns true if the volume is in the new state.
    pub fn is_new(&self, volume: &Volume) -> bool {
        without_empty_directories(&listing(volume.path())) == without_empty_directories(&self.new)
    }

    fn is_old(&self, volume: &Volume) -> bool {
        without_empty_directories(&listing(volume.path())) == without_empty_directories(&self.old)
    }

    /// Checks the volume after a disturbance, also after a clean-up if the host was rebooted, and
    /// checks that repeating the call leads to the new state. `context` describes the disturbance
    /// in messages.
    pub fn check_recovery(
        &self,
        volume: &Volume,
        context: &str,
        is_rebooted: bool,
        repeat: impl FnOnce() -> CommandOutput,
    ) {
        assert_links_are_valid(volume, context);
        if is_rebooted {
            self.check_after_cleanup(volume, context);
        }
        if !self.is_repeatable && !self.is_old(volume) {
            return self.check_after_cleanup(volume, context);
        }
        if !self.is_new(volume) {
            let repeated = repeat();
            assert_eq!(repeated.code, Some(0), "{context}, repeated: {repeated:?}");
        }
        self.check_after_cleanup(volume, context);
        let found = listing(volume.path());
        assert!(self.is_new(volume), "{context}, repeated: {found:#?}");
    }

    /// Cleans the volume as the agent does after a boot, and checks that the clean-up succeeds,
    /// leaves nothing for the doctor, and leaves each part in its old or its new state. Unmanaged
    /// files belong to both states.
    fn check_after_cleanup(&self, volume: &Volume, context: &str) {
        let found = listing(volume.path());
        let report = volume.clean_after_boot();
        assert!(report.failed.is_empty(), "{context}: {:?}", report.failed);
        assert_links_are_valid(volume, context);
        assert_nothing_is_incomplete(volume, context);
        let cleaned = self.parts(&listing(volume.path()));
        let (old, new) = (self.parts(&self.old), self.parts(&self.new));
        for name in self.separate_parts.iter().chain([&""]) {
            let part = &cleaned[name];
            assert!(
                *part == old[name] || *part == new[name],
                "{context}: {found:#?}, cleaned {part:#?}"
            );
        }
    }

    /// Splits a listing into the separate parts, by their prefixes. The key of the remainder is
    /// empty. Partial revisions are not in it, because a clean-up keeps what a transfer can
    /// continue.
    fn parts(&self, lines: &[String]) -> BTreeMap<&'static str, Vec<String>> {
        let names = self.separate_parts.iter().chain([&""]);
        let mut parts: BTreeMap<_, _> = names.map(|name| (*name, Vec::new())).collect();
        for line in without_empty_directories(lines) {
            let mut names = self.separate_parts.iter();
            let name = names.find(|name| line.starts_with(**name));
            if name.is_some() || !line.contains(PARTIAL) {
                let part = parts.entry(name.copied().unwrap_or(""));
                part.or_default().push(line);
            }
        }
        parts
    }
}

/// Checks that every current link leads to a complete revision.
fn assert_links_are_valid(volume: &Volume, context: &str) {
    for machine in volume.machines().expect("the machines") {
        let view = volume.view(&machine).expect("a machine");
        assert_eq!(view.link_fault, None, "{context}");
    }
}

/// Checks that the doctor finds nothing to repair, and that a transfer can continue each partial
/// revision. The manifests of the tests' images are no subject.
fn assert_nothing_is_incomplete(volume: &Volume, context: &str) {
    let mut findings = volume.examine(&[]).expect("findings");
    findings.retain(|it| it.id.kind().severity > Severity::Note && it.id != Id::UnusableManifest);
    assert!(findings.is_empty(), "{context}: {findings:?}");
    for view in volume.views(&[]).expect("the machines") {
        assert_eq!(view.partial, view.partial_states, "{context}");
        let is_kept = volume.partial_revision(&view).is_some();
        assert_eq!(is_kept, !view.partial.is_empty(), "{context}");
    }
}

/// Returns a listing without empty directories, which may or may not be managed.
fn without_empty_directories(lines: &[String]) -> Vec<String> {
    let is_empty = |line: &String| {
        let inside = format!("{line}/");
        !line.contains(['/', ' ']) && !lines.iter().any(|other| other.starts_with(&inside))
    };
    lines
        .iter()
        .filter(|line| !is_empty(line))
        .cloned()
        .collect()
}
