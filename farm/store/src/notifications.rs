//! The outbox of notifications. A result and the note that rules are to weigh it are recorded in one
//! transaction. Any coordinator weighs and sends: each change of a rule's rows depends on its version or on the
//! number of an attempt, so that two coordinators never tell the same twice.

use std::collections::BTreeMap;

use config::notify::{
    Notice, NotifyCounts, NotifyKind, PackageState, Problem, Settlement, ToldBuild, pause,
};
use config::{BuildId, NotifyName};
use farm_core::view::BuildView;
use jiff::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::operations::{signed, text};
use crate::rows::{number, time};
use crate::{Store, StoreError, listing, sql};

/// The largest number of notifications of a rule that wait. Beyond it, the oldest is given up.
const WAITING_MAX: i64 = 1_000;
/// The number of settled notifications of a rule that are kept.
const SETTLED_KEPT: i64 = 100;
/// The most ends of builds that are weighed at once.
const ENDS_MAX: i64 = 200;

/// The package of a build on its machine.
pub type Package = (String, String);

/// The ends of builds that a rule has not weighed, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Ends {
    version: u64,
    numbers: Vec<i64>,
    /// The builds, each with true if it was canceled.
    pub builds: Vec<(BuildView, bool)>,
    /// The known states of their packages.
    pub states: BTreeMap<Package, PackageState>,
}

/// The problems of which the recipient of a rule was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    version: u64,
    /// The problems.
    pub problems: Vec<Problem>,
}

/// A notification that this coordinator has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    number: i64,
    /// The number of this attempt.
    pub attempt: u64,
    /// The ID, which is the same at each attempt.
    pub id: String,
    /// The content.
    pub content: Notice<BuildView>,
    /// The failure of the last attempt; may be empty.
    pub failure: String,
    /// The time at which it was recorded.
    pub created: Timestamp,
    /// The present, by the clock of the database.
    pub now: Timestamp,
}

/// Returns the package of a build.
pub fn package(build: &BuildView) -> Package {
    (build.machine().to_string(), build.package())
}

impl Store {
    /// Notes with each end of a build that these rules are to weigh it.
    #[must_use]
    pub fn telling(mut self, rules: &[NotifyName]) -> Self {
        self.rules = rules.iter().map(ToString::to_string).collect();
        self
    }

    /// Adds rules that the database does not know.
    ///
    /// # Errors
    /// The database fails.
    pub async fn add_rules(&self, rules: &[&str]) -> Result<(), StoreError> {
        self.execute(sql::ADD_RULES, &[&rules]).await.map(drop)
    }

    /// Returns the first ends of builds that a rule has not weighed; `None` if there are none.
    ///
    /// # Errors
    /// The database fails.
    pub async fn ends(&self, rule: &NotifyName) -> Result<Option<Ends>, StoreError> {
        let rows = self.query(sql::ENDS, &[&rule.as_str(), &ENDS_MAX]).await?;
        let known = rows.iter().filter_map(|row| {
            let canceled = row.get::<_, Option<bool>>(3)?;
            Some((row.get::<_, i64>(1), number(row, 2), canceled))
        });
        let known: Vec<_> = known.collect();
        let (Some(first), false) = (rows.first(), known.is_empty()) else {
            return Ok(None);
        };
        let wanted: Vec<_> = known.iter().map(|(_, build, _)| *build).collect();
        let builds = self.listed(&listing::results(&wanted)).await?;
        let builds: BTreeMap<_, _> = builds.into_iter().map(|it| (it.build, it)).collect();
        let ended = known.iter().filter_map(|(_, build, canceled)| {
            let build = builds.get(&BuildId(*build))?;
            Some((build.clone(), *canceled))
        });
        let ended: Vec<_> = ended.collect();
        Ok(Some(Ends {
            version: number(first, 0),
            numbers: known.iter().map(|(number, ..)| *number).collect(),
            // They are read behind the version, so that they are those of this version or newer.
            states: self.package_states(rule, &ended).await?,
            builds: ended,
        }))
    }

    async fn package_states(
        &self,
        rule: &NotifyName,
        builds: &[(BuildView, bool)],
    ) -> Result<BTreeMap<Package, PackageState>, StoreError> {
        let (machines, packages): (Vec<_>, Vec<_>) =
            builds.iter().map(|(build, _)| package(build)).unzip();
        let parameters: &[&(dyn ToSql + Sync)] = &[&rule.as_str(), &machines, &packages];
        let rows = self.query(sql::PACKAGE_STATES, parameters).await?;
        let state = |row: &Row| {
            let state = read("package_states", row.get(2))?;
            Ok(((row.get(0), row.get(1)), state))
        };
        rows.iter().map(state).collect()
    }

    /// Records what a rule says about ends of builds, and forgets the ends. Returns false if another
    /// coordinator has weighed meanwhile, and nothing was recorded.
    ///
    /// # Errors
    /// The database fails.
    pub async fn weigh(
        &self,
        rule: &NotifyName,
        ends: &Ends,
        states: &BTreeMap<Package, PackageState>,
        notices: &[Notice<BuildView>],
    ) -> Result<bool, StoreError> {
        let (machines, packages): (Vec<_>, Vec<_>) = states.keys().cloned().unzip();
        let states: Vec<_> = states.values().map(text).collect();
        let contents: Vec<_> = notices.iter().map(text).collect();
        let version = signed(ends.version);
        let parameters: &[&(dyn ToSql + Sync)] = &[
            &rule.as_str(),
            &version,
            &ends.numbers,
            &machines,
            &packages,
            &states,
            &contents,
        ];
        let is_recorded = !self.query(sql::WEIGH, parameters).await?.is_empty();
        self.bound(rule, notices.len()).await?;
        Ok(is_recorded)
    }

    /// Returns the problems of which the recipients of rules were told.
    ///
    /// # Errors
    /// The database fails.
    pub async fn told_problems(
        &self,
        rules: &[&str],
    ) -> Result<BTreeMap<String, Told>, StoreError> {
        let mut told: BTreeMap<String, Told> = BTreeMap::new();
        for row in self.query(sql::TOLD_PROBLEMS, &[&rules]).await? {
            let rule = told.entry(row.get(0)).or_default();
            rule.version = number(&row, 1);
            if let Some(content) = row.get::<_, Option<&str>>(2) {
                rule.problems.push(read("told_problems", content)?);
            }
        }
        Ok(told)
    }

    /// Records what a recipient is told about changes of problems. Returns false if another coordinator has
    /// done so meanwhile, and nothing was recorded.
    ///
    /// # Errors
    /// The database fails.
    pub async fn tell_problems(
        &self,
        rule: &NotifyName,
        told: &Told,
        changes: &[(NotifyKind, Problem)],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let is_end = |it: &&(NotifyKind, Problem)| it.0 == NotifyKind::ProblemEnded;
        let key = |(_, it): &(NotifyKind, Problem)| (it.id.name(), it.subject.clone());
        let (ended, ended_subjects): (Vec<_>, Vec<_>) =
            changes.iter().filter(is_end).map(key).unzip();
        let begun = || changes.iter().filter(|it| !is_end(it));
        let (new, new_subjects): (Vec<_>, Vec<_>) = begun().map(key).unzip();
        let new_contents: Vec<_> = begun().map(|(_, problem)| text(problem)).collect();
        let notices = changes.iter().map(|(kind, problem)| {
            let notice = Notice::<BuildView>::about(*kind, rule.clone(), problem.clone(), now);
            text(&notice)
        });
        let notices: Vec<_> = notices.collect();
        let version = signed(told.version);
        let parameters: &[&(dyn ToSql + Sync)] = &[
            &rule.as_str(),
            &version,
            &ended,
            &ended_subjects,
            &new,
            &new_subjects,
            &new_contents,
            &notices,
        ];
        let is_recorded = !self.query(sql::TELL_PROBLEMS, parameters).await?.is_empty();
        self.bound(rule, notices.len()).await?;
        Ok(is_recorded)
    }

    /// Gives up the oldest notifications if too many wait.
    async fn bound(&self, rule: &NotifyName, added: usize) -> Result<(), StoreError> {
        if added > 0 {
            let parameters: &[&(dyn ToSql + Sync)] = &[&rule.as_str(), &WAITING_MAX];
            self.execute(sql::GIVE_UP_NOTIFICATIONS, parameters).await?;
        }
        Ok(())
    }

    /// Takes the oldest notification of a rule for some milliseconds, after which others may take it. `None`
    /// if none waits, another coordinator has it, or its pause lasts.
    ///
    /// # Errors
    /// The database fails.
    pub async fn take_notification(
        &self,
        rule: &NotifyName,
        taken_ms: u64,
    ) -> Result<Option<Notification>, StoreError> {
        let parameters: &[&(dyn ToSql + Sync)] = &[&rule.as_str(), &signed(taken_ms)];
        let rows = self.query(sql::TAKE_NOTIFICATION, parameters).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        Ok(Some(Notification {
            number: row.get(0),
            id: row.get(1),
            content: read("notifications", row.get(2))?,
            attempt: number(row, 3),
            failure: row.get(4),
            created: time(row.get(5)),
            now: time(row.get(6)),
        }))
    }

    /// Records that an attempt has failed. The next one comes after a pause that grows.
    ///
    /// # Errors
    /// The database fails.
    pub async fn notification_failed(
        &self,
        taken: &Notification,
        failure: &str,
    ) -> Result<(), StoreError> {
        let pause_ms = i64::try_from(pause(taken.attempt).as_millis()).unwrap_or(i64::MAX);
        let attempt = signed(taken.attempt);
        let parameters: &[&(dyn ToSql + Sync)] = &[&taken.number, &attempt, &failure, &pause_ms];
        let deferred = self.execute(sql::DEFER_NOTIFICATION, parameters).await;
        deferred.map(drop)
    }

    /// Ends the attempts to deliver a notification, and forgets old ones of its rule.
    ///
    /// # Errors
    /// The database fails.
    pub async fn settle_notification(
        &self,
        taken: &Notification,
        settlement: &Settlement,
    ) -> Result<(), StoreError> {
        let (given_up, failure) = match settlement {
            Settlement::Delivered => (false, ""),
            Settlement::GivenUp(reason) => (true, reason.as_str()),
        };
        let parameters: &[&(dyn ToSql + Sync)] = &[&taken.number, &given_up, &failure];
        self.execute(sql::SETTLE_NOTIFICATION, parameters).await?;
        let rule = taken.content.data.rule.as_str();
        let parameters: &[&(dyn ToSql + Sync)] = &[&rule, &SETTLED_KEPT];
        self.execute(sql::FORGET_SETTLED, parameters)
            .await
            .map(drop)
    }

    /// Forgets what was recorded long ago for rules that no coordinator has any more.
    ///
    /// # Errors
    /// The database fails.
    pub async fn forget_notifications(&self) -> Result<(), StoreError> {
        self.execute(sql::FORGET_NOTIFICATIONS, &[]).await.map(drop)
    }

    /// Returns the numbers of notifications of each rule that has some.
    ///
    /// # Errors
    /// The database fails.
    pub async fn notification_counts(&self) -> Result<Vec<NotifyCounts>, StoreError> {
        let rows = self.query(sql::NOTIFICATION_COUNTS, &[]).await?;
        let count = |row: &Row, column| u32::try_from(number(row, column)).unwrap_or(u32::MAX);
        let counts = rows.iter().map(|row| NotifyCounts {
            rule: row.get(0),
            delivered: row.get::<_, Option<i64>>(1).map(time),
            waiting: count(row, 2),
            given_up: count(row, 3),
            failure: row.get(4),
        });
        Ok(counts.collect())
    }

    /// Returns the number of builds that wait for sources which no coordinator has that is alive, and the
    /// first of them.
    ///
    /// # Errors
    /// The database fails.
    pub async fn sourceless(&self) -> Result<Option<(u64, BuildId)>, StoreError> {
        let rows = self.query(sql::SOURCELESS, &[]).await?;
        let found = rows.first().and_then(|row| {
            let first = row.get::<_, Option<i64>>(1)?;
            Some((number(row, 0), BuildId(first.cast_unsigned())))
        });
        Ok(found)
    }

    /// Returns the coordinators that give no sign of life, with the time of the last one.
    ///
    /// # Errors
    /// The database fails.
    pub async fn absent_coordinators(&self) -> Result<Vec<(String, Timestamp)>, StoreError> {
        let rows = self.query(sql::ABSENT_COORDINATORS, &[]).await?;
        let absent = rows.iter().map(|row| (row.get(0), time(row.get(1))));
        Ok(absent.collect())
    }
}

fn read<T: serde::de::DeserializeOwned>(
    table: &'static str,
    content: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(content).map_err(|error| StoreError::Row {
        table,
        row: 0,
        reason: error.to_string(),
    })
}
