//! Notifications: a coordinator weighs the ends of builds, looks for problems of the farm, and sends what waits.
//! The store decides if several do the same.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use config::NotifyName;
use config::notify::{Notice, PackageState, Settlement, changes, weigh};
use config::settings::{NotifyOn, NotifyRules};
use farm_core::view::BuildView;
use farm_store::{Ends, Package, StoreError, package};
use futures_util::future::{join, join_all};
use notifications::watch::{Found, Pace, Watch};
use notifications::{Delivery, Site, deliver, settlement};
use sys::blocking::blocking;
use tokio::time::timeout;
use tracing::{info, warn};

use super::Coordinator;
use crate::problems::FarmLook;

/// The time between two looks at what waits.
const LOOK: Duration = Duration::from_secs(1);
/// The time beyond the limit of a request after which another coordinator may send the same notification.
const SPARE: Duration = Duration::from_secs(10);

/// The rules for notifications of a farm, and the pace at which its problems are looked for.
#[derive(Debug, Clone)]
pub struct Telling {
    /// The name of the farm.
    pub farm: String,
    /// The rules.
    pub rules: Vec<NotifyRules>,
    /// The pace.
    pub pace: Pace,
}

impl Telling {
    /// Returns the names of the rules that a condition holds for.
    fn names(&self, is_wanted: impl Fn(&NotifyRules) -> bool) -> Vec<NotifyName> {
        let wanted = self.rules.iter().filter(|it| is_wanted(it));
        wanted.map(|it| it.name.clone()).collect()
    }
}

impl Coordinator {
    /// Tells recipients of ends of builds and of problems. [`Self::tell`] must run beside the requests then.
    #[must_use]
    pub fn telling(mut self, telling: Telling) -> Self {
        let names = telling.names(|rules| rules.on != NotifyOn::Never);
        self.store = self.store.telling(&names);
        self.telling = Some(telling);
        self
    }

    /// Returns the rules for notifications.
    pub fn notify_rules(&self) -> &[NotifyRules] {
        self.telling.as_ref().map_or(&[], |it| &it.rules)
    }

    /// Tells recipients until the coordinator ends. An attempt to deliver that has begun is noted.
    pub async fn tell(&self) {
        let Some(telling) = self.telling.as_ref().filter(|it| !it.rules.is_empty()) else {
            return;
        };
        let rules = telling.rules.iter();
        let rules = rules.map(|rules| self.serve_rule(&telling.farm, rules));
        join(join_all(rules), self.watch_problems(telling)).await;
    }

    /// Waits for a time, and returns false if the coordinator ends.
    async fn pause(&self, time: Duration) -> bool {
        let mut ending = self.ending.subscribe();
        timeout(time, ending.wait_for(|it| *it)).await.is_err()
    }

    async fn serve_rule(&self, farm: &str, rules: &NotifyRules) {
        let mut is_added = false;
        loop {
            if let Err(error) = self.tell_rule(farm, rules, &mut is_added).await {
                let error = &error as &dyn Error;
                warn!(rule = %rules.name, error, "cannot use the outbox of notifications");
            }
            if !self.pause(LOOK).await {
                return;
            }
        }
    }

    /// Weighs the ends of builds for a rule, and sends what waits.
    async fn tell_rule(
        &self,
        farm: &str,
        rules: &NotifyRules,
        is_added: &mut bool,
    ) -> Result<(), StoreError> {
        let name = &rules.name;
        if !*is_added {
            self.store.add_rules(&[name.as_str()]).await?;
            *is_added = true;
        }
        if rules.on != NotifyOn::Never {
            while let Some(ends) = self.store.ends(name).await? {
                let (states, notices) = weigh_ends(rules, &ends);
                self.store.weigh(name, &ends, &states, &notices).await?;
            }
        }
        let taken = rules.request_max + SPARE;
        let taken_ms = u64::try_from(taken.as_millis()).unwrap_or(u64::MAX);
        while !*self.ending.borrow()
            && let Some(next) = self.store.take_notification(name, taken_ms).await?
        {
            let delivery = attempt(farm, rules, next.id.clone(), next.content.clone()).await;
            match settlement(rules, next.created, delivery, next.now) {
                Ok(settlement) => {
                    match &settlement {
                        Settlement::Delivered => {
                            info!(rule = %name, id = next.id, "delivered a notification");
                        }
                        Settlement::GivenUp(reason) => {
                            warn!(rule = %name, id = next.id, reason, "gave up a notification");
                        }
                    }
                    self.store.settle_notification(&next, &settlement).await?;
                }
                Err(failure) => {
                    if next.failure != failure {
                        warn!(rule = %name, failure, "cannot deliver a notification; trying again");
                    }
                    return self.store.notification_failed(&next, &failure).await;
                }
            }
        }
        Ok(())
    }

    /// Looks for problems of the farm, if a rule is about them.
    async fn watch_problems(&self, telling: &Telling) {
        let names = telling.names(|rules| !rules.problems.is_empty());
        if names.is_empty() {
            return;
        }
        let mut watch = Watch::default();
        loop {
            if let Err(error) = self.tell_problems(telling, &names, &mut watch).await {
                let error = &error as &dyn Error;
                warn!(error, "cannot look for problems of the farm; trying again");
            }
            if !self.pause(telling.pace.look).await {
                return;
            }
        }
    }

    async fn tell_problems(
        &self,
        telling: &Telling,
        names: &[NotifyName],
        watch: &mut Watch,
    ) -> Result<(), StoreError> {
        let names: Vec<_> = names.iter().map(NotifyName::as_str).collect();
        let look = FarmLook::take(self).await?;
        let mut told = self.store.told_problems(&names).await?;
        let all = told.values().flat_map(|it| it.problems.clone());
        let now = Instant::now();
        watch.adopt(all.collect(), now);
        let found = Found {
            problems: look.problems(),
            undecided: Vec::new(),
        };
        let open = watch.look(found, telling.pace, now);
        for rules in &telling.rules {
            let Some(told) = told.remove(rules.name.as_str()) else {
                continue;
            };
            let concerned = open.iter().filter(|it| rules.concerns_problem(it.id));
            let open: Vec<_> = concerned.cloned().collect();
            let changes = changes(&told.problems, &open);
            if !changes.is_empty() {
                let tell = self
                    .store
                    .tell_problems(&rules.name, &told, &changes, look.now);
                if tell.await? {
                    let notifications = changes.len();
                    info!(rule = %rules.name, notifications, "the problems of the farm have changed");
                }
            }
        }
        Ok(())
    }
}

/// Weighs ends of builds in their order. Returns the new states of packages, and the notifications.
fn weigh_ends(
    rules: &NotifyRules,
    ends: &Ends,
) -> (BTreeMap<Package, PackageState>, Vec<Notice<BuildView>>) {
    let (mut states, mut notices) = (BTreeMap::new(), Vec::new());
    let concerned = ends.builds.iter().filter(|(it, _)| rules.concerns(it));
    for (build, is_canceled) in concerned {
        let package = package(build);
        let known = states.get(&package).or_else(|| ends.states.get(&package));
        let weighed = weigh(rules, known.copied(), build, *is_canceled);
        states.extend(weighed.state.map(|it| (package, it)));
        notices.extend(weighed.notice);
    }
    (states, notices)
}

/// Makes one attempt to deliver a notification. The log of a build is on its host: its errors are not shown.
pub async fn attempt(
    farm: &str,
    rules: &NotifyRules,
    id: String,
    notice: Notice<BuildView>,
) -> Delivery {
    let (farm, rules) = (farm.to_owned(), rules.clone());
    blocking(move || deliver(&rules, Site::Farm(&farm), &id, &notice, &[])).await
}
