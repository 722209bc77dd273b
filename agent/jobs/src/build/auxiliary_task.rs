//! The task of a build with auxiliary guests: that of the controller with the variables that they have
//! put.

use std::path::Path;

use config::auxiliary::{self, AuxiliaryMachine, BYTES_MAX, FILE};
use config::builds::Build;
use config::{AuxiliaryTag, printable};
use session::{GuestFailure, shown_auxiliary};

use state::paths::{GIVEN_TASK, auxiliary_directory};

/// Returns the short names of the auxiliary guests of a build.
pub fn tags(build: &Build) -> impl Iterator<Item = AuxiliaryTag> {
    numbered(build).map(|(tag, _)| tag)
}

/// Returns the auxiliary machines of a build with the short names of their guests.
pub(super) fn numbered(build: &Build) -> impl Iterator<Item = (AuxiliaryTag, &AuxiliaryMachine)> {
    let tags = (1..).map(|number| AuxiliaryTag {
        build: build.id,
        number,
    });
    tags.zip(build.auxiliaries())
}

/// Returns the task of a build with the variables of its auxiliary guests. Blocks.
pub(super) fn complete_task(directory: &Path, build: &Build) -> Result<String, GuestFailure> {
    let mut variables: Vec<String> = Vec::new();
    for (tag, auxiliary) in numbered(build) {
        let failure = |fault: String| GuestFailure::Environment {
            name: shown_auxiliary(auxiliary),
            fault,
        };
        let own = auxiliary_directory(directory, tag.number);
        let file = sys::untrusted::read_text(&own, FILE, BYTES_MAX)
            .map_err(|error| failure(format!("its `{FILE}` cannot be read: {error}")))?;
        let added = auxiliary::variables(&file, auxiliary.environment.as_ref()).map_err(failure)?;
        let name = |variable: &str| variable.split('=').next().map(str::to_owned);
        if let Some(twice) = added
            .iter()
            .find(|it| variables.iter().any(|other| name(other) == name(it)))
        {
            let twice = name(twice).unwrap_or_default();
            return Err(failure(format!(
                "another auxiliary machine has the variable {} as well",
                printable(&twice)
            )));
        }
        variables.extend(added);
    }
    let failure = |fault: String| GuestFailure::Environment {
        name: shown_all(build),
        fault,
    };
    let given = sys::trusted::read_text(directory.join(GIVEN_TASK))
        .map_err(|error| failure(format!("the task cannot be read: {error}")))?;
    auxiliary::with_variables(&given, &variables)
        .map_err(|error| failure(format!("the variables do not fit in the task: {error}")))
}

fn shown_all(build: &Build) -> String {
    let shown: Vec<_> = build.auxiliaries().map(shown_auxiliary).collect();
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use config::builds::{Request, Submitter};
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    fn build() -> Build {
        let request = json!({"machine": "linux", "sources": []});
        let task = json!({
            "controller": "ci", "priority": 0, "session": "s", "package": "x", "version": "1",
            "expires": "2100-01-01T00:00:00Z", "auxiliaries": [
                {"machine": "x86_64-pg", "environment": "pgsql"},
                {"machine": "x86_64-plain"},
            ],
        });
        let mut request: Request = serde_json::from_value(request).unwrap();
        request.controller = Some(serde_json::from_value(task).unwrap());
        Build::new(
            config::BuildId(7),
            request,
            "default".parse().unwrap(),
            "0".repeat(64).parse().unwrap(),
            Submitter::root(),
            Timestamp::UNIX_EPOCH,
        )
    }

    #[test]
    fn a_task_is_complete_when_all_environments_are_there() {
        let place = tempfile::tempdir().unwrap();
        let (directory, build) = (place.path(), build());
        let shown: Vec<_> = tags(&build).map(|tag| tag.to_string()).collect();
        assert_eq!(shown, ["7-x1", "7-x2"]);
        let put = |number, text: &str| {
            let own = auxiliary_directory(directory, number);
            std::fs::create_dir_all(&own).unwrap();
            sys::file::replace(&own.join(FILE), text.as_bytes()).unwrap();
        };
        let task = ": 1\nname: x\n# a comment\n";
        sys::file::replace(&directory.join(GIVEN_TASK), task.as_bytes()).unwrap();
        put(1, "HOST=169.254.111.2\n");
        let fault = || complete_task(directory, &build).unwrap_err().to_string();
        assert!(fault().contains("x86_64-plain: its `environment` cannot be read"));
        put(2, "PGSQL_HOST=1\n");
        assert_eq!(
            fault(),
            "auxiliary machine x86_64-plain: another auxiliary machine has the variable PGSQL_HOST as well"
        );
        put(2, "no variable\n");
        assert!(fault().contains("line 1 of `environment`: `NAME=VALUE` is expected"));
        put(2, "PORT=1\n");
        assert_eq!(
            complete_task(directory, &build).unwrap(),
            format!("{task}auxiliary-environment:\n\\\nPGSQL_HOST=169.254.111.2\nPORT=1\n\\\n")
        );
    }
}
