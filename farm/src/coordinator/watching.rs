//! The watch of a coordinator over hosts, orders, revisions and the queue.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use config::canary::TrialVerdict;
use farm_core::HostId;
use farm_core::archive::{FOLDER, old_months};
use farm_core::coordinator::FarmView;
use farm_core::operation::{Answer, HostRow, Operation};
use farm_core::trials::{Trial, TrialState};
use farm_core::watch::Watch;
use farm_core::windows::next;
use farm_objects::Objects;
use farm_store::Revisions;
use jiff::Timestamp;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::Coordinator;
use crate::view::zone;

/// The time between two looks at the hosts and the queue.
const LOOK: Duration = Duration::from_secs(1);
/// The pause after the queue has changed before held polls look at it.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// The looks between two checks of the partitions: an hour.
const LOOKS_MAX: u32 = 3_600;

impl Coordinator {
    /// Watches the hosts and the queue until the future is dropped.
    pub async fn watch(&self) {
        let mut hosts = Watch::default();
        let mut published = None;
        let mut looks = 0;
        let mut invalid = BTreeSet::new();
        loop {
            let answer = self.store.apply(&Operation::Hosts).await;
            self.counters.count(&Operation::Hosts, &answer);
            if let Ok(Answer::Hosts(rows)) = answer {
                self.look_at_hosts(&mut hosts, rows).await;
            }
            if let Some(sources) = &self.sources {
                sources.attend(self.now()).await;
            }
            self.look_at_revisions(&mut published).await;
            self.look_at_windows().await;
            self.look_at_schedules(&mut invalid).await;
            self.look_at_queue(false).await;
            self.transfers.refresh().await;
            looks = (looks + 1) % LOOKS_MAX;
            if looks == 0 {
                self.maintain().await;
            }
            self.look_at_new_builds().await;
        }
    }

    /// Looks at the queue when it has grown, until the next look at all else is due.
    async fn look_at_new_builds(&self) {
        let next = Instant::now() + LOOK;
        loop {
            tokio::select! {
                () = sleep_until(next) => return,
                () = self.ordered.notified() => return sleep(DEBOUNCE).await,
                () = self.added.notified() => {
                    sleep(DEBOUNCE).await;
                    self.look_at_queue(true).await;
                }
            }
        }
    }

    /// Creates the partitions of the next months, and deletes what is old.
    pub async fn maintain(&self) {
        if let Err(error) = self.store.maintain().await {
            let error = &error as &dyn std::error::Error;
            warn!(error, "cannot create the partitions of the next months");
        }
        if let Some(sources) = &self.sources
            && let Err(error) = sources.clean().await
        {
            let error = &error as &dyn std::error::Error;
            warn!(error, "cannot delete old sources");
        }
        if let Err(error) = self.store.forget_notifications().await {
            let error = &error as &dyn std::error::Error;
            warn!(error, "cannot delete old notifications");
        }
        if self.keep_months == 0 {
            return;
        }
        match self.store.forget(self.keep_months).await {
            Ok(partitions) if partitions.is_empty() => {}
            Ok(partitions) => info!(?partitions, "deleted old results"),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(error, "cannot delete old results");
            }
        }
        if let Some(objects) = &self.objects
            && let Err(error) = self.forget_objects(objects).await
        {
            let error = error.as_ref() as &dyn Error;
            warn!(
                error,
                "cannot delete the objects of old builds; trying again in an hour"
            );
        }
    }

    /// Deletes the objects of months that are forgotten, by the clock of the database.
    async fn forget_objects(&self, objects: &Objects) -> Result<(), Box<dyn Error + Send + Sync>> {
        let folders = objects.folders(FOLDER).await?;
        let now = self.store.queue().await?.at.as_millisecond();
        let now = u64::try_from(now).unwrap_or(0);
        for month in old_months(folders, now, self.keep_months) {
            let deleted = objects.delete_folder(&format!("{FOLDER}/{month}")).await?;
            info!(month, deleted, "deleted the objects of old builds");
        }
        Ok(())
    }

    async fn look_at_hosts(&self, watch: &mut Watch, rows: Vec<HostRow>) {
        let now = self.now();
        let lost = watch.observe(now, &rows, self.terms.lease_ms);
        for host in watch.ordered(&rows) {
            self.held.call(host);
        }
        let alive = rows
            .into_iter()
            .filter(|row| watch.is_alive(row.host, now, self.terms.lease_ms));
        let hosts = alive.map(|row| (row.host, row)).collect();
        let keepers = self.sources.as_ref().map(|it| it.keepers(now));
        let view = FarmView {
            hosts,
            keepers: keepers.unwrap_or_default(),
        };
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
        for (host, beat) in lost {
            self.rescue(host, beat).await;
        }
    }

    /// Calls all polls when a revision was published or a trial has begun or ended, so that hosts learn of it.
    /// Decides on the trials that are open.
    async fn look_at_revisions(&self, last: &mut Option<Revisions>) {
        let Ok(revisions) = self.store.revisions().await else {
            return;
        };
        if revisions.1.values().any(Trial::is_open) {
            self.look_at_trials().await;
        }
        if last.as_ref().is_some_and(|it| *it != revisions) {
            self.held.call_all();
        }
        *last = Some(revisions);
    }

    /// Gives the verdicts on trials that are due. Other coordinators do so, too; the first one counts.
    async fn look_at_trials(&self) {
        let trials = self.store.apply(&Operation::Trials).await;
        let Ok(Answer::Trials(trials)) = trials else {
            return;
        };
        let view = self.view();
        let hosts = view.hosts.iter();
        let hosts = hosts
            .filter_map(|(host, row)| Some((self.store.known_name(*host)?, &row.offer)))
            .collect();
        for state in trials {
            if let Some((verdict, reason)) = state.verdict(&hosts) {
                self.end_trial(state, verdict, reason).await;
            }
        }
    }

    async fn end_trial(&self, state: TrialState, verdict: TrialVerdict, reason: String) {
        let (machine, revision) = (state.machine.clone(), state.trial.candidate.revision.0);
        let end = Operation::EndTrial {
            machine: state.machine,
            number: state.trial.number,
            verdict,
            reason: reason.clone(),
        };
        let answer = self.store.apply(&end).await;
        self.counters.count(&end, &answer);
        if answer == Ok(Answer::Done) {
            info!(%machine, revision, %verdict, reason, "a trial has ended");
            self.ordered.notify_one();
        }
    }

    /// Replaces the occurrences of maintenance windows that are over. Another coordinator may do so, too.
    async fn look_at_windows(&self) {
        let windows = self.store.windows().await.unwrap_or_default();
        if windows.is_empty() {
            return;
        }
        let Ok(now_ms) = self.store.now_ms().await else {
            return;
        };
        for (host, window) in windows.into_iter().filter(|(_, it)| it.is_over(now_ms)) {
            let now = Timestamp::from_millisecond(now_ms.cast_signed()).unwrap_or_default();
            let next = window.weekly.as_ref().map(|it| next(it, now, zone));
            match next.transpose() {
                Ok(next) => {
                    let (window, over) = (window.id, window.occurrence);
                    let moved = Operation::MoveWindow { window, over, next };
                    let answer = self.store.apply(&moved).await;
                    self.counters.count(&moved, &answer);
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    warn!(
                        host,
                        window = window.id.0,
                        error,
                        "cannot find the next occurrence of a window, which stays open"
                    );
                }
            }
        }
    }

    /// Reads the queue, unless a poll has just done so and nothing is new, and lets held polls look at it if
    /// it has builds.
    async fn look_at_queue(&self, is_new: bool) {
        let reading = self.queue().reading(&[], 0);
        if let Operation::Candidates { machines, .. } = &reading
            && machines.is_empty()
        {
            // No host has polled here.
            return;
        }
        let is_read = {
            let _reading = self.reading.lock().await;
            let is_recent = !is_new && self.queue().is_recent(self.now());
            is_recent || self.read_queue(&reading).await.is_ok()
        };
        if is_read && !self.queue().is_empty() {
            self.builds.send_modify(|it| *it += 1);
        }
    }

    async fn rescue(&self, host: HostId, beat: u64) {
        let rescue = Operation::Rescue {
            host,
            beat,
            attempts_max: self.terms.attempts_max,
        };
        let answer = self.store.apply(&rescue).await;
        self.counters.count(&rescue, &answer);
        if let Ok(Answer::Rescued(leases)) = answer
            && !leases.is_empty()
        {
            let (host, builds) = (host.0, leases.len());
            warn!(
                host,
                builds, "a host gave no sign of life and has lost its builds"
            );
        }
    }
}
