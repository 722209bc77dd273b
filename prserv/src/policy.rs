//! The rules: which value a tuple gets. Pure; nothing here reads or writes.

use crate::rows::Span;
use crate::value::Value;

/// What happens when a checksum comes back after a newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum History {
    /// It gets its old value back.
    Keep,
    /// It gets a new, higher value, so a feed never goes down. What BitBake asks for.
    Ignore,
}

/// What the parent server knows, in a hierarchy.
///
/// What is made here lies one level below the parent's values, `7` → `7.0`, `7.1`, so that what
/// the parent gives later never equals it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parent {
    /// There is no parent, or it does not know the package.
    Unaware,
    /// It knows the package.
    Aware {
        /// The greatest value of the package there.
        max: Value,
        /// The largest value of the checksum there.
        checksum: Option<Value>,
    },
    /// It does not answer.
    Down,
}

/// The parent does not answer, and without it a value could be given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the upstream server does not answer, and the tuple is not known here")]
pub struct ParentDown;

/// What is recorded here about one tuple: the package's greatest value and the checksum's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The greatest value of the package; `None` when the package is unknown.
    pub max: Option<Value>,
    /// The values of the checksum; `None` when it is unknown.
    pub span: Option<Span>,
}

/// The answer to `get-pr`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This value is recorded already.
    Recorded(Value),
    /// This value is new, and must be recorded before anybody is told.
    New(Value),
}

impl Verdict {
    /// The value, recorded or new.
    pub fn into_value(self) -> Value {
        match self {
            Self::Recorded(value) | Self::New(value) => value,
        }
    }
}

/// The recorded value that answers `get-pr`, if there is one: nothing needs to be given.
pub fn current<'a>(
    max: Option<&Value>,
    span: Option<&'a Span>,
    history: History,
) -> Option<&'a Value> {
    match history {
        History::Keep => span.map(|span| &span.smallest),
        History::Ignore => span
            .map(|span| &span.largest)
            .filter(|largest| Some(*largest) == max),
    }
}

/// Decides which value a tuple gets.
pub fn decide(facts: &Facts, history: History) -> Verdict {
    if let Some(value) = current(facts.max.as_ref(), facts.span.as_ref(), history) {
        return Verdict::Recorded(value.clone());
    }
    Verdict::New(
        facts
            .max
            .as_ref()
            .map_or_else(Value::first, Value::increased),
    )
}

/// Decides which value a tuple gets in a hierarchy.
///
/// `is_taken` tells whether a value is recorded here for another checksum.
pub fn decide_below(
    facts: &Facts,
    parent: &Parent,
    history: History,
    is_taken: impl Fn(&Value) -> bool,
) -> Result<Verdict, ParentDown> {
    match (parent, &facts.span, &facts.max) {
        (_, Some(span), _) if history == History::Keep => {
            Ok(Verdict::Recorded(span.smallest.clone()))
        }
        (Parent::Unaware, _, _) => Ok(decide(facts, history)),
        (Parent::Down, Some(_), Some(max)) => Ok(match decide(facts, history) {
            Verdict::Recorded(value) => Verdict::Recorded(value),
            Verdict::New(_) => Verdict::New(made_here(max, max)),
        }),
        (Parent::Down, _, _) => Err(ParentDown),
        (Parent::Aware { max, checksum }, span, ours) => {
            let ours = ours.as_ref().filter(|ours| *ours >= max);
            let is_current = |span: &Span| Some(&span.largest) == ours;
            if let Some(span) = span.as_ref().filter(|span| is_current(span)) {
                return Ok(Verdict::Recorded(span.largest.clone()));
            }
            // Without history the parent's value serves only while it is the newest of all.
            let serves = |theirs: &Value| match history {
                History::Keep => !is_taken(theirs),
                History::Ignore => theirs == max && ours.is_none(),
            };
            if let Some(theirs) = checksum.as_ref().filter(|theirs| serves(theirs)) {
                return Ok(Verdict::New(theirs.clone()));
            }
            Ok(Verdict::New(made_here(ours.unwrap_or(max), max)))
        }
    }
}

/// The next value after `greatest`, one level below the parent's values at least.
fn made_here(greatest: &Value, parents: &Value) -> Value {
    if greatest.depth() > parents.depth() {
        return greatest.increased();
    }
    let mut value = greatest.first_below();
    while value.depth() <= parents.depth() {
        value = value.first_below();
    }
    value
}

/// The value recorded for a tuple, without giving one: `test-pr`.
pub fn recorded(facts: &Facts, history: History) -> Option<Value> {
    let span = facts.span.as_ref()?;
    Some(match history {
        History::Keep => span.smallest.clone(),
        History::Ignore => span.largest.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Rows;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn ask(rows: &mut Rows, checksum: &str, history: History) -> Value {
        let facts = Facts {
            max: rows.max().cloned(),
            span: rows.span(checksum).cloned(),
        };
        let verdict = decide(&facts, history);
        if let Verdict::New(value) = &verdict {
            rows.add(checksum, value);
        }
        verdict.into_value()
    }

    #[test]
    fn without_history_a_checksum_that_comes_back_gets_a_new_value() {
        let mut rows = Rows::default();
        let given: Vec<String> = ["a", "b", "a", "a", "b"]
            .map(|checksum| ask(&mut rows, checksum, History::Ignore).to_string())
            .into();
        assert_eq!(given, ["0", "1", "2", "2", "3"]);
    }

    #[test]
    fn with_history_a_checksum_that_comes_back_gets_its_smallest_value() {
        let mut rows = Rows::default();
        let given: Vec<String> = ["a", "b", "a", "c", "b"]
            .map(|checksum| ask(&mut rows, checksum, History::Keep).to_string())
            .into();
        assert_eq!(given, ["0", "1", "0", "2", "1"]);
    }

    #[test]
    fn values_below_ten_are_raised_when_the_greatest_has_two_digits() {
        let mut rows = Rows::default();
        for (checksum, number) in [("a", 2), ("b", 9), ("c", 10)] {
            rows.add(checksum, &Value::from(number));
        }
        assert_eq!(ask(&mut rows, "a", History::Ignore).as_str(), "11");
        assert_eq!(ask(&mut rows, "b", History::Ignore).as_str(), "12");
        assert_eq!(ask(&mut rows, "a", History::Keep).as_str(), "2");
    }

    /// A server with a parent, in memory.
    fn ask_below(rows: &mut Rows, parent: &Parent, checksum: &str, history: History) -> Value {
        let facts = Facts {
            max: rows.max().cloned(),
            span: rows.span(checksum).cloned(),
        };
        let is_taken = |value: &Value| rows.holds_for_another(checksum, value);
        let verdict = decide_below(&facts, parent, history, is_taken).unwrap();
        if let Verdict::New(value) = &verdict {
            rows.add(checksum, value);
        }
        verdict.into_value()
    }

    /// What a parent with these rows tells.
    fn parent(rows: &Rows, checksum: &str) -> Parent {
        rows.max().map_or(Parent::Unaware, |max| Parent::Aware {
            max: max.clone(),
            checksum: rows.span(checksum).map(|span| span.largest.clone()),
        })
    }

    #[test]
    fn values_made_here_lie_below_the_parents() {
        let mut above = Rows::default();
        above.add("p", &Value::from(3));
        let mut here = Rows::default();
        let mut get = |above: &Rows, checksum: &str| {
            ask_below(
                &mut here,
                &parent(above, checksum),
                checksum,
                History::Ignore,
            )
            .to_string()
        };
        assert_eq!(get(&above, "p"), "3", "the parent's own");
        assert_eq!(get(&above, "a"), "3.0");
        assert_eq!(get(&above, "b"), "3.1");
        assert_eq!(get(&above, "b"), "3.1");
        assert_eq!(get(&above, "p"), "3.2", "overtaken here");
        above.add("q", &Value::from(4));
        assert_eq!(get(&above, "b"), "4.0", "overtaken at the parent");
        assert_eq!(
            get(&above, "q"),
            "4.1",
            "the parent's value is too low by now"
        );
        above.add("r", &Value::from(5));
        assert_eq!(get(&above, "r"), "5");
    }

    #[test]
    fn a_parent_that_is_down_does_not_stop_what_is_known_here() {
        let mut here = Rows::default();
        here.add("a", &Value::from(3));
        here.add("b", &Value::from(4));
        let ask = |here: &mut Rows, checksum: &str, history| {
            ask_below(here, &Parent::Down, checksum, history).to_string()
        };
        assert_eq!(ask(&mut here, "b", History::Ignore), "4");
        assert_eq!(ask(&mut here, "a", History::Keep), "3");
        assert_eq!(ask(&mut here, "a", History::Ignore), "4.0");
        let unknown = Facts {
            max: here.max().cloned(),
            span: None,
        };
        let decided = decide_below(&unknown, &Parent::Down, History::Keep, |_| false);
        assert_eq!(decided, Err(ParentDown));
    }

    fn histories() -> impl Strategy<Value = Vec<(u8, bool)>> {
        proptest::collection::vec((0..6u8, any::<bool>()), 0..60)
    }

    proptest! {
        #[test]
        fn without_history_no_value_ever_goes_down(asks in histories()) {
            let mut rows = Rows::default();
            let mut last = None;
            for (checksum, _) in asks {
                let value = ask(&mut rows, &checksum.to_string(), History::Ignore);
                prop_assert!(last.as_ref() <= Some(&value));
                last = Some(value);
            }
        }

        #[test]
        fn no_value_is_given_to_two_checksums(asks in histories()) {
            let mut rows = Rows::default();
            let mut owner: HashMap<Value, u8> = HashMap::new();
            for (checksum, keep) in asks {
                let history = if keep { History::Keep } else { History::Ignore };
                let value = ask(&mut rows, &checksum.to_string(), history);
                prop_assert_eq!(*owner.entry(value).or_insert(checksum), checksum);
            }
        }

        #[test]
        fn with_history_the_answer_is_the_smallest_ever_given(asks in histories()) {
            let mut rows = Rows::default();
            let mut smallest: HashMap<u8, Value> = HashMap::new();
            for (checksum, keep) in asks {
                let history = if keep { History::Keep } else { History::Ignore };
                let value = ask(&mut rows, &checksum.to_string(), history);
                let known = smallest.entry(checksum).or_insert_with(|| value.clone());
                if keep { prop_assert_eq!(&value, &*known); }
                if value < *known { *known = value; }
            }
        }

        #[test]
        fn below_a_parent_no_value_goes_down_and_none_is_given_twice(
            asks in proptest::collection::vec((0..6u8, 0..4u8), 0..60),
        ) {
            let (mut above, mut here) = (Rows::default(), Rows::default());
            let mut owner: HashMap<Value, u8> = HashMap::new();
            let mut last = None;
            for (checksum, kind) in asks {
                let name = checksum.to_string();
                if kind == 0 {
                    ask(&mut above, &name, History::Ignore);
                    continue;
                }
                let known = here.span(&name).is_some();
                let parent = if kind == 1 && known { Parent::Down } else { parent(&above, &name) };
                let value = ask_below(&mut here, &parent, &name, History::Ignore);
                prop_assert!(last.as_ref() <= Some(&value), "{last:?} then {value}");
                prop_assert_eq!(*owner.entry(value.clone()).or_insert(checksum), checksum);
                last = Some(value);
            }
        }
    }
}
