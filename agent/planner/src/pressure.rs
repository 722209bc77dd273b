//! Host pressure: while the host's programs are stalled for lack of memory, or of what else
//! has a limit, no guest starts beside another one.
//!
//! The limit has a hysteresis: pressure that was high counts as high for [`WINDOW`] at least,
//! and until it has fallen below one half of the limit. One guest may always run, so that
//! the pressure of other programs slows the queue down and never stops it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use config::pressure::{Pressure, PressureKind, PressureLimits};
use jiff::Timestamp;

/// The shortest time for which pressure counts as high. The kernel's average of ten seconds
/// has forgotten nearly everything after three times ten seconds.
pub const WINDOW: Duration = Duration::from_secs(30);
/// The time between two looks at pressure that is high.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The shares of the last ten seconds in which programs were stalled for lack of a resource,
/// in hundredths of a percent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stall {
    /// The share in which any program was stalled.
    pub some: u32,
    /// The share in which all programs were, and none ran.
    pub full: u32,
}

impl Stall {
    /// Returns the share that a limit on this kind of pressure counts. Processors are never
    /// short for all programs.
    pub fn limited(self, kind: PressureKind) -> u32 {
        match kind {
            PressureKind::Cpu => self.some,
            PressureKind::Io | PressureKind::Memory => self.full,
        }
    }
}

/// The pressure on each resource that the kernel reports.
pub type PressureReadings = BTreeMap<PressureKind, Stall>;

/// Pressure above its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HighPressure {
    /// The resource.
    pub kind: PressureKind,
    /// The limit, in percent.
    pub percent_max: u32,
}

impl HighPressure {
    /// Returns the message for operators.
    pub fn notice(&self) -> String {
        let Self { kind, percent_max } = self;
        format!(
            "the {kind} pressure of the host rose above {percent_max} %: no guest starts beside another one until it has fallen below {} %; the setting {} is the limit",
            half(*percent_max),
            kind.setting()
        )
    }
}

impl fmt::Display for HighPressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, percent_max } = self;
        write!(
            f,
            "less {kind} pressure on the host: it rose above {percent_max} %, and no guest starts beside another one until it has fallen below {} %",
            half(*percent_max)
        )
    }
}

/// Returns one half of a whole percentage, without a needless fraction.
fn half(percent: u32) -> f64 {
    f64::from(percent) / 2.0
}

/// The kinds of pressure that are high, each with the time since which it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PressureGate {
    high: BTreeMap<PressureKind, Timestamp>,
}

impl PressureGate {
    /// Updates the gate from readings. Pressure that the kernel does not report is not high.
    pub fn update(&mut self, readings: &PressureReadings, limits: &PressureLimits, now: Timestamp) {
        for kind in PressureKind::ALL {
            let reading = readings.get(&kind).zip(limits.of(kind));
            let Some((stalled, percent_max)) = reading else {
                self.high.remove(&kind);
                continue;
            };
            let (stalled, limit) = (stalled.limited(kind), percent_max * 100);
            if stalled > limit {
                // The first time counts, unless the clock was set back.
                let since = self.high.entry(kind).or_insert(now);
                *since = now.min(*since);
            } else if let Some(since) = self.high.get_mut(&kind) {
                *since = now.min(*since);
                if stalled * 2 < limit && elapsed(*since, now) >= WINDOW {
                    self.high.remove(&kind);
                }
            }
        }
    }

    /// Returns the gravest kind of pressure that is high.
    pub fn high(&self, limits: &PressureLimits) -> Option<HighPressure> {
        let (kind, _) = self.high.first_key_value()?;
        Some(HighPressure {
            kind: *kind,
            percent_max: limits.of(*kind)?,
        })
    }

    /// Returns the time of the next look at pressure that is high.
    pub fn wake_at(&self, now: Timestamp) -> Option<Timestamp> {
        let earliest = now.checked_add(LOOK_AGAIN).ok()?;
        let ends = self
            .high
            .values()
            .filter_map(|since| since.checked_add(WINDOW).ok());
        ends.min().map(|end| end.max(earliest))
    }

    /// Returns the state of every resource whose pressure the kernel reports.
    pub fn report(&self, readings: &PressureReadings, limits: &PressureLimits) -> Vec<Pressure> {
        let report = |(kind, stall): (&PressureKind, &Stall)| Pressure {
            resource: *kind,
            percent: stall.limited(*kind) / 100,
            percent_max: limits.of(*kind),
            high_since: self.high.get(kind).copied(),
        };
        readings.iter().map(report).collect()
    }
}

fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    to.duration_since(from).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: PressureLimits = PressureLimits {
        memory: Some(20),
        io: None,
        cpu: Some(80),
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn memory(percent: u32) -> PressureReadings {
        let stall = Stall {
            some: 10_000,
            full: percent * 100,
        };
        [(PressureKind::Memory, stall)].into()
    }

    fn is_high(gate: &PressureGate) -> bool {
        gate.high(&LIMITS).is_some()
    }

    #[test]
    fn pressure_is_high_from_its_limit_to_one_half_of_it_and_for_a_window_at_least() {
        let mut gate = PressureGate::default();
        let table = [
            (0, 20, false),
            (1, 21, true),
            (2, 0, true),
            (30, 0, true),
            (31, 10, true),
            (90, 10, true),
            (91, 9, false),
            (92, 20, false),
            (93, 100, true),
        ];
        for (second, percent, expected) in table {
            gate.update(&memory(percent), &LIMITS, at(second));
            assert_eq!(is_high(&gate), expected, "{percent} % at {second}");
        }
        gate.update(&PressureReadings::new(), &LIMITS, at(94));
        assert!(!is_high(&gate), "the kernel reports nothing any more");
    }

    #[test]
    fn only_resources_with_a_limit_count_and_each_by_its_own_share() {
        let stall = |some, full| Stall { some, full };
        let mut gate = PressureGate::default();
        let mut high = |readings: PressureReadings| {
            gate = PressureGate::default();
            gate.update(&readings, &LIMITS, at(0));
            gate.high(&LIMITS).map(|it| it.kind)
        };
        assert_eq!(
            high([(PressureKind::Io, stall(10_000, 10_000))].into()),
            None
        );
        assert_eq!(
            high([(PressureKind::Memory, stall(10_000, 2000))].into()),
            None
        );
        assert_eq!(
            high([(PressureKind::Cpu, stall(8001, 0))].into()),
            Some(PressureKind::Cpu)
        );
        let both = [
            (PressureKind::Cpu, stall(8001, 0)),
            (PressureKind::Memory, stall(3000, 3000)),
        ];
        assert_eq!(high(both.into()), Some(PressureKind::Memory));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_prolong_high_pressure() {
        let mut gate = PressureGate::default();
        gate.update(&memory(50), &LIMITS, at(100_000));
        gate.update(&memory(0), &LIMITS, at(10));
        gate.update(&memory(0), &LIMITS, at(40));
        assert!(!is_high(&gate));
    }

    #[test]
    fn high_pressure_is_looked_at_again_soon_and_other_pressure_is_not() {
        let mut gate = PressureGate::default();
        assert_eq!(gate.wake_at(at(0)), None);
        gate.update(&memory(50), &LIMITS, at(0));
        assert_eq!(gate.wake_at(at(0)), Some(at(30)));
        assert_eq!(gate.wake_at(at(25)), Some(at(35)));
    }

    proptest! {
        #[test]
        fn pressure_does_not_become_high_twice_within_a_window(
            readings in prop::collection::vec((0..20i64, 0..=100u32, 0..=100u32), 1..200),
        ) {
            let mut gate = PressureGate::default();
            let (mut now, mut last_rise, mut was_high) = (0, None::<i64>, false);
            for (seconds, percent, processors) in readings {
                now += seconds;
                let mut all = memory(percent);
                let stall = Stall { some: processors * 100, full: 0 };
                all.insert(PressureKind::Cpu, stall);
                gate.update(&all, &LIMITS, at(now));
                let high = is_high(&gate);
                prop_assert!(high || percent <= 20 && processors <= 80);
                if high && !was_high {
                    prop_assert!(last_rise.is_none_or(|last| now - last >= 30));
                    last_rise = Some(now);
                }
                was_high = high;
            }
        }
    }
}
