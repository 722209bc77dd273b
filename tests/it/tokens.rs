//! Tokens at the API and on their page: creation, use, removal, and the end of their sessions.

use reqwest::blocking::Response;
use serde_json::{Value, json};
use tests::api_host::ApiHost;

use super::openapi::check;
use super::web_sessions::Browser;

const TOKENS: &str = "/api/v1/tokens";
const TOKEN: &str = "/api/v1/tokens/{name}";
const PAGE: &str = "/host/tokens";

/// Returns a host with the token `admin-1`, whose secret is `a`.
fn host() -> ApiHost {
    let host = ApiHost::new("http.requests_per_second_max = 0\n");
    host.allow(&[("admin", "a"), ("submit", "s2")]);
    host
}

fn ask(host: &ApiHost, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let asked = host.remote(method, path).bearer_auth("a");
    let asked = if body.is_null() {
        asked
    } else {
        asked.json(body)
    };
    let response = asked.send().unwrap();
    let route = if path == TOKENS { TOKENS } else { TOKEN };
    (response.status().as_u16(), check(method, route, response))
}

fn status_with(host: &ApiHost, secret: &str) -> u16 {
    let builds = host.remote("GET", "/api/v1/builds").bearer_auth(secret);
    builds.send().unwrap().status().as_u16()
}

#[test]
fn a_token_of_the_api_is_valid_at_once_and_invalid_at_once() {
    let host = host();
    let new = json!({"name": "nightly", "scope": "submit"});
    let (status, created) = ask(&host, "POST", TOKENS, &new);
    assert_eq!(status, 201, "{created}");
    let secret = created["secret"].as_str().unwrap();
    assert_eq!(ask(&host, "POST", TOKENS, &new).0, 409);
    let listed = || {
        let (_, tokens) = ask(&host, "GET", TOKENS, &Value::Null);
        let tokens = tokens.as_array().unwrap().clone();
        tokens.into_iter().find(|it| it["name"] == "nightly")
    };
    let token = listed().unwrap();
    assert!(token["created"].is_string() && token["last_used"].is_null());
    assert!(!token.to_string().contains(secret), "{token}");
    assert_eq!(status_with(&host, secret), 200);
    assert!(listed().unwrap()["last_used"].is_string());
    // The command line changes the same file.
    let file = token_file::TokenFile::new(host.path("tokens"));
    assert_eq!(file.read().unwrap().len(), 3);
    let path = format!("{TOKENS}/nightly");
    assert_eq!(ask(&host, "DELETE", &path, &Value::Null).0, 204);
    assert_eq!(status_with(&host, secret), 401);
    assert_eq!(ask(&host, "DELETE", &path, &Value::Null).0, 404);
    assert_eq!(listed(), None);
}

#[test]
fn the_page_shows_a_secret_once_and_removes_a_token_after_it_was_rehearsed() {
    let host = host();
    let mut admin = Browser::new(&host);
    admin.sign_in("token=a");
    let text = |answer: Response| answer.text().unwrap();
    let created = admin.ask("POST", PAGE, "name=robot&scope=read");
    assert_eq!(created.status(), 200);
    assert_eq!(created.headers()["cache-control"], "no-store");
    let created = text(created);
    let (_, rest) = created.split_once("readonly value=\"").unwrap();
    let (secret, _) = rest.split_once('"').unwrap();
    assert_eq!(status_with(&host, secret), 200);
    assert!(!text(admin.ask("GET", PAGE, "")).contains(secret));
    assert_eq!(admin.ask("POST", PAGE, "name=robot").status(), 409);
    assert_eq!(admin.ask("POST", PAGE, "name=a%20b").status(), 422);

    let mut robot = Browser::new(&host);
    robot.sign_in(&format!("token={secret}"));
    assert_eq!(robot.ask("GET", PAGE, "").status(), 403);
    assert_eq!(robot.ask("POST", PAGE, "name=x").status(), 403);
    let path = format!("{PAGE}/robot/remove");
    let rehearsed = text(admin.ask("POST", &path, ""));
    assert!(rehearsed.contains("end its web session"), "{rehearsed}");
    assert_eq!(robot.ask("GET", "/builds", "").status(), 200);
    assert_eq!(admin.ask("POST", &path, "confirm=yes").status(), 303);
    assert_eq!(robot.ask("GET", "/builds", "").status(), 303);
    assert_eq!(status_with(&host, secret), 401);
    assert_eq!(admin.ask("POST", &path, "").status(), 404);
}

#[test]
fn a_file_with_a_fault_is_not_replaced() {
    let host = host();
    let mut admin = Browser::new(&host);
    admin.sign_in("token=a");
    tests::write_file(&host.path("tokens"), "nonsense\n");
    let refused = admin.ask("POST", PAGE, "name=robot&scope=read");
    assert_eq!(refused.status(), 409);
    assert!(refused.text().unwrap().contains("line 1"));
    let (status, problem) = ask(&host, "POST", TOKENS, &json!({"name": "x"}));
    assert_eq!(status, 409, "{problem}");
    let text = std::fs::read_to_string(host.path("tokens")).unwrap();
    assert_eq!(text, "nonsense\n");
}
