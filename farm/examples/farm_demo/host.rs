//! A host of the demo: it polls, holds what it gets until it is told to end it, and sends logs and files.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use config::BuildId;
use config::task::Outcome;
use farm_core::messages::{Grant, Poll, PollAnswer, PollId, Report};
use farm_core::transfers::{TransferId, TransferOrder, Wanted};
use farm_core::{Lease, Offer};
use reqwest::{Client, Response};
use serde::Serialize;
use serde_json::json;
use sys::file::digest_of;

/// The time for which a coordinator may hold a poll.
const HOLD_MS: u64 = 1_000;
/// The pause after a poll.
const PAUSE: Duration = Duration::from_millis(100);

/// A host.
#[derive(Debug)]
pub(crate) struct Host {
    /// Its key.
    pub(crate) key: String,
    /// The coordinators that it polls in turn.
    pub(crate) coordinators: Vec<String>,
    /// Its offer while it runs nothing.
    pub(crate) offer: Offer,
    pub(crate) held: Mutex<Vec<Grant>>,
    pub(crate) http: Client,
}

impl Host {
    /// Polls until the program ends.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut known = BTreeSet::<TransferId>::new();
        for number in 1.. {
            if let Ok(answer) = self.poll(number).await {
                let canceled = answer.leases.iter().filter(|it| it.canceled);
                for grant in canceled {
                    let _ = self.report(grant.lease, Outcome::Abort).await;
                }
                for order in answer.transfers {
                    if known.insert(order.id.clone()) {
                        tokio::spawn(Arc::clone(&self).send(order));
                    }
                }
                *self.held.lock().unwrap_or_else(PoisonError::into_inner) = answer.leases;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Ends a build with success, if the host has it.
    pub(crate) async fn end(&self, build: BuildId) -> reqwest::Result<()> {
        let lease = self.held().into_iter().find(|it| it.lease.build == build);
        if let Some(grant) = lease {
            self.report(grant.lease, Outcome::Success).await?;
        }
        Ok(())
    }

    fn held(&self) -> Vec<Grant> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.clone()
    }

    /// Returns the offer without what the builds of the host take.
    fn offer(&self, held: &[Grant]) -> Offer {
        let mut offer = self.offer.clone();
        for needs in held.iter().map(|it| &it.requirements) {
            let free = &mut offer.free;
            free.guests = free.guests.saturating_sub(1);
            free.cpus = free.cpus.saturating_sub(needs.cpus);
            free.memory_mib = free.memory_mib.saturating_sub(needs.memory_mib);
            for (name, count) in &needs.resources {
                if let Some(left) = free.resources.get_mut(name) {
                    *left = left.saturating_sub(*count);
                }
            }
        }
        offer
    }

    async fn poll(&self, number: u64) -> reqwest::Result<PollAnswer> {
        let held = self.held();
        let poll = Poll {
            id: PollId {
                incarnation: 1,
                number,
            },
            held: held.iter().map(|it| it.lease).collect(),
            hold_ms: HOLD_MS,
            offer: self.offer(&held),
        };
        let coordinator = usize::try_from(number).unwrap_or(0) % self.coordinators.len();
        let url = format!("{}/farm/v1/poll", self.coordinators[coordinator]);
        self.post(&url, &poll).await?.json().await
    }

    async fn report(&self, lease: Lease, outcome: Outcome) -> reqwest::Result<Response> {
        let url = format!("{}/farm/v1/report", self.coordinators[0]);
        let message = None;
        let report = Report {
            lease,
            outcome,
            message,
        };
        self.post(&url, &report).await
    }

    async fn post(&self, url: &str, body: &impl Serialize) -> reqwest::Result<Response> {
        let request = self.http.post(url).bearer_auth(&self.key).json(body);
        request.send().await?.error_for_status()
    }

    /// Sends what a coordinator waits for.
    async fn send(self: Arc<Self>, order: TransferOrder) {
        let (kind, content) = match &order.wanted {
            Wanted::Log { lease, .. } => ("text/plain; charset=utf-8", log(lease.build)),
            Wanted::Artifacts { lease } => ("application/json", artifacts(lease.build)),
            Wanted::Artifact { name, .. } => {
                ("application/octet-stream", format!("content of {name}\n"))
            }
            Wanted::Provenance { .. } | Wanted::Image { .. } => return,
        };
        let url = format!("{}/farm/v1/transfers/{}", order.coordinator, order.id);
        let request = self.http.post(url).bearer_auth(&self.key);
        let request = request.header("Content-Type", kind).body(content);
        // The coordinator answers its client without it, if that fails.
        let _ = request.send().await;
    }
}

fn log(build: BuildId) -> String {
    let lines =
        (1..200).map(|it| format!("cc -O2 -Wall -c src/unit_{it:03}.c -o unit_{it:03}.o\n"));
    let lines: String = lines.collect();
    format!("buildhost-worker: build {build}\n{lines}installed\n")
}

fn artifacts(build: BuildId) -> String {
    let artifact = |name: String, bytes: u64| {
        let sha256 = digest_of(name.as_bytes());
        json!({ "name": name, "bytes": bytes, "sha256": sha256 })
    };
    let all = [
        artifact(format!("package_1.2-{build}_amd64.deb"), 1_403_112),
        artifact("build.log.xz".to_owned(), 18_250),
    ];
    json!(all).to_string()
}
