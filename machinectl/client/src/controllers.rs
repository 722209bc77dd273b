//! Controllers.

use config::ControllerName;
use config::controllers::{ControllerStatus, Enrolment};

use crate::{Client, Result};

impl Client {
    /// Returns the controllers, in the order of the settings.
    pub fn controllers(&self) -> Result<Vec<ControllerStatus>> {
        self.get("controllers")
    }

    /// Enrols the host in a farm, and returns the state of that controller.
    pub fn enrol(&self, name: &ControllerName, enrolment: &Enrolment) -> Result<ControllerStatus> {
        self.post(&format!("controllers/{name}/enrol"), enrolment)
    }
}
