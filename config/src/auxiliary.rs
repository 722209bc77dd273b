//! Auxiliary machines: the guests that run beside the build of a controller's task, such as a
//! database server.
//!
//! A task names them in values `auxiliary-machine` and `auxiliary-machine-NAME`, where the name is
//! that of an environment. Each guest puts the file [`FILE`] with variables such as `HOST=…`. The
//! build gets all of them in the value [`VALUE`] of its task, and the name of the environment, in
//! upper case, is their prefix: `NAME_HOST=…`.

use std::collections::BTreeSet;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::manifest::{self, Manifest, ManifestError};
use crate::names::MachineName;
use crate::newtype::text_newtype;
use crate::text::printable;

/// The file with its variables that an auxiliary guest puts when it is ready.
pub const FILE: &str = "environment";
/// The size limit of that file, in bytes.
pub const BYTES_MAX: u64 = 64 * 1024;
/// The largest number of auxiliary machines of a task.
pub const COUNT_MAX: usize = 8;
/// The value of a task with the variables of all auxiliary guests.
pub const VALUE: &str = "auxiliary-environment";

/// The value of a task that names an auxiliary machine, and the beginning of those with the name of
/// an environment.
const MACHINE: &str = "auxiliary-machine";

text_newtype!(
    /// The name of an auxiliary machine's environment: letters, digits, `_` and `-`, and a letter
    /// first.
    EnvironmentName,
    EnvironmentNameError
);

/// A text that cannot be the name of an environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot name an environment: letters, digits, `_` and `-` are expected, and a letter first"
)]
pub struct EnvironmentNameError(String);

impl FromStr for EnvironmentName {
    type Err = EnvironmentNameError;

    fn from_str(text: &str) -> Result<Self, EnvironmentNameError> {
        let is_name = text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.len() <= 64
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if is_name {
            Ok(Self(text.to_owned()))
        } else {
            let shown: String = text.chars().take(70).collect();
            Err(EnvironmentNameError(printable(&shown).to_string()))
        }
    }
}

impl EnvironmentName {
    /// Returns the prefix of the variables.
    fn prefix(&self) -> String {
        format!("{}_", self.0.to_ascii_uppercase().replace('-', "_"))
    }
}

/// An auxiliary machine of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuxiliaryMachine {
    /// The machine.
    pub machine: MachineName,
    /// The name of its environment, which is the prefix of its variables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentName>,
}

impl AuxiliaryMachine {
    /// Returns the name by which people know it: that of the environment, or of the machine.
    pub fn label(&self) -> &str {
        let environment = self.environment.as_ref().map(EnvironmentName::as_str);
        environment.unwrap_or(self.machine.as_str())
    }
}

/// Returns true if brep accepts the name of an auxiliary machine, which is `ARCHITECTURE-REST`. One
/// other name makes it refuse the request with all machines.
pub fn may_be_offered(machine: &MachineName) -> bool {
    let name = machine.as_str();
    name.contains('-') && !name.starts_with('-') && !name.ends_with('-')
}

/// Returns the auxiliary machines that a task names, in its order.
///
/// # Errors
/// A fault of the task.
pub fn of_task(task: &Manifest) -> Result<Vec<AuxiliaryMachine>, String> {
    let mut machines = Vec::new();
    let mut prefixes = BTreeSet::new();
    for (name, value) in task.pairs() {
        let Some(rest) = name.strip_prefix(MACHINE) else {
            continue;
        };
        let environment = match rest.strip_prefix('-') {
            Some(environment) => Some(environment),
            None if rest.is_empty() => None,
            None => continue,
        };
        let environment: Option<EnvironmentName> = environment
            .map(str::parse)
            .transpose()
            .map_err(|error: EnvironmentNameError| format!("`{name}`: {error}"))?;
        if !prefixes.insert(environment.as_ref().map(EnvironmentName::prefix)) {
            return Err(format!("`{name}`: two environments have this prefix"));
        }
        let machine = value
            .parse()
            .map_err(|error| format!("`{name}`: {error}"))?;
        machines.push(AuxiliaryMachine {
            machine,
            environment,
        });
    }
    if machines.len() > COUNT_MAX {
        return Err(format!("it names more than {COUNT_MAX} auxiliary machines"));
    }
    if !machines.is_empty() && task.get(VALUE).is_some() {
        return Err(format!("`{VALUE}` is the host's value"));
    }
    Ok(machines)
}

/// Returns the variables in the file of an auxiliary guest, one `NAME=VALUE` a line, with their
/// prefix. Blank lines and those that begin with `#` are left out; quotes stay as they are.
///
/// # Errors
/// The first fault of the file.
pub fn variables(file: &str, environment: Option<&EnvironmentName>) -> Result<Vec<String>, String> {
    let prefix = environment.map(EnvironmentName::prefix).unwrap_or_default();
    let mut variables = Vec::new();
    for (number, line) in (1..).zip(file.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fault = |fault: &str| format!("line {number} of `{FILE}`: {fault}");
        let (name, value) = line
            .split_once('=')
            .ok_or_else(|| fault("`NAME=VALUE` is expected"))?;
        let (name, value) = (name.trim(), value.trim());
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name {
            return Err(fault("a variable's name has letters, digits and `_` only"));
        }
        if value.chars().any(char::is_control) {
            return Err(fault("a value has no control characters"));
        }
        variables.push(format!("{prefix}{name}={value}"));
    }
    Ok(variables)
}

/// Returns the text of a task with the variables of its auxiliary guests. All other bytes are as
/// they were; without variables, nothing is added.
///
/// # Errors
/// The task is no list of manifests.
pub fn with_variables(task: &str, variables: &[String]) -> Result<String, ManifestError> {
    if variables.is_empty() {
        return Ok(task.to_owned());
    }
    manifest::append(task, VALUE, &variables.join("\n"))
}

/// Returns the task of an auxiliary guest, which tells a machine of both kinds its role.
pub fn task(auxiliary: &AuxiliaryMachine) -> String {
    let task = Manifest::new()
        .with("role", "auxiliary")
        .with("machine", &auxiliary.machine);
    let task = match &auxiliary.environment {
        Some(environment) => task.with("environment-name", environment),
        None => task,
    };
    manifest::print(&[task])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(task: &str) -> Result<Vec<(String, String)>, String> {
        let list = manifest::parse(&format!(": 1\nname: x\n{task}")).unwrap();
        let machines = of_task(&list[0])?;
        let shown = machines
            .iter()
            .map(|it| (it.machine.to_string(), it.label().to_owned()));
        Ok(shown.collect())
    }

    #[test]
    fn a_task_names_its_auxiliary_machines() {
        let pair = |machine: &str, label: &str| (machine.to_owned(), label.to_owned());
        assert_eq!(parse("auxiliary-environments: none\n"), Ok(vec![]));
        assert_eq!(
            parse("auxiliary-machine: x86_64-pg\nauxiliary-machine-mysql_8: x86_64-my\n"),
            Ok(vec![
                pair("x86_64-pg", "x86_64-pg"),
                pair("x86_64-my", "mysql_8")
            ])
        );
        for (task, expected) in [
            ("auxiliary-machine: ../x\n", "`auxiliary-machine`: "),
            (
                "auxiliary-machine-9: a-b\n",
                "`9` cannot name an environment",
            ),
            (
                "auxiliary-machine-a-b: a-b\nauxiliary-machine-A_b: a-c\n",
                "two environments have this prefix",
            ),
            (
                "auxiliary-machine: a-b\nauxiliary-environment: X=1\n",
                "is the host's value",
            ),
        ] {
            let error = parse(task).unwrap_err();
            assert!(error.contains(expected), "{task}: {error}");
        }
        let many = (0..9).map(|n| format!("auxiliary-machine-n{n}: a-b\n"));
        let error = parse(&many.collect::<String>()).unwrap_err();
        assert_eq!(error, "it names more than 8 auxiliary machines");
    }

    #[test]
    fn only_names_that_brep_accepts_are_offered() {
        let may = |name: &str| may_be_offered(&name.parse().unwrap());
        assert!(may("x86_64-linux_debian_12-postgresql_16"));
        for name in ["postgresql", "x86_64_linux"] {
            assert!(!may(name), "{name}");
        }
    }

    #[test]
    fn variables_get_the_prefix_of_their_environment() {
        let file = "# comment\n\nDATABASE_HOST = 169.254.111.2\r\nDATABASE_USER='a b=c'\nEMPTY=\n";
        let name: EnvironmentName = "pgsql-16".parse().unwrap();
        assert_eq!(
            variables(file, Some(&name)).unwrap(),
            [
                "PGSQL_16_DATABASE_HOST=169.254.111.2",
                "PGSQL_16_DATABASE_USER='a b=c'",
                "PGSQL_16_EMPTY=",
            ]
        );
        assert_eq!(variables("A=1", None).unwrap(), ["A=1"]);
        for (file, expected) in [
            (
                "A=1\nB",
                "line 2 of `environment`: `NAME=VALUE` is expected",
            ),
            ("9A=1", "a variable's name has letters"),
            ("A B=1", "a variable's name has letters"),
            ("A=\u{7}", "a value has no control characters"),
        ] {
            let error = variables(file, None).unwrap_err();
            assert!(error.contains(expected), "{file:?}: {error}");
        }
    }

    #[test]
    fn the_task_stays_byte_for_byte_and_gets_the_variables() {
        let task = ": 1\r\nname: hello\n# a comment\nnewer:\n\\\na\n\\\n";
        assert_eq!(with_variables(task, &[]).unwrap(), task);
        let long = with_variables(task, &["A=1".to_owned(), "B=2".to_owned()]).unwrap();
        assert_eq!(
            long,
            format!("{task}auxiliary-environment:\n\\\nA=1\nB=2\n\\\n")
        );
        with_variables("no manifest", &["A=1".to_owned()]).unwrap_err();
    }

    #[test]
    fn an_auxiliary_guest_is_told_its_role() {
        let auxiliary = AuxiliaryMachine {
            machine: "x86_64-pg".parse().unwrap(),
            environment: Some("pgsql".parse().unwrap()),
        };
        assert_eq!(
            task(&auxiliary),
            ": 1\nrole: auxiliary\nmachine: x86_64-pg\nenvironment-name: pgsql\n"
        );
    }

    proptest! {
        #[test]
        fn accepted_variables_reach_the_build_as_they_are(file in "([A-Z]{1,3}=[ -~]{0,90}\n|[ -~\r\t]{0,9}\n){0,5}") {
            if let Ok(variables) = variables(&file, None) {
                let text = with_variables(": 1\nname: x\n", &variables).unwrap();
                let list = manifest::parse(&text).unwrap();
                let value = list[0].get(VALUE).unwrap_or_default();
                prop_assert_eq!(value, variables.join("\n"));
            }
        }
    }
}
