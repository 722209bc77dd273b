//! `explain`: the reason why a build, or the queue, waits.

use client::Client;
use config::builds::{Build, State};
use config::queue::{Forecast, Queue};
use config::{BuildId, printable};
use jiff::Timestamp;

use super::forecast;
use crate::exit_code::Failure;
use crate::output::{Output, count, joined};

/// Prints the reason for a build, or for the queue.
pub(super) fn run(client: &Client, id: Option<BuildId>, output: &Output) -> Result<(), Failure> {
    let Some(id) = id else {
        let reason = of_queue(&client.queue()?);
        return print(&reason, None, "", output);
    };
    let build = client.build(id)?;
    let reason = of_build(&build, Timestamp::now());
    if build.state != State::Queued {
        return print(&reason, None, "", output);
    }
    let queue = client.queue_with_forecasts()?;
    let waiting = queue.waiting.iter().find(|it| it.build == id);
    let forecast = waiting.and_then(|it| it.forecast.as_ref());
    print(&reason, forecast, &forecast::of_build(&queue, id), output)
}

fn print(
    reason: &str,
    forecast: Option<&Forecast>,
    estimate: &str,
    output: &Output,
) -> Result<(), Failure> {
    if output.is_json() {
        let mut answer = serde_json::json!({ "why": reason });
        if !estimate.is_empty() {
            answer["estimate"] = estimate.into();
            answer["forecast"] = serde_json::json!(forecast);
        }
        return output.print_json(&answer);
    }
    let text = joined([reason, estimate], "; ");
    output.print(&format!("{}\n", printable(&text)))
}

fn of_build(build: &Build, now: Timestamp) -> String {
    let id = build.id;
    if let Some(outcome) = build.outcome {
        return match build.message.as_str() {
            "" => format!("build {id} does not wait: it finished with {outcome}"),
            message => format!("build {id} does not wait: it finished with {outcome}: {message}"),
        };
    }
    match build.state {
        State::Queued => queued(id, &build.message, build.not_before, now),
        State::Starting => {
            let wait = format!("build {id} waits until its guest requests the task");
            match build.cold_reason() {
                Some(reason) => format!("{wait}; the guest boots, because {reason}"),
                None => wait,
            }
        }
        State::Running | State::Finished => {
            format!("build {id} does not wait: its guest is running")
        }
        State::Storing if !build.message.is_empty() => {
            format!("build {id} waits {}", build.message)
        }
        State::Storing => format!("build {id} does not wait: its result is being stored"),
    }
}

/// Returns the wait reason of a queued build, with the rest of its backoff.
fn queued(id: BuildId, reason: &str, not_before: Option<Timestamp>, now: Timestamp) -> String {
    if reason.is_empty() {
        return format!("build {id} waits for the scheduler's next round");
    }
    let seconds = not_before.map_or(0, |time| time.duration_since(now).as_secs());
    if seconds > 0 {
        format!("build {id} waits {seconds} s more {reason}")
    } else {
        format!("build {id} waits {reason}")
    }
}

/// Returns the wait reason of the queue: that of its next build.
fn of_queue(queue: &Queue) -> String {
    let builds = count(queue.waiting.len(), "waiting build");
    if let Some(drained) = &queue.drained {
        return format!("{builds}; {}", drained.message());
    }
    let Some(next) = queue.waiting.first() else {
        return builds;
    };
    let reason = queued(next.build, &next.message, next.not_before, queue.at);
    match queue.waiting.len() {
        1 => reason,
        _ => format!("{builds}; the next one: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_explanation_contains_the_remaining_backoff() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-01-01T00:00:00Z");
        for (reason, not_before, expected) in [
            ("", None, "build 7 waits for the scheduler's next round"),
            ("for a guest", None, "build 7 waits for a guest"),
            (
                "after a failure",
                Some(at("2026-01-01T00:00:09Z")),
                "build 7 waits 9 s more after a failure",
            ),
            (
                "for a guest",
                Some(at("2025-12-31T00:00:00Z")),
                "build 7 waits for a guest",
            ),
        ] {
            assert_eq!(queued(BuildId(7), reason, not_before, now), expected);
        }
    }
}
