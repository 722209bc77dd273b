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

/// What is recorded about one tuple: the package's greatest value and the checksum's own.
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

/// Decides which value a tuple gets.
pub fn decide(facts: &Facts, history: History) -> Verdict {
    let Some(max) = &facts.max else {
        return Verdict::New(Value::first());
    };
    match (&facts.span, history) {
        (Some(span), History::Keep) => Verdict::Recorded(span.smallest.clone()),
        (Some(span), History::Ignore) if span.largest == *max => Verdict::Recorded(max.clone()),
        (Some(_), History::Ignore) | (None, _) => Verdict::New(max.increased()),
    }
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
    }
}
