//! Package feeds.

use config::FeedName;
use config::feeds::{FeedRebuilt, FeedStatus};

use crate::{Client, Result};

impl Client {
    /// Returns the package feeds, in the order of the settings.
    pub fn feeds(&self) -> Result<Vec<FeedStatus>> {
        self.get("feeds")
    }

    /// Makes the indexes of a feed again from its packages.
    pub fn rebuild_feed(&self, name: &FeedName) -> Result<Vec<FeedRebuilt>> {
        self.post(&format!("feeds/{name}/rebuild"), &())
    }
}
