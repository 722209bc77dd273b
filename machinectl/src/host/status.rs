//! `host status`: the activity, capacity and problems of the host.

use std::fmt::Write as _;

use config::builds::{Readiness, Status, TrialStatus};
use config::pressure::Pressure;
use config::printable;

use crate::exit_code::Failure;
use crate::output::{Output, Table, count, joined, mebibytes};

/// Prints the status that the agent reports.
pub(super) fn run(status: &Status, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(status);
    }
    output.print(&format!(
        "{}: agent {}, {}, {}\n",
        status.name,
        status.version,
        count(status.guests, "running guest"),
        count(status.queued, "waiting build")
    ))?;
    for notice in &status.notices {
        output.print(&format!("{}\n", printable(notice)))?;
    }
    for volume in &status.volumes {
        let path = volume.path.display().to_string();
        output.print(&format!(
            "{}: {} free\n",
            printable(&path),
            mebibytes(volume.bytes_free)
        ))?;
    }
    for (name, load) in &status.resources {
        let total = load.total.unwrap_or_default();
        output.print(&format!("{name}: {} of {total} in use\n", load.taken))?;
    }
    if let Some(line) = pressure(&status.pressure) {
        output.print(&line)?;
    }
    for trial in &status.trials {
        output.print(&format!("{}\n", state_of_trial(trial)))?;
    }
    let mut table = Table::new(["MACHINE", "TOOLCHAIN", "IMAGE", "START", "REASON"]);
    for ready in &status.machines {
        table.add([
            ready.machine.to_string(),
            ready.toolchain.to_string(),
            ready.image.to_string(),
            ready.start.to_string(),
            reason(ready),
        ]);
    }
    output.print_table(&table)
}

/// Returns the line about pressure, if the kernel reports any: `pressure: memory 3 % of at most
/// 20 %, I/O 41 %`.
fn pressure(pressure: &[Pressure]) -> Option<String> {
    let one = |it: &Pressure| match it.percent_max {
        Some(limit) => format!("{} {} % of at most {limit} %", it.resource, it.percent),
        None => format!("{} {} %", it.resource, it.percent),
    };
    let all: Vec<_> = pressure.iter().map(one).collect();
    (!all.is_empty()).then(|| format!("pressure: {}\n", all.join(", ")))
}

/// Describes the progress of a trial.
fn state_of_trial(trial: &TrialStatus) -> String {
    let TrialStatus {
        machine,
        revision,
        terms,
        since: _,
        succeeded,
        needed,
        strikes,
        running,
        repeating,
        farm,
    } = trial;
    let mut text = match farm {
        None => format!(
            "{machine}: revision {revision} is on trial ({terms}): {succeeded} of {needed} builds have succeeded on it"
        ),
        Some(farm) => format!(
            "{machine}: revision {revision} is on trial (farm {farm} decides): builds that have succeeded on it here: {succeeded}"
        ),
    };
    for (number, fact) in [
        (*running, "running there"),
        (
            *repeating,
            "failed there and running again on the current revision",
        ),
        (*strikes, "failed there only"),
    ] {
        if number > 0 {
            let _ = write!(text, ", {number} {fact}");
        }
    }
    text
}

/// Returns the reasons for the state of an image and for the kind of its starts.
fn reason(ready: &Readiness) -> String {
    let discarded = match ready.evictions {
        0 => String::new(),
        number => count(number as usize, "discarded checkpoint"),
    };
    let reasons = [&ready.message, &ready.start_message, &discarded];
    joined(reasons.map(String::as_str), "; ")
}

#[cfg(test)]
mod tests {
    use config::pressure::PressureKind;

    use super::*;

    #[test]
    fn a_trial_says_who_decides() {
        let mut trial = TrialStatus {
            machine: "linux".parse().unwrap(),
            revision: config::Revision(2),
            terms: "3 of 10".parse().unwrap(),
            since: jiff::Timestamp::UNIX_EPOCH,
            succeeded: 1,
            needed: 3,
            strikes: 0,
            running: 1,
            repeating: 0,
            farm: None,
        };
        assert_eq!(
            state_of_trial(&trial),
            "linux: revision 2 is on trial (3 of 10): 1 of 3 builds have succeeded on it, 1 running there"
        );
        trial.farm = "ci".parse().ok();
        assert_eq!(
            state_of_trial(&trial),
            "linux: revision 2 is on trial (farm ci decides): builds that have succeeded on it here: 1, 1 running there"
        );
    }

    #[test]
    fn pressure_is_shown_with_its_limits() {
        let one = |resource, percent, percent_max| Pressure {
            resource,
            percent,
            percent_max,
            high_since: None,
        };
        let all = [
            one(PressureKind::Memory, 3, Some(20)),
            one(PressureKind::Io, 41, None),
        ];
        assert_eq!(
            pressure(&all).unwrap(),
            "pressure: memory 3 % of at most 20 %, I/O 41 %\n"
        );
        assert_eq!(pressure(&[]), None);
    }
}
