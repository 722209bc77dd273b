//! The operations of a build in a result of build2's worker.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Outcome, TaskError};
use crate::manifest;

/// An operation of a build, such as `configure`, `update` or `test`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The name.
    pub name: String,
    /// The outcome.
    pub status: Outcome,
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
                    status: status.parse()?,
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
    use crate::task::TaskResult;

    #[test]
    fn a_result_of_build2s_worker_is_parsed() {
        let text = ": 1\nname: libhello\nversion: 1.0.0+1\nstatus: warning\n\
                    configure-status: success\nupdate-status: warning\n\
                    configure-log:\\\nconfig.cxx g++\n\\\n\
                    update-log:\\\nc++ hello.cxx\n\nhello.cxx:1: warning: \\\n\\\n\
                    worker-checksum: 1\ndependency-checksum: c0ffee\n";
        let result = TaskResult::parse(text).unwrap();
        assert_eq!((result.status, result.packages), (Outcome::Warning, vec![]));
        let operations = Operation::parse_list(text).unwrap();
        insta::assert_snapshot!(Operation::log_of(&operations));
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
        let error = Operation::parse_list(": 1\ntest-status: fine\n").unwrap_err();
        assert_eq!(error.to_string(), "the value `status` cannot be `fine`");
    }
}
