use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::condition::Column;
use crate::permission::Permission;

const UNIHASH: &str = "00000000000000000000000000000000000000000000000000000000000000ab";

#[test]
fn the_first_known_name_in_the_parsers_order_wins_and_others_are_ignored() {
    let message = json!({"gc-status": {}, "get-stats": null, "quit": {}});
    assert_eq!(Request::parse(message), Ok(Request::GetStats));
    for unknown in [json!({}), json!([]), json!("ping"), json!({"quit": {}})] {
        assert_eq!(Request::parse(unknown), Err(ProtocolError::UnknownRequest));
    }
    assert_eq!(Request::parse(Json::Null), Ok(Request::Close));
}

#[test]
fn a_report_has_a_valid_unihash_and_any_origin() {
    let with = |unihash: Json| {
        Request::parse(json!({"report": {
            "method": "m", "taskhash": "t", "outhash": "o", "unihash": unihash,
            "PN": "busybox", "PR": null, "unknown": [1],
        }}))
    };
    let Ok(Request::Report(report)) = with(json!(UNIHASH)) else {
        panic!("not a report");
    };
    assert_eq!(report.origin.pn.as_deref(), Some("busybox"));
    assert_eq!(report.origin.pr, None);
    for invalid in [
        json!("a".repeat(63)),
        json!("A".repeat(64)),
        json!("${@os.system('true')}"),
        json!(null),
        json!(7),
    ] {
        assert_eq!(with(invalid), Err(ProtocolError::Unihash));
    }
}

#[test]
fn missing_wrong_and_long_members_are_named() {
    for (message, error) in [
        (json!({"get": null}), ProtocolError::MissingMember("method")),
        (
            json!({"get": {"method": "m"}}),
            ProtocolError::MissingMember("taskhash"),
        ),
        (
            json!({"get": {"method": ["m"], "taskhash": "t"}}),
            ProtocolError::WrongType("method"),
        ),
        (
            json!({"get": {"method": "m".repeat(1025), "taskhash": "t"}}),
            ProtocolError::TooLong("method"),
        ),
        (json!({"remove": {}}), ProtocolError::MissingMember("where")),
        (
            json!({"remove": {"where": "x"}}),
            ProtocolError::WrongType("where"),
        ),
        (
            json!({"remove": {"where": {"methd": "x"}}}),
            ProtocolError::UnknownColumn("methd".into()),
        ),
        (
            json!({"gc-mark": {"mark": 1, "where": {}}}),
            ProtocolError::WrongType("mark"),
        ),
        (
            json!({"clean-unused": {"max_age_seconds": -1}}),
            ProtocolError::WrongType("max_age_seconds"),
        ),
        (
            json!({"new-user": {"username": "u", "permissions": "@all"}}),
            ProtocolError::WrongType("permissions"),
        ),
    ] {
        assert_eq!(Request::parse(message), Err(error));
    }
}

#[test]
fn conditions_ignore_null() {
    let parsed = Request::parse(json!({"remove": {"where": {"method": "m", "unihash": null}}}));
    let condition = [(Column::Method, "m".to_owned())].into_iter().collect();
    assert_eq!(parsed, Ok(Request::Remove(condition)));
}

#[test]
fn users_have_permissions_and_default_to_the_one_who_asks() {
    assert_eq!(
        Request::parse(json!({"get-user": {}})),
        Ok(Request::User(UserRequest::Get(None)))
    );
    let all = Permissions::default().with(Permission::All);
    assert_eq!(
        Request::parse(json!({"set-user-perms": {"username": "u", "permissions": ["@all"]}})),
        Ok(Request::User(UserRequest::SetPermissions(
            "u".into(),
            Ok(all)
        )))
    );
}

#[test]
fn lines_of_streams_are_checked() {
    assert_eq!(split_task_line(" m  t "), Ok(("m", "t")));
    for line in ["", "m", "m t x"] {
        assert_eq!(
            split_task_line(line),
            Err(ProtocolError::StreamLine),
            "{line}"
        );
    }
    let mark = Mark::parse_line(r#"{"mark": "A", "where": {"unihash": "u"}}"#).unwrap();
    assert_eq!(mark.mark, "A");
    assert!(matches!(
        Mark::parse_line("{"),
        Err(ProtocolError::MarkLine(_))
    ));
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        Just(Json::from(UNIHASH)),
        "[a-c@0-9]{0,4}".prop_map(Json::from),
    ];
    let names = PARSERS.map(|(name, _)| name).into_iter().chain([
        "method",
        "taskhash",
        "unihash",
        "outhash",
        "where",
        "mark",
        "max_age_seconds",
        "username",
        "permissions",
        "token",
    ]);
    let name = proptest::sample::select(names.collect::<Vec<_>>());
    leaf.prop_recursive(3, 40, 8, move |inner| {
        let members = proptest::collection::vec((name.clone(), inner.clone()), 0..8);
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(Json::from),
            members.prop_map(|members| {
                let owned = members
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value));
                Json::Object(owned.collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn no_message_causes_a_panic(message in any_json()) {
        let _ = Request::parse(message);
    }
}
