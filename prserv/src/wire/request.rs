//! Messages to requests: the first member that names a request we know decides.

use std::mem;

use serde_json::Value as Json;

use super::Fault;
use crate::policy::History;
use crate::store::Filter;
use crate::tuple::{Package, Tuple};
use crate::value::Value;

/// What a client may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Are you there?
    Ping,
    /// The value of a tuple, giving one if need be.
    GetPr(Tuple, History),
    /// The recorded value of a tuple.
    TestPr(Tuple, History),
    /// Is anything recorded of the package?
    TestPackage(Package),
    /// The greatest value of the package.
    MaxPackagePr(Package),
    /// Record a value. `None` is JSON's null, which records nothing.
    ImportOne(Tuple, Option<Import>),
    /// The rows that match.
    Export {
        /// Which rows.
        filter: Filter,
        /// All rows or the greatest ones.
        history: History,
        /// Whether the table is to be described.
        with_columns: bool,
    },
    /// Does the server give values?
    IsReadonly,
    /// JSON's null: the client takes its leave.
    Bye,
}

/// A value to record, and how it was spelled: the reply repeats it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The value.
    pub value: Value,
    /// As it came, a string or an integer.
    pub spelled: Json,
}

/// The requests in the order in which they are looked for in a message.
const NAMES: [(&str, Parser); 8] = [
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
];

type Parser = fn(&mut Json) -> Result<Request, Fault>;

impl Request {
    /// Reads a message.
    pub fn parse(mut message: Json) -> Result<Self, Fault> {
        if message.is_null() {
            return Ok(Self::Bye);
        }
        let members = message.as_object_mut().ok_or(Fault::Unknown)?;
        let known = NAMES.iter().find(|(name, _)| members.contains_key(*name));
        let (name, parse) = known.ok_or(Fault::Unknown)?;
        parse(members.get_mut(*name).ok_or(Fault::Unknown)?)
    }
}

fn import_one(args: &mut Json) -> Result<Request, Fault> {
    let tuple = tuple(args)?;
    let spelled = args.get("value").ok_or(Fault::Missing("value"))?;
    let value: Value = match spelled {
        Json::Null => return Ok(Request::ImportOne(tuple, None)),
        Json::String(text) => text.parse()?,
        Json::Number(number) if !number.is_f64() => number.to_string().parse()?,
        _ => return Err(Fault::Type("value")),
    };
    Ok(Request::ImportOne(
        tuple,
        Some(Import {
            value,
            spelled: spelled.clone(),
        }),
    ))
}

fn export(args: &mut Json) -> Result<Request, Fault> {
    let filter = Filter {
        version: wanted(args, "version")?,
        pkgarch: wanted(args, "pkgarch")?,
        checksum: wanted(args, "checksum")?,
    };
    let with_columns = args.get("colinfo").ok_or(Fault::Missing("colinfo"))?;
    Ok(Request::Export {
        filter,
        history: history(args),
        with_columns: is_true(with_columns),
    })
}

fn package(args: &mut Json) -> Result<Package, Fault> {
    Ok(Package {
        version: text(args, "version")?,
        pkgarch: text(args, "pkgarch")?,
    })
}

fn tuple(args: &mut Json) -> Result<Tuple, Fault> {
    Ok(Tuple {
        package: package(args)?,
        checksum: text(args, "checksum")?,
    })
}

/// Takes a member out, as SQLite's TEXT affinity would store it.
fn text(args: &mut Json, name: &'static str) -> Result<String, Fault> {
    match args.get_mut(name).ok_or(Fault::Missing(name))? {
        Json::String(text) if !text.contains('\0') => Ok(mem::take(text)),
        Json::Number(number) if number.is_i64() => Ok(number.to_string()),
        Json::Bool(truth) => Ok(u8::from(*truth).to_string()),
        _ => Err(Fault::Type(name)),
    }
}

/// A filter's member: null and the empty text mean "any".
fn wanted(args: &mut Json, name: &'static str) -> Result<Option<String>, Fault> {
    match args.get(name) {
        Some(Json::Null) => Ok(None),
        _ => Ok(Some(text(args, name)?).filter(|text| !text.is_empty())),
    }
}

/// Clients up to BitBake 2.8 do not send `history`: they mean false.
fn history(args: &Json) -> History {
    if args.get("history").is_some_and(is_true) {
        History::Keep
    } else {
        History::Ignore
    }
}

/// What Python takes for true.
fn is_true(json: &Json) -> bool {
    match json {
        Json::Null => false,
        Json::Bool(truth) => *truth,
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
    fn the_first_known_name_wins_in_our_order_and_others_are_passed_over() {
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
                Err(Fault::Unknown),
                "{unknown}"
            );
        }
        assert_eq!(Request::parse(Json::Null), Ok(Request::Bye));
    }

    #[test]
    fn history_is_what_python_takes_for_true_and_may_be_missing() {
        let with = |history: Json| json!({"get-pr": {"version": "v", "pkgarch": "a", "checksum": "c", "history": history}});
        let tuple = Tuple::new("v", "a", "c");
        for no in [
            json!(null),
            json!(false),
            json!(0),
            json!(0.0),
            json!(""),
            json!([]),
            json!({}),
        ] {
            let request = Request::parse(with(no.clone()));
            assert_eq!(
                request,
                Ok(Request::GetPr(tuple.clone(), History::Ignore)),
                "{no}"
            );
        }
        for yes in [json!(true), json!(1), json!("no")] {
            let request = Request::parse(with(yes.clone()));
            assert_eq!(
                request,
                Ok(Request::GetPr(tuple.clone(), History::Keep)),
                "{yes}"
            );
        }
        let without = json!({"test-pr": {"version": "v", "pkgarch": "a", "checksum": "c"}});
        assert_eq!(
            Request::parse(without.clone()),
            Ok(Request::TestPr(tuple, History::Ignore))
        );
    }

    #[test]
    fn an_integer_is_taken_for_its_text_and_other_types_are_not() {
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
            assert_eq!(with(wrong), Err(Fault::Type("version")));
        }
        let missing = json!({"test-package": {"version": "v"}});
        assert_eq!(
            Request::parse(missing.clone()),
            Err(Fault::Missing("pkgarch"))
        );
        assert_eq!(
            Request::parse(json!({"test-package": null})),
            Err(Fault::Missing("version"))
        );
    }

    #[test]
    fn an_imported_value_is_digits_and_dots_as_text_or_an_integer() {
        let with = |value: Json| {
            let args = json!({"version": "v", "pkgarch": "a", "checksum": "c", "value": value});
            Request::parse(json!({ "import-one": args }))
        };
        let good = |spelled: Json, text: &str| {
            let import = Import {
                value: text.parse().unwrap(),
                spelled,
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
        fn no_message_makes_the_parser_panic(message in any_json()) {
            let _ = Request::parse(message.clone());
        }
    }
}
