//! The rows of one package, reduced to what the policy depends on.

use std::collections::HashMap;

use crate::value::Value;

/// The smallest and the largest value recorded for one checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueRange {
    /// The answer with history.
    pub smallest: Value,
    /// The answer without history, as long as it is the greatest of the package.
    pub largest: Value,
}

/// The greatest value of a package and the value range of each of its checksums.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackageRows {
    max: Option<Value>,
    ranges: HashMap<Box<str>, ValueRange>,
}

impl PackageRows {
    /// Adds one row.
    pub fn add(&mut self, checksum: &str, value: &Value) {
        if self.max.as_ref().is_none_or(|max| max < value) {
            self.max = Some(value.clone());
        }
        match self.ranges.get_mut(checksum) {
            Some(range) => range.widen(value),
            None => {
                self.ranges.insert(checksum.into(), ValueRange::of(value));
            }
        }
    }

    /// Returns the package's greatest value, or `None` if nothing is recorded.
    pub fn max(&self) -> Option<&Value> {
        self.max.as_ref()
    }

    /// Returns the value range of one checksum.
    pub fn range(&self, checksum: &str) -> Option<&ValueRange> {
        self.ranges.get(checksum)
    }

    /// Returns true if a value lies within the range of another checksum, which may own it.
    pub fn may_belong_to_another(&self, checksum: &str, value: &Value) -> bool {
        self.ranges
            .iter()
            .any(|(other, range)| **other != *checksum && range.contains(value))
    }

    /// Returns the number of recorded checksums.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Returns true if nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

impl ValueRange {
    /// Returns the range of a single value.
    pub fn of(value: &Value) -> Self {
        Self {
            smallest: value.clone(),
            largest: value.clone(),
        }
    }

    /// Extends the range to include a value.
    pub fn widen(&mut self, value: &Value) {
        if *value < self.smallest {
            self.smallest = value.clone();
        } else if *value > self.largest {
            self.largest = value.clone();
        }
    }

    /// Returns the smallest range that includes both.
    #[must_use]
    pub fn joined(mut self, other: &Self) -> Self {
        self.widen(&other.smallest);
        self.widen(&other.largest);
        self
    }

    fn contains(&self, value: &Value) -> bool {
        self.smallest <= *value && *value <= self.largest
    }
}
