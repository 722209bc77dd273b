//! The problems of the host of which recipients were told. What is to be told of a change is recorded in the
//! transaction that notes the change, so that each begin and each end is told once, however often the agent
//! is killed.

use config::NotifyName;
use config::notify::{Notice, NotifyKind, Problem, changes};
use config::settings::NotifyRules;
use jiff::Timestamp;
use rusqlite::{Connection, Row, Transaction, params};

use super::notifications::insert;
use super::rows::{from_json, json, parse, readable};
use super::{Records, RecordsError};

impl Records {
    /// Returns the problems of which recipients were told, each once.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn told_problems(&self) -> Result<Vec<Problem>, RecordsError> {
        let told = self.database.read(|connection| {
            let sql = "SELECT min(content) AS content FROM told_problems GROUP BY problem, subject";
            let mut select = connection.prepare_cached(sql)?;
            readable(select.query_map([], |row| from_json(row, "content"))?).collect()
        });
        told.await
    }

    /// Records what the rules say about a change of the problems that are open, and forgets the rules that do
    /// not exist any more. Returns the number of new notifications.
    ///
    /// # Errors
    /// The records cannot be written.
    pub async fn tell_problems(
        &self,
        open: Vec<Problem>,
        now: Timestamp,
    ) -> Result<usize, RecordsError> {
        let rules = std::sync::Arc::clone(&self.end_rules);
        let tell = self.database.write(move |transaction| {
            forget_rules(transaction, &rules.notify)?;
            let mut count = 0;
            for rule in &rules.notify {
                count += tell(transaction, rule, &open, now)?;
            }
            Ok(count)
        });
        tell.await
    }
}

/// Records what a rule says about the problems that are open.
fn tell(
    transaction: &Transaction<'_>,
    rule: &NotifyRules,
    open: &[Problem],
    now: Timestamp,
) -> rusqlite::Result<usize> {
    let concerned = open.iter().filter(|it| rule.concerns_problem(it.id));
    let open: Vec<_> = concerned.cloned().collect();
    let changes = changes(&told(transaction, &rule.name)?, &open);
    for (kind, problem) in &changes {
        note(transaction, &rule.name, *kind, problem)?;
        let notice = Notice::about(*kind, rule.name.clone(), problem.clone(), now);
        insert(transaction, None, &notice)?;
    }
    Ok(changes.len())
}

/// Returns the problems of which the recipient of a rule was told.
fn told(connection: &Connection, rule: &NotifyName) -> rusqlite::Result<Vec<Problem>> {
    let sql = "SELECT content FROM told_problems WHERE rule = ?1 ORDER BY problem, subject";
    let mut select = connection.prepare_cached(sql)?;
    let read = |row: &Row<'_>| from_json(row, "content");
    readable(select.query_map([rule.as_str()], read)?).collect()
}

/// Notes what a recipient knows after a notification.
fn note(
    transaction: &Transaction<'_>,
    rule: &NotifyName,
    kind: NotifyKind,
    problem: &Problem,
) -> rusqlite::Result<()> {
    let (rule, id) = (rule.as_str(), problem.id.name());
    if kind == NotifyKind::ProblemEnded {
        let sql = "DELETE FROM told_problems WHERE rule = ?1 AND problem = ?2 AND subject = ?3";
        let values = params![rule, id, problem.subject];
        transaction.prepare_cached(sql)?.execute(values)?;
        return Ok(());
    }
    let sql = "INSERT INTO told_problems (rule, problem, subject, content) VALUES (?1, ?2, ?3, ?4)";
    let values = params![rule, id, problem.subject, json(problem)?];
    transaction.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// Forgets what the recipients of rules were told that do not exist any more.
fn forget_rules(transaction: &Transaction<'_>, rules: &[NotifyRules]) -> rusqlite::Result<()> {
    let mut select = transaction.prepare_cached("SELECT DISTINCT rule FROM told_problems")?;
    let known: Vec<NotifyName> = readable(select.query_map([], |row| parse(row, "rule"))?)
        .collect::<rusqlite::Result<_>>()?;
    let mut delete = transaction.prepare_cached("DELETE FROM told_problems WHERE rule = ?1")?;
    for name in known {
        if !rules.iter().any(|rule| rule.name == name) {
            delete.execute([name.as_str()])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
