//! The resources that a build asks for.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::resource_counts::ResourceCounts;

/// The resources that a build asks for: instead of those of its machine, or more of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// The number of processors; the machine's if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<NonZeroU32>,
    /// The memory in MiB; the machine's if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<NonZeroU32>,
    /// Countable resources of the host.
    #[serde(skip_serializing_if = "ResourceCounts::is_empty")]
    pub counts: ResourceCounts,
}

/// The reason for which a machine does not permit the resources of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// More processors than the machine permits.
    #[error(
        "{wanted} processors are requested, and it permits {most}; request fewer, or raise `cpus-max`"
    )]
    Cpus {
        /// The number requested.
        wanted: NonZeroU32,
        /// The largest number permitted.
        most: NonZeroU32,
    },
    /// More memory than the machine permits.
    #[error(
        "{wanted} MiB of memory are requested, and it permits {}; request less, or raise `ram-maximum`",
        .most_kib.get() / 1024
    )]
    Memory {
        /// The memory requested, in MiB.
        wanted: NonZeroU32,
        /// The largest amount permitted, in KiB.
        most_kib: NonZeroU64,
    },
    /// Less memory than the machine needs.
    #[error(
        "{wanted} MiB of memory are requested, and it needs {}; request more, or lower `ram-minimum`",
        .least_kib.get().div_ceil(1024)
    )]
    TooLittleMemory {
        /// The memory requested, in MiB.
        wanted: NonZeroU32,
        /// The memory that the machine needs, in KiB.
        least_kib: NonZeroU64,
    },
}

impl Resources {
    /// Returns true if the build asks for nothing: it gets what its machine has.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks that a machine permits these resources.
    ///
    /// # Errors
    /// The reason for which it does not.
    pub fn check(&self, machine: &Machine) -> Result<(), ResourceError> {
        let most = machine.cpus_max.unwrap_or(machine.cpus);
        if let Some(wanted) = self.cpus.filter(|wanted| *wanted > most) {
            return Err(ResourceError::Cpus { wanted, most });
        }
        let (least_kib, most_kib) = (machine.memory_kib, machine.memory_max_kib);
        let most_kib = most_kib.unwrap_or(least_kib);
        match self.memory_mib {
            Some(wanted) if kibibytes(wanted) > most_kib => {
                Err(ResourceError::Memory { wanted, most_kib })
            }
            Some(wanted) if kibibytes(wanted) < least_kib => {
                Err(ResourceError::TooLittleMemory { wanted, least_kib })
            }
            _ => Ok(()),
        }
    }

    /// Returns a machine with the processors and the memory of these resources. The countable ones
    /// are not part of a guest.
    #[must_use]
    pub fn applied_to(&self, machine: &Machine) -> Machine {
        Machine {
            cpus: self.cpus.unwrap_or(machine.cpus),
            memory_kib: self.memory_mib.map_or(machine.memory_kib, kibibytes),
            ..machine.clone()
        }
    }
}

fn kibibytes(mebibytes: NonZeroU32) -> NonZeroU64 {
    NonZeroU64::from(mebibytes).saturating_mul(NonZeroU64::MIN.saturating_add(1023))
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpus = self.cpus.map(|cpus| match cpus.get() {
            1 => "1 processor".to_owned(),
            cpus => format!("{cpus} processors"),
        });
        let memory = self.memory_mib.map(|mib| format!("{mib} MiB of memory"));
        let counts = Some(self.counts.to_string()).filter(|_| !self.counts.is_empty());
        let parts: Vec<_> = cpus.into_iter().chain(memory).chain(counts).collect();
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(bounds: &str) -> Machine {
        let text = format!(": 1\nid: x\nsummary: y\ncpus: 2\nram-minimum: 262144\n{bounds}");
        Machine::parse(&text).unwrap()
    }

    fn resources(text: &str) -> Resources {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_request_must_be_within_the_bounds_of_the_machine() {
        let refused = |bounds: &str, text: &str| {
            let checked = resources(text).check(&machine(bounds));
            checked.err().map_or(String::new(), |it| it.to_string())
        };
        let bounds = "cpus-max: 4\nram-maximum: 1048576\n";
        for (bounds, text) in [
            ("", "{}"),
            ("", r#"{"cpus": 1}"#),
            ("", r#"{"cpus": 2, "memory_mib": 256}"#),
            (bounds, r#"{"cpus": 4, "memory_mib": 1024}"#),
            (bounds, r#"{"cpus": 3, "memory_mib": 512}"#),
        ] {
            assert_eq!(refused(bounds, text), "", "{bounds}{text}");
        }
        let texts = [
            refused("", r#"{"cpus": 3}"#),
            refused("", r#"{"memory_mib": 257}"#),
            refused("", r#"{"memory_mib": 255}"#),
            refused(bounds, r#"{"cpus": 5}"#),
            refused(bounds, r#"{"memory_mib": 1025}"#),
            refused(bounds, r#"{"memory_mib": 4294967295}"#),
        ];
        insta::assert_snapshot!(texts.join("\n"));
    }

    #[test]
    fn resources_replace_the_values_of_a_machine() {
        let machine = machine("");
        assert_eq!(Resources::default().applied_to(&machine), machine);
        let sized = resources(r#"{"cpus": 3, "memory_mib": 512}"#).applied_to(&machine);
        assert_eq!((sized.cpus.get(), sized.memory_kib.get()), (3, 512 * 1024));
    }

    #[test]
    fn resources_are_displayed_for_people() {
        let shown = |text: &str| resources(text).to_string();
        assert_eq!(shown("{}"), "");
        assert_eq!(shown(r#"{"cpus": 1}"#), "1 processor");
        let both = shown(r#"{"cpus": 2, "memory_mib": 512}"#);
        assert_eq!(both, "2 processors, 512 MiB of memory");
        let counted = shown(r#"{"cpus": 2, "counts": {"license": 1}}"#);
        assert_eq!(counted, "2 processors, license=1");
        assert!(serde_json::from_str::<Resources>(r#"{"cpus": 0}"#).is_err());
        assert!(serde_json::from_str::<Resources>(r#"{"gpus": 1}"#).is_err());
    }
}
