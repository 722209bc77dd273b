//! The maintenance windows of a farm's hosts, as `drain` and `undrain` change them.

use client::Client;
use farm_core::windows::{Day, Weekly, WindowId, WindowRequest};
use jiff::Timestamp;
use jiff::civil::{DateTime, Time};

use crate::exit_code::{ExitStatus, Failure};
use crate::host::DrainCommand;
use crate::output::Output;

/// The times of a window as they are given.
#[derive(Debug, Clone, Copy)]
struct Given<'a> {
    from: &'a str,
    until: &'a str,
    each: Option<&'a str>,
    zone: Option<&'a str>,
}

/// Runs a command that is about windows; `None` for another one.
pub(super) fn run(
    command: &DrainCommand,
    client: &Client,
    output: &Output,
) -> Option<Result<(), Failure>> {
    match command {
        DrainCommand::Drain {
            host,
            from: Some(from),
            until: Some(until),
            each,
            zone,
            reason,
            dry_run,
            ..
        } => {
            let given = Given {
                from,
                until,
                each: each.as_deref(),
                zone: zone.as_deref(),
            };
            let add = || {
                let host = host.as_deref().ok_or_else(unnamed)?;
                let window = request(given, reason);
                let window = window.map_err(|text| Failure::new(ExitStatus::Usage, text))?;
                if dry_run.enabled {
                    client.farm_host(host)?;
                    let times = times(&window);
                    return output.plan(format_args!("drain host {host} {times}"));
                }
                client.farm_add_window(host, &window)?;
                output.status(format_args!("host {host} is drained {}", times(&window)));
                Ok(())
            };
            Some(add())
        }
        DrainCommand::Undrain {
            host: Some(host),
            window: Some(number),
            dry_run,
        } => {
            let remove = || {
                let known = client.farm_host(host)?.windows;
                if !known.iter().any(|it| it.id == WindowId(*number)) {
                    let text = format!(
                        "host {host} has no window {number}; `buildhost hosts {host}` lists them"
                    );
                    return Err(Failure::new(ExitStatus::NotFound, text));
                }
                if dry_run.enabled {
                    return output.plan(format_args!("take window {number} of host {host} away"));
                }
                client.farm_remove_window(host, WindowId(*number))?;
                output.status(format_args!("host {host} has no window {number} any more"));
                Ok(())
            };
            Some(remove())
        }
        _ => None,
    }
}

fn unnamed() -> Failure {
    let text = "name the host of the farm: `drain HOST`; `buildhost hosts` lists them";
    Failure::new(ExitStatus::Usage, text)
}

/// Returns the times of a window for people.
fn times(window: &WindowRequest) -> String {
    match (&window.weekly, window.from, window.until) {
        (Some(weekly), ..) => format!("each {weekly}"),
        (None, Some(from), Some(until)) => format!("from {from} until {until}"),
        _ => String::new(),
    }
}

/// Returns the request for a window.
fn request(given: Given<'_>, reason: &str) -> Result<WindowRequest, String> {
    let mut request = WindowRequest {
        from: None,
        until: None,
        weekly: None,
        reason: reason.to_owned(),
    };
    match (given.each, given.zone) {
        (Some(days), Some(zone)) => {
            let days = days.split(',').map(|it| it.trim().parse::<Day>());
            let days: Result<Vec<_>, _> = days.collect();
            request.weekly = Some(Weekly {
                days: days.map_err(|error| error.to_string())?,
                from: time_of_day(given.from)?,
                until: time_of_day(given.until)?,
                zone: zone.to_owned(),
            });
        }
        (_, zone) => {
            request.from = Some(time(given.from, zone)?);
            request.until = Some(time(given.until, zone)?);
        }
    }
    Ok(request)
}

fn time_of_day(text: &str) -> Result<Time, String> {
    // A date would be ignored by the parser of times.
    Time::strptime("%H:%M", text)
        .map_err(|_| format!("with --each a time is such as 02:00, not {text}"))
}

/// Returns a time with an offset, or one in a zone.
fn time(text: &str, zone: Option<&str>) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let wrong = || format!("a time is such as 2026-12-02T14:00 or 2026-12-02T14:00Z, not {text}");
    let civil: DateTime = text.parse().map_err(|_| wrong())?;
    let Some(zone) = zone else {
        return Err(format!(
            "the time {text} needs a zone: --zone Europe/Berlin, or an offset such as {text}Z"
        ));
    };
    let zoned = civil.in_tz(zone);
    let zoned = zoned.map_err(|_| format!("the time zone {zone} is not known"))?;
    Ok(zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(
        from: &str,
        until: &str,
        each: Option<&str>,
        zone: Option<&str>,
    ) -> Result<String, String> {
        let given = Given {
            from,
            until,
            each,
            zone,
        };
        request(given, "kernel").map(|it| times(&it))
    }

    #[test]
    fn a_window_has_explicit_times() {
        let (from, until) = ("2026-12-02T14:00", "2026-12-02T16:00");
        assert_eq!(
            asked(from, until, None, Some("Europe/Berlin")).unwrap(),
            "from 2026-12-02T13:00:00Z until 2026-12-02T15:00:00Z"
        );
        assert_eq!(
            asked("2026-12-02T14:00Z", "2026-12-02T16:00+01:00", None, None).unwrap(),
            "from 2026-12-02T14:00:00Z until 2026-12-02T15:00:00Z"
        );
        assert_eq!(
            asked("02:00", "04:00", Some("sat, sun"), Some("Europe/Berlin")).unwrap(),
            "each sat,sun 02:00–04:00 Europe/Berlin"
        );
        let refused = asked(from, until, None, None).unwrap_err();
        assert!(refused.contains("needs a zone"), "{refused}");
        for (from, each, zone) in [
            ("tomorrow", None, Some("UTC")),
            (from, None, Some("Mars/Olympus")),
            (from, Some("sun"), Some("UTC")),
            ("02:00", Some("funday"), Some("UTC")),
        ] {
            assert!(asked(from, from, each, zone).is_err(), "{from}");
        }
    }
}
