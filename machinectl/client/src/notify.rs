//! Notifications.

use config::NotifyName;
use config::notify::{NotifyStatus, NotifyTest};

use crate::{Client, Result};

impl Client {
    /// Returns the rules for notifications, in the order of the settings.
    pub fn notify_rules(&self) -> Result<Vec<NotifyStatus>> {
        self.get("notify")
    }

    /// Tries a rule, and returns the answer of its recipient.
    pub fn test_notify(&self, name: &NotifyName) -> Result<NotifyTest> {
        self.post(&format!("notify/{name}/test"), &())
    }
}
