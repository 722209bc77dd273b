//! Reading the members of a request.

use std::mem;

use serde_json::Value as Json;

use super::{NAME_BYTES_MAX, ProtocolError};

/// Takes the text of a member.
pub(super) fn text(args: &mut Json, name: &'static str) -> Result<String, ProtocolError> {
    optional_text(args, name)?.ok_or(ProtocolError::MissingMember(name))
}

/// Takes the text of a member that may be missing or null.
pub(super) fn optional_text(
    args: &mut Json,
    name: &'static str,
) -> Result<Option<String>, ProtocolError> {
    let text = long_text(args, name)?;
    if text
        .as_ref()
        .is_some_and(|text| text.len() > NAME_BYTES_MAX)
    {
        return Err(ProtocolError::TooLong(name));
    }
    Ok(text)
}

/// Takes the text of a member that is as long as the message permits.
pub(super) fn long_text(
    args: &mut Json,
    name: &'static str,
) -> Result<Option<String>, ProtocolError> {
    args.get_mut(name)
        .map_or(Ok(None), |json| into_text(json, name))
}

/// Takes a text, converted as SQLite's TEXT affinity does. Null counts as missing.
pub(super) fn into_text(
    json: &mut Json,
    name: &'static str,
) -> Result<Option<String>, ProtocolError> {
    match json {
        Json::Null => Ok(None),
        Json::String(text) if !text.contains('\0') => Ok(Some(mem::take(text))),
        Json::Number(number) if number.is_i64() => Ok(Some(number.to_string())),
        Json::Bool(boolean) => Ok(Some(u8::from(*boolean).to_string())),
        _ => Err(ProtocolError::WrongType(name)),
    }
}

/// Returns the value of a flag that may be missing.
pub(super) fn flag(args: &Json, name: &'static str, default: bool) -> bool {
    args.get(name).map_or(default, is_true)
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
