//! Brings guests up: new ones, and those that an earlier agent left running.

use std::path::Path;

use tokio::time::Instant;
use tracing::warn;

use super::orphans::{complain, network_name, run_directory, tear_down};
use super::services::Services;
use super::{Left, Plan, Session, SessionError, egress};
use crate::state::agent_state::AgentState;
use guest::network::Network;
use guest::{self, Guest, Memory, MonitorError, User};

impl Session {
    /// Brings a guest up. What was made is taken down again when a part fails.
    pub async fn start(agent: &AgentState, plan: Plan) -> Result<Self, SessionError> {
        if !plan.machine.options.is_empty() && !agent.settings.guests.options_allowed {
            return Err(SessionError::Options);
        }
        let (name, run) = (
            network_name(agent, &plan.tag),
            run_directory(agent, &plan.tag),
        );
        std::fs::create_dir_all(&run)?;
        let network = Network::create(&name, plan.machine.kind.into())?;
        let metrics = agent.records.metrics();
        metrics.start(matches!(plan.memory, Memory::Frozen));
        match Self::populate(agent, plan, &run, &network).await {
            Ok((guest, services)) => Ok(Self {
                guest,
                network,
                services,
                started: Instant::now(),
                heard: false,
                pause: None,
                run,
            }),
            Err(error) => {
                tear_down(network, &run);
                Err(error)
            }
        }
    }

    async fn populate(
        agent: &AgentState,
        plan: Plan,
        run: &Path,
        network: &Network,
    ) -> Result<(Guest, Services), SessionError> {
        let guests = &agent.settings.guests;
        let names = egress::open(guests, &plan.machine.egress, network, run).await?;
        let mut services = Services::open(agent, network, plan.map, names)?;
        let (tag, machine) = (plan.tag, plan.snapshot.machine().clone());
        let guest = Guest::start(guest::Spec {
            name: network.name().to_owned(),
            directory: plan.snapshot.path().to_owned(),
            machine: plan.machine,
            user: User::from(agent.guest_user),
            run: run.to_owned(),
            network: network.name().to_owned(),
            acceleration: guests.acceleration,
            uefi: guests.uefi.clone(),
            durable: plan.durable,
            memory: plan.memory,
            keep: vec![plan.snapshot.keep()?],
        })
        .await?;
        // Who waits for it begins at once.
        let attended = services.attend(&guest, plan.memory);
        let recorded = attended.and_then(|()| {
            let seat = |keyboard| agent.consoles.add(&tag, &machine, keyboard);
            services.record(&guest, network, plan.record, seat)
        });
        if let Err(error) = recorded {
            complain(guest.end().await);
            return Err(error.into());
        }
        Ok((guest, services))
    }

    /// Takes up a guest that an earlier agent started. What cannot be taken up is
    /// ended.
    pub async fn take_up(agent: &AgentState, left: Left) -> Result<Self, SessionError> {
        let run = run_directory(agent, &left.tag);
        let guest = Guest::find(&run)?.ok_or(SessionError::Gone)?;
        let network = Network::open(&network_name(agent, &left.tag))?;
        let names = egress::reopen(&agent.settings.guests, &network, &run).await;
        let services = names
            .map_err(SessionError::from)
            .and_then(|names| Services::open(agent, &network, left.map, names));
        let mut services = match services {
            Ok(services) => services,
            Err(error) => {
                complain(guest.end().await);
                tear_down(network, &run);
                return Err(error);
            }
        };
        // Its processors may have waited for the record that the last agent did not
        // come to write; if it does not answer, its limits will end it.
        match guest.go_on().await {
            Ok(()) => {}
            Err(error @ MonitorError::State(_)) => {
                complain(guest.end().await);
                tear_down(network, &run);
                return Err(error.into());
            }
            Err(error) => warn!(
                "the guest does not answer: {}",
                sys::error_report::chain(&error)
            ),
        }
        let seat = |keyboard| agent.consoles.add(&left.tag, &left.machine, keyboard);
        if let Err(error) = services.record(&guest, &network, left.record, seat) {
            warn!(%error, "cannot record what the guest prints");
        }
        // One that was woken asks again, too.
        if let Err(error) = services.attend(&guest, Memory::Own) {
            warn!(%error, "cannot let the guest begin");
        }
        let now = Instant::now();
        let started = now.checked_sub(left.since).unwrap_or(now);
        Ok(Self {
            guest,
            network,
            services,
            started,
            heard: left.heard,
            pause: None,
            run,
        })
    }
}
