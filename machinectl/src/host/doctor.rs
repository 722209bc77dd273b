//! The verb that examines a host: `doctor`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use clap::Subcommand;
use config::MachineName;
use config::doctor::{Finding, Id, KINDS, Repaired, Report, Severity, Subject};
use serde_json::json;
use store::Volume;
use store::doctor::Found;

use crate::{Common, Ending, Failure, Rehearsal, Voice};
use client::{Client, ClientError};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Say what is not as it should be, and repair it if asked to
    ///
    /// Machines and the volume are examined here; guests, their networks and the
    /// records of builds by the agent, when one runs. What is not ours is shown and
    /// never touched. With names, only these machines are examined.
    #[command(after_long_help = kinds())]
    Doctor {
        /// The machines; without any, all of the host
        names: Vec<MachineName>,
        /// Repair what needs no decision
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
}

/// All findings, for `--help`.
fn kinds() -> String {
    let mut text = String::from("Findings, how bad they are, and what repairs them:\n");
    for kind in KINDS {
        let (word, severity) = (kind.word, kind.severity);
        let _ = writeln!(text, "  {word} ({severity}): {}", kind.meaning);
        let _ = writeln!(text, "      {}", kind.remedy);
    }
    text.push_str("Exit codes: 0 with notes at most, 21 with warnings, 22 with faults.");
    text
}

pub(crate) fn run(verb: &Verb, common: &Common, voice: &Voice) -> Result<(), Failure> {
    let Verb::Doctor {
        names,
        repair,
        rehearsal,
    } = verb;
    let volume = Volume::open(&common.volume)?;
    let mut visit = Visit::pay(&volume, names, &common.socket)?;
    if *repair && rehearsal.dry_run {
        return rehearse(&visit.findings, voice);
    }
    if *repair {
        visit.repair(&volume, &common.socket, voice)?;
        let machines = volume.machines()?;
        let is_there = |name: &&MachineName| machines.contains(name);
        let there: Vec<_> = names.iter().filter(is_there).cloned().collect();
        // All that were named may be gone now.
        visit = if there.is_empty() && !names.is_empty() {
            Visit::default()
        } else {
            Visit::pay(&volume, &there, &common.socket)?
        };
    }
    show(&visit.findings, voice)?;
    judge(&visit.findings, voice)
}

/// How many findings of one kind a person is shown.
const SHOWN_MAX: usize = 10;

/// What one look at the host came to.
#[derive(Debug, Default)]
struct Visit {
    /// What can be repaired in the volume.
    machines: Vec<Found>,
    /// What the agent found.
    host: Vec<Finding>,
    /// Everything, the worst first.
    findings: Vec<Finding>,
}

impl Visit {
    fn pay(volume: &Volume, names: &[MachineName], socket: &Path) -> Result<Self, Failure> {
        // First the agent: what it is about to clean may be gone when we look.
        let answer = Client::new(socket).and_then(|client| client.get::<Report>("doctor"));
        let cleaning = answer.as_ref().map_or(&[][..], |report| &report.cleaning);
        let cleaning: Vec<_> = cleaning
            .iter()
            .filter(|it| it.volume == volume.path())
            .cloned()
            .collect();
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
            host = answer.map_or_else(
                |error| vec![unanswered(socket, &error)],
                |report| report.findings,
            );
            findings.extend(host.iter().cloned());
        }
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Ok(Self {
            machines,
            host,
            findings,
        })
    }

    fn repair(&self, volume: &Volume, socket: &Path, voice: &Voice) -> Result<(), Failure> {
        let report = volume.repair(&self.machines);
        for (machine, step) in &report.done {
            voice.say(format!("machine {machine}: {step}"));
        }
        for failure in &report.failed {
            voice.error(&failure.error);
        }
        let wanted = self
            .host
            .iter()
            .filter(|finding| !finding.repair.is_empty());
        let wanted: Vec<_> = wanted.map(Finding::name).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let repaired: Repaired = Client::new(socket)?.post("doctor/repair", &wanted)?;
        for done in &repaired.done {
            voice.say(done);
        }
        for failed in repaired.failed {
            voice.error(Failure::new(Ending::Failed, failed).error.as_ref());
        }
        Ok(())
    }
}

/// The finding that the agent did not tell us anything.
fn unanswered(socket: &Path, error: &ClientError) -> Finding {
    let subject = Subject::Agent(socket.to_owned());
    match error {
        ClientError::NoAgent { .. } => Finding::new(
            Id::NoAgent,
            subject,
            "no agent answers, so guests, networks, control groups and records were not examined",
            "`systemctl start buildhost-agent`, or name its socket by --socket",
        ),
        error => Finding::new(
            Id::AgentFailed,
            subject,
            format!("it did not examine guests, networks, control groups and records: {error}"),
            "its log says why",
        ),
    }
}

fn rehearse(findings: &[Finding], voice: &Voice) -> Result<(), Failure> {
    for finding in findings {
        for step in &finding.repair {
            voice.would(format!("{step} ({})", finding.subject))?;
        }
    }
    Ok(())
}

fn show(findings: &[Finding], voice: &Voice) -> Result<(), Failure> {
    if voice.json() {
        return voice.print_json(&json!(findings));
    }
    voice.print(&told(findings))
}

/// The findings as a person reads them.
fn told(findings: &[Finding]) -> String {
    let mut text = String::new();
    let mut counts = BTreeMap::new();
    for finding in findings {
        let count = counts.entry(finding.id).or_insert(0);
        *count += 1;
        if *count > SHOWN_MAX {
            continue;
        }
        let Finding {
            id,
            severity,
            subject,
            proof,
            ..
        } = finding;
        let _ = writeln!(text, "{severity}: {subject}: {proof} [{id}]");
        let _ = writeln!(text, "    {}", way_out(finding));
    }
    for (id, count) in counts.into_iter().filter(|(_, count)| *count > SHOWN_MAX) {
        let more = count - SHOWN_MAX;
        let _ = writeln!(text, "and {more} more [{id}]; --json shows all");
    }
    text
}

fn way_out(finding: &Finding) -> String {
    let steps = finding.repair.join(", ");
    if finding.automatic {
        format!("the agent does so by itself within a minute: {steps}")
    } else if !steps.is_empty() {
        format!("--repair would: {steps}")
    } else if let Some(reason) = finding.advice.strip_prefix("none: ") {
        format!("nothing to do: {reason}")
    } else {
        format!("way out: {}", finding.advice)
    }
}

fn judge(findings: &[Finding], voice: &Voice) -> Result<(), Failure> {
    let count = |severity, one: &str, more: &str| match findings
        .iter()
        .filter(|it| it.severity == severity)
        .count()
    {
        0 => None,
        1 => Some(format!("1 {one}")),
        count => Some(format!("{count} {more}")),
    };
    let faults = count(Severity::Fault, "fault", "faults");
    let warnings = count(Severity::Warning, "warning", "warnings");
    let ending = match (&faults, &warnings) {
        (None, None) => {
            voice.say("all that was examined is well");
            return Ok(());
        }
        (Some(_), _) => Ending::Faults,
        (None, Some(_)) => Ending::Warnings,
    };
    let counted: Vec<_> = faults.into_iter().chain(warnings).collect();
    Err(Failure::new(ending, counted.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_read_well() {
        let machine = || Subject::Machine("linux".parse().unwrap());
        let stray = Finding {
            repair: vec!["delete snapshot 7 of toolchain default".to_owned()],
            ..Finding::new(
                Id::StraySnapshot,
                machine(),
                "nobody uses snapshot 7 of toolchain default",
                "",
            )
        };
        let findings = [
            Finding::new(
                Id::NoLink,
                machine(),
                "it has no current link",
                "machinectl rollback linux REVISION",
            ),
            stray.clone(),
            Finding::new(
                Id::Unmanaged,
                machine(),
                "`notes` is not ours",
                "none: it is never touched",
            ),
            Finding {
                automatic: true,
                ..stray
            },
        ];
        insta::assert_snapshot!(told(&findings));
    }
    #[test]
    fn a_thousand_findings_of_a_kind_are_not_all_shown() {
        let subject = Subject::Machine("linux".parse().unwrap());
        let pin = Finding::new(Id::LostPin, subject, "revision 9 is not there", "");
        let text = told(&vec![pin; 1000]);
        let last = text.lines().last().unwrap();
        assert_eq!(last, "and 990 more [lost-pin]; --json shows all");
        assert_eq!(text.lines().count(), 2 * SHOWN_MAX + 1);
    }
}
