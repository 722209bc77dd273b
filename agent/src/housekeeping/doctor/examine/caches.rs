//! The findings about caches between builds.

use config::doctor::{Finding, Id, Subject};
use config::{MIB, join_and};

use super::super::Found;
use super::Examination;

impl Examination<'_> {
    pub(super) fn caches(&mut self) {
        for cache in &self.inventory.caches {
            let subject = Subject::Cache(cache.name.clone());
            if cache.bytes > cache.bytes_max {
                let (bytes, max) = (cache.bytes / MIB, cache.bytes_max / MIB);
                let proof = format!("it has {bytes} MiB, and its `mib_max` is {max}");
                let advice = "the agent prunes it in its next round, or `buildhost cache prune`";
                let mut finding = Finding::new(Id::CacheTooLarge, subject.clone(), proof, advice);
                finding.automatic = true;
                self.found.push(Found {
                    finding,
                    repair: None,
                });
            }
            if !cache.unmatched.is_empty() {
                let proof = format!("nothing matches its {}", join_and(&cache.unmatched));
                let advice = "correct it in the settings, [[caches]]";
                self.advise(Id::CacheUnmatched, subject, proof, advice);
            }
        }
        for path in &self.inventory.unnamed_caches {
            self.advise(
                Id::CacheUnnamed,
                Subject::Path(path.clone()),
                "no [[caches]] in the settings has its name",
                "name it in the settings again, or delete the directory",
            );
        }
    }
}
