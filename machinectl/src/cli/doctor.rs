//! The verb that examines a volume: `doctor`.

use clap::Subcommand;
use config::MachineName;
use serde_json::json;
use store::Volume;
use store::doctor::{Finding, Severity};

use super::{Common, Ending, Failure, Rehearsal, Table, Voice};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Say what is not as it should be, and repair it if asked to
    ///
    /// What is not ours is shown and never touched.
    Doctor {
        /// The machines; without any, all of the volume
        names: Vec<MachineName>,
        /// Repair what needs no decision
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
}

pub(crate) fn run(verb: &Verb, common: &Common, voice: &Voice) -> Result<(), Failure> {
    let Verb::Doctor {
        names,
        repair,
        rehearsal,
    } = verb;
    let volume = Volume::open(&common.volume)?;
    let mut findings = volume.examine(names)?;
    if *repair && rehearsal.dry_run {
        for finding in &findings {
            for step in &finding.repair {
                voice.print(&format!("would {step} of {}\n", finding.machine))?;
            }
        }
        return Ok(());
    }
    if *repair {
        let report = volume.repair(&findings);
        for (machine, step) in &report.done {
            voice.say(format!("{machine}: {step}"));
        }
        for failure in &report.failed {
            voice.error(&failure.error);
        }
        let machines = volume.machines()?;
        let there: Vec<_> = names
            .iter()
            .filter(|name| machines.contains(name))
            .cloned()
            .collect();
        // All that were named may be gone now.
        findings = if there.is_empty() && !names.is_empty() {
            Vec::new()
        } else {
            volume.examine(&there)?
        };
    }
    show(&findings, voice)?;
    judge(&findings, voice)
}

fn show(findings: &[Finding], voice: &Voice) -> Result<(), Failure> {
    if voice.json() {
        let list = findings.iter().map(|it| {
            json!({
                "machine": it.machine,
                "id": it.id,
                "severity": it.severity.to_string(),
                "proof": it.proof,
                "advice": it.advice,
                "repair": it.repair.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })
        });
        return voice.print_json(&list.collect());
    }
    let mut table = Table::new(&["MACHINE", "SEVERITY", "FINDING", "PROOF", "WAY OUT"]);
    for it in findings {
        table.add([
            it.machine.to_string(),
            it.severity.to_string(),
            it.id.to_owned(),
            it.proof.clone(),
            it.advice.clone(),
        ]);
    }
    voice.print_table(&table)
}

fn judge(findings: &[Finding], voice: &Voice) -> Result<(), Failure> {
    let count = |severity| findings.iter().filter(|it| it.severity == severity).count();
    match findings.iter().map(|it| it.severity).max() {
        None | Some(Severity::Note) => {
            voice.say("the volume is well");
            Ok(())
        }
        Some(Severity::Warning) => {
            let text = format!("{} to repair", count(Severity::Warning));
            Err(Failure::new(Ending::Warnings, text))
        }
        Some(Severity::Fault) => {
            let text = format!("{} that need a decision", count(Severity::Fault));
            Err(Failure::new(Ending::Faults, text))
        }
    }
}
