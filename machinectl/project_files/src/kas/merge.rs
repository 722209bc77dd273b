//! The includes of kas; pure.

use serde_json::Value;

/// Merges a content over another one: mappings are joined, everything else is replaced.
pub(super) fn merge(below: &mut Value, above: Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                match below.get_mut(&key) {
                    Some(known) => merge(known, value),
                    None => drop(below.insert(key, value)),
                }
            }
        }
        (below, above) => *below = above,
    }
}

/// Returns the files that a content includes.
///
/// # Errors
/// One is in another repository.
pub(super) fn includes(content: &Value) -> Result<Vec<String>, String> {
    let list = content
        .pointer("/header/includes")
        .and_then(Value::as_array);
    let include = |value: &Value| match value {
        Value::String(path) => Ok(path.clone()),
        _ => Err(format!(
            "it includes {value}, which is in another repository; name the output of `kas dump FILE` instead"
        )),
    };
    list.into_iter().flatten().map(include).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mappings_are_joined() {
        let mut below = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge(&mut below, json!({"a": {"b": 3, "e": null}, "d": [2]}));
        assert_eq!(below, json!({"a": {"b": 3, "c": 2, "e": null}, "d": [2]}));
    }
}
