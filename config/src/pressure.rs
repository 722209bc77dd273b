//! The pressure on the host: the share of time in which its programs are stalled for lack of
//! a resource, as the kernel reports it (PSI).

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A resource whose pressure the kernel reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PressureKind {
    /// Memory.
    Memory,
    /// Disks.
    Io,
    /// Processors.
    Cpu,
}

impl PressureKind {
    /// All kinds, the gravest first.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Io, Self::Cpu];

    /// Returns the name of the kernel's file, which is the name in JSON as well.
    pub fn file(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Io => "io",
            Self::Cpu => "cpu",
        }
    }

    /// Returns the setting that limits it.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Memory => "guests.memory_pressure_percent_max",
            Self::Io => "guests.io_pressure_percent_max",
            Self::Cpu => "guests.cpu_pressure_percent_max",
        }
    }
}

impl fmt::Display for PressureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Memory => "memory",
            Self::Io => "I/O",
            Self::Cpu => "processor",
        })
    }
}

/// The limits on the pressure, in percent. A limit that is `None` does not apply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PressureLimits {
    /// The limit on the pressure on memory.
    pub memory: Option<u32>,
    /// The limit on the pressure on disks.
    pub io: Option<u32>,
    /// The limit on the pressure on processors.
    pub cpu: Option<u32>,
}

impl PressureLimits {
    /// Returns the limit on a kind of pressure.
    pub fn of(&self, kind: PressureKind) -> Option<u32> {
        match kind {
            PressureKind::Memory => self.memory,
            PressureKind::Io => self.io,
            PressureKind::Cpu => self.cpu,
        }
    }
}

/// The pressure on a resource when the scheduler last looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    /// The resource.
    pub resource: PressureKind,
    /// The share of the last ten seconds, in whole percent: that in which no program ran
    /// because all were stalled, for processors that in which any was.
    pub percent: u32,
    /// The limit; `None` if it is not limited.
    pub percent_max: Option<u32>,
    /// The time since which no guest starts beside another one for this reason.
    pub high_since: Option<Timestamp>,
}
