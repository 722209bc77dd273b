//! Brings guests up: new ones, and those that an earlier agent left running.

use std::path::Path;

use tokio::time::Instant;
use tracing::warn;

use super::left::{complain, network_name, run_directory, tear_down};
use super::services::Services;
use super::{Left, Plan, Session, SessionError, way};
use crate::guest::{self, Guest, Memory, MonitorError, User};
use crate::host::Host;
use crate::network::Network;

impl Session {
    /// Brings a guest up. What was made is taken down again when a part fails.
    pub async fn start(host: &Host, plan: Plan) -> Result<Self, SessionError> {
        if !plan.machine.options.is_empty() && !host.settings.guests.options {
            return Err(SessionError::Options);
        }
        let (name, run) = (
            network_name(host, &plan.tag),
            run_directory(host, &plan.tag),
        );
        std::fs::create_dir_all(&run)?;
        let network = Network::create(&name, plan.machine.kind.into())?;
        let metrics = host.records.metrics();
        metrics.start(matches!(plan.memory, Memory::Frozen));
        match Self::populate(host, plan, &run, &network).await {
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
        host: &Host,
        plan: Plan,
        run: &Path,
        network: &Network,
    ) -> Result<(Guest, Services), SessionError> {
        let guests = &host.settings.guests;
        let names = way::open(guests, &plan.machine.egress, network, run).await?;
        let mut services = Services::open(host, network, plan.map, names)?;
        let (tag, machine) = (plan.tag, plan.snapshot.machine().clone());
        let guest = Guest::start(guest::Spec {
            name: network.name().to_owned(),
            directory: plan.snapshot.path().to_owned(),
            machine: plan.machine,
            user: User::from(host.guest_user),
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
            let seat = |keyboard| host.consoles.add(&tag, &machine, keyboard);
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
    pub async fn take_up(host: &Host, left: Left) -> Result<Self, SessionError> {
        let run = run_directory(host, &left.tag);
        let guest = Guest::find(&run)?.ok_or(SessionError::Gone)?;
        let network = Network::open(&network_name(host, &left.tag))?;
        let names = way::reopen(&host.settings.guests, &network, &run).await;
        let services = names
            .map_err(SessionError::from)
            .and_then(|names| Services::open(host, &network, left.map, names));
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
            Err(error) => warn!("the guest does not answer: {}", crate::chain(&error)),
        }
        let seat = |keyboard| host.consoles.add(&left.tag, &left.machine, keyboard);
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
