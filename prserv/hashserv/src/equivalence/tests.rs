use std::collections::HashMap;
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::row::Origin;

/// Rows in memory.
#[derive(Default)]
struct MemoryRows {
    reports: Vec<(TaskKey, String)>,
    unihashes: HashMap<TaskKey, String>,
}

impl Rows for MemoryRows {
    type Error = Infallible;

    fn unihash(&mut self, task: &TaskKey) -> Result<Option<String>, Infallible> {
        Ok(self.unihashes.get(task).cloned())
    }

    fn equivalent(&mut self, task: &TaskKey, outhash: &str) -> Result<Option<String>, Infallible> {
        let found = self.reports.iter().find_map(|(other, reported)| {
            let is_equivalent = other != task && other.method == task.method && reported == outhash;
            self.unihashes.get(other).filter(|_| is_equivalent)
        });
        Ok(found.cloned())
    }

    fn add_report(&mut self, report: &Report) -> Result<bool, Infallible> {
        let row = (report.task.clone(), report.outhash.clone());
        let is_new = !self.reports.contains(&row);
        if is_new {
            self.reports.push(row);
        }
        Ok(is_new)
    }

    fn add_unihash(&mut self, mapping: &Mapping) -> Result<(), Infallible> {
        let Mapping { task, unihash } = mapping.clone();
        self.unihashes.entry(task).or_insert(unihash);
        Ok(())
    }
}

fn task(taskhash: &str) -> TaskKey {
    TaskKey {
        method: "m".into(),
        taskhash: taskhash.into(),
    }
}

fn recorded(unihash: &str) -> Decision {
    Decision::new(Some(unihash.into()), "")
}

fn reported(rows: &mut MemoryRows, taskhash: &str, outhash: &str, unihash: &str) -> String {
    let reported = Report {
        task: task(taskhash),
        outhash: outhash.into(),
        unihash: unihash.into(),
        origin: Origin::default(),
    };
    let Ok(decision) = report(rows, &reported, None);
    decision.unihash
}

#[test]
fn the_first_report_of_an_outhash_names_the_unihash_of_later_tasks() {
    let mut rows = MemoryRows::default();
    assert_eq!(reported(&mut rows, "t1", "o1", "u1"), "u1");
    assert_eq!(reported(&mut rows, "t2", "o1", "u2"), "u1");
    assert_eq!(reported(&mut rows, "t2", "o2", "u3"), "u1", "its first one");
    assert_eq!(reported(&mut rows, "t3", "o2", "u3"), "u1");
    assert_eq!(reported(&mut rows, "t4", "o4", "u4"), "u4");
    assert_eq!(reported(&mut rows, "t4", "o1", "u5"), "u4");
}

#[test]
fn an_equivalent_task_is_preferred_to_the_upstream_server() {
    let mut rows = MemoryRows::default();
    let new = |taskhash: &str| Report {
        task: task(taskhash),
        outhash: "o".into(),
        unihash: "own".into(),
        origin: Origin::default(),
    };
    assert_eq!(
        report(&mut rows, &new("t1"), Some("up")),
        Ok(recorded("up"))
    );
    assert_eq!(
        report(&mut rows, &new("t2"), Some("other")),
        Ok(recorded("up"))
    );
}

#[test]
fn a_task_of_another_method_is_never_equivalent() {
    let mut rows = MemoryRows::default();
    reported(&mut rows, "t1", "o", "u1");
    let mut other = task("t2");
    other.method = "n".into();
    assert_eq!(rows.equivalent(&other, "o"), Ok(None));
}

#[test]
fn a_report_that_is_left_of_a_deleted_task_records_nothing() {
    let mut rows = MemoryRows::default();
    reported(&mut rows, "t", "o", "u1");
    rows.unihashes.clear();
    let again = Report {
        task: task("t"),
        outhash: "o".into(),
        unihash: "u2".into(),
        origin: Origin::default(),
    };
    let decision = Decision::new(None, "u2");
    assert_eq!(report(&mut rows, &again, Some("up")), Ok(decision));
}

#[test]
fn an_equation_does_not_change_a_recorded_unihash() {
    let mut rows = MemoryRows::default();
    let mapping = |unihash: &str| Mapping {
        task: task("t"),
        unihash: unihash.into(),
    };
    assert_eq!(equate(&mut rows, &mapping("u1")), Ok(recorded("u1")));
    assert_eq!(equate(&mut rows, &mapping("u2")), Ok(recorded("u1")));
}

proptest! {
    #[test]
    fn a_task_never_changes_its_unihash_and_repeated_reports_change_nothing(
        reports in proptest::collection::vec((0..5u8, 0..4u8), 1..40),
    ) {
        let mut rows = MemoryRows::default();
        let mut first: HashMap<u8, String> = HashMap::new();
        for (number, (task, outhash)) in reports.into_iter().enumerate() {
            let mut send = || {
                reported(&mut rows, &task.to_string(), &outhash.to_string(), &number.to_string())
            };
            let unihash = send();
            prop_assert_eq!(&send(), &unihash);
            prop_assert_eq!(first.entry(task).or_insert_with(|| unihash.clone()), &unihash);
        }
    }
}
