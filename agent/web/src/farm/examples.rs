//! Builds and hosts for the tests of pages.

use config::BuildId;
use config::builds::Priority;
use config::task::Outcome;
use farm_core::messages::Subject;
use farm_core::view::{BuildState, BuildView, HostView, QueueView};
use farm_core::{Epoch, Offer, OfferedMachine, Requirements, Revision};
use jiff::Timestamp;

use crate::frame::{FarmSection, Frame, Section};

/// Returns the parts of a page of a farm.
pub(crate) fn frame(title: &str) -> Frame {
    Frame {
        section: Section::Farm(FarmSection::Overview),
        ..Frame::plain(title)
    }
}

fn at(time: &str) -> Timestamp {
    format!("2026-11-30T{time}Z").parse().unwrap()
}

/// Returns a build.
pub(crate) fn build(id: u64, state: BuildState) -> BuildView {
    let is_claimed = state != BuildState::Queued;
    let is_finished = state == BuildState::Finished;
    BuildView {
        build: BuildId(id),
        subject: Subject {
            target: Some("hello".parse().unwrap()),
            project: None,
        },
        submitter: "ann".parse().unwrap(),
        priority: Priority(0),
        requirements: serde_json::from_str(
            r#"{"machine":"linux","toolchain":"default","cpus":2,"memory_mib":512}"#,
        )
        .map(|it: Requirements| it)
        .unwrap(),
        state,
        outcome: is_finished.then_some(Outcome::Success),
        canceled: false,
        host: is_claimed.then(|| "build1".to_owned()),
        epoch: Epoch(u64::from(is_claimed)),
        revision: is_claimed.then_some(Revision(2)),
        losses: 0,
        message: None,
        submitted: at("12:00:00"),
        claimed: is_claimed.then(|| at("12:02:00")),
        finished: is_finished.then(|| at("12:05:00")),
        why: None,
        usual_seconds: None,
        trial: None,
        files: None,
        lost: Vec::new(),
    }
}

/// Returns a host.
pub(crate) fn host(name: &str) -> HostView {
    let machine = OfferedMachine {
        revision: Revision(2),
        ..OfferedMachine::default()
    };
    HostView {
        name: name.to_owned(),
        drained: false,
        alive: true,
        revoked: false,
        seen: Some(at("12:02:00")),
        builds: 1,
        offer: Offer {
            machines: [("linux".parse().unwrap(), machine)].into(),
            ..Offer::default()
        },
        unlike: std::collections::BTreeMap::new(),
        windows: Vec::new(),
    }
}

/// Returns a queue with these builds.
pub(crate) fn queue(waiting: Vec<BuildView>) -> QueueView {
    QueueView {
        at: at("12:03:00"),
        queued: waiting.len() as u64,
        oldest: waiting.first().map(|it| it.submitted),
        running: 1,
        hosts_alive: 1,
        waiting,
    }
}
