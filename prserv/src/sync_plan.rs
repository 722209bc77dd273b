//! The plan of `prserv sync`: the rows that a central server has to import from a local database.

use std::collections::BTreeMap;

use crate::package_rows::PackageRows;
use crate::store::Row;
use crate::tuple::{Package, Tuple};
use crate::value::Value;

/// Returns the rows to import at the central server, given all rows of both sides.
///
/// A local row is imported unchanged unless its value belongs to another checksum at the central
/// server. Then its tuple gets a new value, once, that is greater than all values of the package on
/// either side. No value decreases.
pub fn plan(local: &[Row], central: &[Row]) -> Vec<Row> {
    let mut packages: BTreeMap<&Package, CentralPackage> = BTreeMap::new();
    for row in central {
        packages.entry(&row.tuple.package).or_default().add(row);
    }
    let mut local: Vec<&Row> = local.iter().collect();
    local.sort_by(|a, b| {
        a.tuple
            .package
            .cmp(&b.tuple.package)
            .then(a.value.cmp(&b.value))
    });
    let local_max = max_by_package(&local);
    let mut imports = Vec::new();
    for row in local {
        let package = packages.entry(&row.tuple.package).or_default();
        if let Some(value) =
            package.value_to_import(row, local_max.get(&row.tuple.package).copied())
        {
            let import = Row {
                tuple: row.tuple.clone(),
                value,
            };
            package.add(&import);
            imports.push(import);
        }
    }
    imports
}

fn max_by_package<'a>(rows: &[&'a Row]) -> BTreeMap<&'a Package, &'a Value> {
    let mut max_values = BTreeMap::new();
    for row in rows {
        let max = max_values.entry(&row.tuple.package).or_insert(&row.value);
        *max = (*max).max(&row.value);
    }
    max_values
}

/// The rows of a package at the central server, including the planned imports.
#[derive(Debug, Default)]
struct CentralPackage {
    rows: PackageRows,
    owners: BTreeMap<Value, String>,
}

impl CentralPackage {
    fn add(&mut self, row: &Row) {
        let Tuple { checksum, .. } = &row.tuple;
        self.rows.add(checksum, &row.value);
        self.owners
            .entry(row.value.clone())
            .or_insert_with(|| checksum.clone());
    }

    /// Returns the value to import for a local row. Returns `None` if the central server has the
    /// row, or has a greater value for a tuple whose local value belongs to another checksum.
    fn value_to_import(&self, row: &Row, local_max: Option<&Value>) -> Option<Value> {
        let range = self.rows.range(&row.tuple.checksum);
        match self.owners.get(&row.value) {
            None => Some(row.value.clone()),
            Some(owner) if *owner == row.tuple.checksum => None,
            Some(_) if range.is_some_and(|range| range.largest >= row.value) => None,
            Some(_) => Some(self.rows.max().max(local_max)?.incremented()),
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

    /// Returns rows as a server assigns them: no value occurs twice.
    fn any_rows() -> impl Strategy<Value = Vec<Row>> {
        proptest::collection::btree_map(0..12u64, 0..6u8, 0..10).prop_map(|rows| {
            rows.into_iter()
                .map(|(number, checksum)| row(&checksum.to_string(), number))
                .collect()
        })
    }

    proptest! {
        #[test]
        fn sync_lowers_nothing_duplicates_nothing_and_is_idempotent(
            local in any_rows(), central in any_rows(),
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
