//! Schedules.

use config::ScheduleName;
use config::builds::Build;
use config::schedule::{NewSchedule, Schedule};

use crate::{Client, Created, Result};

impl Client {
    /// Returns all schedules.
    pub fn schedules(&self) -> Result<Vec<Schedule>> {
        self.get("schedules")
    }

    /// Returns one schedule.
    pub fn schedule(&self, name: &ScheduleName) -> Result<Schedule> {
        self.get(&format!("schedules/{name}"))
    }

    /// Adds or replaces a schedule. In a dry run, the agent only checks it.
    pub fn add_schedule(&self, schedule: &NewSchedule) -> Result<Created<Schedule>> {
        self.create("schedules", schedule)
    }

    /// Removes a schedule; its builds stay.
    pub fn remove_schedule(&self, name: &ScheduleName) -> Result<()> {
        self.delete(&format!("schedules/{name}"))
    }

    /// Submits the build of a schedule now.
    pub fn run_schedule(&self, name: &ScheduleName) -> Result<Created<Build>> {
        self.create(&format!("schedules/{name}/run"), &())
    }
}
