//! `doctor`: the problems of the host, and their repair.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use clap::Subcommand;
use client::{Client, ClientError, ConnectError};
use config::doctor::{Finding, Id, KINDS, Severity, Subject};
use config::{MachineName, printable};
use store::doctor::MachineFinding;
use store::{StoreError, Volume};

use crate::exit_code::{ExitStatus, Failure};
use crate::options::{DryRun, GlobalOptions};
use crate::output::{Output, count, joined};

/// The number of findings of one kind that are shown to people.
const SHOWN_MAX: usize = 10;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check the host for problems; --repair fixes them
    ///
    /// The command examines the volume and its machines. The agent, if it is running, examines
    /// guests, networks and records. Unmanaged entries are reported but never changed. With names,
    /// only these machines are examined.
    #[command(after_long_help = kinds())]
    Doctor {
        /// The machines; by default the whole host
        #[arg(value_name = "MACHINE")]
        names: Vec<MachineName>,
        /// Repair problems that need no decision
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

/// Returns the list of all kinds of findings for `--help`.
fn kinds() -> String {
    let mut text = String::from("Findings, their severities and their remedies:\n");
    for kind in KINDS {
        let (word, severity) = (kind.name, kind.severity);
        let _ = writeln!(text, "  {word} ({severity}): {}", kind.meaning);
        let _ = writeln!(text, "      {}", kind.remedy);
    }
    text.push_str("\nExit codes: 0 without warnings and faults, 21 with warnings, 22 with faults.");
    text
}

pub(super) fn run(
    command: &Command,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    let Command::Doctor {
        names,
        repair,
        dry_run,
    } = command;
    let volume = match Volume::open(&options.volume) {
        Ok(volume) => volume,
        Err(error) => return without_volume(error, names, options.socket(), output),
    };
    let mut report = Report::collect(&volume, names, options.socket())?;
    if *repair && dry_run.enabled {
        return plan(&report.findings, output);
    }
    if *repair {
        report.repair(&volume, options.socket(), output)?;
        let existing = volume.machines()?;
        let remaining: Vec<_> = names
            .iter()
            .filter(|name| existing.contains(name))
            .cloned()
            .collect();
        // No names would mean the whole host, but the repair may have deleted all named machines.
        report = if remaining.is_empty() && !names.is_empty() {
            Report::default()
        } else {
            Report::collect(&volume, &remaining, options.socket())?
        };
    }
    show(&report.findings, output)?;
    verdict(&report.findings, output)
}

/// Shows what the agent finds on a host whose volume cannot be opened, and fails with that error.
fn without_volume(
    error: StoreError,
    names: &[MachineName],
    socket: &Path,
    output: &Output,
) -> Result<(), Failure> {
    if names.is_empty() {
        let answer = Client::new(socket).and_then(|client| client.examine());
        let findings = match answer {
            Ok(report) => report.findings,
            Err(error) => vec![no_answer(socket, &error)],
        };
        show(&findings, output)?;
    }
    Err(error.into())
}

/// The findings of one examination.
#[derive(Debug, Default)]
struct Report {
    /// Findings in the volume, which can be repaired here.
    machines: Vec<MachineFinding>,
    /// Findings of the agent.
    host: Vec<Finding>,
    /// All findings, the worst first.
    findings: Vec<Finding>,
}

impl Report {
    fn collect(volume: &Volume, names: &[MachineName], socket: &Path) -> Result<Self, Failure> {
        // The agent is asked first: what it is about to clean up may be gone a moment later.
        let answer = Client::new(socket).and_then(|client| client.examine());
        let mut cleaning = Vec::new();
        if let Ok(report) = &answer {
            cleaning.extend(report.cleaning.iter().cloned());
            cleaning.retain(|cleaning| cleaning.volume == volume.path());
        }
        let machines = volume.examine(names)?;
        let mut findings: Vec<_> = machines
            .iter()
            .map(|found| Finding {
                automatic: found.is_covered(&cleaning),
                ..found.finding()
            })
            .collect();
        let mut host = Vec::new();
        if names.is_empty() {
            findings.extend(volume.examine_mount()?);
            host = match answer {
                Ok(report) => report.findings,
                Err(error) => vec![no_answer(socket, &error)],
            };
            findings.extend(host.iter().cloned());
        }
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Ok(Self {
            machines,
            host,
            findings,
        })
    }

    fn repair(&self, volume: &Volume, socket: &Path, output: &Output) -> Result<(), Failure> {
        let report = volume.repair(&self.machines);
        for (machine, step) in &report.done {
            output.status(format_args!("machine {machine}: {}", step.done()));
        }
        for failure in &report.failed {
            output.error(&failure.error);
        }
        let repairable: Vec<_> = self
            .host
            .iter()
            .filter(|finding| !finding.repair.is_empty())
            .map(Finding::key)
            .collect();
        if repairable.is_empty() {
            return Ok(());
        }
        let repaired = Client::new(socket)?.repair(&repairable)?;
        for done in &repaired.done {
            output.status(done);
        }
        for failed in repaired.failed {
            output.error(Failure::new(ExitStatus::Failure, failed).error.as_ref());
        }
        Ok(())
    }
}

/// Returns the finding that the agent has not examined the host.
fn no_answer(socket: &Path, error: &ClientError) -> Finding {
    let subject = Subject::Agent(socket.to_owned());
    match error {
        ClientError::Connect(error) if matches!(**error, ConnectError::NoAgent { .. }) => {
            Finding::new(
                Id::NoAgent,
                subject,
                "no agent answers, so guests, networks, control groups and records were not examined",
                "run `systemctl start buildhost-agent`, or name its socket with --socket",
            )
        }
        error => Finding::new(
            Id::AgentFailed,
            subject,
            format!("it did not examine guests, networks, control groups and records: {error}"),
            "see its log",
        ),
    }
}

fn plan(findings: &[Finding], output: &Output) -> Result<(), Failure> {
    for finding in findings {
        for step in &finding.repair {
            output.plan(format_args!("{step} ({})", finding.subject))?;
        }
    }
    Ok(())
}

fn show(findings: &[Finding], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(&findings);
    }
    output.print(&text(findings))
}

/// Returns the findings as text, with at most [`SHOWN_MAX`] of each kind.
fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    let mut numbers = BTreeMap::new();
    for finding in findings {
        let number = numbers.entry(finding.id).or_insert(0);
        *number += 1;
        if *number > SHOWN_MAX {
            continue;
        }
        let Finding {
            id,
            severity,
            subject,
            proof,
            ..
        } = finding;
        let proof = printable(proof);
        let _ = writeln!(text, "{severity}: {subject}: {proof} [{id}]");
        let _ = writeln!(text, "    {}", printable(&remedy(finding)));
    }
    for (id, number) in numbers {
        if number > SHOWN_MAX {
            let more = number - SHOWN_MAX;
            let _ = writeln!(text, "and {more} more [{id}]; --json shows all");
        }
    }
    text
}

fn remedy(finding: &Finding) -> String {
    let steps = finding.repair.join(", ");
    if finding.automatic {
        format!("the agent will do this within a minute: {steps}")
    } else if !steps.is_empty() {
        format!("--repair would: {steps}")
    } else if let Some(reason) = finding.advice.strip_prefix("none: ") {
        format!("nothing to do: {reason}")
    } else {
        format!("remedy: {}", finding.advice)
    }
}

/// Fails with the exit status for the worst finding.
fn verdict(findings: &[Finding], output: &Output) -> Result<(), Failure> {
    let number = |severity| {
        let is_such = |finding: &&Finding| finding.severity == severity;
        findings.iter().filter(is_such).count()
    };
    let text = |number, noun| match number {
        0 => String::new(),
        _ => count(number, noun),
    };
    let (faults, warnings) = (number(Severity::Fault), number(Severity::Warning));
    let status = match (faults, warnings) {
        (0, 0) => {
            output.status("no problems found");
            return Ok(());
        }
        (0, _) => ExitStatus::Warnings,
        (_, _) => ExitStatus::Faults,
    };
    let texts = [text(faults, "fault"), text(warnings, "warning")];
    let summary = joined(texts.iter().map(String::as_str), ", ");
    Err(Failure::new(status, summary))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_as_text() {
        let machine = || Subject::Machine("linux".parse().unwrap());
        let orphan = Finding {
            repair: vec!["delete snapshot 7 of toolchain default".to_owned()],
            ..Finding::new(
                Id::StraySnapshot,
                machine(),
                "snapshot 7 of toolchain default is unused",
                "",
            )
        };
        let findings = [
            Finding::new(
                Id::NoLink,
                machine(),
                "it has no current link",
                "buildhost rollback linux REVISION",
            ),
            orphan.clone(),
            Finding::new(
                Id::Unmanaged,
                machine(),
                "`notes` is unmanaged",
                "none: it is never changed",
            ),
            Finding {
                automatic: true,
                ..orphan
            },
        ];
        insta::assert_snapshot!(text(&findings));
    }

    #[test]
    fn findings_of_one_kind_are_limited() {
        let subject = Subject::Machine("linux".parse().unwrap());
        let pin = Finding::new(Id::LostPin, subject, "revision 9 does not exist", "");
        let text = text(&vec![pin; 1000]);
        let last = text.lines().last().unwrap();
        assert_eq!(last, "and 990 more [lost-pin]; --json shows all");
        assert_eq!(text.lines().count(), 2 * SHOWN_MAX + 1);
    }
}
