//! Schedules: the transactions that change or run them, and the views of clients.

use config::builds::{Priority, Target};
use config::schedule::{Run, RunResult, SCHEDULES_MAX};
use config::task::Digest;
use config::{BuildId, ProjectName, ScheduleName};
use farm_core::messages::Subject;
use farm_core::operation::Answer;
use farm_core::schedules::{Added, Occasion, Schedule, ScheduleRow};
use farm_core::view::ScheduleView;
use jiff::Timestamp;
use tokio_postgres::Row;

use crate::operations::{ATTEMPTS_MAX, Connection, text};
use crate::rows::{number, parsed, time};
use crate::{Store, StoreError, sql};

impl Connection {
    pub(crate) async fn schedules(&self) -> Result<Answer, StoreError> {
        let rows = self.query(sql::SCHEDULES, &[]).await?;
        let now = rows
            .first()
            .map_or(Timestamp::UNIX_EPOCH, |row| time(row.get(0)));
        // There is a row without a name if there is no schedule.
        let named = rows
            .iter()
            .filter(|row| row.get::<_, Option<&str>>(1).is_some());
        let schedules = named.map(|row| {
            Ok(ScheduleRow {
                name: parsed(TABLE, 0, row.get(1))?,
                timing: json(row.get(2))?,
                added: time(row.get(3)),
                since: time(row.get(4)),
            })
        });
        Ok(Answer::Schedules {
            now,
            schedules: schedules.collect::<Result<_, StoreError>>()?,
        })
    }

    pub(crate) async fn add_schedule(
        &self,
        schedule: &Schedule,
        replaces: bool,
    ) -> Result<Answer, StoreError> {
        let target = schedule.subject.target.as_ref().map(Target::as_str);
        let project = schedule.subject.project.as_ref();
        let project = project.map(ProjectName::as_str);
        let digests = schedule.requirements.work.digests();
        let sources: Vec<_> = digests.iter().map(Digest::as_str).collect();
        let (timing, requirements) = (text(&schedule.timing), text(&schedule.requirements));
        for _ in 0..ATTEMPTS_MAX {
            let rows = self
                .query(
                    sql::ADD_SCHEDULE,
                    &[
                        &schedule.name.as_str(),
                        &timing,
                        &schedule.coalesce,
                        &schedule.submitter.as_str(),
                        &schedule.priority.0,
                        &schedule.requirements.machine.as_str(),
                        &requirements,
                        &target,
                        &project,
                        &replaces,
                        &i64::from(SCHEDULES_MAX),
                        &sources,
                    ],
                )
                .await?;
            let added = match rows.first().map(|row| row.get::<_, &str>(0)) {
                Some("new") => Added::New,
                Some("replaced") => Added::Replaced,
                Some("unchanged") => Added::Unchanged,
                Some("exists") => Added::Exists,
                Some("missing") => match self.missing(&digests).await? {
                    // They have come meanwhile.
                    found if found.is_empty() => continue,
                    missing => return Ok(Answer::Missing(missing)),
                },
                _ => Added::Full,
            };
            return Ok(Answer::ScheduleAdded(added));
        }
        Err(StoreError::Changing(0))
    }

    pub(crate) async fn remove_schedule(&self, name: &ScheduleName) -> Result<Answer, StoreError> {
        self.execute(sql::REMOVE_SCHEDULE, &[&name.as_str()])
            .await?;
        Ok(Answer::Done)
    }

    pub(crate) async fn pause_schedule(
        &self,
        name: &ScheduleName,
        paused: bool,
    ) -> Result<Answer, StoreError> {
        let changed = self
            .execute(sql::PAUSE_SCHEDULE, &[&name.as_str(), &paused])
            .await?;
        Ok(if changed == 0 {
            Answer::NotFound
        } else {
            Answer::Done
        })
    }

    pub(crate) async fn run_schedule(
        &self,
        name: &ScheduleName,
        occasion: &Occasion,
    ) -> Result<Answer, StoreError> {
        let key = occasion.key(name);
        let (read, due, until) = match occasion {
            Occasion::Due { read, due, until } => (Some(read), Some(due), Some(until)),
            Occasion::Now(_) => (None, None, None),
        };
        let timing = read.map(|it| text(&it.timing));
        let added = read.map(|it| it.added.as_millisecond());
        let since = read.map(|it| it.since.as_millisecond());
        let due = due.map(ToString::to_string);
        let until = until.map(|it| it.as_millisecond());
        let rows = self
            .query(
                sql::RUN_SCHEDULE,
                &[&name.as_str(), &key, &timing, &added, &since, &due, &until],
            )
            .await?;
        let Some(row) = rows.first() else {
            return Ok(match occasion {
                Occasion::Due { .. } => Answer::Stale,
                Occasion::Now(_) => Answer::NotFound,
            });
        };
        Ok(Answer::Ran(BuildId(number(row, 0)), result(row.get(1))))
    }
}

impl Store {
    /// Returns the schedules by name, and the time of the database.
    ///
    /// # Errors
    /// The database fails.
    pub async fn schedules(&self) -> Result<Vec<ScheduleView>, StoreError> {
        let rows = self.query(sql::SCHEDULE_VIEWS, &[&None::<&str>]).await?;
        rows.iter().map(view).collect()
    }

    /// Returns a schedule.
    ///
    /// # Errors
    /// The database fails.
    pub async fn schedule(&self, name: &ScheduleName) -> Result<Option<ScheduleView>, StoreError> {
        let rows = self.query(sql::SCHEDULE_VIEWS, &[&name.as_str()]).await?;
        rows.first().map(view).transpose()
    }
}

const TABLE: &str = "schedules";

fn json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Row {
        table: TABLE,
        row: 0,
        reason: error.to_string(),
    })
}

fn result(name: &str) -> RunResult {
    let found = RunResult::ALL.iter().find(|(_, known)| *known == name);
    found.map_or(RunResult::Failed, |(result, _)| *result)
}

fn view(row: &Row) -> Result<ScheduleView, StoreError> {
    let target = row.get::<_, Option<&str>>(6);
    let project = row.get::<_, Option<&str>>(7);
    let schedule = Schedule {
        name: parsed(TABLE, 0, row.get(0))?,
        timing: json(row.get(1))?,
        coalesce: row.get(2),
        submitter: parsed(TABLE, 0, row.get(3))?,
        priority: Priority(row.get(4)),
        requirements: json(row.get(5))?,
        subject: Subject {
            target: target.map(|it| parsed(TABLE, 0, it)).transpose()?,
            project: project.map(|it| parsed(TABLE, 0, it)).transpose()?,
        },
    };
    let due = row.get::<_, Option<&str>>(12);
    let due = due.map(|it| parsed(TABLE, 0, it)).transpose()?;
    let build = row.get::<_, Option<i64>>(14);
    let build = build.map(|it| BuildId(it.cast_unsigned()));
    let last = row.get::<_, Option<i64>>(11).map(|at| {
        let result = result(row.get(13));
        Run {
            due,
            at: time(at),
            result,
            build,
            message: match (result, build) {
                (RunResult::Coalesced, Some(build)) => {
                    format!("build {build} of an earlier run was unfinished")
                }
                _ => String::new(),
            },
        }
    });
    let mut view = ScheduleView {
        schedule,
        is_paused: row.get(8),
        added: time(row.get(9)),
        since: time(row.get(10)),
        last,
        next: None,
    };
    view.next = view.next_after(time(row.get(15)));
    Ok(view)
}
