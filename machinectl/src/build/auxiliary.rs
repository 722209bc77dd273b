//! The auxiliary machines of a build, as commands name them.

use config::auxiliary::AuxiliaryMachine;
use config::builds::Build;

use crate::exit_code::{ExitStatus, Failure};

/// Returns the number of the auxiliary guest whose environment or machine has this name.
pub(super) fn number(build: &Build, name: &str) -> Result<u8, Failure> {
    let all = (1..).zip(build.auxiliaries());
    let named = all.filter(|(_, it)| has_name(it, name));
    let found: Vec<_> = named.map(|(number, _)| number).collect();
    match found.as_slice() {
        [number] => Ok(*number),
        [] => Err(refused(match labels(build) {
            none if none.is_empty() => format!("build {} has no auxiliary machines", build.id),
            labels => format!(
                "build {} has no auxiliary machine {name}; it has {labels}",
                build.id
            ),
        })),
        _ => Err(refused(format!(
            "several auxiliary machines of build {} are called {name}; name one of the environments {}",
            build.id,
            labels(build)
        ))),
    }
}

fn has_name(auxiliary: &AuxiliaryMachine, name: &str) -> bool {
    auxiliary.label() == name || auxiliary.machine.as_str() == name
}

fn labels(build: &Build) -> String {
    let labels: Vec<_> = build
        .auxiliaries()
        .map(config::auxiliary::AuxiliaryMachine::label)
        .collect();
    labels.join(", ")
}

fn refused(reason: String) -> Failure {
    Failure::new(ExitStatus::NotFound, reason)
}

#[cfg(test)]
mod tests {
    use config::BuildId;
    use config::builds::{Request, Submitter};
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    fn number(machines: &serde_json::Value, name: &str) -> Result<u8, String> {
        let request = json!({"machine": "linux", "sources": []});
        let task = json!({
            "controller": "ci", "priority": 0, "session": "s", "package": "x", "version": "1",
            "expires": "2100-01-01T00:00:00Z", "auxiliaries": machines,
        });
        let mut request: Request = serde_json::from_value(request).unwrap();
        request.controller = Some(serde_json::from_value(task).unwrap());
        let build = Build::new(
            BuildId(7),
            request,
            "default".parse().unwrap(),
            "0".repeat(64).parse().unwrap(),
            Submitter::root(),
            Timestamp::UNIX_EPOCH,
        );
        super::number(&build, name).map_err(|failure| failure.error.to_string())
    }

    #[test]
    fn an_auxiliary_machine_is_named_by_its_environment_or_its_machine() {
        let machines = json!([
            {"machine": "x-db", "environment": "one"},
            {"machine": "x-db", "environment": "two"},
            {"machine": "x-web"},
        ]);
        for (name, expected) in [("one", 1), ("two", 2), ("x-web", 3)] {
            assert_eq!(number(&machines, name), Ok(expected));
        }
        let several = number(&machines, "x-db").unwrap_err();
        assert!(
            several.contains("name one of the environments one, two, x-web"),
            "{several}"
        );
        let none = number(&machines, "three").unwrap_err();
        assert!(none.contains("it has one, two, x-web"), "{none}");
        let none = number(&json!([]), "one").unwrap_err();
        assert_eq!(none, "build 7 has no auxiliary machines");
    }
}
