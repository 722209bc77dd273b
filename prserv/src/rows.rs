//! What is recorded of one package: its greatest value, and the values of each checksum.

use std::collections::HashMap;

use crate::value::Value;

/// The smallest and the largest value recorded for one checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// What history mode answers.
    pub smallest: Value,
    /// What no-history mode compares with the package's greatest.
    pub largest: Value,
}

/// The recorded rows of one package, as far as answers depend on them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    max: Option<Value>,
    spans: HashMap<Box<str>, Span>,
}

impl Rows {
    /// Adds one row.
    pub fn add(&mut self, checksum: &str, value: &Value) {
        if self.max.as_ref().is_none_or(|max| max < value) {
            self.max = Some(value.clone());
        }
        match self.spans.get_mut(checksum) {
            Some(span) => span.widen(value),
            None => {
                self.spans.insert(checksum.into(), Span::of(value));
            }
        }
    }

    /// The package's greatest value; `None` when nothing is recorded.
    pub fn max(&self) -> Option<&Value> {
        self.max.as_ref()
    }

    /// The values of one checksum.
    pub fn span(&self, checksum: &str) -> Option<&Span> {
        self.spans.get(checksum)
    }

    /// Whether a value may be one of another checksum's: it lies within its span.
    pub fn holds_for_another(&self, checksum: &str, value: &Value) -> bool {
        let holds = |span: &Span| span.smallest <= *value && *value <= span.largest;
        self.spans
            .iter()
            .any(|(other, span)| **other != *checksum && holds(span))
    }

    /// How many checksums are recorded.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

impl Span {
    /// The span of a single value.
    pub fn of(value: &Value) -> Self {
        Self {
            smallest: value.clone(),
            largest: value.clone(),
        }
    }

    /// Takes one more value in.
    pub fn widen(&mut self, value: &Value) {
        if *value < self.smallest {
            self.smallest = value.clone();
        } else if *value > self.largest {
            self.largest = value.clone();
        }
    }

    /// The span of both.
    #[must_use]
    pub fn joined(mut self, other: &Self) -> Self {
        self.widen(&other.smallest);
        self.widen(&other.largest);
        self
    }
}
