//! Registers guests with systemd-machined, and ends what `machinectl terminate` asks for.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use config::machine::Kind;
use config::{BuildId, GuestTag};
use futures_util::StreamExt;
use machined::{Bus, BusError};
use session::GuestInScope;
use state::{AgentState, CancelAnswer};
use sys::blocking::blocking;
use sys::error_report::chain;
use tokio::time::sleep;
use tracing::{debug, info, warn};

/// The time between two looks at all guests, also without a reason.
const LOOK: Duration = Duration::from_mins(1);
/// The pause before the next connection after a failure.
const RECONNECT: Duration = Duration::from_secs(30);

/// Registers guests until the agent stops. Does nothing on a host without machined.
pub async fn run(agent: Arc<AgentState>) {
    if !machined::is_present() {
        debug!("the host has no systemd-machined: machinectl does not show guests");
        return;
    }
    while !agent.stopping.is_cancelled() {
        if let Err(error) = serve(&agent).await {
            let error = &error as &dyn Error;
            debug!(error, "no contact with systemd and machined");
            *agent.machined_fault.lock() = Some(chain(error));
        }
        tokio::select! {
            () = agent.stopping.cancelled() => {}
            () = sleep(RECONNECT) => {}
        }
    }
}

/// Serves one connection with the system bus.
async fn serve(agent: &Arc<AgentState>) -> Result<(), BusError> {
    let bus = Bus::connect().await?;
    let mut jobs = bus.jobs().await?;
    // A new agent finds stops that began without one.
    look(agent, &bus).await?;
    loop {
        tokio::select! {
            () = agent.stopping.cancelled() => return Ok(()),
            () = agent.guests.started.notified() => register(agent, &bus, &guests(agent).await).await?,
            () = sleep(LOOK) => look(agent, &bus).await?,
            unit = jobs.next() => match unit {
                Some(unit) => end_stopped(agent, &bus, &unit).await?,
                None => return Ok(()),
            },
        }
    }
}

async fn guests(agent: &Arc<AgentState>) -> Vec<GuestInScope> {
    let services = Arc::clone(&agent.guests);
    blocking(move || session::in_scopes(&services)).await
}

/// Looks at all guests.
async fn look(agent: &Arc<AgentState>, bus: &Bus) -> Result<(), BusError> {
    let guests = guests(agent).await;
    register(agent, bus, &guests).await?;
    for guest in &guests {
        end_if_stopped(agent, bus, guest).await?;
    }
    bus.forget_failed(&agent.guests.network_name("")).await
}

/// Registers the guests that are not registered. A refusal leaves the others alone, and is noted for the
/// doctor.
async fn register(agent: &AgentState, bus: &Bus, guests: &[GuestInScope]) -> Result<(), BusError> {
    let mut fault = None;
    for guest in guests {
        let registered = bus
            .register(&machined::Guest {
                group: guest.name.clone(),
                pid: guest.pid,
                is_container: guest.kind == Kind::Nspawn,
                root: guest.root.clone(),
            })
            .await;
        match registered {
            Ok(Some(name)) => debug!(guest = %guest.tag, name, "registered a guest with machined"),
            Ok(None) => {}
            Err(error @ BusError::Timeout) => return Err(error),
            Err(error) => {
                let error = &error as &dyn Error;
                debug!(error, guest = %guest.tag, "machined does not register a guest");
                fault = Some(format!("guest {}: {}", guest.tag, chain(error)));
            }
        }
    }
    *agent.machined_fault.lock() = fault;
    Ok(())
}

/// Ends the guest of a unit for which systemd begins a job, if that is its stop.
async fn end_stopped(agent: &Arc<AgentState>, bus: &Bus, unit: &str) -> Result<(), BusError> {
    if !unit.starts_with(&agent.guests.network_name("")) {
        return Ok(());
    }
    for guest in guests(agent).await.iter().filter(|it| it.unit == unit) {
        end_if_stopped(agent, bus, guest).await?;
    }
    Ok(())
}

/// Ends a guest whose scope systemd stops, unless the host stops: then the agent is stopped as well.
async fn end_if_stopped(
    agent: &Arc<AgentState>,
    bus: &Bus,
    guest: &GuestInScope,
) -> Result<(), BusError> {
    let is_stopping = match bus.is_stopping(&guest.unit).await {
        Err(error @ BusError::Timeout) => return Err(error),
        // The guest has ended meanwhile.
        answer => answer.unwrap_or(false),
    };
    if !is_stopping || bus.is_host_stopping().await? {
        return Ok(());
    }
    info!(
        guest = %guest.tag,
        unit = guest.unit,
        "`machinectl terminate` or `systemctl stop` ends a guest"
    );
    match guest.tag {
        GuestTag::Build(id) => end_build(agent, id).await,
        GuestTag::Auxiliary(tag) => end_build(agent, tag.build).await,
        GuestTag::Copy(tag) => agent.jobs.cancel_debug_session(tag),
        // systemd kills them when their time is over.
        GuestTag::Bootstrap(_) | GuestTag::Ready(_) | GuestTag::Fork(_) => {}
    }
    Ok(())
}

/// Cancels a build, or ends its guest if that is held.
async fn end_build(agent: &Arc<AgentState>, id: BuildId) {
    let _queue = agent.queue.lock().await;
    match agent.jobs.cancel_build(id) {
        CancelAnswer::Accepted => {
            if let Err(error) = agent.records.request_cancel(id).await {
                let error = &error as &dyn Error;
                warn!(error, build = %id, "cannot record a cancellation");
            }
        }
        CancelAnswer::Concluded => {}
        CancelAnswer::NotRunning => agent.jobs.evict_hold(id),
    }
}
