//! The start modes of builds: which checkpoints may be restored, and which attempts at
//! making or restoring one have failed.
//!
//! The image tells whether it has a checkpoint. Failures are kept in memory only: after a
//! restart the agent tries each once more, which costs one build the time limit of a
//! restore, and is how an administrator asks for a new attempt.

use std::collections::BTreeMap;

use config::ImageKey;
use config::builds::StartKind;
use config::machine::Kind;
use config::settings::Guests;
use parking_lot::Mutex;
use planner::StartMode;

use super::image_facts::{CheckpointFacts, ImageFacts};

/// The number of retries of a checkpoint that the host could not make.
const CHECKPOINT_RETRIES_MAX: u32 = 2;

/// The failures of one image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct History {
    restore_failures: u32,
    /// `true` if the present checkpoint must not be restored again.
    rejected: bool,
    checkpoint_failures: u32,
    error: String,
}

/// The failed attempts at making and restoring checkpoints.
#[derive(Debug, Default)]
pub struct RestoreHistory(Mutex<BTreeMap<ImageKey, History>>);

impl RestoreHistory {
    fn update(&self, key: &ImageKey, change: impl FnOnce(&mut History)) {
        change(self.0.lock().entry(key.clone()).or_default());
    }

    fn of(&self, key: &ImageKey) -> History {
        self.0.lock().get(key).cloned().unwrap_or_default()
    }

    /// Records that the checkpoint of an image could not be restored. It is not restored
    /// again.
    pub fn restore_failed(&self, key: &ImageKey, error: String) {
        self.update(key, |history| {
            // Several builds may find this out at once.
            history.restore_failures += u32::from(!history.rejected);
            history.rejected = true;
            history.error = error;
        });
    }

    /// Records that an image was replaced.
    pub fn image_replaced(&self, key: &ImageKey, has_checkpoint: bool) {
        self.update(key, |history| {
            history.rejected = false;
            if has_checkpoint {
                history.checkpoint_failures = 0;
            }
        });
    }

    /// Records that the host could not make a checkpoint.
    pub fn checkpoint_failed(&self, key: &ImageKey, error: String) {
        self.update(key, |history| {
            history.checkpoint_failures += 1;
            history.error = error;
        });
    }

    /// Returns true if the present checkpoint of an image must not be restored.
    pub fn is_rejected(&self, key: &ImageKey) -> bool {
        self.of(key).rejected
    }

    /// Returns the start mode of builds on an image.
    pub fn start_mode(&self, settings: &Guests, key: &ImageKey, image: &ImageFacts) -> StartMode {
        let disabled = checkpoints_disabled(settings, image);
        decide(disabled, &image.checkpoint, self.of(key))
    }
}

/// Returns the reason for which no checkpoints are made of a machine, if there is one.
pub fn checkpoints_disabled(settings: &Guests, image: &ImageFacts) -> Option<&'static str> {
    if !settings.checkpoints {
        return Some("the setting guests.frozen is off");
    }
    // The start of a guest reports a manifest that cannot be read.
    let machine = image.machine.as_ref().ok()?;
    if machine.kind != Kind::Kvm {
        return Some("only machines of the kind kvm can be frozen");
    }
    (!machine.checkpoint).then_some("the machine's manifest says `frozen: off`")
}

fn decide(
    disabled: Option<&'static str>,
    checkpoint: &CheckpointFacts,
    history: History,
) -> StartMode {
    let cold = |checkpoint_due, message: String| StartMode {
        start: StartKind::Cold,
        checkpoint_due,
        message,
        restore_failures: history.restore_failures,
    };
    if let Some(reason) = disabled {
        return cold(false, reason.to_owned());
    }
    if let Some(reason) = &checkpoint.unsupported {
        return cold(false, reason.clone());
    }
    let may_retry = history.checkpoint_failures <= CHECKPOINT_RETRIES_MAX;
    if history.rejected {
        return cold(
            may_retry,
            format!("it is to be frozen again: {}", history.error),
        );
    }
    if !checkpoint.exists {
        return cold(may_retry, history.error);
    }
    StartMode {
        start: StartKind::Restored,
        checkpoint_due: false,
        message: format!(
            "{} MiB of memory on disk",
            checkpoint.bytes.div_ceil(1 << 20)
        ),
        restore_failures: history.restore_failures,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(
        disabled: Option<&'static str>,
        checkpoint: &CheckpointFacts,
        history: &RestoreHistory,
    ) -> (StartKind, bool, String) {
        let mode = decide(disabled, checkpoint, history.of(&key()));
        (mode.start, mode.checkpoint_due, mode.message)
    }

    fn key() -> ImageKey {
        ImageKey {
            machine: "demo".parse().unwrap(),
            toolchain: "default".parse().unwrap(),
        }
    }

    #[test]
    fn a_checkpoint_is_restored_until_that_fails_and_then_made_again() {
        let history = RestoreHistory::default();
        let checkpoint = CheckpointFacts {
            exists: true,
            bytes: 5 << 20,
            ..CheckpointFacts::default()
        };
        let fine = (
            StartKind::Restored,
            false,
            "5 MiB of memory on disk".to_owned(),
        );
        assert_eq!(decided(None, &checkpoint, &history), fine);
        history.restore_failed(&key(), "it is silent".into());
        history.restore_failed(&key(), "it is silent".into());
        let again = "it is to be frozen again: it is silent".to_owned();
        let due = (StartKind::Cold, true, again.clone());
        assert_eq!(decided(None, &checkpoint, &history), due);
        for _ in 0..=CHECKPOINT_RETRIES_MAX {
            history.checkpoint_failed(&key(), "it is silent".into());
        }
        let given_up = (StartKind::Cold, false, again);
        assert_eq!(decided(None, &checkpoint, &history), given_up);
        history.image_replaced(&key(), true);
        assert_eq!(decided(None, &checkpoint, &history), fine);
        assert_eq!(history.of(&key()).restore_failures, 1);
    }

    #[test]
    fn no_checkpoint_is_made_where_it_is_disabled_or_unsupported() {
        let history = RestoreHistory::default();
        let nothing = CheckpointFacts::default();
        let due = (StartKind::Cold, true, String::new());
        assert_eq!(decided(None, &nothing, &history), due);
        let unsupported = CheckpointFacts {
            unsupported: Some("no".into()),
            ..CheckpointFacts::default()
        };
        let cold = (StartKind::Cold, false, "no".into());
        assert_eq!(decided(None, &unsupported, &history), cold);
        let exists = CheckpointFacts {
            exists: true,
            ..CheckpointFacts::default()
        };
        let disabled = (StartKind::Cold, false, "off".into());
        assert_eq!(decided(Some("off"), &exists, &history), disabled);
    }
}
