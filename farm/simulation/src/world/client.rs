//! The clients: they submit, cancel, publish and drain, and repeat what was not answered.

use std::collections::BTreeMap;

use config::builds::Priority;
use config::task::Source;
use config::{BuildId, MachineName, ToolchainName};
use farm_core::messages::{Reply, Request, Subject, Submission};
use farm_core::windows::{NewWindow, Occurrence};
use farm_core::{HostId, Published, Requirements, Revision, Work};
use fastrand::Rng;

use super::contents::content;
use super::{Event, HOSTS, Origin, STORM_MS, TERMS, World, sources};
use crate::tables::State;

/// The time after which a request is repeated.
const RETRY_MS: u64 = 1_500;

/// The clients.
#[derive(Debug)]
pub(crate) struct Client {
    machines: Vec<MachineName>,
    toolchain: Option<ToolchainName>,
    wanted: u64,
    submitted: u64,
    requests: u64,
    open: BTreeMap<u64, Request>,
    revision: u64,
    has_schedules: bool,
    /// The build that kills its hosts, if there is one.
    poisonous: Option<BuildId>,
}

impl Client {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let machines = ["linux", "bsd"].iter().filter_map(|it| it.parse().ok());
        Self {
            machines: machines.collect(),
            toolchain: "default".parse().ok(),
            wanted: rng.u64(2..8),
            submitted: 0,
            requests: 0,
            open: BTreeMap::new(),
            revision: 0,
            has_schedules: rng.bool(),
            poisonous: (rng.u32(0..5) == 0).then_some(BuildId(1)),
        }
    }

    pub(super) fn machines(&self) -> &[MachineName] {
        &self.machines
    }

    pub(super) fn is_poisonous(&self, build: BuildId) -> bool {
        self.poisonous == Some(build)
    }

    #[expect(clippy::expect_used, reason = "the name is a constant")]
    pub(super) fn toolchain(&self) -> &ToolchainName {
        self.toolchain.as_ref().expect("the name parses")
    }
}

impl World {
    /// Publishes a revision, or puts one on a host only, which a person does who tries it.
    fn client_publishes(&mut self) {
        self.client.revision += 1;
        let revision = self.client.revision;
        let machine = self.rng.usize(0..self.client.machines.len());
        let machine = self.client.machines[machine].clone();
        let published = |is_other| Published {
            revision: Revision(revision),
            content: Some(content(revision, is_other)),
        };
        if self.rng.u32(0..3) == 0 {
            return self.client_begins_trial(machine, revision);
        }
        if self.rng.u32(0..4) == 0 {
            self.push_revision(&machine, &published(false));
            return;
        }
        self.client_sends(Request::Publish(machine.clone(), published(false)));
        if self.rng.u32(0..4) == 0 {
            self.client_sends(Request::Publish(machine, published(true)));
        }
    }

    /// Publishes the revisions that are on hosts only. Without that, these hosts get no builds.
    fn client_publishes_the_rest(&mut self) {
        for machine in self.client.machines.clone() {
            let hosts = self.hosts.iter().filter(|it| !it.is_lost);
            let newest = hosts.max_by_key(|it| it.revisions.get(&machine).copied());
            let Some(newest) = newest else { continue };
            let Some(revision) = newest.revisions.get(&machine).copied() else {
                continue;
            };
            let content = newest.contents.get(&machine).cloned();
            let published = self.tables.published.get(&machine);
            if published.is_some_and(|it| it.revision < revision) && content.is_some() {
                self.client_sends(Request::Publish(machine, Published { revision, content }));
            }
        }
    }

    pub(super) fn client_acts(&mut self) {
        if self.is_calm() {
            // An earlier request to drain may still be under way.
            self.after(10_000, Event::Client);
            self.upload_again();
            for host in 0..HOSTS {
                self.client_sends(Request::Drain(HostId(host as u64), false));
            }
            self.client_removes_schedules();
            self.client_publishes_the_rest();
            self.client_ends_trials();
            return;
        }
        let pause = self.rng.u64(1..2 * STORM_MS / 40);
        self.after(pause, Event::Client);
        match self.rng.u32(0..12) {
            0 => self.client_publishes(),
            1 => {
                let (host, drained) = (self.rng.u64(0..HOSTS as u64), self.rng.bool());
                self.client_sends(Request::Drain(HostId(host), drained));
            }
            2 if self.rng.bool() => self.plan_window(),
            2 => {
                let last = self.tables.builds.len() as u64;
                let build = BuildId(self.rng.u64(0..=last));
                self.client_sends(Request::Cancel(build));
            }
            3 | 4 if self.client.has_schedules => self.client_schedules(),
            _ if self.client.submitted < self.client.wanted => self.submit(),
            _ => {}
        }
    }

    /// Adds a window to a host, which may be open already.
    fn plan_window(&mut self) {
        let host = HostId(self.rng.u64(0..HOSTS as u64));
        let ahead = if self.rng.bool() {
            0
        } else {
            self.rng.u64(0..TERMS.lease_ms)
        };
        let opens_ms = self.store_clock() + ahead;
        let occurrence = Occurrence {
            opens_ms,
            closes_ms: opens_ms + self.rng.u64(1..2 * TERMS.lease_ms),
        };
        let window = NewWindow {
            occurrence,
            weekly: None,
            reason: String::new(),
        };
        self.client_sends(Request::AddWindow(host, window));
    }

    fn submit(&mut self) {
        self.client.submitted += 1;
        let machine = self.rng.usize(0..self.client.machines.len());
        let submitter = if self.rng.bool() { "ann" } else { "bob" };
        let Ok(submitter) = submitter.parse() else {
            return;
        };
        let submission = Submission {
            key: format!("k{}", self.client.submitted),
            submitter,
            priority: Priority(self.rng.i32(0..2)),
            requirements: Requirements {
                machine: self.client.machines[machine].clone(),
                toolchain: self.client.toolchain().clone(),
                cpus: self.rng.u64(1..4),
                memory_mib: 100,
                resources: BTreeMap::new(),
                work: self.any_work(),
            },
            subject: Subject::default(),
        };
        self.upload(submission.requirements.work.digests());
        self.client_sends(Request::Submit(submission));
    }

    /// Returns work with two sources at most.
    pub(super) fn any_work(&mut self) -> Work {
        let count = self.rng.u64(0..3);
        let sources = (0..count).filter_map(|number| {
            let name = format!("source-{number}").parse().ok()?;
            let sha256 = sources::digest(self.rng.u64(0..sources::SOURCES));
            Some(Source { name, sha256 })
        });
        Work {
            sources: sources.collect(),
            ..Work::default()
        }
    }

    pub(super) fn client_sends(&mut self, request: Request) {
        self.client.requests += 1;
        let number = self.client.requests;
        self.say(|| format!("client: {request:?}"));
        self.send(Origin::Client(number), &request);
        self.client.open.insert(number, request);
        self.after(RETRY_MS, Event::ClientRetry(number));
    }

    pub(super) fn client_retries(&mut self, number: u64) {
        if let Some(request) = self.client.open.get(&number).cloned() {
            self.send(Origin::Client(number), &request);
            self.after(RETRY_MS, Event::ClientRetry(number));
        }
    }

    pub(super) fn client_reply(&mut self, number: u64, reply: &Reply) {
        match reply {
            Reply::Unavailable | Reply::NotCopied(..) => return,
            Reply::NoSource(digests) => return self.upload(digests.clone()),
            _ => {}
        }
        let Some(request) = self.client.open.remove(&number) else {
            return;
        };
        self.acknowledged(&request, reply);
    }

    /// Returns true if all requests are answered, all builds have results that their hosts know of, their
    /// logs are archived, and all hosts have the published revisions.
    pub(super) fn is_done(&self) -> bool {
        let mut builds = self.tables.builds.values();
        self.client.open.is_empty()
            && self.tables.schedules.is_empty()
            && self.are_logs_archived()
            && self.are_revisions_everywhere()
            && self.are_trials_over()
            && builds.all(|it| matches!(it.state, State::Finished(..)))
            && self.hosts.iter().filter(|it| !it.is_lost).all(|it| {
                it.guests.is_empty() && it.agent.as_ref().is_some_and(|it| !it.has_results())
            })
    }

    /// Returns what is not done.
    pub(super) fn unfinished(&self) -> String {
        let builds = self.tables.builds.iter();
        let open = builds.filter(|(_, it)| !matches!(it.state, State::Finished(..)));
        let builds: Vec<_> = open.map(|(id, it)| (id.0, &it.state, it.host)).collect();
        let requests: Vec<_> = self.client.open.values().collect();
        let schedules: Vec<_> = self.tables.schedules.keys().collect();
        let uploads = &self.tables.uploads;
        format!(
            "builds {builds:?}, requests {requests:?}, schedules {schedules:?}, uploads {uploads:?}, published {:?}, \
             trials {:?}",
            self.tables.published, self.tables.trials
        )
    }
}
