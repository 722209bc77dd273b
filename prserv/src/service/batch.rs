//! One batch of queries, decided on the committed rows plus the rows of the batch itself. Pure.

use std::collections::HashMap;

use super::cache::Cache;
use super::query::{Import, Query};
use crate::audit::Change;
use crate::identity::Identity;
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
    /// The reason and the peer of each row.
    origins: Vec<(Change, &'a Identity)>,
}

impl<'a> Batch<'a> {
    /// Creates an empty batch.
    pub(crate) fn new(committed: &'a Cache, read_only: bool) -> Self {
        Self {
            committed,
            read_only,
            pending: HashMap::new(),
            rows: Vec::new(),
            origins: Vec::new(),
        }
    }

    /// Answers one query of a peer.
    pub(crate) fn answer(&mut self, query: &'a Query, identity: &'a Identity) -> Option<Value> {
        match query {
            Query::Get(tuple, history, parent) => self.get(tuple, *history, parent, identity),
            Query::Test(tuple, history) => {
                policy::recorded(&self.record(&tuple.package, &tuple.checksum), *history)
            }
            Query::Max(package) => self.record(package, "").max,
            Query::Import(..) if self.read_only => None,
            Query::Import(tuple, value, import) => {
                Some(self.import(tuple, value, *import, identity))
            }
        }
    }

    /// Returns the rows to commit, and the reason and the peer of each.
    pub(crate) fn into_rows(self) -> (Vec<NewRow<'a>>, Vec<(Change, &'a Identity)>) {
        (self.rows, self.origins)
    }

    fn get(
        &mut self,
        tuple: &'a Tuple,
        history: History,
        parent: &ParentState,
        identity: &'a Identity,
    ) -> Option<Value> {
        let record = self.record(&tuple.package, &tuple.checksum);
        let is_taken = |value: &Value| {
            let pending = self.pending.get(&tuple.package);
            pending.is_some_and(|rows| rows.may_belong_to_another(&tuple.checksum, value))
                || self.committed.may_belong_to_another(tuple, value)
        };
        let decision = policy::decide_with_parent(&record, parent, history, is_taken).ok()?;
        if let (Decision::New(value), false) = (&decision, self.read_only) {
            self.add(tuple, value, (Change::Assigned, identity));
        }
        Some(decision.into_value())
    }

    /// Returns the recorded value.
    fn import(
        &mut self,
        tuple: &'a Tuple,
        value: &Value,
        import: Import,
        identity: &'a Identity,
    ) -> Value {
        let range = self.record(&tuple.package, &tuple.checksum).range;
        match (import, range) {
            (Import::UnlessGreater, Some(range)) if range.largest >= *value => range.largest,
            (Import::UnlessGreater | Import::Always, _) => {
                self.add(tuple, value, (Change::Imported, identity));
                value.clone()
            }
        }
    }

    fn add(&mut self, tuple: &'a Tuple, value: &Value, origin: (Change, &'a Identity)) {
        self.origins.push(origin);
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
        let identity = Identity::new("x");
        let mut batch = Batch::new(&cache, false);
        assert_eq!(
            batch.answer(&query, &identity),
            batch.answer(&query, &identity)
        );
        let (rows, origins) = batch.into_rows();
        assert_eq!(rows.len(), 1);
        assert_eq!(origins, [(Change::Assigned, &identity)]);
    }

    #[test]
    fn an_import_unless_greater_sees_the_imports_before_it_in_the_batch() {
        let cache = Cache::new(100);
        let import =
            |value, import| Query::Import(Tuple::new("v", "all", "c"), Value::from(value), import);
        let imports = [
            (import(7, Import::UnlessGreater), 7),
            (import(3, Import::UnlessGreater), 7),
            (import(9, Import::UnlessGreater), 9),
            (import(2, Import::Always), 2),
        ];
        let identity = Identity::new("x");
        let mut batch = Batch::new(&cache, false);
        for (query, expected) in &imports {
            let answer = batch.answer(query, &identity);
            assert_eq!(answer, Some(Value::from(*expected)), "{query:?}");
        }
        assert_eq!(batch.into_rows().0.len(), 3);
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
        let tuple = Tuple::new("v", "all", "a");
        let import = Query::Import(tuple, Value::first(), Import::Always);
        let (a, b) = (get("a"), get("b"));
        let identity = Identity::new("x");
        let mut batch = Batch::new(&cache, true);
        assert_eq!(batch.answer(&a, &identity), Some(Value::first()));
        assert_eq!(batch.answer(&b, &identity), Some(Value::first()));
        assert_eq!(batch.answer(&import, &identity), None);
        assert!(batch.into_rows().0.is_empty());
    }
}
