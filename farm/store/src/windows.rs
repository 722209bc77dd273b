//! The maintenance windows of hosts, and the durations that placements before them need.

use std::collections::BTreeMap;

use farm_core::HostId;
use farm_core::operation::{Answer, Candidate};
use farm_core::windows::{NewWindow, Occurrence, Window, WindowId};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::operations::{Connection, signed, text};
use crate::rows::number;
use crate::{Store, StoreError, sql};

impl Connection {
    pub(crate) async fn add_window(
        &self,
        host: HostId,
        new: &NewWindow,
    ) -> Result<Answer, StoreError> {
        let weekly = new.weekly.as_ref().map(text);
        let (host, [opens, closes]) = (signed(host.0), times(new.occurrence));
        let parameters: &[&(dyn ToSql + Sync)] = &[&host, &opens, &closes, &weekly, &new.reason];
        let rows = self.query(sql::ADD_WINDOW, parameters).await?;
        let id = rows.first().map(|row| WindowId(number(row, 0)));
        Ok(id.map_or(Answer::NotFound, Answer::Window))
    }

    pub(crate) async fn remove_window(
        &self,
        host: HostId,
        id: WindowId,
    ) -> Result<Answer, StoreError> {
        let parameters: &[&(dyn ToSql + Sync)] = &[&signed(host.0), &signed(id.0)];
        let hosts = self.execute(sql::REMOVE_WINDOW, parameters).await?;
        Ok(if hosts == 0 {
            Answer::NotFound
        } else {
            Answer::Done
        })
    }

    pub(crate) async fn move_window(
        &self,
        id: WindowId,
        over: Occurrence,
        next: Option<Occurrence>,
    ) -> Result<Answer, StoreError> {
        let (id, [opens, closes]) = (signed(id.0), times(over));
        match next.map(times) {
            Some([next_opens, next_closes]) => {
                let parameters: &[&(dyn ToSql + Sync)] =
                    &[&id, &opens, &closes, &next_opens, &next_closes];
                self.execute(sql::MOVE_WINDOW, parameters).await?
            }
            None => {
                self.execute(sql::END_WINDOW, &[&id, &opens, &closes])
                    .await?
            }
        };
        Ok(Answer::Done)
    }

    /// Adds the usual durations to builds in the queue.
    pub(crate) async fn add_usuals(&self, builds: &mut [Candidate]) -> Result<(), StoreError> {
        let ids: Vec<_> = builds.iter().map(|it| signed(it.build.0)).collect();
        let rows = self.query(sql::USUALS, &[&ids]).await?;
        let usual = |row: &Row| Some((number(row, 0), row.get::<_, Option<i64>>(1)?));
        let usuals: BTreeMap<_, _> = rows.iter().filter_map(usual).collect();
        for build in builds {
            let usual = usuals.get(&build.build.0);
            build.usual_ms = usual.map(|it| it.cast_unsigned());
        }
        Ok(())
    }
}

impl Store {
    /// Returns the windows with the names of their hosts, the next ones first. Those that only a newer
    /// version understands are left to it.
    ///
    /// # Errors
    /// The database fails.
    pub async fn windows(&self) -> Result<Vec<(String, Window)>, StoreError> {
        let rows = self.query(sql::WINDOWS, &[]).await?;
        Ok(rows.iter().filter_map(window).collect())
    }

    /// Returns the windows of the hosts with these names, as [`Self::windows`] does.
    ///
    /// # Errors
    /// The database fails.
    pub async fn windows_of(&self, hosts: &[&str]) -> Result<Vec<(String, Window)>, StoreError> {
        let rows = self.query(sql::WINDOWS_OF, &[&hosts]).await?;
        Ok(rows.iter().filter_map(window).collect())
    }

    /// Returns the time by the clock of the database, in milliseconds since 1970.
    ///
    /// # Errors
    /// The database fails.
    pub async fn now_ms(&self) -> Result<u64, StoreError> {
        let rows = self.query(sql::NOW, &[]).await?;
        Ok(rows.first().map_or(0, |row| number(row, 0)))
    }
}

/// Reads a window with the name of its host; `None` if only a newer version understands it.
fn window(row: &Row) -> Option<(String, Window)> {
    let weekly = row.get::<_, Option<&str>>(4);
    let weekly = weekly.map(serde_json::from_str).transpose().ok()?;
    let window = Window {
        id: WindowId(number(row, 0)),
        occurrence: Occurrence {
            opens_ms: number(row, 2),
            closes_ms: number(row, 3),
        },
        weekly,
        reason: row.get(5),
    };
    Some((row.get(1), window))
}

/// Returns the times of an occurrence for the database.
fn times(occurrence: Occurrence) -> [i64; 2] {
    [signed(occurrence.opens_ms), signed(occurrence.closes_ms)]
}
