//! The assignment policy: decides which value a tuple gets. Pure, without any I/O.

use crate::package_rows::ValueRange;
use crate::value::Value;

/// The treatment of a checksum that returns after a newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum History {
    /// The checksum gets its old value back.
    Keep,
    /// The checksum gets a new, greater value, so a package feed never goes down. BitBake's
    /// default.
    Ignore,
}

/// The state of a tuple's package at the parent server.
///
/// Values assigned here lie one level below the parent's values (`7` → `7.0`, `7.1`), so that the
/// parent can never assign an equal one later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParentState {
    /// There is no parent, or it has no value of the package.
    PackageUnknown,
    /// The parent has values of the package.
    PackageKnown {
        /// The greatest value of the package at the parent.
        max: Value,
        /// The largest value of the checksum at the parent.
        checksum_max: Option<Value>,
    },
    /// The parent does not respond.
    Unreachable,
}

/// The error of a request that needs the parent while it does not respond. Answering without the
/// parent could assign a value twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the upstream server does not respond and the tuple is not recorded locally")]
pub struct ParentUnreachable;

/// The local record of one tuple.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TupleRecord {
    /// The greatest value of the package; `None` if the package is unknown.
    pub max: Option<Value>,
    /// The values of the checksum; `None` if the checksum is unknown.
    pub range: Option<ValueRange>,
}

/// The answer to `get-pr`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// A value that is already recorded.
    Recorded(Value),
    /// A new value, which must be recorded before any client receives it.
    New(Value),
}

impl Decision {
    /// Returns the value, recorded or new.
    pub fn into_value(self) -> Value {
        match self {
            Self::Recorded(value) | Self::New(value) => value,
        }
    }
}

/// Returns the recorded value that answers `get-pr`, if no new one has to be assigned.
pub fn current<'a>(
    max: Option<&Value>,
    range: Option<&'a ValueRange>,
    history: History,
) -> Option<&'a Value> {
    match history {
        History::Keep => range.map(|range| &range.smallest),
        History::Ignore => range
            .map(|range| &range.largest)
            .filter(|largest| Some(*largest) == max),
    }
}

/// Decides which value a tuple gets on a server without a parent.
pub fn decide(record: &TupleRecord, history: History) -> Decision {
    if let Some(value) = current(record.max.as_ref(), record.range.as_ref(), history) {
        return Decision::Recorded(value.clone());
    }
    Decision::New(
        record
            .max
            .as_ref()
            .map_or_else(Value::first, Value::incremented),
    )
}

/// Decides which value a tuple gets on a server with a parent.
///
/// `is_taken` returns true if a value is recorded locally for another checksum.
pub fn decide_with_parent(
    record: &TupleRecord,
    parent: &ParentState,
    history: History,
    is_taken: impl Fn(&Value) -> bool,
) -> Result<Decision, ParentUnreachable> {
    match (parent, &record.range, &record.max) {
        (_, Some(range), _) if history == History::Keep => {
            Ok(Decision::Recorded(range.smallest.clone()))
        }
        (ParentState::PackageUnknown, _, _) => Ok(decide(record, history)),
        (ParentState::Unreachable, Some(_), Some(max)) => Ok(match decide(record, history) {
            Decision::Recorded(value) => Decision::Recorded(value),
            Decision::New(_) => Decision::New(next_below(max, max)),
        }),
        (ParentState::Unreachable, _, _) => Err(ParentUnreachable),
        (ParentState::PackageKnown { max, checksum_max }, range, local_max) => {
            let newest_local = local_max.as_ref().filter(|local| *local >= max);
            let is_current = |range: &ValueRange| Some(&range.largest) == newest_local;
            if let Some(range) = range.as_ref().filter(|range| is_current(range)) {
                return Ok(Decision::Recorded(range.largest.clone()));
            }
            // Without history, the parent's value is usable only while it is the newest overall.
            let is_usable = |value: &Value| match history {
                History::Keep => !is_taken(value),
                History::Ignore => value == max && newest_local.is_none(),
            };
            if let Some(value) = checksum_max.as_ref().filter(|value| is_usable(value)) {
                return Ok(Decision::New(value.clone()));
            }
            Ok(Decision::New(next_below(newest_local.unwrap_or(max), max)))
        }
    }
}

/// Returns the next value after `greatest` that lies at least one level below the parent's values.
fn next_below(greatest: &Value, parent_max: &Value) -> Value {
    if greatest.depth() > parent_max.depth() {
        return greatest.incremented();
    }
    let mut value = greatest.first_child();
    while value.depth() <= parent_max.depth() {
        value = value.first_child();
    }
    value
}

/// Returns the recorded value of a tuple without assigning one: the answer to `test-pr`.
pub fn recorded(record: &TupleRecord, history: History) -> Option<Value> {
    let range = record.range.as_ref()?;
    Some(match history {
        History::Keep => range.smallest.clone(),
        History::Ignore => range.largest.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package_rows::PackageRows;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn get_pr(rows: &mut PackageRows, checksum: &str, history: History) -> Value {
        let record = TupleRecord {
            max: rows.max().cloned(),
            range: rows.range(checksum).cloned(),
        };
        let decision = decide(&record, history);
        if let Decision::New(value) = &decision {
            rows.add(checksum, value);
        }
        decision.into_value()
    }

    #[test]
    fn without_history_a_returning_checksum_gets_a_new_value() {
        let mut rows = PackageRows::default();
        let values: Vec<String> = ["a", "b", "a", "a", "b"]
            .map(|checksum| get_pr(&mut rows, checksum, History::Ignore).to_string())
            .into();
        assert_eq!(values, ["0", "1", "2", "2", "3"]);
    }

    #[test]
    fn with_history_a_returning_checksum_gets_its_smallest_value() {
        let mut rows = PackageRows::default();
        let values: Vec<String> = ["a", "b", "a", "c", "b"]
            .map(|checksum| get_pr(&mut rows, checksum, History::Keep).to_string())
            .into();
        assert_eq!(values, ["0", "1", "0", "2", "1"]);
    }

    #[test]
    fn the_greatest_value_is_found_numerically_not_textually() {
        let mut rows = PackageRows::default();
        for (checksum, number) in [("a", 2), ("b", 9), ("c", 10)] {
            rows.add(checksum, &Value::from(number));
        }
        assert_eq!(get_pr(&mut rows, "a", History::Ignore).as_str(), "11");
        assert_eq!(get_pr(&mut rows, "b", History::Ignore).as_str(), "12");
        assert_eq!(get_pr(&mut rows, "a", History::Keep).as_str(), "2");
    }

    /// Answers `get-pr` as a server with a parent does and records a new value.
    fn get_pr_with_parent(
        rows: &mut PackageRows,
        parent: &ParentState,
        checksum: &str,
        history: History,
    ) -> Value {
        let record = TupleRecord {
            max: rows.max().cloned(),
            range: rows.range(checksum).cloned(),
        };
        let is_taken = |value: &Value| rows.may_belong_to_another(checksum, value);
        let decision = decide_with_parent(&record, parent, history, is_taken).unwrap();
        if let Decision::New(value) = &decision {
            rows.add(checksum, value);
        }
        decision.into_value()
    }

    /// Returns the state of the package at a parent with these rows.
    fn state_of(rows: &PackageRows, checksum: &str) -> ParentState {
        rows.max().map_or(ParentState::PackageUnknown, |max| {
            ParentState::PackageKnown {
                max: max.clone(),
                checksum_max: rows.range(checksum).map(|range| range.largest.clone()),
            }
        })
    }

    #[test]
    fn values_assigned_by_a_child_lie_below_the_parents() {
        let mut parent = PackageRows::default();
        parent.add("p", &Value::from(3));
        let mut local = PackageRows::default();
        let mut get = |parent: &PackageRows, checksum: &str| {
            get_pr_with_parent(
                &mut local,
                &state_of(parent, checksum),
                checksum,
                History::Ignore,
            )
            .to_string()
        };
        assert_eq!(get(&parent, "p"), "3", "the parent's value");
        assert_eq!(get(&parent, "a"), "3.0");
        assert_eq!(get(&parent, "b"), "3.1");
        assert_eq!(get(&parent, "b"), "3.1");
        assert_eq!(get(&parent, "p"), "3.2", "superseded locally");
        parent.add("q", &Value::from(4));
        assert_eq!(get(&parent, "b"), "4.0", "superseded at the parent");
        assert_eq!(
            get(&parent, "q"),
            "4.1",
            "the parent's value is no longer the greatest"
        );
        parent.add("r", &Value::from(5));
        assert_eq!(get(&parent, "r"), "5");
    }

    #[test]
    fn recorded_tuples_are_answered_while_the_parent_is_unreachable() {
        let mut local = PackageRows::default();
        local.add("a", &Value::from(3));
        local.add("b", &Value::from(4));
        let get_pr = |local: &mut PackageRows, checksum: &str, history| {
            get_pr_with_parent(local, &ParentState::Unreachable, checksum, history).to_string()
        };
        assert_eq!(get_pr(&mut local, "b", History::Ignore), "4");
        assert_eq!(get_pr(&mut local, "a", History::Keep), "3");
        assert_eq!(get_pr(&mut local, "a", History::Ignore), "4.0");
        let unknown = TupleRecord {
            max: local.max().cloned(),
            range: None,
        };
        let decision =
            decide_with_parent(&unknown, &ParentState::Unreachable, History::Keep, |_| {
                false
            });
        assert_eq!(decision, Err(ParentUnreachable));
    }

    fn requests_strategy() -> impl Strategy<Value = Vec<(u8, bool)>> {
        proptest::collection::vec((0..6u8, any::<bool>()), 0..60)
    }

    proptest! {
        #[test]
        fn without_history_values_never_decrease(requests in requests_strategy()) {
            let mut rows = PackageRows::default();
            let mut last = None;
            for (checksum, _) in requests {
                let value = get_pr(&mut rows, &checksum.to_string(), History::Ignore);
                prop_assert!(last.as_ref() <= Some(&value));
                last = Some(value);
            }
        }

        #[test]
        fn no_value_is_assigned_to_two_checksums(requests in requests_strategy()) {
            let mut rows = PackageRows::default();
            let mut owner: HashMap<Value, u8> = HashMap::new();
            for (checksum, keep) in requests {
                let history = if keep { History::Keep } else { History::Ignore };
                let value = get_pr(&mut rows, &checksum.to_string(), history);
                prop_assert_eq!(*owner.entry(value).or_insert(checksum), checksum);
            }
        }

        #[test]
        fn with_history_the_answer_is_the_smallest_value_ever_assigned(requests in requests_strategy()) {
            let mut rows = PackageRows::default();
            let mut smallest: HashMap<u8, Value> = HashMap::new();
            for (checksum, keep) in requests {
                let history = if keep { History::Keep } else { History::Ignore };
                let value = get_pr(&mut rows, &checksum.to_string(), history);
                let known = smallest.entry(checksum).or_insert_with(|| value.clone());
                if keep { prop_assert_eq!(&value, &*known); }
                if value < *known { *known = value; }
            }
        }

        #[test]
        fn with_a_parent_values_never_decrease_and_are_never_assigned_twice(
            requests in proptest::collection::vec((0..6u8, 0..4u8), 0..60),
        ) {
            let (mut parent_rows, mut local) = (PackageRows::default(), PackageRows::default());
            let mut owner: HashMap<Value, u8> = HashMap::new();
            let mut last = None;
            for (checksum, kind) in requests {
                let name = checksum.to_string();
                if kind == 0 {
                    get_pr(&mut parent_rows, &name, History::Ignore);
                    continue;
                }
                let known = local.range(&name).is_some();
                let parent = if kind == 1 && known { ParentState::Unreachable } else { state_of(&parent_rows, &name) };
                let value = get_pr_with_parent(&mut local, &parent, &name, History::Ignore);
                prop_assert!(last.as_ref() <= Some(&value), "{last:?} then {value}");
                prop_assert_eq!(*owner.entry(value.clone()).or_insert(checksum), checksum);
                last = Some(value);
            }
        }
    }
}
