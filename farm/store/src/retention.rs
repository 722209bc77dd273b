//! The end of old results and idempotency keys.

use crate::{Store, StoreError, sql};

/// The most rows that one statement deletes, and the most statements of one round.
const ROWS_MAX: i64 = 10_000;
const ROUNDS_MAX: usize = 1_000;

/// A month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Month(u32);

impl Month {
    /// Parses `YYYY_MM`, as partitions are named.
    fn parse(text: &str) -> Option<Self> {
        let (year, month) = text.split_once('_')?;
        let is_number = |text: &str| text.bytes().all(|it| it.is_ascii_digit());
        if year.len() != 4 || month.len() != 2 || !is_number(year) || !is_number(month) {
            return None;
        }
        let (year, month): (u32, u32) = (year.parse().ok()?, month.parse().ok()?);
        (1..=12).contains(&month).then(|| Self(year * 12 + month))
    }
}

/// Returns the partitions that ended more than some whole months ago. Tables with other names stay.
fn old_partitions(names: Vec<String>, now: &str, months: u32) -> Vec<String> {
    let Some(now) = Month::parse(now) else {
        return Vec::new();
    };
    let is_old = |name: &String| {
        let month = name.strip_prefix("finished_").and_then(Month::parse);
        month.is_some_and(|it| it.0 + months < now.0)
    };
    names.into_iter().filter(is_old).collect()
}

impl Store {
    /// Deletes the results of months that ended longer ago than so many months, with the idempotency keys,
    /// lost attempts, archives and runs on trial of that time. Returns the partitions.
    ///
    /// # Errors
    /// The database fails. What was deleted stays deleted; the next round continues.
    pub async fn forget(&self, months: u32) -> Result<Vec<String>, StoreError> {
        let connection = self.connection().await?;
        let rows = connection.query(sql::PARTITION_NAMES, &[]).await?;
        let now: String = match rows.first() {
            Some(row) => row.get(1),
            None => return Ok(Vec::new()),
        };
        let names = rows.iter().map(|row| row.get(0)).collect();
        let old = old_partitions(names, &now, months);
        for name in &old {
            // The name is `finished_` and digits.
            let drop = format!("DROP TABLE IF EXISTS {name}");
            connection.batch_execute(&drop).await?;
        }
        let age = i32::try_from(months).unwrap_or(i32::MAX);
        for statement in [
            sql::FORGET_SUBMISSIONS,
            sql::FORGET_LOST,
            sql::FORGET_ARCHIVES,
            sql::FORGET_UPLOADS,
            sql::FORGET_RUNS,
        ] {
            for _ in 0..ROUNDS_MAX {
                let deleted = connection.execute(statement, &[&age, &ROWS_MAX]).await?;
                if i64::try_from(deleted).unwrap_or(ROWS_MAX) < ROWS_MAX {
                    break;
                }
            }
        }
        Ok(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_partitions_of_old_months_are_old() {
        let names = [
            "finished_2025_10",
            "finished_2025_11",
            "finished_2026_11",
            "finished_2027_01",
            "finished_default",
            "finished_2025_13",
            "finished_2025_1;",
            "finished_backup",
        ];
        let old = |months| {
            let names = names.iter().map(|it| (*it).to_owned()).collect();
            old_partitions(names, "2026_11", months)
        };
        assert_eq!(old(12), ["finished_2025_10"]);
        assert_eq!(old(11), ["finished_2025_10", "finished_2025_11"]);
        assert!(old(1_000).is_empty());
    }
}
