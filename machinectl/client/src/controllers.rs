//! Controllers.

use config::ControllerName;
use config::controllers::{ControllerStatus, Enrolment, ForgetRequest, Forgotten};

use crate::{Client, Result};

impl Client {
    /// Returns the controllers, in the order of the settings.
    pub fn controllers(&self) -> Result<Vec<ControllerStatus>> {
        self.get("controllers")
    }

    /// Gives up the open leases of a controller that the settings do not name, or says what would be.
    pub fn forget_controller(
        &self,
        name: &ControllerName,
        request: ForgetRequest,
    ) -> Result<Forgotten> {
        self.post(&format!("controllers/{name}/forget"), &request)
    }

    /// Enrols the host in a farm, and returns the state of that controller.
    pub fn enrol(&self, name: &ControllerName, enrolment: &Enrolment) -> Result<ControllerStatus> {
        self.post(&format!("controllers/{name}/enrol"), enrolment)
    }
}
