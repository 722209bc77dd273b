//! The command about controllers.

mod enrol;

use clap::Subcommand;
use config::controllers::{ControllerStatus, OpenLease};

use crate::exit_code::Failure;
use crate::options::GlobalOptions;
use crate::output::{Output, Table, or_empty, time};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the controllers, which hand out tasks, and why one is not asked now
    Controllers,
    /// Enrol this host in a farm, from which it takes builds then
    ///
    /// The agent makes a key for the farm, and exchanges the token for the right to use it. A repetition
    /// with the same token does no harm.
    Enrol(enrol::Enrol),
}

pub(crate) fn run(
    command: &Command,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        Command::Controllers => list(&options.client()?.controllers()?, output),
        Command::Enrol(arguments) => enrol::run(arguments, options, output),
    }
}

fn list(controllers: &[ControllerStatus], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(&controllers);
    }
    let mut table = Table::new([
        "CONTROLLER",
        "PROTOCOL",
        "PRIORITY",
        "TOOLCHAIN",
        "ANSWERED",
        "TASKS",
        "OPEN",
        "URL",
        "STATE",
    ]);
    for controller in controllers {
        table.add(row(controller));
    }
    output.print_table(&table)
}

fn row(controller: &ControllerStatus) -> [String; 9] {
    [
        controller.name.to_string(),
        controller.protocol.clone(),
        controller.priority.to_string(),
        controller.toolchain.to_string(),
        or_empty(controller.contact.answered.map(time)),
        controller.tasks.to_string(),
        controller.open.len().to_string(),
        controller.url.clone(),
        state(controller),
    ]
}

/// Returns the sentence about a controller: the reports that fail, the failure of the last request, the
/// machines that a farm gives no builds for, or the reason for which it is not asked.
fn state(controller: &ControllerStatus) -> String {
    let failing = |lease: &OpenLease| {
        let OpenLease { build, failure, .. } = lease;
        format!("the result of build {build} is not reported: {failure}")
    };
    let unreported = controller.open.iter().find(|it| !it.failure.is_empty());
    let contact = &controller.contact;
    match unreported {
        Some(lease) => failing(lease),
        None if !contact.failure.is_empty() => contact.failure.clone(),
        None if !contact.unlike.is_empty() => format!("this host {}", contact.unlike.join("; it ")),
        None if !contact.not_asked.is_empty() => format!("not asked: {}", contact.not_asked),
        None => "asked".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use config::controllers::Contact;

    use super::*;

    fn controller(contact: Contact, open: Vec<OpenLease>) -> ControllerStatus {
        ControllerStatus {
            name: "ci".parse().unwrap(),
            protocol: "brep".into(),
            url: "https://ci.example.org/?build-task".into(),
            priority: "100".parse().unwrap(),
            toolchain: "default".parse().unwrap(),
            contact,
            tasks: 3,
            open,
        }
    }

    #[test]
    fn the_most_urgent_trouble_of_a_controller_is_shown() {
        let contact = |failure: &str, not_asked: &str| Contact {
            failure: failure.into(),
            not_asked: not_asked.into(),
            ..Contact::default()
        };
        let lease = OpenLease {
            build: config::BuildId(7),
            ended: true,
            failures: 2,
            failure: "it answers with status 503".into(),
        };
        let unlike = Contact {
            unlike: vec!["has other content".to_owned()],
            ..Contact::default()
        };
        for (contact, open, expected) in [
            (contact("", ""), vec![], "asked"),
            (unlike, vec![], "this host has other content"),
            (
                contact("", "the host is drained"),
                vec![],
                "not asked: the host is drained",
            ),
            (contact("no route", "x"), vec![], "no route"),
            (
                contact("no route", ""),
                vec![lease],
                "the result of build 7 is not reported: it answers with status 503",
            ),
        ] {
            assert_eq!(state(&controller(contact, open)), expected);
        }
    }
}
