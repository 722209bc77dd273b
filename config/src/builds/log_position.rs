//! The position of a reader that follows the logs of a build.

use jiff::Timestamp;

use super::Build;

/// The position of a reader that follows the logs of a build. Each attempt has a log of its own,
/// which begins when its guest requests the task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogPosition {
    /// The number of bytes of the log that were read.
    pub offset: u64,
    /// The time at which the attempt with this log began to run.
    run: Option<Timestamp>,
}

impl LogPosition {
    /// Returns a position in the log of the attempt that runs, or will be the next one to run.
    pub fn new(offset: u64) -> Self {
        Self { offset, run: None }
    }

    /// Moves to the beginning of the next log if another attempt runs.
    pub fn follow(&mut self, build: &Build) {
        let run = build.first_contact();
        if run.is_some() && self.run.is_some() && run != self.run {
            self.offset = 0;
        }
        self.run = run.or(self.run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builds::{State, Submitter};

    #[test]
    fn a_reader_begins_again_when_another_attempt_runs() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
        let (toolchain, task) = ("default".parse().unwrap(), "0".repeat(64).parse().unwrap());
        let id = crate::BuildId(1);
        let mut build = Build::new(id, request, toolchain, task, Submitter::root(), at(0));
        let mut position = LogPosition::new(7);
        let mut enter = |state, second| {
            build.enter(state, at(second)).unwrap();
            position.follow(&build);
            position.offset += 1;
            position.offset
        };
        assert_eq!(enter(State::Starting, 1), 8);
        assert_eq!(enter(State::Running, 2), 9);
        assert_eq!(enter(State::Queued, 3), 10);
        assert_eq!(enter(State::Starting, 4), 11);
        assert_eq!(enter(State::Running, 5), 1);
        assert_eq!(enter(State::Storing, 6), 2);
    }
}
