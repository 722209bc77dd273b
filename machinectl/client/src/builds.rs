//! Builds, their sources and the files that they produce.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use config::builds::{Build, Fork, ListQuery, LogTime, Request};
use config::task::Digest;
use config::{BuildId, FileName};

use crate::{Client, Created, Result};
use config::uri::percent_encode;

/// An output of a build.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogSelection {
    /// An earlier attempt; `None` is the last one.
    pub attempt: Option<u32>,
    /// The output of the guest's console instead of the log.
    pub console: bool,
    /// The output of the console of the auxiliary guest with this number instead of the log.
    pub auxiliary: Option<u8>,
}

impl Client {
    /// Returns one build.
    pub fn build(&self, id: BuildId) -> Result<Build> {
        self.get(&format!("builds/{id}"))
    }

    /// Returns a page of builds; [`ListQuery::next`] leads to the next page.
    pub fn builds(&self, listing: &ListQuery) -> Result<Vec<Build>> {
        let query = serde_urlencoded::to_string(listing)?;
        self.get(&format!("builds?{query}"))
    }

    /// Uploads a source, which the agent keeps under its hash. `passed` counts the bytes.
    pub fn upload_source(
        &self,
        sha256: &Digest,
        content: File,
        passed: Arc<AtomicU64>,
    ) -> Result<()> {
        self.put_file(&format!("sources/{sha256}"), content, passed)
    }

    /// Submits a build whose sources are uploaded. If the request allows it and an equivalent
    /// build is unfinished, the agent returns that one.
    pub fn submit(&self, request: &Request) -> Result<Created<Build>> {
        self.create("builds", request)
    }

    /// Cancels a build.
    pub fn cancel(&self, id: BuildId) -> Result<Build> {
        self.post(&format!("builds/{id}/cancel"), &())
    }

    /// Forks a running build. Returns its copies.
    pub fn fork(&self, id: BuildId, copies: u32) -> Result<Vec<Build>> {
        self.post(&format!("builds/{id}/fork"), &Fork { copies })
    }

    /// Continues a build that waits at its breakpoint.
    pub fn resume(&self, id: BuildId) -> Result<Build> {
        self.post(&format!("builds/{id}/resume"), &())
    }

    /// Releases the guest and the snapshot that are held for a failed build.
    pub fn release(&self, id: BuildId) -> Result<Build> {
        self.post(&format!("builds/{id}/release"), &())
    }

    /// Deletes a finished build with its record, log and artifacts.
    pub fn delete_build(&self, id: BuildId) -> Result<()> {
        self.delete(&format!("builds/{id}"))
    }

    /// Copies an output of a build from a position on. Returns the number of bytes.
    pub fn copy_log(
        &self,
        id: BuildId,
        selected: LogSelection,
        offset: u64,
        sink: &mut impl Write,
    ) -> Result<u64> {
        let LogSelection {
            attempt,
            console,
            auxiliary,
        } = selected;
        let auxiliary = auxiliary.map_or_else(String::new, |it| format!("&auxiliary={it}"));
        let attempt = attempt.map_or_else(String::new, |number| format!("&attempt={number}"));
        let path = format!("builds/{id}/log?offset={offset}&console={console}{attempt}{auxiliary}");
        self.copy(&path, sink)
    }

    /// Returns the times at which the parts of a build's log arrived.
    pub fn log_times(&self, id: BuildId, attempt: Option<u32>) -> Result<Vec<LogTime>> {
        let attempt = attempt.map_or_else(String::new, |number| format!("?attempt={number}"));
        self.get(&format!("builds/{id}/log/times{attempt}"))
    }

    /// Copies the content of a source. Returns the number of bytes.
    pub fn copy_source(&self, sha256: &Digest, sink: &mut impl Write) -> Result<u64> {
        self.copy(&format!("sources/{sha256}"), sink)
    }

    /// Copies a file that a build produced. Returns the number of bytes.
    pub fn copy_artifact(
        &self,
        id: BuildId,
        name: &FileName,
        sink: &mut impl Write,
    ) -> Result<u64> {
        let name = percent_encode(name.as_str());
        self.copy(&format!("builds/{id}/artifacts/{name}"), sink)
    }

    /// Copies the provenance statement of a build. Returns the number of bytes.
    pub fn copy_provenance(&self, id: BuildId, sink: &mut impl Write) -> Result<u64> {
        self.copy(&format!("builds/{id}/provenance"), sink)
    }

    /// Copies the signed provenance of a build. Returns the number of bytes.
    pub fn copy_signed_provenance(&self, id: BuildId, sink: &mut impl Write) -> Result<u64> {
        self.copy(&format!("builds/{id}/provenance/signed"), sink)
    }
}

#[cfg(test)]
mod tests {
    use config::task::Outcome;

    use super::*;

    #[test]
    fn a_listing_is_unchanged_by_encoding_and_decoding() {
        let listing = ListQuery {
            submitter: Some("token:a+b&c".parse().unwrap()),
            outcome: Some(Outcome::Abort),
            since: Some("1970-01-01T00:00:00Z".parse().unwrap()),
            from: Some("2.5,7".parse().unwrap()),
            reverse: true,
            count: Some(3),
            ..ListQuery::default()
        };
        let query = serde_urlencoded::to_string(&listing).unwrap();
        assert_eq!(
            serde_urlencoded::from_str::<ListQuery>(&query).unwrap(),
            listing
        );
    }
}
