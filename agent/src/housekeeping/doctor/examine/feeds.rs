//! The findings about package feeds.

use config::doctor::{Id, Subject};
use config::feeds::{FeedRepository, FeedStatus};

use super::Examination;

impl Examination<'_> {
    pub(super) fn feeds(&mut self) {
        for feed in &self.inventory.feeds {
            let subject = || Subject::Setting(format!("feeds.{}", feed.name));
            let rebuild = format!(
                "`buildhost feed rebuild {}` makes the indexes again",
                feed.name
            );
            if let Some(proof) = failure(feed) {
                let advice = "correct its section [[feeds]]; `buildhost feed show` tells more";
                self.advise(Id::FeedFailing, subject(), proof, advice);
            }
            for repository in &feed.repositories {
                let machine = &repository.machine;
                let fault = match repository {
                    FeedRepository { fault, .. } if !fault.is_empty() => Some(fault.clone()),
                    FeedRepository { stale: true, .. } => {
                        Some(format!("other keys have signed the indexes for {machine}"))
                    }
                    _ => None,
                };
                if let Some(fault) = fault {
                    self.advise(Id::FeedFailing, subject(), fault, rebuild.clone());
                }
                if let Some(first) = repository.missing.first() {
                    let count = repository.missing.len();
                    let proof = format!("{count} files for {machine}, among them {first}");
                    self.advise(Id::FeedIncomplete, subject(), proof, rebuild.clone());
                }
                self.refused(feed, repository);
            }
        }
    }

    fn refused(&mut self, feed: &FeedStatus, repository: &FeedRepository) {
        if let Some(last) = repository.refused.last() {
            let subject = Subject::Setting(format!("feeds.{}", feed.name));
            let proof = format!("{}: {}", last.file, last.reason);
            let advice = "give packages a version that changes with their content";
            self.advise(Id::FeedRefused, subject, proof, advice);
        }
    }
}

/// Returns the reason for which a feed publishes nothing.
fn failure(feed: &FeedStatus) -> Option<String> {
    let failures = [&feed.key_fault, &feed.failure];
    failures.into_iter().find(|it| !it.is_empty()).cloned()
}
