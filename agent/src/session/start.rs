//! Brings guests up: new ones, and those that an earlier agent left running.

use std::path::Path;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::warn;

use super::gateway::Gateway;
use super::orphans::{log_failure, tear_down};
use super::{AdoptSpec, GuestServices, Session, SessionError, SessionSpec, egress};
use guest::network::Network;
use guest::{BootMode, Guest, QmpError};

impl Session {
    /// Brings a guest up. What was made is taken down again when a part fails.
    pub async fn start(guests: &GuestServices, spec: SessionSpec) -> Result<Self, SessionError> {
        if !spec.machine.options.is_empty() && !guests.settings.options_allowed {
            return Err(SessionError::Options);
        }
        let (name, run) = (guests.network_name(&spec.tag), guests.run_dir_of(&spec.tag));
        std::fs::create_dir_all(&run)?;
        let network = Network::create(&name, spec.machine.kind.into())?;
        let metrics = &guests.metrics;
        metrics.start(matches!(spec.boot, BootMode::Restore));
        match Self::populate(guests, spec, &run, &network).await {
            Ok((guest, gateway)) => Ok(Self {
                guest: Arc::new(guest),
                network,
                gateway,
                started: Instant::now(),
                contacted: false,
                pause: None,
                run_dir: run,
            }),
            Err(error) => {
                tear_down(network, &run);
                Err(error)
            }
        }
    }

    async fn populate(
        guests: &GuestServices,
        spec: SessionSpec,
        run: &Path,
        network: &Network,
    ) -> Result<(Guest, Gateway), SessionError> {
        let settings = &guests.settings;
        let names = egress::open(settings, &spec.machine.egress, network, run).await?;
        let mut gateway = Gateway::open(guests, network, spec.map, names)?;
        let (tag, machine) = (spec.tag, spec.snapshot.machine().clone());
        let guest = Guest::start(guest::Spec {
            name: network.name().to_owned(),
            directory: spec.snapshot.path().to_owned(),
            machine: spec.machine,
            user: guests.guest_user,
            run: run.to_owned(),
            network: network.name().to_owned(),
            acceleration: settings.acceleration,
            uefi: settings.uefi.clone(),
            durable: spec.durable,
            boot: spec.boot,
            keep: vec![spec.snapshot.share_lock()?],
        })
        .await?;
        // Who waits for it begins at once.
        let attended = gateway.attend(&guest, spec.boot);
        let recorded = attended.and_then(|()| {
            let seat = |keyboard| guests.consoles.add(&tag, &machine, keyboard);
            gateway.record(&guest, network, spec.capture, seat)
        });
        if let Err(error) = recorded {
            log_failure(guest.end().await);
            return Err(error.into());
        }
        Ok((guest, gateway))
    }

    /// Takes up a guest that an earlier agent started. What cannot be taken up is
    /// ended.
    pub async fn adopt(guests: &GuestServices, spec: AdoptSpec) -> Result<Self, SessionError> {
        let run = guests.run_dir_of(&spec.tag);
        let guest = Guest::find(&run)?.ok_or(SessionError::Gone)?;
        let network = Network::open(&guests.network_name(&spec.tag))?;
        let names = egress::reopen(&guests.settings, &network, &run).await;
        let gateway = names
            .map_err(SessionError::from)
            .and_then(|names| Gateway::open(guests, &network, spec.map, names));
        let mut gateway = match gateway {
            Ok(gateway) => gateway,
            Err(error) => {
                log_failure(guest.end().await);
                tear_down(network, &run);
                return Err(error);
            }
        };
        // Its processors may have waited for the record that the last agent did not
        // come to write; if it does not answer, its limits will end it.
        match guest.go_on().await {
            Ok(()) => {}
            Err(error @ QmpError::State(_)) => {
                log_failure(guest.end().await);
                tear_down(network, &run);
                return Err(error.into());
            }
            Err(error) => warn!(
                "the guest does not answer: {}",
                sys::error_report::chain(&error)
            ),
        }
        let seat = |keyboard| guests.consoles.add(&spec.tag, &spec.machine, keyboard);
        if let Err(error) = gateway.record(&guest, &network, spec.capture, seat) {
            warn!(%error, "cannot record what the guest prints");
        }
        // One that was woken asks again, too.
        if let Err(error) = gateway.attend(&guest, BootMode::Cold) {
            warn!(%error, "cannot let the guest begin");
        }
        let now = Instant::now();
        let started = now.checked_sub(spec.elapsed).unwrap_or(now);
        Ok(Self {
            guest: Arc::new(guest),
            network,
            gateway,
            started,
            contacted: spec.contacted,
            pause: None,
            run_dir: run,
        })
    }
}
