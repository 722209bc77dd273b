//! Web sessions: signing in with tokens and links, the rights of a session, its end, and requests
//! that pages of other sites make with it.

use reqwest::blocking::{Client, Response};
use reqwest::redirect::Policy;
use serde_json::Value;
use tests::api_host::{ApiHost, request};
use tests::attacks::refused;

use super::openapi::check;

const BUILDS: &str = "/api/v1/builds";

/// A browser: it follows no redirection, and says which page makes a request.
pub(super) struct Browser<'h> {
    host: &'h ApiHost,
    cookie: String,
}

impl<'h> Browser<'h> {
    pub(super) fn new(host: &'h ApiHost) -> Self {
        let cookie = String::new();
        Self { host, cookie }
    }

    /// Sends a request with headers in place of those of this server's own page.
    pub(super) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let client = Client::builder().redirect(Policy::none()).build().unwrap();
        let url = format!("http://{}{path}", self.host.address);
        let request = request(&client, method, &url).header("cookie", &self.cookie);
        let request = headers
            .iter()
            .fold(request, |it, (name, value)| it.header(*name, *value));
        let form = "application/x-www-form-urlencoded";
        let request = request.header("content-type", form).body(body.to_owned());
        request.send().unwrap()
    }

    /// Sends a request of this server's own page.
    pub(super) fn ask(&self, method: &str, path: &str, body: &str) -> Response {
        let origin = format!("http://{}", self.host.address);
        self.send(method, path, &[("origin", &origin)], body)
    }

    /// Sends a form of the login page, and keeps the cookie.
    pub(super) fn sign_in(&mut self, form: &str) -> Response {
        let response = self.ask("POST", "/login", form);
        if let Some(cookie) = response.headers().get("set-cookie") {
            let cookie = cookie.to_str().unwrap();
            for attribute in ["HttpOnly", "SameSite=Strict", "Path=/"] {
                assert!(cookie.contains(attribute), "{cookie}");
            }
            cookie
                .split(';')
                .next()
                .unwrap()
                .clone_into(&mut self.cookie);
        }
        response
    }

    fn status(&self, method: &str, path: &str) -> u16 {
        self.ask(method, path, "").status().as_u16()
    }
}

fn host() -> ApiHost {
    ApiHost::new("http.requests_per_second_max = 0\n")
}

#[test]
fn a_session_has_the_rights_of_its_token_and_ends_with_it() {
    let host = host();
    host.allow(&[("read", "r"), ("admin", "a1")]);
    let (mut reader, mut admin) = (Browser::new(&host), Browser::new(&host));
    assert_eq!(reader.status("GET", BUILDS), 401);
    let signed_in = reader.sign_in("token=r&next=/builds?machine=linux");
    assert_eq!(signed_in.status(), 303);
    assert_eq!(signed_in.headers()["location"], "/builds?machine=linux");
    assert_eq!(
        admin
            .sign_in("token=%20a1%20&next=//evil.example")
            .headers()["location"],
        "/"
    );
    assert_eq!(reader.status("GET", BUILDS), 200);
    assert_eq!(reader.status("POST", "/api/v1/undrain"), 403);
    assert_eq!(admin.status("POST", "/api/v1/undrain"), 200);
    let events = admin.ask("GET", "/api/v1/events", "");
    assert_eq!(events.headers()["content-type"], "text/event-stream");

    // The same token with fewer rights.
    host.allow(&[("read", "r"), ("submit", "a1")]);
    assert_eq!(admin.status("GET", BUILDS), 401, "the name is another one");
    host.allow(&[("admin", "a1")]);
    assert_eq!(admin.status("GET", BUILDS), 200);
    assert_eq!(reader.status("GET", BUILDS), 401, "the token was removed");
}

/// Reads an answer until it is cut.
fn expect_cut(mut answer: Response) {
    let read = std::io::copy(&mut answer, &mut std::io::sink());
    assert!(read.is_err(), "a whole answer: {read:?}");
}

#[test]
fn streams_end_with_their_token_and_their_session() {
    let host = host();
    host.allow(&[("read", "r"), ("submit", "longer"), ("admin", "a")]);
    let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
    let (toolchain, root) = ("default".parse().unwrap(), "root".parse().unwrap());
    let records = &host.host.records;
    let submitted = records.submit(request, toolchain, root, jiff::Timestamp::now());
    host.block_on(submitted).unwrap();
    let streams = [
        "/api/v1/events",
        "/api/v1/builds/1/log?follow=true",
        "/events",
        "/builds/1/log/stream",
    ];
    let mut browser = Browser::new(&host);
    browser.sign_in("token=longer");
    let open = |path: &&str| {
        let answer = browser.ask("GET", path, "");
        assert_eq!(answer.status(), 200, "{path}");
        answer
    };
    let of_session: Vec<_> = streams.iter().map(open).collect();
    let mut other = Browser::new(&host);
    other.sign_in("token=longer");
    let of_other = other.ask("GET", streams[0], "");
    browser.ask("POST", "/logout", "");
    of_session.into_iter().for_each(expect_cut);
    let with_token = |path: &&str| host.remote("GET", path).bearer_auth("r").send().unwrap();
    let of_token: Vec<_> = streams.iter().map(with_token).collect();
    // The token of the other session has another scope now, and this one is gone.
    host.allow(&[("admin", "a")]);
    of_token.into_iter().for_each(expect_cut);
    expect_cut(of_other);
}

#[test]
fn an_unknown_token_opens_no_session_and_attempts_are_limited() {
    let host = host();
    host.allow(&[("read", "r")]);
    let mut browser = Browser::new(&host);
    for form in ["", "token=", "token=x", "code=x", "code=&token=x"] {
        let refusal = browser.sign_in(form).status().as_u16();
        assert!([401, 403].contains(&refusal), "{form}: {refusal}");
        assert_eq!(browser.cookie, "");
    }
    let limited = (0..1000).any(|_| browser.sign_in("token=x").status() == 429);
    assert!(limited);
    assert_eq!(browser.status("GET", "/api/v1/openapi.json"), 200);
}

#[test]
fn a_session_that_was_signed_out_is_of_no_use() {
    let host = host();
    host.allow(&[("read", "r")]);
    let mut browser = Browser::new(&host);
    browser.sign_in("token=r");
    let mut other = Browser::new(&host);
    other.sign_in("token=r");
    assert_ne!(browser.cookie, other.cookie);
    let signed_out = browser.ask("POST", "/logout", "");
    assert_eq!(signed_out.status(), 303);
    let cookie = signed_out.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.contains("Max-Age=0"), "{cookie}");
    assert_eq!(browser.status("GET", BUILDS), 401);
    assert_eq!(other.status("GET", BUILDS), 200);
}

#[test]
fn pages_of_other_sites_cannot_use_a_session() {
    let host = host();
    host.allow(&[("admin", "a")]);
    let mut browser = Browser::new(&host);
    browser.sign_in("token=a");
    let own = format!("http://{}", host.address);
    let port = host.address.port();
    let sibling = format!("http://127.0.0.1:{}", if port == 1 { 2 } else { port - 1 });
    for headers in [
        &[][..],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        // Another server on the same host.
        &[("origin", sibling.as_str())],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "none")],
        &[("sec-fetch-site", "cross-site"), ("origin", own.as_str())],
    ] {
        for path in [
            "/api/v1/undrain",
            "/api/v1/builds/1/cancel",
            "/logout",
            "/login",
        ] {
            let response = browser.send("POST", path, headers, "token=a");
            assert_eq!(response.status(), 403, "{path} {headers:?}");
            refused(
                "browser -> API",
                &format!("POST {path} with {headers:?}"),
                "403",
            );
        }
        let headers = [headers, &[("upgrade", "websocket")]].concat();
        let socket = "/api/v1/builds/1/console/ws?write=true";
        assert_eq!(browser.send("GET", socket, &headers, "").status(), 403);
    }
    for headers in [
        &[("origin", own.as_str())][..],
        &[("sec-fetch-site", "same-origin")],
    ] {
        let response = browser.send("POST", "/api/v1/undrain", headers, "");
        assert_eq!(response.status(), 200, "{headers:?}");
    }
}

#[test]
fn a_sign_in_link_is_valid_once_and_has_the_rights_of_its_user() {
    let host = host();
    let path = "/api/v1/sign-in-links";
    let link = || -> Value {
        let url = format!("http://agent{path}");
        let made = request(&host.local(), "POST", &url).send().unwrap();
        assert_eq!(made.status(), 201);
        check("POST", path, made)
    };
    let made = link();
    let url = made["url"].as_str().unwrap();
    let (address, code) = url.split_once("/login?code=").unwrap();
    assert_eq!(address, format!("http://{}", host.address));
    assert_eq!(code.len(), 64);
    assert_eq!(made["valid_seconds"], 60);
    let form = format!("code={code}");
    let mut browser = Browser::new(&host);
    assert_eq!(browser.sign_in(&form).status(), 303);
    // The tests run as root.
    assert_eq!(browser.status("POST", "/api/v1/undrain"), 200);
    assert_eq!(Browser::new(&host).sign_in(&form).status(), 403);
    assert_ne!(link(), made);
}

#[test]
fn a_bearer_of_a_token_gets_a_link_for_the_rights_of_the_token() {
    let host = host();
    host.allow(&[("read", "r"), ("submit", "s")]);
    let path = "/api/v1/sign-in-links";
    let made = host.remote("POST", path).bearer_auth("s").send().unwrap();
    let made = check("POST", path, made);
    let code = made["url"].as_str().unwrap().split_once('=').unwrap().1;
    let mut browser = Browser::new(&host);
    browser.sign_in(&format!("code={code}"));
    assert_eq!(browser.status("GET", BUILDS), 200);
    assert_eq!(browser.status("POST", "/api/v1/undrain"), 403);
    host.allow(&[("read", "r")]);
    assert_eq!(browser.status("GET", BUILDS), 401);
}

#[test]
fn a_reader_without_a_session_is_led_to_the_login_page_and_back() {
    let host = host();
    host.allow(&[("read", "r")]);
    let mut browser = Browser::new(&host);
    let first = browser.ask("GET", "/?machine=a%20b", "");
    assert_eq!(first.status(), 303);
    let login = first.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(login, "/login?next=%2F%3Fmachine%3Da%2520b");
    let page = browser.ask("GET", &login, "");
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let page = page.text().unwrap();
    assert!(
        page.contains(r#"name="next" value="/?machine=a%20b""#),
        "{page}"
    );
    let refused = browser.sign_in("token=x&next=/%3Fmachine%3Da%2520b");
    assert_eq!(refused.status(), 403);
    let page = refused.text().unwrap();
    assert!(page.contains("The token is unknown"), "{page}");
    let signed_in = browser.sign_in("token=r&next=/%3Fmachine%3Da%2520b");
    assert_eq!(signed_in.headers()["location"], "/?machine=a%20b");
    assert_eq!(browser.status("GET", "/?machine=a%20b"), 200);
    // A preview of the link does not use it up.
    let url = "http://agent/api/v1/sign-in-links";
    let link: Value = request(&host.local(), "POST", url)
        .send()
        .unwrap()
        .json()
        .unwrap();
    let path = link["url"]
        .as_str()
        .unwrap()
        .rsplit_once("/login")
        .unwrap()
        .1;
    for _ in 0..2 {
        let page = browser
            .ask("GET", &format!("/login{path}"), "")
            .text()
            .unwrap();
        assert!(page.contains("Sign in as root"), "{page}");
    }
    let old = browser.ask("GET", "/login?code=0", "").text().unwrap();
    assert!(old.contains("The link was used"), "{old}");
}
