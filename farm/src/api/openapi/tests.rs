//! The comparison of the description with the routes and the types of bodies. The samples name each member,
//! so that another one does not compile without them.

use std::collections::{BTreeMap, BTreeSet};

use config::BuildId;
use config::builds::{Artifact, Priority};
use config::canary::TrialVerdict;
use config::schedule::{Run, RunResult, Timing};
use config::task::{Digest, Outcome, Source};
use farm_core::messages::{
    Grant, NewBuild, NewRevision, Poll, PollAnswer, PollId, Release, Report, Subject,
};
use farm_core::schedules::{NewSchedule, Schedule};
use farm_core::site::HostState;
use farm_core::transfers::{TransferId, TransferOrder, Wanted};
use farm_core::trials::{TrialNumber, TrialOrder};
use farm_core::view::{
    BuildPage, BuildState, BuildTrial, BuildView, FilesPlace, HostView, LostAttempt, MachineView,
    ProjectView, QueueView, RevisionView, ScheduleView, TrialView, WindowView,
};
use farm_core::windows::{Day, Weekly, WindowId, WindowRequest};
use farm_core::{
    Capacity, Epoch, HostId, Lease, Offer, OfferedMachine, OfferedTrial, Published, Requirements,
    Revision, Terms, Work,
};
use jiff::Timestamp;
use jiff::civil::Time;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use server_tests::Description;

use super::super::clients::Submitted;
use super::super::hosts::{Enrolled, Enrolment};
use super::super::schedules::{Ran, RunNow};
use super::super::sources::SourceWanted;
use super::super::windows::Added;
use super::OPENAPI;

const LEASE: Lease = Lease {
    build: BuildId(7),
    epoch: Epoch(2),
};

/// The schemas that have been compared.
struct Compared {
    description: Description,
    names: BTreeSet<String>,
}

impl Compared {
    /// Compares a type that a server sends: its members are those of the schema.
    fn sent(&mut self, name: &str, full: &impl Serialize) -> Value {
        let value = serde_json::to_value(full).unwrap();
        let schema = self.description.schema(name);
        let members = |value: &Value| -> BTreeSet<String> {
            let members = value.as_object().into_iter().flatten();
            members.map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(members(&value), members(&schema["properties"]), "{name}");
        self.description.assert_valid(name, schema, &value);
        self.names.insert(name.to_owned());
        value
    }

    /// Compares a type that a server takes: also the members that may be left out.
    fn taken<T: Serialize + DeserializeOwned>(&mut self, name: &str, full: &T) {
        let value = self.sent(name, full);
        self.optional::<T>(name, &value);
    }

    fn optional<T: DeserializeOwned>(&mut self, name: &str, full: &Value) {
        let schema = self.description.schema(name);
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for member in full.as_object().unwrap().keys() {
            let mut without = full.clone();
            without.as_object_mut().unwrap().remove(member);
            let is_refused = serde_json::from_value::<T>(without).is_err();
            let is_required = required.contains(&json!(member));
            assert_eq!(is_refused, is_required, "{name}: {member}");
        }
        self.names.insert(name.to_owned());
    }

    /// Compares the words of an enumeration.
    fn words(&mut self, name: &str, words: impl IntoIterator<Item = String>) {
        let known: BTreeSet<_> = words.into_iter().collect();
        let described = self.description.schema(name)["enum"].as_array().unwrap();
        let described = described.iter().map(|it| it.as_str().unwrap().to_owned());
        assert_eq!(described.collect::<BTreeSet<_>>(), known, "{name}");
        self.names.insert(name.to_owned());
    }
}

fn requirements() -> Requirements {
    Requirements {
        machine: "linux".parse().unwrap(),
        toolchain: "default".parse().unwrap(),
        cpus: 1,
        memory_mib: 512,
        resources: resources(),
        work: Work {
            script: "#!/bin/sh\n".to_owned(),
            package: "hello".to_owned(),
            sources: vec![source()],
        },
    }
}

fn digest() -> Digest {
    "a".repeat(64).parse().unwrap()
}

fn published() -> Published {
    Published {
        revision: Revision(3),
        content: Some(digest()),
    }
}

fn weekly() -> Weekly {
    Weekly {
        days: vec![Day::Sun],
        from: Time::midnight(),
        until: Time::midnight(),
        zone: "UTC".to_owned(),
    }
}

fn window() -> WindowView {
    WindowView {
        id: WindowId(1),
        from: Timestamp::UNIX_EPOCH,
        until: Timestamp::UNIX_EPOCH,
        weekly: Some(weekly()),
        reason: "kernel".to_owned(),
        open: true,
    }
}

fn source() -> Source {
    Source {
        name: "hello.tar".parse().unwrap(),
        sha256: digest(),
    }
}

fn resources() -> BTreeMap<config::ResourceName, u64> {
    [("license".parse().unwrap(), 1)].into()
}

fn capacity() -> Capacity {
    Capacity {
        guests: 1,
        cpus: 2,
        memory_mib: 512,
        resources: resources(),
    }
}

fn offered() -> OfferedMachine {
    OfferedMachine {
        revision: Revision(3),
        content: Some(digest()),
        toolchains: ["default".parse().unwrap()].into(),
        frozen: true,
        cached: true,
        trial: Some(OfferedTrial {
            revision: Revision(4),
            content: Some(digest()),
            toolchains: ["default".parse().unwrap()].into(),
            failures: [("gcc".parse().unwrap(), "no space".to_owned())].into(),
        }),
    }
}

fn offer() -> Offer {
    Offer {
        machines: [("linux".parse().unwrap(), offered())].into(),
        total: capacity(),
        free: capacity(),
        halt: Some("the disk is full".to_owned()),
        version: "0.1.0".to_owned(),
    }
}

fn poll() -> Poll {
    Poll {
        id: PollId {
            incarnation: u64::MAX,
            number: 1,
        },
        held: vec![LEASE],
        hold_ms: 1,
        offer: offer(),
    }
}

fn grant() -> Grant {
    Grant {
        lease: LEASE,
        requirements: requirements(),
        canceled: true,
        trial: Some(Revision(4)),
    }
}

fn trial_order() -> TrialOrder {
    TrialOrder {
        number: TrialNumber(2),
        candidate: published(),
        rolled_back: Some("build 7 failed on it".to_owned()),
    }
}

fn order(wanted: Wanted) -> TransferOrder {
    TransferOrder {
        id: TransferId("x".to_owned()),
        coordinator: "http://a".to_owned(),
        wanted,
    }
}

/// Returns a transfer of each kind.
fn wanted() -> Vec<Wanted> {
    let log = Wanted::Log {
        lease: LEASE,
        offset: 0,
        follow: true,
    };
    // Another kind does not compile without a sample.
    match log {
        Wanted::Log { .. }
        | Wanted::Artifacts { .. }
        | Wanted::Artifact { .. }
        | Wanted::Provenance { .. }
        | Wanted::Image { .. } => {}
    }
    let artifact = Wanted::Artifact {
        lease: LEASE,
        name: "a.deb".parse().unwrap(),
    };
    let image = Wanted::Image {
        machine: "linux".parse().unwrap(),
        revision: Revision(3),
    };
    let provenance = Wanted::Provenance {
        lease: LEASE,
        signed: true,
    };
    let artifacts = Wanted::Artifacts { lease: LEASE };
    vec![log, artifacts, artifact, provenance, image]
}

fn lost() -> LostAttempt {
    LostAttempt {
        epoch: Epoch(1),
        host: Some("build1".to_owned()),
        claimed: Some(Timestamp::UNIX_EPOCH),
        ended: Timestamp::UNIX_EPOCH,
        is_released: true,
    }
}

fn subject() -> Subject {
    Subject {
        target: Some("hello".parse().unwrap()),
        project: Some("camera".parse().unwrap()),
    }
}

fn build() -> BuildView {
    BuildView {
        build: BuildId(7),
        subject: subject(),
        submitter: "ann".parse().unwrap(),
        priority: Priority(-1),
        requirements: requirements(),
        state: BuildState::Running,
        outcome: Some(Outcome::Success),
        canceled: true,
        host: Some("build1".to_owned()),
        epoch: Epoch(2),
        revision: Some(Revision(3)),
        losses: 1,
        message: Some("make failed".to_owned().into()),
        submitted: Timestamp::UNIX_EPOCH,
        claimed: Some(Timestamp::UNIX_EPOCH),
        finished: Some(Timestamp::UNIX_EPOCH),
        why: Some("no host is free".to_owned()),
        usual_seconds: Some(1),
        files: Some(FilesPlace::Stored),
        trial: Some(build_trial()),
        lost: vec![lost()],
    }
}

fn build_trial() -> BuildTrial {
    BuildTrial {
        revision: Revision(3),
        outcome: Some(Outcome::Error),
        is_repeated: true,
    }
}

fn trial() -> TrialView {
    TrialView {
        number: TrialNumber(1),
        revision: Revision(3),
        content: Some(digest()),
        terms: "3 of 10".parse().unwrap(),
        since: Timestamp::UNIX_EPOCH,
        succeeded: 1,
        needed: 3,
        strikes: 1,
        running: 1,
        repeating: 1,
        ended: Some(Timestamp::UNIX_EPOCH),
        verdict: Some(TrialVerdict::RolledBack),
        reason: Some("it failed".to_owned()),
    }
}

fn new_build() -> NewBuild {
    NewBuild {
        key: "k".to_owned(),
        submitter: Some("ann".parse().unwrap()),
        priority: Priority(1),
        requirements: requirements(),
        subject: subject(),
    }
}

fn host() -> HostView {
    HostView {
        name: "build1".to_owned(),
        drained: true,
        alive: true,
        revoked: true,
        seen: Some(Timestamp::UNIX_EPOCH),
        builds: 1,
        offer: offer(),
        unlike: [("linux".parse().unwrap(), "has other content".to_owned())].into(),
        windows: vec![window()],
    }
}

/// Compares what hosts and coordinators send to each other.
fn compare_hosts(compared: &mut Compared) {
    let Terms {
        lease_ms,
        hold_ms,
        request_ms,
        poll_ms,
        attempts_max,
    } = Terms::default();
    let terms = Terms {
        lease_ms,
        hold_ms,
        request_ms,
        poll_ms,
        attempts_max,
    };
    compared.sent("Terms", &terms);
    let enrolment = json!({ "token": "t", "key": "k".repeat(32) });
    let Enrolment { token: _, key: _ } = serde_json::from_value(enrolment.clone()).unwrap();
    compared.sent("Enrolment", &enrolment);
    compared.optional::<Enrolment>("Enrolment", &enrolment);
    compared.sent("Enrolled", &Enrolled { host: HostId(1) });
    compared.taken("Lease", &LEASE);
    let release = Release {
        lease: LEASE,
        is_unused: true,
    };
    compared.taken("Release", &release);
    compared.taken("PollId", &poll().id);
    compared.taken("Capacity", &capacity());
    compared.taken("OfferedMachine", &offered());
    let trial = offered().trial.unwrap_or_default();
    compared.taken("OfferedTrial", &trial);
    compared.taken("Offer", &offer());
    compared.taken("Poll", &poll());
    let report = Report {
        lease: LEASE,
        outcome: Outcome::Error,
        message: Some("make failed".to_owned().into()),
    };
    compared.taken("Report", &report);
    compared.optional::<Report>("Report", &json!(report));
    compared.sent("Grant", &grant());
    compared.sent("TrialOrder", &trial_order());
    let orders: Vec<_> = wanted().into_iter().map(order).collect();
    for it in &orders {
        compared.sent("TransferOrder", it);
    }
    let answer = PollAnswer {
        id: poll().id,
        leases: vec![grant()],
        published: [("linux".parse().unwrap(), published())].into(),
        trials: [("linux".parse().unwrap(), trial_order())].into(),
        transfers: orders,
    };
    compared.sent("PollAnswer", &answer);
}

/// Compares what clients and coordinators send to each other.
fn compare_clients(compared: &mut Compared) {
    compared.taken("Source", &source());
    compared.sent("SourceWanted", &SourceWanted { wanted: true });
    compared.taken("Work", &requirements().work);
    compared.taken("Requirements", &requirements());
    compared.sent("NewBuild", &new_build());
    compared.sent("Submitted", &Submitted { build: BuildId(7) });
    compared.taken("Published", &published());
    let revision = NewRevision {
        revision: published(),
        canary: Some("3 of 10".parse().unwrap()),
    };
    compared.taken("NewRevision", &revision);
    compared.sent("BuildTrial", &build_trial());
    compared.sent("Trial", &trial());
    compared.sent("LostAttempt", &lost());
    compared.sent("Build", &build());
    let page = BuildPage {
        builds: vec![build()],
        next: Some(BuildId(7)),
    };
    compared.sent("BuildPage", &page);
    let queue = QueueView {
        at: Timestamp::UNIX_EPOCH,
        queued: 1,
        oldest: Some(Timestamp::UNIX_EPOCH),
        running: 1,
        hosts_alive: 1,
        waiting: vec![build()],
    };
    compared.sent("Queue", &queue);
    compared.sent("Host", &host());
    compared.taken("Weekly", &weekly());
    compared.sent("Window", &window());
    let request = WindowRequest {
        from: Some(Timestamp::UNIX_EPOCH),
        until: Some(Timestamp::UNIX_EPOCH),
        weekly: Some(weekly()),
        reason: "kernel".to_owned(),
    };
    compared.taken("NewWindow", &request);
    let window = WindowId(1);
    compared.sent("WindowAdded", &Added { window });
    let of_hosts = RevisionView {
        revision: Revision(2),
        hosts: 1,
    };
    compared.sent("RevisionOnHosts", &of_hosts);
    let machine = MachineView {
        name: "linux".parse().unwrap(),
        revision: Some(Revision(3)),
        content: Some(digest()),
        revisions: vec![of_hosts],
        unlike_hosts: 1,
        hosts: [("build1".to_owned(), Revision(2))].into(),
        unlike: [("build1".to_owned(), "has other content".to_owned())].into(),
        trial: Some(trial()),
    };
    compared.sent("Machine", &machine);
    let artifact = Artifact {
        name: "a.deb".parse().unwrap(),
        bytes: 1,
        sha256: "0".repeat(64).parse().unwrap(),
    };
    compared.sent("Artifact", &artifact);
    let states = BuildState::ALL.iter().map(|(_, name)| (*name).to_owned());
    compared.words("BuildState", states);
    let states = HostState::ALL.iter().map(|(_, name)| (*name).to_owned());
    compared.words("HostState", states);
}

fn schedule() -> Schedule {
    Schedule {
        name: "nightly".parse().unwrap(),
        timing: Timing::At(Timestamp::UNIX_EPOCH),
        coalesce: true,
        submitter: "ann".parse().unwrap(),
        priority: Priority(1),
        requirements: requirements(),
        subject: subject(),
    }
}

/// Compares what is sent about schedules and projects.
fn compare_schedules(compared: &mut Compared) {
    let timings = [
        json!({ "at": "2026-11-22T02:00:00Z" }),
        json!({ "every": "PT6H" }),
        json!({ "cron": { "pattern": "0 3 * * *", "zone": "UTC" } }),
    ];
    let schema = compared.description.schema("Timing");
    for timing in timings {
        let parsed: Timing = serde_json::from_value(timing.clone()).unwrap();
        assert_eq!(serde_json::to_value(&parsed).unwrap(), timing);
        compared.description.assert_valid("Timing", schema, &timing);
    }
    compared.names.insert("Timing".to_owned());
    let new = NewSchedule {
        name: schedule().name,
        timing: schedule().timing,
        coalesce: true,
        submitter: Some("ann".parse().unwrap()),
        priority: Priority(1),
        requirements: requirements(),
        subject: subject(),
        replace: true,
        dry_run: true,
    };
    compared.taken("NewSchedule", &new);
    let run = Run {
        due: Some(Timestamp::UNIX_EPOCH),
        at: Timestamp::UNIX_EPOCH,
        result: RunResult::Submitted,
        build: Some(BuildId(7)),
        message: String::new(),
    };
    compared.sent("ScheduleRun", &run);
    let view = ScheduleView {
        schedule: schedule(),
        is_paused: true,
        added: Timestamp::UNIX_EPOCH,
        since: Timestamp::UNIX_EPOCH,
        last: Some(run),
        next: Some(Timestamp::UNIX_EPOCH),
    };
    compared.sent("Schedule", &view);
    compared.taken(
        "RunNow",
        &RunNow {
            key: "k".to_owned(),
        },
    );
    let ran = Ran {
        build: BuildId(7),
        result: RunResult::Coalesced,
    };
    compared.sent("Ran", &ran);
    let project = ProjectView {
        name: "camera".parse().unwrap(),
        unfinished: 1,
        last: Some(build()),
        last_good: Some(build()),
        schedules: vec!["nightly".parse().unwrap()],
    };
    compared.sent("Project", &project);
}

#[test]
fn the_members_of_bodies_are_those_of_the_types() {
    let mut compared = Compared {
        description: Description::parse(OPENAPI),
        names: BTreeSet::new(),
    };
    compare_hosts(&mut compared);
    compare_clients(&mut compared);
    compare_schedules(&mut compared);
    // Those that no type has: numbers and words, which values of the others have shown, and errors, which
    // the integration tests compare with answers.
    let others = [
        "BuildId", "Digest", "Epoch", "Error", "Outcome", "Problem", "Revision", "Wanted",
    ];
    compared.names.extend(others.map(str::to_owned));
    assert_eq!(compared.names, compared.description.schemas());
}

#[test]
fn the_description_has_exactly_the_routes_of_the_code() {
    let description = Description::parse(OPENAPI);
    let code = include_str!("../../api.rs");
    let (_, router) = code.split_once("fn routes_of_hosts(").unwrap();
    let (calls, _) = router.split_once(".method_not_allowed_fallback(").unwrap();
    description.assert_routes(calls);
    description.assert_described();
}

#[test]
fn examples_have_the_schemas_of_their_requests() {
    let description = Description::parse(OPENAPI);
    for it in description.operations() {
        let body = &it.definition["requestBody"]["content"]["application/json"];
        if body.is_object() {
            let place = format!("{} {}", it.method, it.route);
            description.assert_valid(&place, &body["schema"], &body["example"]);
        }
    }
}
