//! The ends of trials: the verdicts of a plan, made durable in the directories of machines.

use std::error::Error;

use config::canary::TrialVerdict;
use config::{ImageKey, MachineName, Revision, printable};
use store::VolumeId;
use sys::blocking::blocking;
use tracing::{info, warn};

use state::AgentState;

/// Promotes a revision on trial, or rolls it back. Returns true if that is on disk.
pub(crate) async fn end(
    agent: &AgentState,
    volume: VolumeId,
    machine: MachineName,
    revision: Revision,
    (verdict, reason): (TrialVerdict, String),
) -> bool {
    let Some(volume) = agent.volumes.get(volume).cloned() else {
        return false;
    };
    let (ended, text) = (machine.clone(), reason.clone());
    let result = blocking(move || {
        match verdict {
            TrialVerdict::Promoted => volume.promote(&ended, revision, &text)?,
            TrialVerdict::RolledBack => volume.reject(&ended, revision, &text)?,
        }
        volume.view(&ended)
    });
    match result.await {
        Ok(view) => {
            let text = reason;
            let reason = printable(&text);
            info!(%machine, %revision, %verdict, %reason, "the trial of a revision has ended");
            agent.telemetry.metrics.trial(verdict);
            let events = &agent.telemetry.events;
            events.trial_ended(&machine, revision, verdict, &text);
            if verdict == TrialVerdict::Promoted {
                forget_restores(agent, &machine, &view);
            }
            // The images and the queue depend on the current revision.
            agent.wake.notify_one();
            true
        }
        Err(error) => {
            let error = &error as &dyn Error;
            warn!(%machine, %revision, %verdict, error, "cannot end the trial of a revision");
            false
        }
    }
}

/// Lets the checkpoints of the promoted images be restored, whatever happened to their predecessors.
fn forget_restores(agent: &AgentState, machine: &MachineName, view: &store::MachineView) {
    for image in &view.images {
        let key = ImageKey {
            machine: machine.clone(),
            toolchain: image.toolchain.clone(),
        };
        agent.restores.image_replaced(&key, true);
    }
}
