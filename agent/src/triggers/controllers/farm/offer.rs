//! The offer of this host to a farm, and the request for the build of a grant; pure.

use std::num::NonZeroU32;

use config::builds::{ControllerTask, Priority, Request, Resources, Target};
use config::settings::ControllerRules;
use config::task::{Digest, GivenScript};
use config::{ImageKey, MachineName, ResourceCount, ResourceCounts};
use farm_core::messages::PollAnswer;
use farm_core::trials::TrialOrder;
use farm_core::{
    Capacity, Lease, Offer, OfferedMachine, OfferedTrial, Requirements, Revision, placement,
};
use jiff::Timestamp;
use planner::{Amounts, HostState, ResourceRequest};

use super::lease;

/// Returns the offer of a host. `is_frozen` tells whether builds on an image start from a checkpoint,
/// `is_cached` whether the caches of an image have content, and `content` the digest of the content of a
/// revision.
pub(super) fn offer(
    host: HostState,
    rules: &ControllerRules,
    is_frozen: impl Fn(&ImageKey) -> bool,
    is_cached: impl Fn(&ImageKey) -> bool,
    content: impl Fn(&MachineName, config::Revision) -> Option<Digest>,
) -> Offer {
    let machines = host.machines.into_iter();
    let machines = machines.filter(|(name, _)| rules.preference(name).is_some());
    let machines = machines.map(|(name, machine)| {
        let trial = machine.candidate.map(|it| OfferedTrial {
            revision: number(it.revision),
            content: content(&name, it.revision),
            toolchains: it.toolchains,
            failures: it.failures,
        });
        let images = machine.images;
        let offered = OfferedMachine {
            revision: number(machine.revision),
            content: content(&name, machine.revision),
            frozen: images.iter().any(&is_frozen),
            cached: images.iter().any(&is_cached),
            trial,
            toolchains: images.into_iter().map(|it| it.toolchain).collect(),
        };
        (name, offered)
    });
    Offer {
        machines: machines.collect(),
        total: capacity(host.total),
        free: capacity(host.free),
        halt: host.halt,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Returns the number of a revision in a farm.
pub(super) fn number(revision: config::Revision) -> Revision {
    Revision(revision.0.into())
}

/// Returns the revision of a number in a farm. No host has one that is too large.
pub(super) fn revision(number: Revision) -> config::Revision {
    config::Revision(u32::try_from(number.0).unwrap_or(u32::MAX))
}

fn capacity(amounts: Amounts) -> Capacity {
    Capacity {
        guests: amounts.guests,
        cpus: amounts.cpus,
        memory_mib: amounts.memory,
        resources: amounts.counts,
    }
}

/// Returns the sentences about machines of an offer that have the number of the published revision and
/// not its content.
pub(super) fn unlike(offer: &Offer, answer: &PollAnswer) -> Vec<String> {
    let unlike = answer.published.iter().filter_map(|(machine, published)| {
        let offered = offer.machines.get(machine)?;
        let is_behind = offered.revision < published.revision;
        placement::unlike(machine, offered, published).filter(|_| !is_behind)
    });
    unlike.map(|it| it.to_string()).collect()
}

/// Returns the sentence about a trial that cannot begin on this host.
pub(super) fn not_tried(machine: &MachineName, order: &TrialOrder) -> String {
    let revision = order.candidate.revision.0;
    format!(
        "has revision {revision} of {machine} with other content than the one on trial in the farm"
    )
}

/// Returns true if two offers differ in what matters for the placement of builds. Free memory alone
/// changes all the time.
pub(super) fn differs(one: &Offer, other: &Offer) -> bool {
    let free = |offer: &Offer| Capacity {
        memory_mib: 0,
        ..offer.free.clone()
    };
    one.machines != other.machines
        || one.halt != other.halt
        || one.total != other.total
        || free(one) != free(other)
}

/// Returns true if a build runs its own script. Others run the `build` of their toolchain on their sources.
fn has_script(needs: &Requirements) -> bool {
    !needs.work.script.is_empty() || needs.work.sources.is_empty()
}

/// Returns the manifest of a task, which may be a script.
pub(super) fn script(needs: &Requirements) -> Vec<u8> {
    let given = GivenScript {
        script: needs.work.script.clone(),
        masked: Vec::new(),
    };
    serde_json::to_vec(&given).unwrap_or_default()
}

/// Returns the request for the build of a lease. `own` are the resources of the machine.
pub(super) fn request(
    rules: &ControllerRules,
    held: Lease,
    (needs, trial): (&Requirements, Option<Revision>),
    own: &ResourceRequest,
    now: Timestamp,
) -> Request {
    Request {
        machine: needs.machine.clone(),
        toolchain: Some(needs.toolchain.clone()),
        sources: needs.work.sources.clone(),
        interactive: None,
        hold: false,
        commands: None,
        target: needs.work.package.parse::<Target>().ok(),
        priority: Priority::default(),
        resources: resources(needs, own),
        after: Vec::new(),
        secrets: Vec::new(),
        submitter: None,
        coalesce: false,
        project: None,
        controller: Some(ControllerTask {
            controller: rules.name.clone(),
            priority: rules.priority,
            session: lease::session(held),
            package: needs.work.package.clone(),
            version: String::new(),
            expires: now
                .saturating_add(rules.lease_max)
                .unwrap_or(Timestamp::MAX),
            auxiliaries: Vec::new(),
            script: has_script(needs),
            guarded: true,
            trial: trial.map(revision),
        }),
    }
}

/// Returns the resources that a build asks for beyond those of its machine. Only a machine's own fit its
/// checkpoint.
fn resources(needs: &Requirements, own: &ResourceRequest) -> Resources {
    let beyond = |wanted: u64, own: u64| {
        let wanted = u32::try_from(wanted.min(u32::MAX.into())).ok();
        wanted
            .filter(|it| u64::from(*it) > own)
            .and_then(NonZeroU32::new)
    };
    let counts = needs.resources.iter().filter_map(|(name, count)| {
        let count = u32::try_from(*count).ok().and_then(NonZeroU32::new)?;
        let name = name.clone();
        Some(ResourceCount { name, count })
    });
    Resources {
        cpus: beyond(needs.cpus, own.cpus),
        memory_mib: beyond(needs.memory_mib, own.memory),
        // The names of a map differ.
        counts: ResourceCounts::collect(counts).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use farm_core::{Epoch, Work};

    use super::*;

    fn needs(cpus: u64, memory_mib: u64) -> Requirements {
        Requirements {
            machine: "linux".parse().unwrap(),
            toolchain: "default".parse().unwrap(),
            cpus,
            memory_mib,
            resources: BTreeMap::from([("license".parse().unwrap(), 2)]),
            work: Work {
                script: "true".to_owned(),
                package: "hello".to_owned(),
                sources: Vec::new(),
            },
        }
    }

    #[test]
    fn a_build_asks_only_for_what_its_machine_does_not_have() {
        let own = ResourceRequest {
            cpus: 2,
            memory: 512,
            ..ResourceRequest::default()
        };
        let number = |value: Option<NonZeroU32>| value.map(NonZeroU32::get);
        let small = resources(&needs(1, 512), &own);
        assert_eq!((number(small.cpus), number(small.memory_mib)), (None, None));
        let large = resources(&needs(4, 1024), &own);
        assert_eq!(number(large.cpus), Some(4));
        assert_eq!(number(large.memory_mib), Some(1024));
        assert_eq!(
            number(large.counts.get(&"license".parse().unwrap())),
            Some(2)
        );
    }

    #[test]
    fn an_offer_differs_by_more_than_its_free_memory() {
        let offer = |guests, memory_mib, halt: Option<&str>| Offer {
            free: Capacity {
                guests,
                memory_mib,
                ..Capacity::default()
            },
            halt: halt.map(str::to_owned),
            ..Offer::default()
        };
        assert!(!differs(&offer(1, 100, None), &offer(1, 90, None)));
        assert!(differs(&offer(1, 100, None), &offer(2, 100, None)));
        assert!(differs(&offer(1, 100, None), &offer(1, 100, Some("full"))));
        let on_trial = |toolchains: &[&str]| {
            let trial = OfferedTrial {
                toolchains: toolchains.iter().map(|it| it.parse().unwrap()).collect(),
                ..OfferedTrial::default()
            };
            let machine = OfferedMachine {
                trial: Some(trial),
                ..OfferedMachine::default()
            };
            let machines = [("linux".parse().unwrap(), machine)].into();
            Offer {
                machines,
                ..offer(1, 100, None)
            }
        };
        assert!(!differs(&on_trial(&["gcc"]), &on_trial(&["gcc"])));
        assert!(differs(&on_trial(&[]), &on_trial(&["gcc"])));
    }

    #[test]
    fn a_build_with_sources_runs_the_program_of_its_toolchain() {
        let mut needs = needs(1, 1);
        needs.work.sources = vec![config::task::Source {
            name: "a.tar".parse().unwrap(),
            sha256: "a".repeat(64).parse().unwrap(),
        }];
        assert!(has_script(&needs));
        needs.work.script.clear();
        assert!(!has_script(&needs));
        needs.work.sources.clear();
        assert!(has_script(&needs));
    }

    #[test]
    fn the_request_has_a_guard_and_names_its_lease() {
        let held = Lease {
            build: config::BuildId(7),
            epoch: Epoch(2),
        };
        let settings =
            "[[controllers]]\nname = \"farm\"\nkind = \"farm\"\nurls = [\"https://a\"]\n";
        let rules = config::settings::Settings::parse(settings)
            .unwrap()
            .controllers
            .remove(0);
        let own = ResourceRequest::default();
        let (needs, trial) = (needs(1, 1), Some(Revision(4)));
        let request = request(&rules, held, (&needs, trial), &own, Timestamp::UNIX_EPOCH);
        let task = request.controller.unwrap();
        assert!(task.guarded && task.script);
        assert_eq!(task.trial, Some(config::Revision(4)));
        assert_eq!(lease::of_session(&task.session), Some(held));
        assert_eq!(request.target, "hello".parse().ok());
    }
}
