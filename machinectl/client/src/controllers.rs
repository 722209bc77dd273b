//! Controllers.

use config::controllers::ControllerStatus;

use crate::{Client, Result};

impl Client {
    /// Returns the controllers, in the order of the settings.
    pub fn controllers(&self) -> Result<Vec<ControllerStatus>> {
        self.get("controllers")
    }
}
