//! The projects of a farm: names under which builds and schedules are grouped.

use config::BuildId;
use config::ScheduleName;
use farm_core::view::{BuildView, ProjectView};

use crate::rows::{number, parsed};
use crate::{Store, StoreError, listing, sql};

impl Store {
    /// Returns the projects by name.
    ///
    /// # Errors
    /// The database fails.
    pub async fn projects(&self) -> Result<Vec<ProjectView>, StoreError> {
        let rows = self.query(sql::PROJECTS, &[]).await?;
        let id = |row: &tokio_postgres::Row, column| {
            let id = row.get::<_, Option<i64>>(column);
            id.map(|it| BuildId(it.cast_unsigned()))
        };
        let ids: Vec<u64> = rows
            .iter()
            .flat_map(|row| [id(row, 2), id(row, 3)])
            .flatten()
            .map(|it| it.0)
            .collect();
        let builds = if ids.is_empty() {
            Vec::new()
        } else {
            self.listed(&listing::results(&ids)).await?
        };
        let find = |id: Option<BuildId>| -> Option<BuildView> {
            builds.iter().find(|it| Some(it.build) == id).cloned()
        };
        let view = |row: &tokio_postgres::Row| {
            let (last, good) = (id(row, 2), id(row, 3));
            let schedules: Vec<String> = row.get(4);
            let schedules = schedules.iter().map(|it| parsed("schedules", 0, it));
            Ok(ProjectView {
                name: parsed("finished", 0, row.get(0))?,
                unfinished: number(row, 1),
                last: find(last),
                last_good: find(good.filter(|_| good != last)),
                schedules: schedules.collect::<Result<Vec<ScheduleName>, _>>()?,
            })
        };
        rows.iter().map(view).collect()
    }
}
