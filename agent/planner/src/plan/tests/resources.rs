//! Builds that ask for other resources than those of their machines.

use config::CopyTag;

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
    let requests = pool.allocations().iter().map(|it| it.request);
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
