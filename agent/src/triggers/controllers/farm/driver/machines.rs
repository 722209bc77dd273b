//! The machines of this host and those of the farm: contents are read and compared, revisions fetched.

use std::sync::Arc;
use std::time::{Duration, Instant};

use config::MachineName;
use farm_core::Published;
use farm_core::host::Input;
use farm_core::messages::PollAnswer;
use farm_core::trials::TrialOrder;
use sys::blocking::blocking;
use tokio::time::sleep;
use tracing::warn;

use super::super::revisions::{self, Begun};
use super::super::{contents, offer};
use super::{Driver, Event};

/// The pause before a revision that has not arrived is fetched again.
const FETCH_PAUSE: Duration = Duration::from_secs(5);

impl Driver {
    /// Begins to read the contents of revisions that have changed, and returns the machines that were
    /// deleted.
    pub(super) fn look_at_machines(&mut self) -> Vec<Input> {
        let snapshot = self.agent.queue_snapshot();
        for (machine, of) in self.contents.begin(&snapshot.observed, Instant::now()) {
            let (agent, sender) = (Arc::clone(&self.agent), self.sender.clone());
            tokio::spawn(async move {
                let wanted = (machine.clone(), of.clone());
                let read = blocking(move || contents::read(&agent, &wanted.0, &wanted.1));
                let _ = sender.send(Event::Content(machine, of, read.await));
            });
        }
        let known = self.host.revisions().keys();
        let is_gone = |machine: &&MachineName| !snapshot.observed.machines.contains_key(*machine);
        known
            .filter(is_gone)
            .map(|it| Input::Removed(it.clone()))
            .collect()
    }

    /// Notes the machines whose content is not the published one.
    pub(super) fn compare(&mut self, answer: &PollAnswer) {
        self.not_tried
            .retain(|machine, order| answer.trials.get(machine) == Some(order));
        let not_tried = self.not_tried.iter();
        let not_tried = not_tried.map(|(machine, order)| offer::not_tried(machine, order));
        let name = &self.farm.rules.name;
        let mut unlike = offer::unlike(&self.offered, answer);
        unlike.extend(not_tried);
        for sentence in self.agent.contacts.unlike(name, unlike) {
            warn!(controller = %name, "this host gets no builds of a machine from a farm: it {sentence}");
        }
    }

    /// Fetches a revision. After a failure the state machine begins again with a later answer.
    pub(super) fn fetch(&self, machine: MachineName, wanted: Published) {
        let (agent, farm) = (Arc::clone(&self.agent), Arc::clone(&self.farm));
        let (key, sender) = (Arc::clone(&self.key), self.sender.clone());
        tokio::spawn(async move {
            let input = if revisions::fetch(&agent, &farm, &key, &machine, &wanted).await {
                Input::Fetched(machine, wanted.revision)
            } else {
                sleep(FETCH_PAUSE).await;
                Input::NotFetched(machine)
            };
            let _ = sender.send(Event::Input(input));
        });
    }

    /// Puts a revision on trial for the farm. After a failure the state machine begins again with a later
    /// answer.
    pub(super) fn try_revision(&self, machine: MachineName, order: TrialOrder) {
        let (agent, farm) = (Arc::clone(&self.agent), Arc::clone(&self.farm));
        let (key, sender) = (Arc::clone(&self.key), self.sender.clone());
        tokio::spawn(async move {
            let input = match revisions::begin(&agent, &farm, &key, &machine, &order).await {
                Begun::OnTrial => Input::Tried(machine, order.number),
                Begun::Newer(current) => Input::Fetched(machine, current),
                failed => {
                    if failed == Begun::OtherContent {
                        let _ = sender.send(Event::NotTried(machine.clone(), order));
                    }
                    sleep(FETCH_PAUSE).await;
                    Input::NotFetched(machine)
                }
            };
            let _ = sender.send(Event::Input(input));
        });
    }

    /// Ends a trial that the farm has rolled back.
    pub(super) fn end_trial(&self, machine: MachineName, order: TrialOrder) {
        let (agent, farm) = (Arc::clone(&self.agent), Arc::clone(&self.farm));
        tokio::spawn(async move { revisions::end(&agent, &farm, &machine, &order).await });
    }
}
