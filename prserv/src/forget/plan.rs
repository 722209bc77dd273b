//! The removal of a package's rows, the only operation after which a value may decrease. Pure.

use std::fmt;

use crate::store::Row;
use crate::tuple::Package;
use crate::value::Value;

/// A request to remove rows of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forget {
    /// The package.
    pub package: Package,
    /// Keeps the rows up to this value. `None` removes all rows.
    pub above: Option<Value>,
    /// The greatest value of the package, as the operator knows it. If it is another one, nothing
    /// is removed: a value that was assigned meanwhile is not lost.
    pub greatest: Value,
}

/// The rows that are removed, and the greatest values of the package before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The rows to remove, in ascending order of their values.
    pub rows: Vec<Row>,
    /// The greatest value of the package.
    pub greatest: Value,
    /// The greatest value that remains.
    pub remaining: Option<Value>,
}

/// The reason for which nothing is removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForgetError {
    /// The package has no rows that match.
    #[error("{package} has no such rows")]
    NoRows {
        /// The package.
        package: Package,
    },
    /// The greatest value is another one than the operator knows.
    #[error("the greatest value of {package} is {greatest}, not {expected}; nothing was removed")]
    OtherGreatest {
        /// The package.
        package: Package,
        /// Its greatest value.
        greatest: Value,
        /// The value of the request.
        expected: Value,
    },
}

/// Returns the plan for a package, given all of its rows. `None` if no row would be removed.
pub fn plan(rows: &[Row], above: Option<&Value>) -> Option<Plan> {
    let is_removed = |row: &&Row| above.is_none_or(|above| row.value > *above);
    let greatest = rows.iter().map(|row| &row.value).max()?.clone();
    let kept = rows.iter().filter(|row| !is_removed(row));
    let remaining = kept.map(|row| &row.value).max().cloned();
    let mut rows: Vec<Row> = rows.iter().filter(is_removed).cloned().collect();
    rows.sort_by(|a, b| a.value.cmp(&b.value).then_with(|| a.tuple.cmp(&b.tuple)));
    if rows.is_empty() {
        return None;
    }
    Some(Plan {
        rows,
        greatest,
        remaining,
    })
}

impl Forget {
    /// Returns the plan for this request, given all rows of the package.
    ///
    /// # Errors
    /// No row would be removed, or the greatest value is another one than that of the request.
    pub fn plan(&self, rows: &[Row]) -> Result<Plan, ForgetError> {
        let package = || self.package.clone();
        let plan = plan(rows, self.above.as_ref());
        let plan = plan.ok_or_else(|| ForgetError::NoRows { package: package() })?;
        if plan.greatest != self.greatest {
            return Err(ForgetError::OtherGreatest {
                package: package(),
                greatest: plan.greatest,
                expected: self.greatest.clone(),
            });
        }
        Ok(plan)
    }
}

/// Tells the next value, and the value that feeds may have.
impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let next = self
            .remaining
            .as_ref()
            .map_or_else(Value::first, Value::incremented);
        write!(
            out,
            "the next value is {next}; feeds may have packages up to {}, which installed systems \
             prefer until they are removed",
            self.greatest
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuple::Tuple;
    use proptest::prelude::*;

    fn row(checksum: &str, value: &str) -> Row {
        Row {
            tuple: Tuple::new("v", "all", checksum),
            value: value.parse().unwrap(),
        }
    }

    fn forget(above: Option<&str>, greatest: &str) -> Forget {
        Forget {
            package: Package::new("v", "all"),
            above: above.map(|text| text.parse().unwrap()),
            greatest: greatest.parse().unwrap(),
        }
    }

    #[test]
    fn a_mistaken_value_is_removed_and_the_others_are_kept() {
        let rows = [row("b", "999999"), row("a", "12"), row("a", "9")];
        let plan = forget(Some("12"), "999999").plan(&rows).unwrap();
        assert_eq!(plan.rows, [row("b", "999999")]);
        assert!(
            plan.to_string().starts_with("the next value is 13; "),
            "{plan}"
        );
        let plan = forget(None, "999999").plan(&rows).unwrap();
        assert_eq!(plan.rows.len(), 3);
        assert!(
            plan.to_string().starts_with("the next value is 0; "),
            "{plan}"
        );
    }

    #[test]
    fn nothing_is_removed_after_another_value_was_assigned_or_without_rows() {
        let rows = [row("a", "12"), row("b", "13")];
        let error = forget(None, "12").plan(&rows).unwrap_err().to_string();
        assert!(
            error.contains("is 13, not 12; nothing was removed"),
            "{error}"
        );
        for (rows, above) in [(&rows[..], Some("13")), (&[], None)] {
            let error = forget(above, "13").plan(rows).unwrap_err().to_string();
            assert_eq!(error, "v for all has no such rows");
        }
    }

    proptest! {
        #[test]
        fn rows_are_removed_above_the_bound_only(
            numbers in proptest::collection::vec(0..20u64, 0..10), above in 0..20u64,
        ) {
            let rows: Vec<Row> = numbers.iter().map(|n| row("c", &n.to_string())).collect();
            let above = Value::from(above);
            let removed = plan(&rows, Some(&above)).map_or_else(Vec::new, |plan| plan.rows);
            prop_assert!(removed.iter().all(|row| row.value > above));
            let kept = rows.iter().filter(|row| row.value <= above).count();
            prop_assert_eq!(removed.len() + kept, rows.len());
        }
    }
}
