//! The gauges of a host, which are set at each request.

use std::path::{Path, PathBuf};

use config::builds::{Build, ImageState, State, Status};
use jiff::Timestamp;
use prometheus_client::registry::Registry;

use super::{Gauges, Single, gauge, set, single};

/// The state of the host at the time of a request, for gauges.
#[derive(Debug, Default)]
pub struct HostGauges<'h> {
    /// The time of the request.
    pub now: Timestamp,
    /// The builds without an outcome.
    pub unfinished: &'h [Build],
    /// The number of guests of each kind of job.
    pub guests: &'h [(&'static str, usize)],
    /// True if the host is drained.
    pub drained: bool,
    /// The number of notices of each kind.
    pub notices: &'h [(&'static str, usize)],
    /// The resources that admission hands out; `None` before the scheduler's first round.
    pub admission: Option<Admission>,
    /// The status after the scheduler's last round, if there was one.
    pub status: Option<&'h Status>,
    /// The volumes and the state directory, each with its kind and its free bytes.
    pub free: &'h [(&'static str, PathBuf, Option<u64>)],
    /// The memory of hot images, in bytes.
    pub hot_memory: u64,
    /// The pressure on each resource that the kernel reports: the resource, `some` or `full`,
    /// and the share of time, in hundredths of a percent.
    pub pressure: &'h [(&'static str, &'static str, u32)],
    /// The number of results that each controller has to be sent.
    pub reports: &'h [(String, usize)],
    /// The number of notifications of each rule that wait.
    pub notifications: &'h [(String, usize)],
    /// The feeds: the name, the builds that wait for their publication, and the packages.
    pub feeds: &'h [(String, usize, usize)],
}

/// The resources that admission hands out: what guests have, and what there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Admission {
    /// The allocated processors.
    pub cpus_allocated: u64,
    /// The processors, overcommitment included.
    pub cpus: u64,
    /// The allocated memory in bytes.
    pub memory_allocated: u64,
    /// The memory for all guests together in bytes.
    pub memory: u64,
    /// The guest slots in use.
    pub slots_allocated: u64,
    /// The number of guest slots; `None` without a limit.
    pub slots: Option<u64>,
}

/// The gauges that are set at each request.
#[derive(Debug)]
pub(super) struct AgentGauges {
    pub(super) registry: Registry,
    waiting: Gauges,
    oldest: Single,
    guests: Gauges,
    drained: Single,
    ready: Gauges,
    on_trial: Gauges,
    notices: Gauges,
    free: Gauges,
    hot_memory: Single,
    admission: AdmissionGauges,
    resources: Gauges,
    resources_used: Gauges,
    pressure: Gauges,
    pressure_high: Gauges,
    reports: Gauges,
    notifications: Gauges,
    feeds: Gauges,
    feed_packages: Gauges,
}

impl AgentGauges {
    /// Registers the gauges, and keeps the registry that has all metrics.
    pub(super) fn new(mut registry: Registry) -> Self {
        let oldest = single(
            &mut registry,
            "queue_oldest_seconds",
            "Time that the oldest waiting build has been in the queue, 0 without one",
        );
        let drained = single(&mut registry, "drained", "1 if the host is drained, else 0");
        let hot_memory = single(
            &mut registry,
            "hot_memory_bytes",
            "Memory of checkpoints that guests share",
        );
        let admission = AdmissionGauges::new(&mut registry);
        let mut add = |name, help| gauge(&mut registry, name, help);
        Self {
            oldest,
            drained,
            hot_memory,
            admission,
            waiting: add("builds_unfinished", "Builds without an outcome"),
            guests: add("guests", "Guests by the kind of their job"),
            ready: add("machine_ready", "1 if a machine can build, else 0"),
            on_trial: add(
                "revision_on_trial",
                "The number of a machine's revision on trial",
            ),
            notices: add("notices", "Problems of the host by kind"),
            free: add("free_bytes", "Free space"),
            resources: add("resources", "Countable resources of the host"),
            resources_used: add("resources_used", "Countable resources that guests have"),
            pressure: add(
                "pressure_ratio",
                "Share of the last ten seconds in which programs of the host were stalled",
            ),
            pressure_high: add(
                "pressure_high",
                "1 if no guest starts beside another one for this pressure, else 0",
            ),
            reports: add(
                "controller_reports_waiting",
                "Results that a controller has not received yet",
            ),
            notifications: add(
                "notifications_waiting",
                "Notifications that wait for delivery",
            ),
            feeds: add(
                "feed_builds_waiting",
                "Builds whose packages wait for their publication in a feed",
            ),
            feed_packages: add(
                "feed_packages",
                "Packages in the indexes of a feed, with all versions",
            ),
            registry,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "the values are far smaller")]
    pub(super) fn set(&self, host: &HostGauges<'_>) {
        self.set_queue(host.unfinished, host.now);
        self.drained.set(flag(host.drained));
        for (kind, count) in host.notices {
            let labels = vec![("kind", (*kind).to_owned())];
            set(&self.notices, &labels, *count as f64);
        }
        for (job, count) in host.guests {
            let labels = vec![("job", (*job).to_owned())];
            set(&self.guests, &labels, *count as f64);
        }
        if let Some(admission) = &host.admission {
            self.admission.set(admission);
        }
        if let Some(status) = host.status {
            self.set_status(status);
        }
        self.pressure.clear();
        for (resource, stall, hundredths) in host.pressure {
            let resource = ("resource", (*resource).to_owned());
            let labels = vec![resource, ("stall", (*stall).to_owned())];
            set(&self.pressure, &labels, f64::from(*hundredths) / 10_000.0);
        }
        self.hot_memory.set(host.hot_memory as f64);
        for (kind, path, bytes) in host.free {
            self.set_free(kind, path, *bytes);
        }
        self.notifications.clear();
        for (rule, count) in host.notifications {
            let labels = vec![("rule", rule.clone())];
            set(&self.notifications, &labels, *count as f64);
        }
        self.feeds.clear();
        self.feed_packages.clear();
        for (feed, waiting, packages) in host.feeds {
            let labels = vec![("feed", feed.clone())];
            set(&self.feeds, &labels, *waiting as f64);
            set(&self.feed_packages, &labels, *packages as f64);
        }
        // A controller may have left the settings.
        self.reports.clear();
        for (controller, count) in host.reports {
            let labels = vec![("controller", controller.clone())];
            set(&self.reports, &labels, *count as f64);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "the values are far smaller")]
    fn set_queue(&self, unfinished: &[Build], now: Timestamp) {
        for (state, word) in State::ALL {
            let count = unfinished.iter().filter(|it| it.state == state).count();
            if state != State::Finished {
                let labels = vec![("state", word.to_owned())];
                set(&self.waiting, &labels, count as f64);
            }
        }
        self.oldest.set(oldest_wait(unfinished, now));
    }

    #[expect(clippy::cast_precision_loss, reason = "the values are far smaller")]
    fn set_status(&self, status: &Status) {
        // Machines come and go.
        self.ready.clear();
        for it in &status.machines {
            let machine = ("machine", it.machine.to_string());
            let labels = vec![machine, ("toolchain", it.toolchain.to_string())];
            let ready = matches!(it.image, ImageState::Ready | ImageState::Outdated);
            set(&self.ready, &labels, flag(ready));
        }
        self.on_trial.clear();
        for it in &status.trials {
            let labels = vec![("machine", it.machine.to_string())];
            set(&self.on_trial, &labels, f64::from(it.revision.0));
        }
        for (name, load) in &status.resources {
            let labels = vec![("resource", name.to_string())];
            let total = load.total.unwrap_or_default();
            set(&self.resources, &labels, total as f64);
            set(&self.resources_used, &labels, load.taken as f64);
        }
        self.pressure_high.clear();
        for it in &status.pressure {
            let labels = vec![("resource", it.resource.file().to_owned())];
            set(&self.pressure_high, &labels, flag(it.high_since.is_some()));
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "the error is below a byte in 2^53"
    )]
    fn set_free(&self, kind: &str, path: &Path, bytes: Option<u64>) {
        let kind = ("kind", kind.to_owned());
        let labels = vec![kind, ("path", path.display().to_string())];
        match bytes {
            Some(bytes) => set(&self.free, &labels, bytes as f64),
            None => drop(self.free.remove(&labels)),
        }
    }
}

/// The gauges of [`Admission`].
#[derive(Debug)]
struct AdmissionGauges {
    cpus: Single,
    cpus_allocated: Single,
    memory: Single,
    memory_allocated: Single,
    /// Without a sample if the number is not limited.
    slots: Gauges,
    slots_allocated: Single,
}

impl AdmissionGauges {
    fn new(registry: &mut Registry) -> Self {
        let slots = "Guests that may run at once, if that is limited";
        let slots = gauge(registry, "guest_slots", slots);
        let mut add = |name, help| single(registry, name, help);
        Self {
            cpus: add("cpus", "Processors that admission may hand out"),
            cpus_allocated: add("cpus_allocated", "Processors that guests have"),
            memory: add("memory_bytes", "Memory that admission may hand out"),
            memory_allocated: add("memory_allocated_bytes", "Memory that guests have"),
            slots,
            slots_allocated: add("guest_slots_allocated", "Guest slots in use"),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "the values are far smaller")]
    fn set(&self, admission: &Admission) {
        self.cpus.set(admission.cpus as f64);
        self.cpus_allocated.set(admission.cpus_allocated as f64);
        self.memory.set(admission.memory as f64);
        self.memory_allocated.set(admission.memory_allocated as f64);
        self.slots_allocated.set(admission.slots_allocated as f64);
        self.slots.clear();
        if let Some(slots) = admission.slots {
            set(&self.slots, &Vec::new(), slots as f64);
        }
    }
}

/// Returns the seconds for which the oldest waiting build has been in the queue. A build that is
/// repeated waits since it returned to the queue.
fn oldest_wait(unfinished: &[Build], now: Timestamp) -> f64 {
    let waiting = unfinished.iter().filter(|it| it.state == State::Queued);
    let since = waiting.map(|build| build.phases.last().map_or(build.submitted, |it| it.at));
    let waits = since.map(|since| now.duration_since(since).as_secs_f64());
    waits.fold(0.0, f64::max)
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(state: State, submitted: i64) -> Build {
        let second = Timestamp::from_second(submitted).unwrap();
        let mut build = Build::new(
            config::BuildId(1),
            serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap(),
            "default".parse().unwrap(),
            "0".repeat(64).parse().unwrap(),
            config::builds::Submitter::root(),
            second,
        );
        if state != State::Queued {
            build.enter(state, second).unwrap();
        }
        build
    }

    #[test]
    fn the_oldest_wait_is_that_of_a_build_in_the_queue() {
        let now = Timestamp::from_second(100).unwrap();
        let seconds = |builds: &[Build]| oldest_wait(builds, now);
        assert!(seconds(&[]).abs() < f64::EPSILON);
        let builds = [
            build(State::Starting, 10),
            build(State::Queued, 40),
            build(State::Queued, 70),
        ];
        assert!((seconds(&builds) - 60.0).abs() < f64::EPSILON);
        // A clock that was set back.
        assert!(seconds(&[build(State::Queued, 200)]).abs() < f64::EPSILON);
        let mut again = build(State::Starting, 10);
        let returned = Timestamp::from_second(90).unwrap();
        again.enter(State::Queued, returned).unwrap();
        assert!((seconds(&[again]) - 10.0).abs() < f64::EPSILON);
    }
}
