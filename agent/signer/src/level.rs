//! The SLSA build level of a build, from its record; pure.

use config::builds::{Build, GuestKind};
use serde::Serialize;

/// The level of signed provenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "u8")]
pub enum Level {
    /// The host made and signed the provenance.
    L2,
    /// Also, nothing but the request influenced the build.
    L3,
}

impl From<Level> for u8 {
    fn from(level: Level) -> Self {
        match level {
            Level::L2 => 2,
            Level::L3 => 3,
        }
    }
}

impl Level {
    /// Returns the level of a build.
    pub fn of(build: &Build) -> Self {
        if objections(build).is_empty() {
            Self::L3
        } else {
            Self::L2
        }
    }
}

/// Returns the reasons why a build is not of Build L3.
pub fn objections(build: &Build) -> Vec<&'static str> {
    let guest = match build.guest {
        Some(GuestKind::Kvm) => None,
        // QEMU's security policy promises no isolation without hardware virtualization.
        Some(GuestKind::Tcg) => Some("QEMU emulated the processor"),
        Some(GuestKind::Nspawn) => Some("a container shares the kernel of the host"),
        None => Some("the kind of the guest is unknown"),
    };
    let interactive = build.interactive.breakpoint.is_some();
    let typed = !build.typists.is_empty();
    let driven = build.interactive.commands.is_some();
    guest
        .into_iter()
        .chain(interactive.then_some("a breakpoint for a person was requested"))
        .chain(typed.then_some("a person typed on the console"))
        .chain(driven.then_some("its guest ran the commands of clients"))
        .chain(
            build
                .has_script()
                .then_some("its guest ran the script of a controller"),
        )
        .chain(image(build))
        .collect()
}

/// Returns the reason why the image of a build's guest is not trusted.
fn image(build: &Build) -> Option<&'static str> {
    let Some(inputs) = &build.inputs else {
        return Some("the image is unknown");
    };
    let Some(policy) = &inputs.policy else {
        return Some("the policy of the host is unknown");
    };
    if inputs.image_sha256.is_none() {
        Some("the image has no digest: a person typed while it was made, or it is an old one")
    } else if !policy.options.is_empty() {
        Some("the machine has options of its own for QEMU")
    } else if policy.cache.is_some() {
        Some("the guest reached a cache that other builds fill")
    } else if policy.hashserv.is_some() {
        Some("the guest reached a hash equivalence service that other builds report to")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use config::builds::{Submitter, Typist};
    use config::cache::{CacheMode, CacheUse};
    use config::hashserv::HashservMode;
    use config::task::Breakpoint;
    use jiff::Timestamp;

    use super::*;
    use crate::statement::tests::build;

    type Change = fn(&mut Build);

    #[test]
    fn only_undisturbed_builds_in_virtual_machines_are_of_level_3() {
        assert_eq!(Level::of(&build()), Level::L3, "{:?}", objections(&build()));
        let changes: [(&str, Change); 11] = [
            ("emulated", |it| it.guest = Some(GuestKind::Tcg)),
            ("container", |it| it.guest = Some(GuestKind::Nspawn)),
            ("guest is unknown", |it| it.guest = None),
            ("breakpoint", |it| {
                it.interactive.breakpoint = Some(Breakpoint::Error);
            }),
            ("typed on the console", |it| {
                it.typists.push(Typist {
                    submitter: Submitter::root(),
                    at: Timestamp::UNIX_EPOCH,
                });
            }),
            ("commands of clients", |it| {
                it.interactive.commands = Some(config::exec::CommandLimits::default());
            }),
            ("image is unknown", |it| it.inputs = None),
            ("no digest", |it| {
                it.inputs.as_mut().unwrap().image_sha256 = None;
            }),
            ("options", |it| {
                let policy = &mut it.inputs.as_mut().unwrap().policy;
                policy.as_mut().unwrap().options.push("-s".into());
            }),
            ("cache that other builds fill", |it| {
                let policy = &mut it.inputs.as_mut().unwrap().policy;
                policy.as_mut().unwrap().cache = Some(CacheUse {
                    name: "yocto".parse().unwrap(),
                    mode: CacheMode::Read,
                });
            }),
            ("service that other builds report to", |it| {
                let policy = &mut it.inputs.as_mut().unwrap().policy;
                policy.as_mut().unwrap().hashserv = Some(HashservMode::Read);
            }),
        ];
        for (expected, change) in changes {
            let mut build = build();
            change(&mut build);
            assert_eq!(Level::of(&build), Level::L2);
            let objections = objections(&build);
            assert!(objections[0].contains(expected), "{objections:?}");
        }
    }

    #[test]
    fn a_hold_of_failed_builds_does_not_change_the_level() {
        let mut build = build();
        build.interactive.hold = true;
        assert_eq!(Level::of(&build), Level::L3);
    }
}
