//! The timeline of a build: its phases as bars.

use config::builds::{Phase, State};
use jiff::Timestamp;

use crate::words::duration;

/// The smallest width of a bar, in percent.
const WIDTH_MIN: f64 = 0.7;

/// A phase of a build. Its place and its width are percentages of the whole time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bar {
    pub(crate) state: State,
    pub(crate) time: String,
    pub(crate) x: String,
    pub(crate) width: String,
}

/// Returns the bars of the phases; the last one of an unfinished build lasts until `now`.
pub(super) fn bars(phases: &[Phase], now: Timestamp) -> Vec<Bar> {
    let lasting = phases.iter().filter(|phase| phase.state != State::Finished);
    let begins = phases.first().map(|phase| phase.at);
    let ends = match phases.last() {
        Some(last) if last.state == State::Finished => last.at,
        _ => now,
    };
    let Some(begins) = begins else {
        return Vec::new();
    };
    let seconds = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64().max(0.0);
    let whole = seconds(begins, ends).max(1e-3);
    let next = phases.iter().skip(1).map(|phase| phase.at).chain([ends]);
    lasting
        .zip(next)
        .map(|(phase, end)| {
            let (from, length) = (seconds(begins, phase.at), seconds(phase.at, end));
            let x = from / whole * 100.0;
            Bar {
                state: phase.state,
                time: duration(length),
                x: format!("{:.2}%", x.min(100.0 - WIDTH_MIN)),
                width: format!("{:.2}%", (length / whole * 100.0).max(WIDTH_MIN)),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_share_the_whole_time() {
        let phase = |state, second| Phase {
            state,
            at: Timestamp::from_second(second).unwrap(),
        };
        let mut phases = vec![
            phase(State::Queued, 0),
            phase(State::Starting, 50),
            phase(State::Running, 50),
        ];
        let shown = |phases: &[Phase]| {
            let bars = bars(phases, Timestamp::from_second(100).unwrap());
            let texts = bars
                .iter()
                .map(|it| format!("{} {} {}+{}", it.state, it.time, it.x, it.width));
            texts.collect::<Vec<_>>().join("; ")
        };
        insta::assert_snapshot!(shown(&phases), @"queued 50.0 s 0.00%+50.00%; starting 0.00 s 50.00%+0.70%; running 50.0 s 50.00%+50.00%");
        phases.push(phase(State::Finished, 80));
        insta::assert_snapshot!(shown(&phases), @"queued 50.0 s 0.00%+62.50%; starting 0.00 s 62.50%+0.70%; running 30.0 s 62.50%+37.50%");
        assert_eq!(shown(&[]), "");
    }
}
