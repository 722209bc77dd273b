//! The parser from messages to requests. A message's first known member determines the request.

mod common;

use std::mem;

use serde_json::Value as Json;

use super::ProtocolError;
use crate::forget::Forget;
use crate::policy::History;
use crate::store::Filter;
use crate::tuple::{Package, Tuple};
use crate::value::Value;

/// A request of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Checks that the server responds.
    Ping,
    /// Returns the value of a tuple and assigns a new one if necessary.
    GetPr(Tuple, History),
    /// Returns the recorded value of a tuple.
    TestPr(Tuple, History),
    /// Tells whether a package has recorded values.
    TestPackage(Package),
    /// Returns the greatest value of a package.
    MaxPackagePr(Package),
    /// Records a value. `None` is JSON's null, which records nothing.
    ImportOne(Tuple, Option<Import>),
    /// Returns the rows that match.
    Export {
        /// The filter for rows.
        filter: Filter,
        /// All rows, or only those with the greatest value of their package.
        history: History,
        /// True if the reply describes the table.
        with_columns: bool,
    },
    /// Removes rows of a package. BitBake's server does not know this request.
    Forget(Forget),
    /// Tells whether this client cannot get new values.
    IsReadonly,
    /// Closes the connection. JSON's null.
    Close,
}

/// A value to record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The value.
    pub value: Value,
    /// The string or integer as received, which the reply repeats.
    pub raw: Json,
}

/// The parsers in the order in which their names are searched in a message.
const PARSERS: [(&str, Parser); 9] = [
    ("ping", |_| Ok(Request::Ping)),
    ("get-pr", |args| {
        Ok(Request::GetPr(tuple(args)?, history(args)))
    }),
    ("test-pr", |args| {
        Ok(Request::TestPr(tuple(args)?, history(args)))
    }),
    ("test-package", |args| {
        Ok(Request::TestPackage(package(args)?))
    }),
    ("max-package-pr", |args| {
        Ok(Request::MaxPackagePr(package(args)?))
    }),
    ("import-one", import_one),
    ("export", export),
    ("is-readonly", |_| Ok(Request::IsReadonly)),
    ("forget", forget),
];

type Parser = fn(&mut Json) -> Result<Request, ProtocolError>;

impl Request {
    /// Parses the text of the most frequent message in its most frequent form. `None` means that
    /// [`Request::parse`] has to decide.
    pub fn parse_get_pr(text: &str) -> Option<(Tuple, History)> {
        common::parse(text)
    }

    /// Parses a message.
    pub fn parse(mut message: Json) -> Result<Self, ProtocolError> {
        if message.is_null() {
            return Ok(Self::Close);
        }
        let members = message
            .as_object_mut()
            .ok_or(ProtocolError::UnknownRequest)?;
        let (name, parse) = PARSERS
            .iter()
            .find(|(name, _)| members.contains_key(*name))
            .ok_or(ProtocolError::UnknownRequest)?;
        parse(
            members
                .get_mut(*name)
                .ok_or(ProtocolError::UnknownRequest)?,
        )
    }
}

fn import_one(args: &mut Json) -> Result<Request, ProtocolError> {
    let tuple = tuple(args)?;
    let raw = args
        .get("value")
        .ok_or(ProtocolError::MissingMember("value"))?;
    let parsed: Result<Value, _> = match raw {
        Json::Null => return Ok(Request::ImportOne(tuple, None)),
        Json::String(text) => text.parse(),
        Json::Number(number) if !number.is_f64() => number.to_string().parse(),
        _ => return Err(ProtocolError::WrongType("value")),
    };
    match parsed {
        Ok(value) => {
            let raw = raw.clone();
            Ok(Request::ImportOne(tuple, Some(Import { value, raw })))
        }
        Err(source) => Err(ProtocolError::Value {
            tuple: Box::new(tuple),
            source,
        }),
    }
}

fn forget(args: &mut Json) -> Result<Request, ProtocolError> {
    let value = |args: &Json, name| match args.get(name) {
        None => Err(ProtocolError::MissingMember(name)),
        Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => {
            let value = Value::from_record(text).map_err(|_| ProtocolError::WrongType(name))?;
            Ok(Some(value))
        }
        Some(_) => Err(ProtocolError::WrongType(name)),
    };
    Ok(Request::Forget(Forget {
        package: package(args)?,
        above: value(args, "above")?,
        greatest: value(args, "greatest")?.ok_or(ProtocolError::WrongType("greatest"))?,
    }))
}

fn export(args: &mut Json) -> Result<Request, ProtocolError> {
    let filter = Filter {
        version: filter_text(args, "version")?,
        pkgarch: filter_text(args, "pkgarch")?,
        checksum: filter_text(args, "checksum")?,
    };
    let with_columns = args
        .get("colinfo")
        .ok_or(ProtocolError::MissingMember("colinfo"))?;
    Ok(Request::Export {
        filter,
        history: history(args),
        with_columns: is_true(with_columns),
    })
}

fn package(args: &mut Json) -> Result<Package, ProtocolError> {
    Ok(Package {
        version: text(args, "version")?,
        pkgarch: text(args, "pkgarch")?,
    })
}

fn tuple(args: &mut Json) -> Result<Tuple, ProtocolError> {
    Ok(Tuple {
        package: package(args)?,
        checksum: text(args, "checksum")?,
    })
}

/// Takes the text of a member, converted as SQLite's TEXT affinity does.
fn text(args: &mut Json, name: &'static str) -> Result<String, ProtocolError> {
    match args
        .get_mut(name)
        .ok_or(ProtocolError::MissingMember(name))?
    {
        Json::String(text) if !text.contains('\0') => Ok(mem::take(text)),
        Json::Number(number) if number.is_i64() => Ok(number.to_string()),
        Json::Bool(boolean) => Ok(u8::from(*boolean).to_string()),
        _ => Err(ProtocolError::WrongType(name)),
    }
}

/// Takes a member of a filter. Null and the empty text match everything.
fn filter_text(args: &mut Json, name: &'static str) -> Result<Option<String>, ProtocolError> {
    match args.get(name) {
        Some(Json::Null) => Ok(None),
        _ => Ok(Some(text(args, name)?).filter(|text| !text.is_empty())),
    }
}

/// Returns the history mode. Clients up to BitBake 2.8 do not send `history`, which means false.
fn history(args: &Json) -> History {
    if args.get("history").is_some_and(is_true) {
        History::Keep
    } else {
        History::Ignore
    }
}

/// Returns the truth value that Python assigns to a JSON value.
fn is_true(json: &Json) -> bool {
    match json {
        Json::Null => false,
        Json::Bool(boolean) => *boolean,
        Json::Number(number) => number.as_f64() != Some(0.0),
        Json::String(text) => !text.is_empty(),
        Json::Array(items) => !items.is_empty(),
        Json::Object(members) => !members.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn the_first_known_name_in_the_parsers_order_wins_and_others_are_ignored() {
        let message = json!({"is-readonly": {}, "ping": null, "quit": {}});
        assert_eq!(Request::parse(message.clone()), Ok(Request::Ping));
        for unknown in [
            json!({}),
            json!([]),
            json!("ping"),
            json!(7),
            json!(false),
            json!({"quit": {}}),
        ] {
            assert_eq!(
                Request::parse(unknown.clone()),
                Err(ProtocolError::UnknownRequest),
                "{unknown}"
            );
        }
        assert_eq!(Request::parse(Json::Null), Ok(Request::Close));
    }

    #[test]
    fn history_follows_pythons_truth_values_and_may_be_missing() {
        let with = |history: Json| json!({"get-pr": {"version": "v", "pkgarch": "a", "checksum": "c", "history": history}});
        let tuple = Tuple::new("v", "a", "c");
        for falsy in [
            json!(null),
            json!(false),
            json!(0),
            json!(0.0),
            json!(""),
            json!([]),
            json!({}),
        ] {
            let request = Request::parse(with(falsy.clone()));
            assert_eq!(
                request,
                Ok(Request::GetPr(tuple.clone(), History::Ignore)),
                "{falsy}"
            );
        }
        for truthy in [json!(true), json!(1), json!("no")] {
            let request = Request::parse(with(truthy.clone()));
            assert_eq!(
                request,
                Ok(Request::GetPr(tuple.clone(), History::Keep)),
                "{truthy}"
            );
        }
        let without = json!({"test-pr": {"version": "v", "pkgarch": "a", "checksum": "c"}});
        assert_eq!(
            Request::parse(without.clone()),
            Ok(Request::TestPr(tuple, History::Ignore))
        );
    }

    #[test]
    fn integers_are_converted_to_text_and_other_types_rejected() {
        let with = |version: Json| {
            Request::parse(json!({"test-package": {"version": version, "pkgarch": "a"}}))
        };
        assert_eq!(
            with(json!(12)),
            Ok(Request::TestPackage(Package::new("12", "a")))
        );
        for wrong in [
            json!(null),
            json!([1]),
            json!({}),
            json!(u64::MAX),
            json!(1.5),
        ] {
            assert_eq!(with(wrong), Err(ProtocolError::WrongType("version")));
        }
        let missing = json!({"test-package": {"version": "v"}});
        assert_eq!(
            Request::parse(missing.clone()),
            Err(ProtocolError::MissingMember("pkgarch"))
        );
        assert_eq!(
            Request::parse(json!({"test-package": null})),
            Err(ProtocolError::MissingMember("version"))
        );
    }

    #[test]
    fn an_imported_value_is_a_revision_or_an_integer() {
        let with = |value: Json| {
            let args = json!({"version": "v", "pkgarch": "a", "checksum": "c", "value": value});
            Request::parse(json!({ "import-one": args }))
        };
        let good = |raw: Json, text: &str| {
            let import = Import {
                value: text.parse().unwrap(),
                raw,
            };
            Ok(Request::ImportOne(Tuple::new("v", "a", "c"), Some(import)))
        };
        assert_eq!(with(json!(8)), good(json!(8), "8"));
        assert_eq!(with(json!("007")), good(json!("007"), "7"));
        assert_eq!(with(json!("1.10")), good(json!("1.10"), "1.10"));
        assert_eq!(
            with(json!(null)),
            Ok(Request::ImportOne(Tuple::new("v", "a", "c"), None))
        );
        for bad in [
            json!("abc"),
            json!(-1),
            json!(1.5),
            json!(true),
            json!([]),
            json!(""),
        ] {
            assert!(with(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_removal_names_the_greatest_value() {
        let with = |above: Json, greatest: Json| {
            let args =
                json!({"version": "v", "pkgarch": "a", "above": above, "greatest": greatest});
            Request::parse(json!({ "forget": args }))
        };
        let forget = Forget {
            package: Package::new("v", "a"),
            above: Some(Value::from(3)),
            greatest: "7.1".parse().unwrap(),
        };
        assert_eq!(
            with(json!("3"), json!("7.1")),
            Ok(Request::Forget(forget.clone()))
        );
        let all = Forget {
            above: None,
            ..forget
        };
        assert_eq!(with(json!(null), json!("7.1")), Ok(Request::Forget(all)));
        for (above, greatest) in [
            (json!(null), json!(null)),
            (json!(null), json!(7)),
            (json!("x"), json!("7")),
        ] {
            assert!(with(above, greatest).is_err());
        }
    }

    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<f64>().prop_map(Json::from),
            "[a-c0-9.]{0,4}".prop_map(Json::from),
        ];
        let name = prop_oneof![
            Just("get-pr"),
            Just("import-one"),
            Just("export"),
            Just("version"),
            Just("pkgarch"),
            Just("checksum"),
            Just("value"),
            Just("history"),
            Just("colinfo"),
            Just("test-pr"),
        ];
        leaf.prop_recursive(3, 40, 8, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                proptest::collection::vec((name.clone(), inner), 0..8).prop_map(|members| {
                    members
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect()
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_message_causes_a_panic(message in any_json()) {
            let _ = Request::parse(message.clone());
        }
    }
}
