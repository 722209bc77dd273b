//! The host itself: its status, its queue, draining, and its doctor.

use config::builds::Status;
use config::doctor::{FindingKey, Repaired, Report};
use config::queue::{Drain, Drained, Queue};
use config::slsa::Requirement;

use crate::{Client, Result};

impl Client {
    /// Returns the activity, capacity and problems of the agent.
    pub fn status(&self) -> Result<Status> {
        self.get("status")
    }

    /// Returns the running guests and the waiting builds.
    pub fn queue(&self) -> Result<Queue> {
        self.get("queue")
    }

    /// Returns the running guests and the waiting builds, with the forecasts of their starts.
    pub fn queue_with_forecasts(&self) -> Result<Queue> {
        self.get("queue?forecast=true")
    }

    /// Stops the start of guests until [`Client::undrain`].
    pub fn drain(&self, request: &Drain) -> Result<Drained> {
        self.post("drain", request)
    }

    /// Allows the start of guests again. Returns the queue as it is then.
    pub fn undrain(&self) -> Result<Queue> {
        self.post("undrain", &())
    }

    /// Returns the requirements of the SLSA build track, with what holds each on the host.
    pub fn slsa(&self) -> Result<Vec<Requirement>> {
        self.get("slsa")
    }

    /// Returns the problems of the host that only the agent can see.
    pub fn examine(&self) -> Result<Report> {
        self.get("doctor")
    }

    /// Repairs the findings of these names.
    pub fn repair(&self, findings: &[FindingKey]) -> Result<Repaired> {
        self.post("doctor/repair", &findings)
    }
}
