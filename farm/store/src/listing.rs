//! The statement for a page of builds: queue and results in one snapshot, by index.

use std::fmt::Write;

use farm_core::view::{BuildQuery, BuildState};
use tokio_postgres::types::ToSql;

/// The columns of a build, the first of which is its number.
const COLUMNS: &str =
    "id, submitter, priority, requirements, canceled, host, epoch, revision, losses,
    submitted, claimed, target, project";

/// A statement and its parameters. Numbers are text as well, so that all have one type.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) sql: String,
    pub(crate) parameters: Vec<String>,
}

/// The order of builds by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Newest,
    Oldest,
}

impl Order {
    fn sql(self) -> &'static str {
        match self {
            Self::Newest => "id DESC",
            Self::Oldest => "id",
        }
    }
}

/// Returns the statement for a page of builds, with one more build than the page has.
///
/// There are few combinations of filters, and each is a text of its own, so that the database sees which
/// index serves it.
pub(crate) fn page(query: &BuildQuery, order: Order) -> Listing {
    let mut listing = Listing::default();
    let is_of = |state| query.state.is_none_or(|it| it == state);
    let is_unfinished = is_of(BuildState::Queued) || is_of(BuildState::Running);
    let mut parts = Vec::new();
    if is_unfinished && query.outcome.is_none() {
        let mut conditions = listing.conditions(query);
        match query.state {
            Some(BuildState::Queued) => conditions.push("state = 0".to_owned()),
            Some(BuildState::Running) => conditions.push("state = 1".to_owned()),
            _ => {}
        }
        // A build in the queue keeps the host of its last attempt.
        if let Some(host) = &query.host {
            let host = listing.add(host.clone());
            conditions.push(format!(
                "state = 1 AND host = (SELECT id FROM hosts WHERE name = {host})"
            ));
        }
        parts.push(part(
            query,
            order,
            "builds",
            "state::int",
            "NULL::timestamptz, NULL, NULL",
            &conditions,
        ));
    }
    if is_of(BuildState::Finished) {
        let mut conditions = listing.conditions(query);
        if let Some(outcome) = query.outcome {
            let outcome = listing.add(outcome.to_string());
            conditions.push(format!("outcome = {outcome}"));
        }
        if let Some(host) = &query.host {
            let host = listing.add(host.clone());
            conditions.push(format!("host = (SELECT id FROM hosts WHERE name = {host})"));
        }
        parts.push(part(
            query,
            order,
            "finished",
            "2",
            "finished, outcome, message",
            &conditions,
        ));
    }
    listing.sql = select(&parts, order, query.count() + 1);
    listing
}

/// Returns the statement for one build.
pub(crate) fn one(build: u64) -> Listing {
    let condition = ["id = $1::text::bigint".to_owned()];
    let query = BuildQuery::default();
    let parts = [
        part(
            &query,
            Order::Newest,
            "builds",
            "state::int",
            "NULL::timestamptz, NULL, NULL",
            &condition,
        ),
        part(
            &query,
            Order::Newest,
            "finished",
            "2",
            "finished, outcome, message",
            &condition,
        ),
    ];
    Listing {
        sql: select(&parts, Order::Newest, 1),
        parameters: vec![build.to_string()],
    }
}

/// Returns the statement for the results with these numbers.
pub(crate) fn results(builds: &[u64]) -> Listing {
    let condition = ["id = ANY($1::text::bigint[])".to_owned()];
    let query = BuildQuery {
        count: Some(u32::try_from(builds.len()).unwrap_or(u32::MAX)),
        ..BuildQuery::default()
    };
    let parts = [part(
        &query,
        Order::Newest,
        "finished",
        "2",
        "finished, outcome, message",
        &condition,
    )];
    let numbers: Vec<_> = builds.iter().map(u64::to_string).collect();
    Listing {
        sql: select(&parts, Order::Newest, query.count()),
        parameters: vec![format!("{{{}}}", numbers.join(","))],
    }
}

impl Listing {
    /// Returns the parameters as the database takes them.
    pub(crate) fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        let parameters = self.parameters.iter();
        parameters.map(|it| it as &(dyn ToSql + Sync)).collect()
    }

    /// Adds a parameter, and returns its place.
    pub(crate) fn add(&mut self, value: String) -> String {
        self.parameters.push(value);
        format!("${}::text", self.parameters.len())
    }

    /// Returns the conditions that queue and results share.
    fn conditions(&mut self, query: &BuildQuery) -> Vec<String> {
        let mut conditions = Vec::new();
        let texts = [
            ("machine", query.machine.as_ref().map(ToString::to_string)),
            ("target", query.package.as_ref().map(ToString::to_string)),
            ("project", query.project.as_ref().map(ToString::to_string)),
            (
                "submitter",
                query.submitter.as_ref().map(ToString::to_string),
            ),
        ];
        for (column, value) in texts {
            if let Some(value) = value {
                let value = self.add(value);
                conditions.push(format!("{column} = {value}"));
            }
        }
        if let Some(before) = query.before {
            let before = self.add(before.0.to_string());
            conditions.push(format!("id < {before}::bigint"));
        }
        conditions
    }
}

fn part(
    query: &BuildQuery,
    order: Order,
    table: &str,
    state: &str,
    result: &str,
    conditions: &[String],
) -> String {
    let canceled = if table == "builds" {
        "canceled"
    } else {
        "outcome = 'abort' AS canceled"
    };
    let columns = COLUMNS.replace("canceled", canceled);
    let filter = if conditions.is_empty() {
        "true".to_owned()
    } else {
        conditions.join(" AND ")
    };
    let (order, most) = (order.sql(), query.count() + 1);
    format!(
        "(SELECT {columns}, {state} AS state, {result} FROM {table} WHERE {filter} \
         ORDER BY {order} LIMIT {most})"
    )
}

/// Joins the parts, and adds the names of hosts.
fn select(parts: &[String], order: Order, most: u32) -> String {
    // A build that has a result has no state beside it, so that one part at least is always left; a query
    // for unfinished builds with an outcome selects nothing.
    let parts = match parts {
        [] => {
            "(SELECT * FROM (SELECT NULL::bigint, NULL, 0, NULL, false, NULL::bigint, 0::bigint, \
               0::bigint, 0::bigint, now(), now(), NULL, NULL, 0, now(), NULL, NULL) AS none LIMIT 0)"
                .to_owned()
        }
        parts => parts.join(" UNION ALL "),
    };
    let mut sql = String::from(
        "SELECT id, submitter, priority, requirements, canceled, \
         (SELECT name FROM hosts WHERE hosts.id = found.host), epoch, revision, losses, state, outcome, \
         target, project, message",
    );
    for time in ["submitted", "claimed", "finished"] {
        // Writing to a string does not fail.
        let _ = write!(sql, ", (extract(epoch FROM {time}) * 1000)::bigint");
    }
    let order = order.sql();
    let _ = write!(
        sql,
        " FROM ({parts}) AS found (id, submitter, priority, requirements, canceled, host, epoch, \
         revision, losses, submitted, claimed, target, project, state, finished, outcome, message) \
         ORDER BY {order} LIMIT {most}"
    );
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_parameters_and_choose_the_tables() {
        let query = BuildQuery {
            machine: Some("linux".parse().unwrap()),
            before: Some(config::BuildId(7)),
            ..BuildQuery::default()
        };
        let listing = page(&query, Order::Newest);
        assert_eq!(listing.parameters, ["linux", "7", "linux", "7"]);
        assert!(
            listing.sql.contains("FROM builds WHERE")
                && listing.sql.contains("FROM finished WHERE")
        );
        let of = |state, outcome| {
            let query = BuildQuery {
                state,
                outcome,
                ..BuildQuery::default()
            };
            page(&query, Order::Newest)
        };
        let finished = of(Some(BuildState::Finished), None);
        assert!(!finished.sql.contains("FROM builds WHERE"));
        let queued = of(Some(BuildState::Queued), None);
        assert!(!queued.sql.contains("FROM finished WHERE") && queued.sql.contains("state = 0"));
        let failed = of(None, Some(config::task::Outcome::Error));
        assert!(!failed.sql.contains("FROM builds WHERE"));
        assert_eq!(failed.parameters, ["error"]);
    }
}
