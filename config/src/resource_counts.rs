//! Countable resources of a host: things of which it has a number, such as licenses.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::{NameError, ResourceName};

/// A number of one countable resource: `license=1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceCount {
    /// The resource.
    pub name: ResourceName,
    /// The number.
    pub count: NonZeroU32,
}

/// Numbers of countable resources: `license=1 modem=2`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResourceCounts(BTreeMap<ResourceName, NonZeroU32>);

/// The error of parsing a number of a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResourceCountError {
    /// The text has another form.
    #[error("`{0}` is not `NAME=COUNT` with a count from 1 to 4294967295")]
    Form(String),
    /// The name is invalid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A resource is named twice.
    #[error("resource {0} is named twice")]
    Twice(ResourceName),
}

impl ResourceCounts {
    /// Returns true if no resource is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of a resource.
    pub fn get(&self, name: &ResourceName) -> Option<NonZeroU32> {
        self.0.get(name).copied()
    }

    /// Returns the resources in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&ResourceName, NonZeroU32)> {
        self.0.iter().map(|(name, count)| (name, *count))
    }

    /// Returns these numbers, where `other` names no number of its own.
    #[must_use]
    pub fn replaced_by(&self, other: &Self) -> Self {
        let own = self.0.clone().into_iter();
        Self(own.chain(other.0.clone()).collect())
    }

    /// Returns the larger number of each resource.
    #[must_use]
    pub fn max(&self, other: &Self) -> Self {
        let mut larger = self.clone();
        for (name, count) in other.iter() {
            let own = larger.0.entry(name.clone()).or_insert(count);
            *own = count.max(*own);
        }
        larger
    }

    /// Collects numbers of different resources.
    ///
    /// # Errors
    /// A resource that is named twice.
    pub fn collect(
        counts: impl IntoIterator<Item = ResourceCount>,
    ) -> Result<Self, ResourceCountError> {
        let mut all = BTreeMap::new();
        for ResourceCount { name, count } in counts {
            if all.insert(name.clone(), count).is_some() {
                return Err(ResourceCountError::Twice(name));
            }
        }
        Ok(Self(all))
    }
}

impl FromStr for ResourceCount {
    type Err = ResourceCountError;

    fn from_str(text: &str) -> Result<Self, ResourceCountError> {
        let form = || ResourceCountError::Form(text.to_owned());
        let (name, count) = text.split_once('=').ok_or_else(form)?;
        let name = name.trim().parse()?;
        let count = count.trim();
        let is_number = count.chars().all(|c| c.is_ascii_digit());
        let count = count.parse().ok().filter(|_| is_number);
        let count = count.ok_or_else(form)?;
        Ok(Self { name, count })
    }
}

impl FromStr for ResourceCounts {
    type Err = ResourceCountError;

    fn from_str(text: &str) -> Result<Self, ResourceCountError> {
        let counts: Result<Vec<ResourceCount>, _> =
            text.split_whitespace().map(str::parse).collect();
        Self::collect(counts?)
    }
}

impl fmt::Display for ResourceCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<_> = self
            .iter()
            .map(|(name, count)| format!("{name}={count}"))
            .collect();
        f.write_str(&counts.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(text: &str) -> ResourceCounts {
        text.parse().unwrap()
    }

    #[test]
    fn malformed_counts_are_rejected() {
        let refused = |text: &str| text.parse::<ResourceCounts>().unwrap_err().to_string();
        let texts = [
            "license",
            "license=",
            "license=0",
            "license=-1",
            "license=+1",
            "license=4294967296",
            "=1",
            "../x=1",
            "license=1 license=2",
        ];
        insta::assert_snapshot!(texts.map(refused).join("\n"));
        assert_eq!(counts(""), ResourceCounts::default());
    }

    #[test]
    fn counts_are_merged_by_name() {
        let (machine, build) = (counts("license=2 modem=1"), counts("license=1 probe=3"));
        let larger = machine.max(&build);
        assert_eq!(larger.to_string(), "license=2 modem=1 probe=3");
        let replaced = machine.replaced_by(&build);
        assert_eq!(replaced.to_string(), "license=1 modem=1 probe=3");
    }

    proptest! {
        #[test]
        fn displayed_counts_are_read_back(
            some in prop::collection::btree_map("[a-z][a-z0-9._-]{0,8}", 1..=u32::MAX, 0..5),
        ) {
            let words: Vec<_> = some.iter().map(|(name, count)| format!("{name}={count}")).collect();
            let parsed = counts(&words.join(" "));
            prop_assert_eq!(counts(&parsed.to_string()), parsed.clone());
            let json = serde_json::to_string(&parsed).unwrap();
            prop_assert_eq!(serde_json::from_str::<ResourceCounts>(&json).unwrap(), parsed);
        }
    }
}
