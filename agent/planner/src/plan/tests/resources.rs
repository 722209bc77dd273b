//! Builds that ask for other resources than those of their machines.

use config::{CopyTag, ResourceName};

use super::*;
use crate::{RunningDebugSession, RunningHold};

fn resources(text: &str) -> Resources {
    serde_json::from_str(text).unwrap()
}

/// Observes a host of 8 processors and 4 GiB, and a machine of 1 processor and 1 GiB.
fn host() -> Observed {
    let mut observed = bootstrapped_machines(&["linux"]);
    let request = ResourceRequest {
        cpus: 1,
        memory: 1024,
        ..ResourceRequest::default()
    };
    observed.requests.insert(key_of("linux"), request);
    observed.capacity.guests = None;
    observed.rules.backfill = std::time::Duration::MAX;
    observed.capacity.cpus = 8;
    observed
}

fn asking(id: u64, text: &str) -> QueuedBuild {
    QueuedBuild {
        resources: resources(text),
        ..queued(id, "linux")
    }
}

/// Returns the processors and the memory that the jobs of a host have.
fn allocated(observed: &Observed) -> (u64, u64) {
    let pool = observed.pool();
    let requests = pool.allocations().iter().map(|it| &it.request);
    requests.fold((0, 0), |(cpus, memory), it| {
        (cpus + it.cpus, memory + it.memory)
    })
}

#[test]
fn builds_are_admitted_with_the_resources_that_they_ask_for() {
    let mut observed = host();
    observed.queue = vec![
        asking(1, r#"{"memory_mib": 2048}"#),
        asking(2, r#"{"cpus": 8}"#),
        asking(3, r#"{"cpus": 7}"#),
        asking(4, r#"{"memory_mib": 8192}"#),
    ];
    let actions = observed.plan();
    assert_eq!(builds(&actions), [1, 3]);
    let reasons: Vec<_> = actions
        .iter()
        .filter_map(|action| match action {
            Action::SetWaitReason(id, reason) => Some(format!("{id} {reason}")),
            _ => None,
        })
        .collect();
    insta::assert_snapshot!(reasons.join("\n"));
}

#[test]
fn the_jobs_of_a_build_keep_what_it_asked_for() {
    let own = resources(r#"{"cpus": 3, "memory_mib": 2048}"#);
    let id = BuildId(1);
    let mut building = host();
    building.jobs.resources.insert(id, own);
    let (mut held, mut copied) = (building.clone(), building.clone());
    building.jobs.builds.insert(id, key_of("linux"));
    building.jobs.builds.insert(BuildId(2), key_of("linux"));
    assert_eq!(
        allocated(&building),
        (4, 3072),
        "another build has the machine's"
    );
    let key = key_of("linux");
    let has_guest = true;
    held.jobs.holds.insert(
        id,
        RunningHold {
            key: key.clone(),
            has_guest,
        },
    );
    assert_eq!(
        allocated(&held),
        (3, 2048),
        "a suspended guest keeps its memory"
    );
    let session = RunningDebugSession {
        key,
        submitter: Submitter::root(),
        since: Timestamp::UNIX_EPOCH,
        admitted: true,
    };
    let tag = CopyTag {
        build: id,
        number: 1,
    };
    copied.jobs.debug_sessions.insert(tag, session);
    assert_eq!(allocated(&copied), (3, 2048));
}

/// Observes a host with one license, and a machine `other` whose guests need it.
fn licensed_host() -> Observed {
    let mut observed = host();
    let license: ResourceName = "license".parse().unwrap();
    observed.capacity.counts.insert(license.clone(), 1);
    let request = ResourceRequest {
        counts: [(license, 1)].into(),
        ..observed.requests[&key_of("linux")].clone()
    };
    let other = bootstrapped_machines(&["linux", "other"]);
    observed.machines = other.machines;
    observed.requests.insert(key_of("other"), request);
    observed
}

#[test]
fn one_license_is_given_to_one_guest_whoever_needs_it() {
    let mut observed = licensed_host();
    observed.queue = vec![
        queued(1, "other"),
        asking(2, r#"{"counts": {"license": 1}}"#),
        queued(3, "linux"),
        asking(4, r#"{"counts": {"modem": 1}}"#),
        asking(5, r#"{"counts": {"license": 2}}"#),
    ];
    let actions = observed.plan();
    assert_eq!(builds(&actions), [1, 3]);
    let reason = |id: u64| {
        let reason = actions.iter().find_map(|action| match action {
            Action::SetWaitReason(of, reason) if of.0 == id => Some(reason.as_str()),
            _ => None,
        });
        reason.unwrap_or_default()
    };
    insta::assert_snapshot!([2, 4, 5].map(reason).join("\n"));
}

#[test]
fn a_bootstrap_waits_only_for_builds_that_lack_what_it_takes() {
    let mut observed = licensed_host();
    let own = resources(r#"{"counts": {"license": 1}}"#);
    observed.jobs.builds.insert(BuildId(1), key_of("linux"));
    observed.jobs.resources.insert(BuildId(1), own);
    observed.queue = vec![asking(2, r#"{"counts": {"license": 1}}"#)];
    let new = machine("new");
    observed.machines.insert(new.view.name.clone(), new);
    let actions = observed.plan();
    assert_eq!((bootstraps(&actions), builds(&actions)), (1, vec![]));
    let request = observed.requests[&key_of("other")].clone();
    observed.requests.insert(key_of("new"), request);
    assert_eq!(bootstraps(&observed.plan()), 0, "it needs the license, too");
}
