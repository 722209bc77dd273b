//! The operations of a build in a result of build2's worker.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::TaskError;
use crate::manifest;

/// An operation of a build, such as `configure`, `update` or `test`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The name.
    pub name: String,
    /// The outcome, also one of a later version of build2.
    pub status: String,
    /// The output.
    pub log: String,
}

impl Operation {
    /// Parses the operations in [`super::RESULT`], in order. The list is empty if the
    /// result has none.
    ///
    /// # Errors
    /// The first missing or invalid value.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, TaskError> {
        let list = manifest::parse_local(text)?;
        let head = list.first().ok_or(TaskError::Empty)?;
        let mut logs = BTreeMap::new();
        for (key, log) in head.pairs() {
            if let Some(name) = key.strip_suffix("-log") {
                logs.entry(name).or_insert(log);
            }
        }
        let mut operations = Vec::new();
        for (key, status) in head.pairs() {
            if let Some(name) = key.strip_suffix("-status") {
                operations.push(Self {
                    name: name.to_owned(),
                    status: crate::printable(status).to_string(),
                    // A repeated operation does not copy its log again.
                    log: logs.remove(name).cloned().unwrap_or_default(),
                });
            }
        }
        Ok(operations)
    }

    /// Returns a log of the output of all operations, each headed by its name and outcome.
    pub fn log_of(operations: &[Self]) -> String {
        let mut text = String::new();
        for operation in operations {
            let Self { name, status, log } = operation;
            let _ = writeln!(text, "{name}: {status}\n{}", log.trim_end_matches('\n'));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Outcome, TaskResult};

    #[test]
    fn a_result_of_build2s_worker_is_parsed() {
        let text = include_str!("build2/result.manifest");
        let result = TaskResult::parse(text).unwrap();
        assert_eq!((result.status, result.packages), (Outcome::Warning, vec![]));
        let operations = Operation::parse_list(text).unwrap();
        insta::assert_snapshot!(Operation::log_of(&operations));
    }

    #[test]
    fn operations_and_outcomes_of_later_versions_are_kept() {
        let text = ": 1\nstatus: error\nsign-status: splendid\u{1b}\nsign-log: x\n";
        let operations = Operation::parse_list(text).unwrap();
        assert_eq!(Operation::log_of(&operations), "sign: splendid\\u{1b}\nx\n");
    }

    #[test]
    fn a_repeated_operation_does_not_repeat_its_log() {
        let log = "x".repeat(10_000);
        let text = format!(
            ": 1\nupdate-log: {log}\nupdate-log: y\n{}",
            "update-status: success\n".repeat(1000)
        );
        let operations = Operation::parse_list(&text).unwrap();
        assert_eq!(operations.len(), 1000);
        assert_eq!(operations[0].log, log);
        assert!(operations[1..].iter().all(|it| it.log.is_empty()));
    }

    #[test]
    fn a_result_may_have_no_operations() {
        assert_eq!(Operation::parse_list(": 1\nstatus: success\n"), Ok(vec![]));
    }
}
