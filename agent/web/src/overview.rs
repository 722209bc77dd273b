//! The overview: the state of the host at a glance.

use askama::Template;
use config::builds::{Build, FailingPackage, ImageState, Progress, Readiness, Status};
use config::queue::{Forecast, Guest, Queue};
use jiff::Timestamp;

use crate::frame::Frame;
use crate::marks::Mark;
use crate::words::{Ago, Prose, clock, count, distance, duration, mebibytes, rough, size};

/// The overview.
#[derive(Debug, Template)]
#[template(path = "overview.html")]
pub struct Overview {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The queue, with forecasts.
    pub queue: Queue,
    /// The running builds.
    pub running: Vec<RunningBuild>,
    /// The packages whose last build has failed, newest first.
    pub failing: Vec<FailingPackage>,
    /// The builds that finished last, newest first.
    pub finished: Vec<Build>,
    /// The status; `None` until the agent has examined its volumes.
    pub status: Option<Status>,
}

/// A guest with the progress of its build.
#[derive(Debug, Clone)]
pub struct RunningBuild {
    /// The guest.
    pub guest: Guest,
    /// The progress of the build.
    pub progress: Progress,
    /// The expected duration of the build from the start of its guest, in seconds.
    pub expected_seconds: Option<u64>,
}

impl RunningBuild {
    /// Returns the time in seconds for which the guest has run.
    fn elapsed(&self, now: Timestamp) -> u64 {
        let since = self.guest.since.unwrap_or(now);
        u64::try_from(now.duration_since(since).as_secs()).unwrap_or(0)
    }

    /// Returns the finished share in percent: of its tasks, or else of the expected time.
    pub(crate) fn percent(&self, now: Timestamp) -> Option<u64> {
        let task = self.progress.task;
        if task.total > 0 {
            return Some(u64::from(task.done.min(task.total)) * 100 / u64::from(task.total));
        }
        let expected = self.expected_seconds.filter(|it| *it > 0)?;
        Some((self.elapsed(now) * 100 / expected).min(99))
    }

    /// Returns the words for its progress: the step with its count.
    pub(crate) fn step(&self) -> String {
        let Progress {
            clone, parse, task, ..
        } = self.progress;
        let steps = [("task", task), ("parsing", parse), ("fetching", clone)];
        let known = steps.iter().find(|(_, count)| count.total > 0);
        match (known, self.guest.state) {
            (Some((word, count)), _) => format!("{word} {}/{}", count.done, count.total),
            (None, Some(state)) => state.to_string(),
            (None, None) => "bootstrap".to_owned(),
        }
    }

    /// Returns the number of errors that the build has reported.
    fn errors(&self) -> String {
        count(self.progress.errors as usize, "error")
    }

    /// Returns the elapsed and the expected time.
    pub(crate) fn time(&self, now: Timestamp) -> String {
        let elapsed = clock(self.elapsed(now));
        match self.expected_seconds {
            Some(expected) => format!("{elapsed} of ~{}", clock(expected)),
            None => elapsed,
        }
    }
}

impl Overview {
    fn ago(&self, at: &Timestamp) -> Ago {
        Ago::new(*at, self.queue.at)
    }

    /// Returns the words for the start of a waiting build.
    fn start(&self, forecast: Option<&Forecast>) -> String {
        forecast
            .map(|forecast| start(forecast, self.queue.at))
            .unwrap_or_default()
    }

    /// Returns the use of the host: processors, memory and space.
    fn load(&self) -> String {
        let Queue {
            cpus, memory_mib, ..
        } = &self.queue;
        let mut parts = vec![match cpus.total {
            Some(total) => format!("{} of {total} CPU", cpus.taken),
            None => format!("{} CPU", cpus.taken),
        }];
        parts.push(match memory_mib.total {
            Some(total) => format!("{} of {}", mebibytes(memory_mib.taken), mebibytes(total)),
            None => mebibytes(memory_mib.taken),
        });
        let volumes = self.status.iter().flat_map(|status| &status.volumes);
        parts.extend(volumes.map(|volume| format!("{} free", size(volume.bytes_free))));
        parts.join(" · ")
    }

    /// Returns the class of the color of a machine's image.
    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn image_class(&self, machine: &Readiness) -> &'static str {
        match machine.image {
            ImageState::Ready => "good",
            ImageState::Outdated => "warn",
            ImageState::Missing => "idle",
            ImageState::Failed => "bad",
        }
    }

    /// Returns the duration of a finished build.
    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn took(&self, build: &Build) -> String {
        build.seconds().map(duration).unwrap_or_default()
    }

    /// Returns the sentence about the failures of a package.
    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn failures(&self, package: &FailingPackage) -> String {
        let since = match package.failures {
            0 | 1 => String::new(),
            failures => format!("{failures} in a row since {}", package.first),
        };
        let good = match package.good {
            Some((build, Some(revision))) => format!("good in {build} on revision {revision}"),
            Some((build, None)) => format!("good in {build}"),
            None => "never good".to_owned(),
        };
        let parts = [since, good];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join("; ")
    }

    fn machines(&self) -> &[Readiness] {
        self.status.as_ref().map_or(&[], |status| &status.machines)
    }

    fn notices(&self) -> &[String] {
        self.status.as_ref().map_or(&[], |status| &status.notices)
    }

    /// Returns true if the host has nothing to show yet.
    fn is_new(&self) -> bool {
        self.running.is_empty() && self.queue.waiting.is_empty() && self.finished.is_empty()
    }
}

/// Returns the words for the forecast of a start.
pub(crate) fn start(forecast: &Forecast, now: Timestamp) -> String {
    let wait = forecast.start.duration_since(now).as_secs();
    match &forecast.unknown {
        Some(job) if wait <= 0 => format!("starts after {job}"),
        Some(job) => format!("starts not before {}, after {job}", distance(-wait)),
        None if wait <= 0 => "starts now".to_owned(),
        None => format!("starts in ~{}", rough(wait.unsigned_abs())),
    }
}
