//! The counters of controllers.

use config::ControllerName;
use prometheus_client::registry::Registry;

use super::{Counters, Labels, counter};

/// The result of a request to a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestResult {
    /// It gave a task.
    Task,
    /// It had no task.
    NoTask,
    /// It has a part of a report.
    Accepted,
    /// It refuses the request.
    Refused,
    /// It failed, or was not reached.
    Failed,
}

impl RequestResult {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Task, "task"),
        (Self::NoTask, "no task"),
        (Self::Accepted, "accepted"),
        (Self::Refused, "refused"),
        (Self::Failed, "failed"),
    ];

    fn word(self) -> &'static str {
        let found = Self::ALL.iter().find(|(result, _)| *result == self);
        found.map_or("", |(_, word)| word)
    }
}

/// The counters of all controllers.
#[derive(Debug)]
pub struct ControllerMetrics {
    requests: Counters,
    interrupts: Counters,
}

impl ControllerMetrics {
    pub(super) fn register(all: &mut Registry) -> Self {
        Self {
            requests: counter(all, "controller_requests", "Requests to controllers"),
            interrupts: counter(
                all,
                "controller_interrupts",
                "Tasks of controllers that others with a higher priority interrupted",
            ),
        }
    }

    /// Counts a request.
    pub fn request(&self, controller: &ControllerName, result: RequestResult) {
        self.requests
            .get_or_create(&labels(controller, result))
            .inc();
    }

    /// Counts a task of a controller that was interrupted.
    pub fn interrupted(&self, controller: &ControllerName) {
        self.interrupts.get_or_create(&of(controller)).inc();
    }

    /// Shows a controller: its counters begin with 0, so that their first growth is seen.
    pub fn show(&self, controller: &ControllerName) {
        for (result, _) in RequestResult::ALL {
            drop(self.requests.get_or_create(&labels(controller, result)));
        }
        drop(self.interrupts.get_or_create(&of(controller)));
    }
}

fn of(controller: &ControllerName) -> Labels {
    vec![("controller", controller.to_string())]
}

fn labels(controller: &ControllerName, result: RequestResult) -> Labels {
    let result = ("result", result.word().to_owned());
    vec![("controller", controller.to_string()), result]
}
