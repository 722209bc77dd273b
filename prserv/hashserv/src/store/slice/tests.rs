use super::*;
use crate::condition::Column;
use crate::equivalence::Rows;
use crate::row::{Origin, Report};
use crate::store::{Database, OpenMode, TransactionMode};

fn store(directory: &tempfile::TempDir) -> Store {
    let path = directory.path().join("hashserv.db");
    Database::from(path.as_path())
        .open(OpenMode::Write)
        .unwrap()
}

/// Adds tasks `0`, `1`, … with the outhash of their number modulo 3.
fn fill(store: &mut Store, tasks: usize) {
    store.begin(TransactionMode::Write).unwrap();
    for number in 0..tasks {
        let report = Report {
            task: TaskKey {
                method: "m".into(),
                taskhash: number.to_string(),
            },
            outhash: (number % 3).to_string(),
            unihash: number.to_string(),
            origin: Origin::default(),
        };
        assert!(store.add_report(&report).unwrap());
        store
            .add_unihash(&Mapping {
                task: report.task,
                unihash: report.unihash,
            })
            .unwrap();
    }
    store.commit().unwrap();
}

/// Changes all rows and returns their number and the number of slices.
fn change(store: &mut Store, bulk: &Bulk) -> (u64, usize) {
    let (mut after, mut count) = (0, 0);
    for slices in 1.. {
        let slice = store.change_slice(bulk, after).unwrap();
        count += slice.count;
        match slice.next {
            Some(next) => {
                assert!(next > after, "no progress");
                after = next;
            }
            None => return (count, slices),
        }
    }
    unreachable!("the loop has no end")
}

fn selected(table: Table, columns: &[(Column, &str)], action: Action) -> Bulk {
    let owned = columns
        .iter()
        .map(|(column, value)| (*column, (*value).to_owned()));
    Bulk {
        table,
        selection: Selection::Where(owned.collect()),
        action,
    }
}

#[test]
fn many_rows_are_changed_in_several_slices() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = store(&directory);
    fill(&mut store, 5000);
    let by_method = [(Column::Method, "m")];
    let mark = selected(Table::Unihashes, &by_method, Action::Mark("A".into()));
    assert_eq!(change(&mut store, &mark), (5000, 3));
    let by_outhash = [(Column::Method, "m"), (Column::Outhash, "1")];
    let delete = selected(Table::Outhashes, &by_outhash, Action::Delete);
    assert_eq!(change(&mut store, &delete), (1667, 4));
    assert_eq!(change(&mut store, &delete), (0, 1));
    let without = Bulk {
        table: Table::Unihashes,
        selection: Selection::WithoutMark("B".into()),
        action: Action::Delete,
    };
    assert_eq!(change(&mut store, &without).0, 5000);
    assert_eq!(store.usage().unwrap()[0].1, 0);
}

#[test]
fn deleted_unihashes_are_returned_for_the_cache() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = store(&directory);
    fill(&mut store, 4);
    let delete = selected(Table::Unihashes, &[(Column::Unihash, "2")], Action::Delete);
    let slice = store.change_slice(&delete, 0).unwrap();
    let deleted: Vec<&str> = slice
        .deleted
        .iter()
        .map(|row| row.task.taskhash.as_str())
        .collect();
    assert_eq!((deleted, slice.next), (vec!["2"], None));
}

#[test]
fn old_tasks_are_deleted_with_their_reports() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = store(&directory);
    fill(&mut store, 6);
    let bulk = |table, selection| Bulk {
        table,
        selection,
        action: Action::Delete,
    };
    let (past, future) = ("2000-01-01".to_owned(), "2999-01-01".to_owned());
    let not_since =
        |time: &String| bulk(Table::Unihashes, Selection::NotReportedSince(time.clone()));
    let unused = |time: &String| bulk(Table::Outhashes, Selection::Unused(time.clone()));
    assert_eq!(change(&mut store, &not_since(&past)).0, 0);
    assert_eq!(change(&mut store, &unused(&future)).0, 0, "all are in use");
    assert_eq!(change(&mut store, &not_since(&future)).0, 6);
    assert_eq!(change(&mut store, &unused(&past)).0, 0, "they are too new");
    assert_eq!(change(&mut store, &unused(&future)).0, 6);
}
