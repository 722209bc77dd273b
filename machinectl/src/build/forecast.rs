//! The forecast of a waiting build's start, as a sentence.

use config::BuildId;
use config::queue::{Forecast, Queue};
use jiff::Timestamp;

use crate::output::time_of_day;

/// Returns the end of a sentence about the start of a waiting build; empty if it does not wait.
pub(super) fn of_build(queue: &Queue, id: BuildId) -> String {
    let waiting = queue.waiting.iter().find(|it| it.build == id);
    match waiting.map(|it| &it.forecast) {
        Some(Some(forecast)) => sentence(forecast, queue.at),
        Some(None) => "as things are, no estimate of its start is possible".to_owned(),
        None => String::new(),
    }
}

fn sentence(forecast: &Forecast, now: Timestamp) -> String {
    let place = match forecast.place {
        1 => "it is next in the queue".to_owned(),
        place => format!("it is number {place} in the queue"),
    };
    let seconds = |at: Timestamp| at.duration_since(now).as_secs().max(0);
    let wait = seconds(forecast.start);
    if let Some(job) = &forecast.unknown {
        let cause = format!("the duration of {job} is not known");
        return match wait {
            0 => format!("{place}; no estimate of its start is possible, because {cause}"),
            _ => format!(
                "{place} and does not start before {}, about {} from now; {cause}",
                time_of_day(forecast.start),
                span(wait)
            ),
        };
    }
    let mut text = match wait {
        0 => format!("{place} and is to start now"),
        _ => format!("{place} and starts in about {}", span(wait)),
    };
    if let Some(late) = forecast.start_late.map(seconds).filter(|late| *late > wait) {
        let slow = [", in ", &span(late), " if the builds before it are slow"];
        text.extend(slow);
    }
    if let Some(builds) = forecast.builds {
        let builds = crate::output::count(builds, "earlier build");
        let of = if forecast.same_package {
            "of each package"
        } else {
            "on its machine"
        };
        text.extend(["; estimated from at least ", &builds, " ", of]);
    }
    text
}

/// Returns a time span in the unit that suits it, rounded up.
fn span(seconds: i64) -> String {
    match seconds {
        ..91 => format!("{seconds} s"),
        91..=5400 => format!("{} min", (seconds + 59) / 60),
        _ => {
            let minutes = (seconds + 59) / 60;
            format!("{} h {} min", minutes / 60, minutes % 60)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forecast_says_what_it_rests_on() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let known = Forecast {
            place: 1,
            start: at(700),
            start_late: Some(at(1200)),
            unknown: None,
            builds: Some(5),
            same_package: true,
        };
        let forecasts = [
            known.clone(),
            Forecast {
                place: 3,
                start: at(8000),
                start_late: Some(at(8000)),
                builds: Some(1),
                same_package: false,
                ..known.clone()
            },
            Forecast {
                start: at(9),
                start_late: None,
                builds: None,
                ..known.clone()
            },
            Forecast {
                start: at(0),
                start_late: None,
                builds: None,
                ..known.clone()
            },
            Forecast {
                unknown: Some("build 9".into()),
                start_late: None,
                ..known.clone()
            },
            Forecast {
                start: at(0),
                start_late: None,
                unknown: Some("the bootstrap of linux/default".into()),
                ..known
            },
        ];
        let lines = forecasts.map(|forecast| sentence(&forecast, at(0)));
        // The zone of the user is that of the test.
        let text = lines.join("\n").replace(&time_of_day(at(700)), "00:11:40Z");
        insta::assert_snapshot!(text, @r"
        it is next in the queue and starts in about 12 min, in 20 min if the builds before it are slow; estimated from at least 5 earlier builds of each package
        it is number 3 in the queue and starts in about 2 h 14 min; estimated from at least 1 earlier build on its machine
        it is next in the queue and starts in about 9 s
        it is next in the queue and is to start now
        it is next in the queue and does not start before 00:11:40Z, about 12 min from now; the duration of build 9 is not known
        it is next in the queue; no estimate of its start is possible, because the duration of the bootstrap of linux/default is not known
        ");
    }
}
