//! The builds and schedules that use a machine, as far as the agent tells.

use std::path::Path;

use client::{Client, ClientError};
use config::text::join_and;
use config::{BuildId, MachineName, ScheduleName};
use store::Volume;

use crate::output::Output;

/// The number of builds and of schedules that are named.
const NAMED_MAX: usize = 5;

/// The users of a machine.
#[derive(Debug, Default, PartialEq, Eq)]
struct Users {
    running: Vec<BuildId>,
    queued: Vec<BuildId>,
    schedules: Vec<ScheduleName>,
}

/// Prints the users of a machine that is to be deleted. Without an agent, there are none.
pub(super) fn report(volume: &Volume, name: &MachineName, socket: &Path, output: &Output) {
    if !socket.exists() {
        return;
    }
    for note in find(volume, name, socket).unwrap_or_default().notes() {
        output.status(format_args!("{name}: note: {note}"));
    }
}

/// Asks the agent for the users of a machine. A machine in another volume has none.
fn find(volume: &Volume, name: &MachineName, socket: &Path) -> Result<Users, ClientError> {
    let client = Client::new(socket)?;
    let volumes = client.status()?.volumes;
    if !volumes.iter().any(|it| it.path == volume.path()) {
        return Ok(Users::default());
    }
    let queue = client.queue()?;
    let running = queue.running.into_iter().filter(|it| it.machine == *name);
    let queued = queue.waiting.into_iter().filter(|it| it.machine == *name);
    let schedules = client.schedules()?.into_iter();
    let schedules = schedules.filter(|it| it.build.machine == *name);
    Ok(Users {
        running: running.filter_map(|it| it.build).collect(),
        queued: queued.map(|it| it.build).collect(),
        schedules: schedules.map(|it| it.name).collect(),
    })
}

impl Users {
    /// Returns a sentence about each kind of users.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.running.is_empty() {
            notes.push(format!("used by {}", named("build", &self.running)));
        }
        if !self.queued.is_empty() {
            let builds = named("build", &self.queued);
            notes.push(format!("queued for it, and aborted: {builds}"));
        }
        if let Some(first) = self.schedules.first() {
            let schedules = named("schedule", &self.schedules);
            notes.push(format!(
                "still submitting builds for it: {schedules}; `buildhost schedule remove {first}` ends that"
            ));
        }
        notes
    }
}

/// Returns a noun with up to [`NAMED_MAX`] names: `builds 1, 2 and 3`.
fn named(noun: &str, names: &[impl ToString]) -> String {
    let mut texts: Vec<_> = names.iter().map(ToString::to_string).collect();
    let more = texts.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        texts.truncate(NAMED_MAX);
        texts.push(format!("{more} more"));
    }
    let plural = if names.len() == 1 { "" } else { "s" };
    format!("{noun}{plural} {}", join_and(&texts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named_up_to_a_number() {
        let builds = |ids: std::ops::RangeInclusive<u64>| ids.map(BuildId).collect();
        let users = Users {
            running: builds(1..=1),
            queued: builds(2..=8),
            schedules: vec!["nightly".parse().unwrap(), "weekly".parse().unwrap()],
        };
        let expected = [
            "used by build 1",
            "queued for it, and aborted: builds 2, 3, 4, 5, 6 and 2 more",
            "still submitting builds for it: schedules nightly and weekly; `buildhost schedule remove nightly` ends that",
        ];
        assert_eq!(users.notes(), expected);
        assert!(Users::default().notes().is_empty());
    }
}
