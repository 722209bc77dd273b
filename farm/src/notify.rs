//! The commands about notifications.

use std::io::Write;

use anyhow::{Context, bail};
use clap::Subcommand;
use config::NotifyName;
use config::notify::{Notice, NotifyStatus, NotifyTest};
use config::settings::NotifyRules;
use farm::coordinator::attempt;
use farm::secret;
use farm::settings::Settings;
use farm_store::Store;
use jiff::Timestamp;

/// A command about notifications.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the rules of this coordinator, with their last deliveries and failures.
    List,
    /// Send a notification by a rule now, and print the answer of its recipient.
    Test {
        /// The name of the rule.
        name: NotifyName,
    },
}

pub(crate) async fn run(command: &Command, settings: &Settings) -> anyhow::Result<()> {
    match command {
        Command::List => list(settings).await,
        Command::Test { name } => test(settings, name).await,
    }
}

async fn list(settings: &Settings) -> anyhow::Result<()> {
    let store = Store::open(&settings.database, 1).await?;
    let counts = store.notification_counts().await?;
    for rules in &settings.notify {
        let counts = counts.iter().find(|it| it.rule == rules.name.as_str());
        let status = NotifyStatus::new(rules, counts.cloned().unwrap_or_default());
        print(&row(&status))?;
    }
    Ok(())
}

/// Returns the line of a rule.
fn row(status: &NotifyStatus) -> String {
    let delivered = status
        .delivered
        .map_or_else(|| "never".to_owned(), |it| it.to_string());
    let NotifyStatus {
        name,
        kind,
        to,
        on,
        waiting,
        given_up,
        failure,
        ..
    } = status;
    let problems = status.problems.join(" ");
    let failure = config::printable(failure);
    format!(
        "{name:<16} {kind:<8} {on:<8} delivered {delivered}, {waiting} wait, {given_up} given up; \
         problems: {problems}; to {to}; {failure}"
    )
    .trim_end_matches("; ")
    .to_owned()
}

async fn test(settings: &Settings, name: &NotifyName) -> anyhow::Result<()> {
    let mut rules = settings.notify.iter();
    let Some(rules) = rules.find(|it| it.name == *name) else {
        bail!("there is no rule {name} for notifications; [[notify]] in the settings adds one");
    };
    let answer = send(&settings.name, rules).await?;
    if !answer.delivered {
        bail!("{name} cannot be notified: {}", answer.answer);
    }
    print(&format!("notified {name}: {}", answer.answer))
}

async fn send(farm: &str, rules: &NotifyRules) -> anyhow::Result<NotifyTest> {
    let number = secret::random().context("cannot name a notification")?;
    let notice = Notice::test(rules.name.clone(), Timestamp::now());
    let delivery = attempt(farm, rules, format!("test_{number}"), notice).await;
    Ok(delivery.into())
}

fn print(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("cannot print to standard output")
}
