//! One batch of asks, decided against what is committed plus what the batch itself has given.

use std::collections::HashMap;

use super::ask::Ask;
use super::memory::Memory;
use crate::policy::{self, Facts, History, Parent, Verdict};
use crate::rows::{Rows, Span};
use crate::store::NewRow;
use crate::tuple::{Package, Tuple};
use crate::value::Value;

/// Decides asks in order, and collects the rows that must be written before anybody is told.
/// All packages of the batch must be remembered.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    committed: &'a Memory,
    read_only: bool,
    given: HashMap<&'a Package, Rows>,
    rows: Vec<NewRow<'a>>,
}

impl<'a> Batch<'a> {
    /// An empty batch.
    pub(crate) fn new(committed: &'a Memory, read_only: bool) -> Self {
        Self {
            committed,
            read_only,
            given: HashMap::new(),
            rows: Vec::new(),
        }
    }

    /// Answers one ask.
    pub(crate) fn answer(&mut self, ask: &'a Ask) -> Option<Value> {
        match ask {
            Ask::Get(tuple, history, parent) => self.get(tuple, *history, parent),
            Ask::Test(tuple, history) => {
                policy::recorded(&self.facts(&tuple.package, &tuple.checksum), *history)
            }
            Ask::Max(package) => self.facts(package, "").max,
            Ask::Import(_, _) if self.read_only => None,
            Ask::Import(tuple, value) => {
                self.give(tuple, value);
                Some(value.clone())
            }
        }
    }

    /// What must be written.
    pub(crate) fn into_rows(self) -> Vec<NewRow<'a>> {
        self.rows
    }

    fn get(&mut self, tuple: &'a Tuple, history: History, parent: &Parent) -> Option<Value> {
        let facts = self.facts(&tuple.package, &tuple.checksum);
        let is_taken = |value: &Value| {
            let given = self.given.get(&tuple.package);
            given.is_some_and(|rows| rows.holds_for_another(&tuple.checksum, value))
                || self.committed.holds_for_another(tuple, value)
        };
        let verdict = policy::decide_below(&facts, parent, history, is_taken).ok()?;
        if let (Verdict::New(value), false) = (&verdict, self.read_only) {
            self.give(tuple, value);
        }
        Some(verdict.into_value())
    }

    fn give(&mut self, tuple: &'a Tuple, value: &Value) {
        self.given
            .entry(&tuple.package)
            .or_default()
            .add(&tuple.checksum, value);
        self.rows.push(NewRow {
            tuple,
            value: value.clone(),
        });
    }

    fn facts(&self, package: &Package, checksum: &str) -> Facts {
        let committed = self.committed.facts(package, checksum).unwrap_or_default();
        match self.given.get(package) {
            None => committed,
            Some(given) => Facts {
                max: committed.max.max(given.max().cloned()),
                span: join(committed.span, given.span(checksum)),
            },
        }
    }
}

fn join(committed: Option<Span>, given: Option<&Span>) -> Option<Span> {
    match (committed, given) {
        (Some(committed), Some(given)) => Some(committed.joined(given)),
        (committed, given) => committed.or_else(|| given.cloned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identical_tuples_in_one_batch_get_one_value_and_one_row() {
        let memory = Memory::new(100);
        let ask = Ask::Get(
            Tuple::new("v", "all", "c"),
            History::Ignore,
            Parent::Unaware,
        );
        let mut batch = Batch::new(&memory, false);
        assert_eq!(batch.answer(&ask), batch.answer(&ask));
        assert_eq!(batch.into_rows().len(), 1);
    }

    #[test]
    fn a_read_only_batch_tells_what_would_be_given_and_gives_nothing() {
        let memory = Memory::new(100);
        let get = |checksum| {
            Ask::Get(
                Tuple::new("v", "all", checksum),
                History::Ignore,
                Parent::Unaware,
            )
        };
        let import = Ask::Import(Tuple::new("v", "all", "a"), Value::first());
        let (a, b) = (get("a"), get("b"));
        let mut batch = Batch::new(&memory, true);
        assert_eq!(batch.answer(&a), Some(Value::first()));
        assert_eq!(batch.answer(&b), Some(Value::first()));
        assert_eq!(batch.answer(&import), None);
        assert!(batch.into_rows().is_empty());
    }
}
