//! The commands about notifications.

use clap::Subcommand;
use config::NotifyName;
use config::notify::NotifyStatus;

use crate::exit_code::{ExitStatus, Failure};
use crate::options::GlobalOptions;
use crate::output::{Output, Table, or_empty, time};

/// The rules are sections `[[notify]]` of the agent's settings. To make the key of a webhook:
/// `(umask 077; echo whsec_$(openssl rand -base64 32) >/etc/buildhost/notify.key)`
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the rules, with their last deliveries and failures
    List,
    /// Send a notification by a rule now, and print the answer of its recipient
    Test {
        /// The name of the rule
        name: NotifyName,
    },
}

pub(crate) fn run(
    command: &Command,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    let client = options.client()?;
    match command {
        Command::List => list(&client.notify_rules()?, output),
        Command::Test { name } => {
            let tested = client.test_notify(name)?;
            if output.is_json() {
                output.print_json(&tested)?;
            }
            if !tested.delivered {
                return Err(Failure::new(
                    ExitStatus::Failure,
                    format!("{name} cannot be notified: {}", tested.answer),
                ));
            }
            if !output.is_json() {
                output.status(format!("notified {name}: {}", tested.answer));
            }
            Ok(())
        }
    }
}

fn list(rules: &[NotifyStatus], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(&rules);
    }
    let headings = [
        "NAME",
        "KIND",
        "ON",
        "PROBLEMS",
        "DELIVERED",
        "WAITING",
        "GIVEN UP",
        "TO",
        "FAILURE",
    ];
    let mut table = Table::new(headings);
    for rule in rules {
        table.add([
            rule.name.to_string(),
            rule.kind.clone(),
            rule.on.clone(),
            rule.problems.join(" "),
            or_empty(rule.delivered.map(time)),
            rule.waiting.to_string(),
            rule.given_up.to_string(),
            rule.to.clone(),
            rule.failure.clone(),
        ]);
    }
    output.print_table(&table)
}
