//! Driven guests: builds without a task of their own, whose guests run the commands of clients.

use std::time::Duration;

use config::builds::Build;
use config::limits::Limits;
use session::DrivenGuest;
use session::commands::COMMANDS_FILE;
use state::AgentState;

/// Returns the part of a session that serves the commands of a driven guest, of which a command may
/// be quiet for so long; `None` for other builds.
pub(super) fn of_build(
    agent: &AgentState,
    build: &Build,
    quiet_max: Duration,
) -> Option<DrivenGuest> {
    build.interactive.commands.map(|_| DrivenGuest {
        file: agent.paths.build(build.id).join(COMMANDS_FILE),
        quiet_max,
    })
}

/// Returns the time limits of a build's guest: those of a driven guest may be shorter than those of
/// its machine.
pub(super) fn limits(build: &Build, of_machine: Limits) -> Limits {
    let Some(asked) = build.interactive.commands else {
        return of_machine;
    };
    let shorter = |asked: Option<std::num::NonZeroU32>, limit: Duration| {
        let asked = asked.map(|seconds| Duration::from_secs(u64::from(seconds.get())));
        asked.unwrap_or(limit).min(limit)
    };
    Limits {
        idle: shorter(asked.idle_seconds_max, of_machine.idle),
        total: shorter(asked.total_seconds_max, of_machine.total),
        ..of_machine
    }
}

#[cfg(test)]
mod tests {
    use config::builds::Submitter;
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_driven_guest_only_shortens_the_limits_of_its_machine() {
        let of_machine = Limits {
            start: Duration::from_secs(1),
            idle: Duration::from_secs(100),
            total: Duration::from_secs(1000),
        };
        let limits_of = |commands: &str| {
            let request =
                format!(r#"{{"machine": "linux", "sources": [], "commands": {commands}}}"#);
            let build = Build::new(
                config::BuildId(1),
                serde_json::from_str(&request).unwrap(),
                "default".parse().unwrap(),
                "0".repeat(64).parse().unwrap(),
                Submitter::root(),
                Timestamp::UNIX_EPOCH,
            );
            let limits = limits(&build, of_machine);
            (limits.idle.as_secs(), limits.total.as_secs())
        };
        assert_eq!(limits_of("null"), (100, 1000));
        assert_eq!(limits_of("{}"), (100, 1000));
        let both = r#"{"idle_seconds_max": 7, "total_seconds_max": 5000}"#;
        assert_eq!(limits_of(both), (7, 1000));
    }
}
