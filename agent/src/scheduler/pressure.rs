//! The kernel's reports on pressure (PSI).

use std::path::Path;

use config::pressure::{PressureKind, PressureLimits};
use planner::pressure::{PressureReadings, Stall};

/// Reads the pressure on each resource from a directory such as `/proc/pressure`. A resource
/// that the kernel does not report is missing: it may lack the reports, or they are disabled.
pub(crate) fn read(directory: &Path) -> PressureReadings {
    let read = |kind: PressureKind| {
        let text = sys::trusted::read_text(directory.join(kind.file())).ok()?;
        Some((kind, parse(&text)?))
    };
    PressureKind::ALL.into_iter().filter_map(read).collect()
}

/// Returns the resources whose pressure has a limit, but is not reported.
pub(crate) fn unreported(
    readings: &PressureReadings,
    limits: &PressureLimits,
) -> Vec<&'static str> {
    PressureKind::ALL
        .into_iter()
        .filter(|kind| limits.of(*kind).is_some() && !readings.contains_key(kind))
        .map(PressureKind::file)
        .collect()
}

/// Parses a report. Kernels before 5.13 state only some stalls for processors.
fn parse(text: &str) -> Option<Stall> {
    let share = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let mut fields = line.split_ascii_whitespace();
        let average = fields.find_map(|field| field.strip_prefix("avg10="))?;
        hundredths(average)
    };
    Some(Stall {
        some: share("some ")?,
        full: share("full ").unwrap_or_default(),
    })
}

/// Parses a percentage with two decimals.
fn hundredths(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.')?;
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if fraction.len() != 2 || !is_number(fraction) || !is_number(whole) {
        return None;
    }
    let whole: u32 = whole.parse().ok().filter(|whole| *whole <= 100)?;
    Some(whole * 100 + fraction.parse::<u32>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_states_the_averages_of_ten_seconds() {
        let some = "some avg10=3.69 avg60=7.17 avg300=7.89 total=60381281\n";
        let full = "full avg10=100.00 avg60=8.83 avg300=4.06 total=19342928\n";
        let parsed = |text: &str| parse(text).map(|stall| (stall.some, stall.full));
        assert_eq!(parsed(&format!("{some}{full}")), Some((369, 10_000)));
        assert_eq!(parsed(some), Some((369, 0)), "an old kernel's processors");
        for text in [
            "",
            full,
            "some avg60=7.17\n",
            "some avg10=x\n",
            "some avg10=-1.00\n",
            "some avg10=1.5\n",
            "some avg10=101.00\n",
            "some avg10=99999999999.00\n",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    /// The contract of the files that tests write: this kernel's files have the same form.
    #[test]
    fn the_reports_of_this_kernel_can_be_read() {
        let directory = Path::new("/proc/pressure");
        let readings = read(directory);
        for kind in PressureKind::ALL {
            let is_reported = sys::trusted::read_text(directory.join(kind.file())).is_ok();
            assert_eq!(readings.contains_key(&kind), is_reported, "{kind}");
        }
    }

    #[test]
    fn a_kernel_without_reports_has_no_pressure() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()), PressureReadings::new());
    }
}
