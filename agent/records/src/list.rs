//! Listings of builds. Every query walks an index from the start of the page, so that its time
//! does not depend on builds outside of the page.

use config::builds::{Build, ListQuery, Sort, SortKey, State};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::rows::{key, read, readable, time};

/// A query of the database.
#[derive(Debug)]
struct Query {
    sql: String,
    values: Vec<Value>,
}

/// The conditions of a query.
#[derive(Debug, Default)]
struct Conditions {
    texts: Vec<String>,
    values: Vec<Value>,
}

impl Conditions {
    fn add(&mut self, text: impl Into<String>, value: impl Into<Value>) {
        self.texts.push(text.into());
        self.values.push(value.into());
    }
}

pub(super) fn list(connection: &Connection, listing: &ListQuery) -> rusqlite::Result<Vec<Build>> {
    let query = query(listing);
    let mut select = connection.prepare_cached(&query.sql)?;
    let builds = readable(select.query_map(params_from_iter(query.values), read)?);
    // A page is full even if records that cannot be read are left out.
    builds.take(listing.count() as usize).collect()
}

/// Returns the SQL of a listing. SQLite walks one index: that of the sort key, or, if sorted
/// by submission, that of the first condition. A `+` prevents the use of the others.
fn query(listing: &ListQuery) -> Query {
    let by_name = listing.package.is_some() && listing.sort == Sort::Submitted;
    let (from, place, id) = match listing.sort {
        _ if by_name => (
            "names JOIN builds ON builds.id = names.build",
            "names.submitted",
            "names.build",
        ),
        Sort::Submitted => ("builds", "builds.submitted", "builds.id"),
        Sort::Finished => ("builds", "builds.finished", "builds.id"),
        Sort::Seconds => ("builds", "builds.seconds", "builds.id"),
    };
    let (sign, order) = if listing.reverse {
        (">", "ASC")
    } else {
        ("<", "DESC")
    };
    let mut conditions = Conditions::default();
    add_properties(listing, by_name, &mut conditions);
    add_times(listing, place, &mut conditions);
    if let Some(cursor) = &listing.from {
        let value = match cursor.key {
            SortKey::Time(at) => time(at).into(),
            SortKey::Seconds(seconds) => Value::from(seconds),
        };
        let text = format!("({place}, {id}) {sign} (?, {})", key(cursor.id));
        conditions.add(text, value);
    }
    let mut texts = conditions.texts;
    if listing.sort != Sort::Submitted {
        texts.push(format!("{place} IS NOT NULL"));
    }
    let conditions_text = match texts.join(" AND ") {
        none if none.is_empty() => none,
        some => format!("WHERE {some} "),
    };
    Query {
        sql: format!(
            "SELECT builds.* FROM {from} {conditions_text}ORDER BY {place} {order}, {id} {order}"
        ),
        values: conditions.values,
    }
}

/// Adds the conditions on the properties of builds.
fn add_properties(listing: &ListQuery, by_name: bool, conditions: &mut Conditions) {
    if let Some(name) = &listing.package {
        let condition = if by_name {
            "names.name = ?"
        } else {
            "EXISTS (SELECT 1 FROM names WHERE names.name = ? AND names.submitted = builds.submitted
             AND names.build = builds.id)"
        };
        conditions.add(condition, name.clone());
    }
    let mut walked = by_name || listing.sort != Sort::Submitted;
    for (column, value) in equalities(listing) {
        let plus = if walked { "+" } else { "" };
        conditions.add(format!("{plus}builds.{column} = ?"), value);
        walked = true;
    }
    if let Some(before) = listing.before {
        conditions.add("+builds.id < ?", key(before));
    }
}

/// Adds the conditions on times. Only the sort key may bound the walk of the index.
fn add_times(listing: &ListQuery, place: &str, conditions: &mut Conditions) {
    let time_of = match listing.sort {
        Sort::Seconds => "+builds.submitted",
        Sort::Submitted | Sort::Finished => place,
    };
    for (sign, bound) in [(">=", listing.since), ("<", listing.until)] {
        if let Some(bound) = bound {
            conditions.add(format!("{time_of} {sign} ?"), time(bound));
        }
    }
}

/// Returns the columns with a required value, the most selective first.
fn equalities(listing: &ListQuery) -> Vec<(&'static str, Value)> {
    let state = listing.state.map(|state| state.to_string().into());
    let waits = listing.state.is_some_and(|state| state != State::Finished);
    let (rare, usual) = if waits { (state, None) } else { (None, state) };
    let text = |text: &dyn std::fmt::Display| Value::from(text.to_string());
    let all = [
        ("state", rare),
        ("schedule", listing.schedule.as_ref().map(|it| text(it))),
        ("project", listing.project.as_ref().map(|it| text(it))),
        ("submitter", listing.submitter.as_ref().map(|it| text(it))),
        ("machine", listing.machine.as_ref().map(|it| text(it))),
        ("toolchain", listing.toolchain.as_ref().map(|it| text(it))),
        ("outcome", listing.outcome.as_ref().map(|it| text(it))),
        ("state", usual),
    ];
    let given = all.into_iter();
    given
        .filter_map(|(column, value)| Some((column, value?)))
        .collect()
}

#[cfg(test)]
mod tests;
