//! What a worker of build2 says of the steps of a build.

use super::{Outcome, TaskError};
use crate::manifest;

/// One step of a build, such as `configure`, `update` or `test`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub status: Outcome,
    /// Everything that it printed.
    pub log: String,
}

impl Operation {
    /// Reads the steps from [`super::RESULT`], in their order. There are none when
    /// the worker does not tell of them.
    ///
    /// # Errors
    /// The first thing that cannot be used.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, TaskError> {
        let list = manifest::parse(text)?;
        let head = list.first().ok_or(TaskError::Empty)?;
        let mut steps = Vec::new();
        for (key, status) in head.pairs() {
            if let Some(name) = key.strip_suffix("-status") {
                let log = head.get(&format!("{name}-log"));
                steps.push(Self {
                    name: name.to_owned(),
                    status: status.parse()?,
                    log: log.unwrap_or_default().to_owned(),
                });
            }
        }
        Ok(steps)
    }

    /// What all steps printed, each below its name and how it ended.
    pub fn log_of(steps: &[Self]) -> String {
        let texts = steps.iter().map(|step| {
            let log = step.log.trim_end_matches('\n');
            format!("{}: {}\n{log}\n", step.name, step.status)
        });
        texts.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::TaskResult;

    #[test]
    fn a_result_of_a_worker_of_build2_is_read() {
        let text = ": 1\nname: libhello\nversion: 1.0.0+1\nstatus: warning\n\
                    configure-status: success\nupdate-status: warning\n\
                    configure-log:\\\nconfig.cxx g++\n\\\n\
                    update-log:\\\nc++ hello.cxx\n\nhello.cxx:1: warning: \\\n\\\n\
                    worker-checksum: 1\ndependency-checksum: c0ffee\n";
        let result = TaskResult::parse(text).unwrap();
        assert_eq!((result.status, result.packages), (Outcome::Warning, vec![]));
        let steps = Operation::parse_list(text).unwrap();
        insta::assert_snapshot!(Operation::log_of(&steps));
    }

    #[test]
    fn a_result_without_steps_has_none() {
        assert_eq!(Operation::parse_list(": 1\nstatus: success\n"), Ok(vec![]));
        let error = Operation::parse_list(": 1\ntest-status: fine\n").unwrap_err();
        assert_eq!(error.to_string(), "the value `status` cannot be `fine`");
    }
}
