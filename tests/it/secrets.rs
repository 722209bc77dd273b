//! Secrets at the API: who adds, sees and uses them, and builds that wait for a deleted one.

use std::fs;

use serde_json::{Value, json};
use tests::api_host::{ApiHost, request};

use super::openapi::{SOURCE, check};

const SECRETS: &str = "/api/v1/secrets";
const SECRET: &str = "/api/v1/secrets/{name}";
const BUILDS: &str = "/api/v1/builds";
/// `password one` in base64.
const VALUE: &str = "cGFzc3dvcmQgb25l";

/// Returns a host with the tokens `admin-5`, `submit-6` and `submit-7`, whose secrets are their
/// words, and with a source.
fn host() -> ApiHost {
    let host = ApiHost::new("http.requests_per_second_max = 0\n");
    host.allow(&[
        ("admin", "admin"),
        ("submit", "friend"),
        ("submit", "foreign"),
    ]);
    let put = host.remote("PUT", &format!("/api/v1/sources/{SOURCE}"));
    put.bearer_auth("admin").body("source").send().unwrap();
    host
}

fn ask(host: &ApiHost, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let route = if path.starts_with(&format!("{SECRETS}/")) {
        SECRET
    } else {
        path
    };
    let asked = host.remote(method, path).bearer_auth(token);
    let asked = if body.is_null() {
        asked
    } else {
        asked.json(body)
    };
    let response = asked.send().unwrap();
    let status = response.status().as_u16();
    (status, check(method, route, response))
}

fn build(secret: &str) -> Value {
    let source = json!({"name": "a.tar", "sha256": SOURCE});
    json!({"machine": "linux", "sources": [source], "secrets": [secret]})
}

#[test]
fn a_secret_is_used_by_those_whom_an_administrator_names() {
    let host = host();
    let new = json!({"value": VALUE, "for": ["token:submit-6"]});
    let path = format!("{SECRETS}/key");
    let (status, problem) = ask(&host, "friend", "PUT", &path, &new);
    assert_eq!(status, 403, "{problem}");
    let (status, secret) = ask(&host, "admin", "PUT", &path, &new);
    assert_eq!((status, &secret["by"]), (201, &json!("token:admin-5")));
    assert!(!secret.to_string().contains(VALUE), "{secret}");
    assert_eq!(ask(&host, "admin", "PUT", &path, &new).0, 409);
    let replacing = json!({"value": VALUE, "for": ["token:submit-6"], "replace": true});
    assert_eq!(ask(&host, "admin", "PUT", &path, &replacing).0, 200);

    let seen = |token| ask(&host, token, "GET", SECRETS, &Value::Null).1;
    assert_eq!(seen("admin").as_array().unwrap().len(), 1);
    assert_eq!(seen("friend"), seen("admin"));
    assert_eq!(seen("foreign"), json!([]));

    let (status, submitted) = ask(&host, "friend", "POST", BUILDS, &build("key"));
    assert_eq!((status, &submitted["secrets"]), (201, &json!(["key"])));
    let (status, problem) = ask(&host, "foreign", "POST", BUILDS, &build("key"));
    assert_eq!(status, 403, "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("secret add --for"), "{detail}");
    // An administrator is not root, and not on the list either.
    assert_eq!(ask(&host, "admin", "POST", BUILDS, &build("key")).0, 403);
    let local = request(&host.local(), "POST", &format!("http://agent{BUILDS}"));
    assert_eq!(local.json(&build("key")).send().unwrap().status(), 200);
    assert_eq!(ask(&host, "friend", "POST", BUILDS, &build("other")).0, 404);

    let schedule = json!({"name": "often", "timing": {"every": "PT1H"}, "build": build("key")});
    let add = |token| ask(&host, token, "POST", "/api/v1/schedules", &schedule).0;
    assert_eq!((add("foreign"), add("friend")), (403, 201));
}

#[test]
fn builds_with_other_secrets_are_not_equivalent() {
    let host = host();
    for name in ["one", "two"] {
        let path = format!("{SECRETS}/{name}");
        let new = json!({"value": VALUE, "for": ["token:submit-6"]});
        assert_eq!(ask(&host, "admin", "PUT", &path, &new).0, 201);
    }
    let id = |secret| ask(&host, "friend", "POST", BUILDS, &build(secret)).1["id"].clone();
    assert_eq!(
        [id("one"), id("two"), id("one")],
        [json!(1), json!(2), json!(1)]
    );
}

#[test]
fn a_waiting_build_ends_when_its_secret_is_deleted() {
    let host = host();
    let path = format!("{SECRETS}/key");
    let new = json!({"value": VALUE, "for": ["token:submit-6"]});
    ask(&host, "admin", "PUT", &path, &new);
    assert_eq!(ask(&host, "friend", "POST", BUILDS, &build("key")).0, 201);
    assert_eq!(ask(&host, "admin", "DELETE", &path, &Value::Null).0, 204);
    let ended = host.remote("GET", "/api/v1/builds/1").bearer_auth("friend");
    let ended = check("GET", "/api/v1/builds/{id}", ended.send().unwrap());
    assert_eq!(ended["outcome"], "error");
    let message = "the secret key was deleted while the build waited";
    assert_eq!(ended["message"], message);
    // The value was in one file, which is gone.
    let files = fs::read_dir(host.path("state/secrets")).unwrap();
    assert_eq!(files.count(), 0);
}

#[test]
fn an_invalid_value_is_not_repeated_in_the_answer() {
    let host = host();
    let path = format!("{SECRETS}/key");
    for value in ["cGFzcw==", "pass word!"] {
        let (status, problem) = ask(&host, "admin", "PUT", &path, &json!({"value": value}));
        assert_eq!(status, 422);
        assert!(!problem.to_string().contains(value), "{problem}");
    }
}
