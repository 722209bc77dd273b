//! One batch of queries, decided on the committed rows plus the rows of the batch itself. Pure.

use std::collections::HashMap;

use super::cache::Cache;
use super::query::Query;
use crate::package_rows::{PackageRows, ValueRange};
use crate::policy::{self, Decision, History, ParentState, TupleRecord};
use crate::store::NewRow;
use crate::tuple::{Package, Tuple};
use crate::value::Value;

/// Decides queries in order and collects the rows that must be committed before any answer is
/// sent. The cache must hold all packages of the batch.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    committed: &'a Cache,
    read_only: bool,
    pending: HashMap<&'a Package, PackageRows>,
    rows: Vec<NewRow<'a>>,
}

impl<'a> Batch<'a> {
    /// Creates an empty batch.
    pub(crate) fn new(committed: &'a Cache, read_only: bool) -> Self {
        Self {
            committed,
            read_only,
            pending: HashMap::new(),
            rows: Vec::new(),
        }
    }

    /// Answers one query.
    pub(crate) fn answer(&mut self, query: &'a Query) -> Option<Value> {
        match query {
            Query::Get(tuple, history, parent) => self.get(tuple, *history, parent),
            Query::Test(tuple, history) => {
                policy::recorded(&self.record(&tuple.package, &tuple.checksum), *history)
            }
            Query::Max(package) => self.record(package, "").max,
            Query::Import(_, _) if self.read_only => None,
            Query::Import(tuple, value) => {
                self.add(tuple, value);
                Some(value.clone())
            }
        }
    }

    /// Returns the rows to commit.
    pub(crate) fn into_rows(self) -> Vec<NewRow<'a>> {
        self.rows
    }

    fn get(&mut self, tuple: &'a Tuple, history: History, parent: &ParentState) -> Option<Value> {
        let record = self.record(&tuple.package, &tuple.checksum);
        let is_taken = |value: &Value| {
            let pending = self.pending.get(&tuple.package);
            pending.is_some_and(|rows| rows.may_belong_to_another(&tuple.checksum, value))
                || self.committed.may_belong_to_another(tuple, value)
        };
        let decision = policy::decide_with_parent(&record, parent, history, is_taken).ok()?;
        if let (Decision::New(value), false) = (&decision, self.read_only) {
            self.add(tuple, value);
        }
        Some(decision.into_value())
    }

    fn add(&mut self, tuple: &'a Tuple, value: &Value) {
        self.pending
            .entry(&tuple.package)
            .or_default()
            .add(&tuple.checksum, value);
        self.rows.push(NewRow {
            tuple,
            value: value.clone(),
        });
    }

    fn record(&self, package: &Package, checksum: &str) -> TupleRecord {
        let committed = self.committed.record(package, checksum).unwrap_or_default();
        match self.pending.get(package) {
            None => committed,
            Some(pending) => TupleRecord {
                max: committed.max.max(pending.max().cloned()),
                range: join(committed.range, pending.range(checksum)),
            },
        }
    }
}

fn join(committed: Option<ValueRange>, pending: Option<&ValueRange>) -> Option<ValueRange> {
    match (committed, pending) {
        (Some(committed), Some(pending)) => Some(committed.joined(pending)),
        (committed, pending) => committed.or_else(|| pending.cloned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identical_tuples_in_one_batch_get_one_value_and_one_row() {
        let cache = Cache::new(100);
        let query = Query::Get(
            Tuple::new("v", "all", "c"),
            History::Ignore,
            ParentState::PackageUnknown,
        );
        let mut batch = Batch::new(&cache, false);
        assert_eq!(batch.answer(&query), batch.answer(&query));
        assert_eq!(batch.into_rows().len(), 1);
    }

    #[test]
    fn a_read_only_batch_returns_the_would_be_value_and_assigns_nothing() {
        let cache = Cache::new(100);
        let get = |checksum| {
            Query::Get(
                Tuple::new("v", "all", checksum),
                History::Ignore,
                ParentState::PackageUnknown,
            )
        };
        let import = Query::Import(Tuple::new("v", "all", "a"), Value::first());
        let (a, b) = (get("a"), get("b"));
        let mut batch = Batch::new(&cache, true);
        assert_eq!(batch.answer(&a), Some(Value::first()));
        assert_eq!(batch.answer(&b), Some(Value::first()));
        assert_eq!(batch.answer(&import), None);
        assert!(batch.into_rows().is_empty());
    }
}
