//! Which frozen guests may be woken, and what became of those that could not.
//!
//! What lies in an image is the truth; this only remembers, as long as the agent
//! runs, what was tried in vain. A new agent tries again: a restart is how a person
//! asks for that, and it costs one build the limit for waking.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use config::builds::StartKind;
use config::machine::{Kind, Machine};
use config::settings::Guests;

use crate::scheduler::ImageKey;
use guest;

/// How often freezing is tried anew after a failure of the host.
const FAILURES_MAX: u32 = 2;

/// How builds with an image start, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Starting {
    /// How the next one starts.
    pub start: StartKind,
    /// Whether a guest should be frozen in the image now.
    pub wanted: bool,
    /// Why it starts so, or what that costs.
    pub message: String,
    /// How many frozen guests were given up.
    pub evictions: u32,
}

/// What was tried in vain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Past {
    evictions: u32,
    /// What is frozen in the image now is not to be woken.
    barred: bool,
    failures: u32,
    why: String,
}

/// What the agent remembers of frozen guests.
#[derive(Debug, Default)]
pub struct Memory(Mutex<BTreeMap<ImageKey, Past>>);

impl Memory {
    fn with<T>(&self, pair: &ImageKey, work: impl FnOnce(&mut Past) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work(all.entry(pair.clone()).or_default())
    }

    fn past(&self, pair: &ImageKey) -> Past {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(pair).cloned().unwrap_or_default()
    }

    /// Gives up what is frozen in an image: it is not woken any more.
    pub fn evict(&self, pair: &ImageKey, why: String) {
        self.with(pair, |past| {
            // Several builds may find out at once.
            past.evictions += u32::from(!past.barred);
            past.barred = true;
            past.why = why;
        });
    }

    /// Another image serves; whether a guest was frozen in it.
    pub fn renewed(&self, pair: &ImageKey, frozen: bool) {
        self.with(pair, |past| {
            past.barred = false;
            if frozen {
                past.failures = 0;
            }
        });
    }

    /// No guest could be frozen.
    pub fn failed(&self, pair: &ImageKey, why: String) {
        self.with(pair, |past| {
            past.failures += 1;
            past.why = why;
        });
    }

    /// How builds of `pair` start with the image, or a snapshot of it, in `directory`.
    pub fn look(&self, settings: &Guests, pair: &ImageKey, directory: &Path) -> Starting {
        let found = Found {
            off: off(settings, directory),
            frozen: guest::is_frozen(directory),
            unfit: guest::is_unfit(directory),
            bytes: guest::bytes(directory),
        };
        judge(found, self.past(pair))
    }
}

/// What there is in an image.
#[derive(Debug, Clone, Default)]
struct Found {
    off: Option<&'static str>,
    frozen: bool,
    unfit: Option<String>,
    bytes: u64,
}

/// Why the guests of the machine in `directory` are not to be frozen at all.
pub fn off(settings: &Guests, directory: &Path) -> Option<&'static str> {
    if !settings.checkpoints {
        return Some("the setting guests.frozen is off");
    }
    let text = std::fs::read_to_string(directory.join(config::machine::FILE));
    // What is wrong with a manifest is told by who starts the machine.
    let machine = Machine::parse(&text.unwrap_or_default()).ok()?;
    if machine.kind != Kind::Kvm {
        return Some("only machines of the kind kvm can be frozen");
    }
    (!machine.checkpoint).then_some("the machine's manifest says `frozen: off`")
}

fn judge(found: Found, past: Past) -> Starting {
    let cold = |wanted, message: String| Starting {
        start: StartKind::Cold,
        wanted,
        message,
        evictions: past.evictions,
    };
    if let Some(off) = found.off {
        return cold(false, off.to_owned());
    }
    if let Some(unfit) = found.unfit {
        return cold(false, unfit);
    }
    let may_try = past.failures <= FAILURES_MAX;
    if past.barred {
        return cold(may_try, format!("it is to be frozen anew: {}", past.why));
    }
    if !found.frozen {
        return cold(may_try, past.why);
    }
    Starting {
        start: StartKind::Restored,
        wanted: false,
        message: format!("{} MiB of memory on disk", found.bytes.div_ceil(1 << 20)),
        evictions: past.evictions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(found: &Found, memory: &Memory) -> (StartKind, bool, String) {
        let starting = judge(found.clone(), memory.past(&pair()));
        (starting.start, starting.wanted, starting.message)
    }

    fn pair() -> ImageKey {
        ImageKey {
            machine: "demo".parse().unwrap(),
            toolchain: "default".parse().unwrap(),
        }
    }

    #[test]
    fn what_is_frozen_is_woken_until_it_fails_and_then_frozen_anew() {
        let memory = Memory::default();
        let frozen = Found {
            frozen: true,
            bytes: 5 << 20,
            ..Found::default()
        };
        let fine = (
            StartKind::Restored,
            false,
            "5 MiB of memory on disk".to_owned(),
        );
        assert_eq!(judged(&frozen, &memory), fine);
        memory.evict(&pair(), "it is silent".into());
        memory.evict(&pair(), "it is silent".into());
        let again = "it is to be frozen anew: it is silent".to_owned();
        assert_eq!(
            judged(&frozen, &memory),
            (StartKind::Cold, true, again.clone())
        );
        for _ in 0..=FAILURES_MAX {
            memory.failed(&pair(), "it is silent".into());
        }
        assert_eq!(judged(&frozen, &memory), (StartKind::Cold, false, again));
        memory.renewed(&pair(), true);
        assert_eq!(judged(&frozen, &memory), fine);
        assert_eq!(memory.past(&pair()).evictions, 1);
    }

    #[test]
    fn nothing_is_frozen_where_it_is_off_or_cannot_be() {
        let memory = Memory::default();
        let nothing = Found::default();
        assert_eq!(
            judged(&nothing, &memory),
            (StartKind::Cold, true, String::new())
        );
        let unfit = Found {
            unfit: Some("no".into()),
            ..Found::default()
        };
        assert_eq!(
            judged(&unfit, &memory),
            (StartKind::Cold, false, "no".into())
        );
        let off = Found {
            off: Some("off"),
            frozen: true,
            ..Found::default()
        };
        assert_eq!(
            judged(&off, &memory),
            (StartKind::Cold, false, "off".into())
        );
    }
}
