//! The table of the controllers.

use config::controllers::{ControllerStatus, Coordinator, OpenLease};

use crate::exit_code::Failure;
use crate::output::{Output, Table, or_empty, time};

pub(super) fn print(controllers: &[ControllerStatus], output: &Output) -> Result<(), Failure> {
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
        // One alone is the address of the farm.
        for coordinator in controller
            .coordinators
            .iter()
            .skip_while(|_| controller.coordinators.len() == 1)
        {
            table.add(coordinator_row(controller, coordinator));
        }
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

fn coordinator_row(controller: &ControllerStatus, coordinator: &Coordinator) -> [String; 9] {
    let none = || or_empty(None::<String>);
    [
        controller.name.to_string(),
        "coordinator".to_owned(),
        none(),
        none(),
        or_empty(coordinator.answered.map(time)),
        none(),
        none(),
        coordinator.url.clone(),
        coordinator_state(coordinator),
    ]
}

/// Returns the sentence about a coordinator.
fn coordinator_state(coordinator: &Coordinator) -> String {
    match (coordinator.answering_since, coordinator.failed) {
        (Some(since), _) if coordinator.in_use => {
            format!("in use; answers since {}", time(since))
        }
        (Some(since), _) => format!("answered since {}", time(since)),
        (None, Some(at)) => format!("failed at {}: {}", time(at), coordinator.failure),
        (None, None) => "not asked".to_owned(),
    }
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
            coordinators: Vec::new(),
        }
    }

    #[test]
    fn a_coordinator_says_since_when_it_answers_or_why_not() {
        let second = |second| jiff::Timestamp::from_second(second).unwrap();
        let mut coordinator = Coordinator::default();
        assert_eq!(coordinator_state(&coordinator), "not asked");
        coordinator.note_answer(second(0));
        let since = time(second(0));
        assert_eq!(
            coordinator_state(&coordinator),
            format!("answered since {since}")
        );
        coordinator.in_use = true;
        assert_eq!(
            coordinator_state(&coordinator),
            format!("in use; answers since {since}")
        );
        coordinator.note_failure("connection refused", second(0));
        let expected = format!("failed at {since}: connection refused");
        assert_eq!(coordinator_state(&coordinator), expected);
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
