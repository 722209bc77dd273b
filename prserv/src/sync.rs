//! Which rows make a central server know what a local one has given, without lowering anything.

use std::collections::BTreeMap;

use crate::rows::Rows;
use crate::store::Row;
use crate::tuple::{Package, Tuple};
use crate::value::Value;

/// The rows to import at the central server, given all rows of both.
///
/// A local row goes over as it is. Where its value belongs to another checksum at the center, the
/// tuple gets a new value above everything that either side has of the package, once.
pub fn plan(local: &[Row], central: &[Row]) -> Vec<Row> {
    let mut center: BTreeMap<&Package, Known> = BTreeMap::new();
    for row in central {
        center.entry(&row.tuple.package).or_default().add(row);
    }
    let mut local: Vec<&Row> = local.iter().collect();
    local.sort_by(|a, b| {
        a.tuple
            .package
            .cmp(&b.tuple.package)
            .then(a.value.cmp(&b.value))
    });
    let greatest = greatest(&local);
    let mut steps = Vec::new();
    for row in local {
        let known = center.entry(&row.tuple.package).or_default();
        if let Some(value) = known.value_for(row, greatest.get(&row.tuple.package).copied()) {
            let step = Row {
                tuple: row.tuple.clone(),
                value,
            };
            known.add(&step);
            steps.push(step);
        }
    }
    steps
}

fn greatest<'a>(rows: &[&'a Row]) -> BTreeMap<&'a Package, &'a Value> {
    let mut greatest = BTreeMap::new();
    for row in rows {
        let max = greatest.entry(&row.tuple.package).or_insert(&row.value);
        *max = (*max).max(&row.value);
    }
    greatest
}

/// What the center knows of a package.
#[derive(Debug, Default)]
struct Known {
    rows: Rows,
    owners: BTreeMap<Value, String>,
}

impl Known {
    fn add(&mut self, row: &Row) {
        let Tuple { checksum, .. } = &row.tuple;
        self.rows.add(checksum, &row.value);
        self.owners
            .entry(row.value.clone())
            .or_insert_with(|| checksum.clone());
    }

    /// The value to import for a local row; `None` when the center has it, or has a greater one
    /// for a tuple whose value is not free.
    fn value_for(&self, row: &Row, greatest: Option<&Value>) -> Option<Value> {
        let span = self.rows.span(&row.tuple.checksum);
        match self.owners.get(&row.value) {
            None => Some(row.value.clone()),
            Some(owner) if *owner == row.tuple.checksum => None,
            Some(_) if span.is_some_and(|span| span.largest >= row.value) => None,
            Some(_) => Some(self.rows.max().max(greatest)?.increased()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(checksum: &str, number: u64) -> Row {
        Row {
            tuple: Tuple::new("v", "a", checksum),
            value: Value::from(number),
        }
    }

    #[test]
    fn a_value_that_belongs_to_another_checksum_is_replaced_by_a_greater_one() {
        let local = [row("a", 0), row("b", 1), row("c", 5)];
        let central = [row("a", 0), row("x", 1), row("y", 2)];
        assert_eq!(plan(&local, &central), [row("b", 6), row("c", 5)]);
    }

    /// Rows as a server gives them: no value twice.
    fn rows() -> impl Strategy<Value = Vec<Row>> {
        proptest::collection::btree_map(0..12u64, 0..6u8, 0..10).prop_map(|given| {
            given
                .into_iter()
                .map(|(number, checksum)| row(&checksum.to_string(), number))
                .collect()
        })
    }

    proptest! {
        #[test]
        fn nothing_is_lowered_nothing_given_twice_and_a_second_sync_is_empty(
            local in rows(), central in rows(),
        ) {
            let mut after = central.clone();
            after.extend(plan(&local, &central));
            let largest = |rows: &[Row], tuple: &Tuple| {
                rows.iter().filter(|row| row.tuple == *tuple).map(|row| row.value.clone()).max()
            };
            for row in local.iter().chain(&central) {
                prop_assert!(largest(&after, &row.tuple) >= Some(row.value.clone()));
            }
            let mut owners = BTreeMap::new();
            for row in &after {
                let owner = owners.entry(row.value.clone()).or_insert(&row.tuple);
                prop_assert_eq!(*owner, &row.tuple);
            }
            prop_assert_eq!(plan(&local, &after), Vec::new());
        }
    }
}
