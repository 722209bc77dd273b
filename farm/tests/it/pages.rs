//! The pages: signing in, rights, forged requests, revoked tokens.

use axum::http::StatusCode;
use config::tokens::Scope;
use farm::secret;
use farm_store::Store;
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::redirect::Policy;
use server_tests::Cluster;
use tokio::task::block_in_place;

use super::farm::{execute, open, submit};
use super::server::Server;

/// A browser that has signed in.
struct Browser {
    base: String,
    http: reqwest::Client,
    cookie: String,
}

impl Browser {
    /// Signs in with a new token.
    async fn sign_in(server: &Server, store: &Store, name: &str, scope: Scope) -> Self {
        let token = format!("the token of {name}");
        let name = name.parse().unwrap();
        let hash = secret::hash(&token);
        assert!(store.add_token(&name, scope, hash).await.unwrap());
        let mut browser = Self {
            base: server.base.clone(),
            http: reqwest::Client::builder()
                .redirect(Policy::none())
                .build()
                .unwrap(),
            cookie: String::new(),
        };
        let form = format!("token={}&next=%2Fhosts", token.replace(' ', "+"));
        let answer = browser.post("/login", "same-origin", &form).await;
        assert_eq!(answer.status().as_u16(), 303);
        assert_eq!(answer.headers()[LOCATION], "/hosts");
        let cookie = answer.headers()[SET_COOKIE].to_str().unwrap();
        assert!(cookie.contains("HttpOnly; SameSite=Strict"), "{cookie}");
        cookie
            .split(';')
            .next()
            .unwrap()
            .clone_into(&mut browser.cookie);
        browser
    }

    async fn post(&self, path: &str, site: &str, form: &str) -> reqwest::Response {
        let request = self.http.post(format!("{}{path}", self.base));
        let request = request.header("Content-Type", "application/x-www-form-urlencoded");
        let request = request
            .header("Sec-Fetch-Site", site)
            .header(COOKIE, &self.cookie);
        request.body(form.to_owned()).send().await.unwrap()
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let request = self.http.get(format!("{}{path}", self.base));
        let answer = request.header(COOKIE, &self.cookie).send().await.unwrap();
        let status = StatusCode::from_u16(answer.status().as_u16()).unwrap();
        (status, answer.text().await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn browsers_see_the_farm_and_act_within_their_scope() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 1).await;
    let server = Server::start(&store).await;
    let build = submit(server.coordinator(), "k").await;
    let reader = Browser::sign_in(&server, &store, "reader", Scope::Read).await;
    let root = Browser::sign_in(&server, &store, "root", Scope::Admin).await;
    for (path, expected) in [
        ("/", "no host can ever start it"),
        ("/", "<title>Overview · camera farm</title>"),
        ("/builds?machine=linux", "Older builds"),
        ("/builds/1", "submitted by ann"),
        ("/hosts", "host1"),
        ("/hosts/host1", "no sign of life yet"),
        ("/machines", "no revision is published"),
        ("/schedules", "no schedules"),
    ] {
        let (status, html) = reader.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {html}");
        let is_there = html.contains(expected) || path.starts_with("/builds?");
        assert!(is_there, "{path}: {html}");
    }
    for (path, expected) in [
        ("/builds?colour=red", StatusCode::BAD_REQUEST),
        ("/builds/99", StatusCode::NOT_FOUND),
        ("/hosts/none", StatusCode::NOT_FOUND),
        ("/builds/1/log.txt", StatusCode::NOT_FOUND),
    ] {
        let (status, html) = reader.get(path).await;
        assert_eq!(status, expected, "{path}");
        assert!(html.starts_with("<!DOCTYPE html>"), "{path}: {html}");
    }
    let cancel = format!("/builds/{build}/cancel");
    let drain = "/hosts/host1/drain";
    for (browser, path, site, expected) in [
        (&reader, cancel.as_str(), "same-origin", 403),
        (&root, cancel.as_str(), "cross-site", 403),
        (&root, cancel.as_str(), "same-origin", 303),
        (&reader, "/schedules/none/run", "same-origin", 403),
        (&root, "/schedules/none/run", "same-origin", 404),
        (&root, "/schedules/none/pause", "same-origin", 404),
        (&root, "/schedules/none/dance", "same-origin", 404),
        (&reader, drain, "same-origin", 403),
        (&root, drain, "same-origin", 303),
    ] {
        let answer = browser.post(path, site, "").await;
        assert_eq!(answer.status().as_u16(), expected, "{path} {site}");
    }
    assert!(root.get("/hosts/host1").await.1.contains("Undrain"));
    assert!(
        store
            .revoke_token(&"reader".parse().unwrap())
            .await
            .unwrap()
    );
    let (status, _) = reader.get("/").await;
    assert_eq!(
        status,
        StatusCode::SEE_OTHER,
        "the session ends with its token"
    );
    let answer = root.post("/logout", "same-origin", "").await;
    assert_eq!(answer.status().as_u16(), 303);
    assert_eq!(root.get("/").await.0, StatusCode::SEE_OTHER);
}

/// Adds hosts that have polled, of which one in a hundred is silent and one in a hundred halted, and builds that
/// none of them takes.
const MANY: &str = r#"
    INSERT INTO hosts (id, name, key_hash, seen, halted)
    SELECT n, 'build' || n, sha256(n::text::bytea),
        CASE WHEN n % 100 = 0 THEN now() - interval '1 hour' ELSE now() + interval '1 hour' END,
        n % 100 = 1
    FROM generate_series(10001, 15000) n;
    INSERT INTO offers
    SELECT n, format('{"machines": {"linux": {"revision": 1, "toolchains": ["default"]}}, "total":
        {"guests": 8, "cpus": 64, "memory_mib": 262144}, "free": {"guests": 8, "cpus": 64,
        "memory_mib": 262144}, "version": "1.0"%s}',
        CASE WHEN n % 100 = 1 THEN ', "halt": "the disk is full"' END), '{linux}'
    FROM generate_series(10001, 15000) n;
    INSERT INTO builds (id, submitter, priority, machine, requirements, submitted)
    SELECT nextval('build_ids'), 'ann', 0, 'linux', '{"machine": "linux", "toolchain": "default",
        "cpus": 65, "memory_mib": 1}', now()
    FROM generate_series(1, 100) n"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn the_answers_of_a_farm_with_thousands_of_hosts_have_bounds() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    execute(&cluster, MANY);
    let server = Server::start(&store).await;
    let reader = Browser::sign_in(&server, &store, "reader", Scope::Read).await;
    for (path, expected) in [
        (
            "/",
            vec![
                "5000",
                "4900 alive",
                "50 halted",
                "50 silent",
                "and 88 more",
            ],
        ),
        (
            "/hosts",
            vec!["4900 alive", "build10050<", "after=build10050"],
        ),
        (
            "/hosts?state=silent&after=build14900",
            vec!["build15000", "no-next"],
        ),
        (
            "/hosts?name=1001&machine=linux",
            vec!["build11001", "no-next"],
        ),
        ("/hosts?machine=mac", vec!["No host matches."]),
        ("/hosts/build12345", vec!["64 of 64"]),
        ("/machines", vec!["build10012", "and 4988 more"]),
        (
            "/builds?state=queued",
            vec!["is too small: processors (65 wanted, 64 there)"],
        ),
    ] {
        let (status, html) = reader.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert!(html.len() < 60_000, "{path} has {} bytes", html.len());
        for text in expected {
            let is_there = match text {
                "no-next" => !html.contains("rel=\"next\""),
                text => html.contains(text),
            };
            assert!(is_there, "{path} {text}: {html}");
        }
    }
    for path in ["/hosts?color=red", "/hosts?state=asleep"] {
        assert_eq!(reader.get(path).await.0, StatusCode::BAD_REQUEST, "{path}");
    }
    let (_, machines) = server.get("/farm/v1/machines").await;
    assert_eq!(machines[0]["revisions"][0]["hosts"], 5000);
    assert_eq!(machines[0]["hosts"].as_object().unwrap().len(), 12);
    // Clients of older versions name no page and expect all hosts.
    let (_, hosts) = server.get("/farm/v1/hosts").await;
    assert_eq!(hosts.as_array().unwrap().len(), 5000);
    let (_, hosts) = server.get("/farm/v1/hosts?after=build14997&count=2").await;
    let hosts = hosts.as_array().unwrap().iter();
    let names: Vec<_> = hosts.map(|it| it["name"].as_str()).collect();
    assert_eq!(names, [Some("build14998"), Some("build14999")]);
    let (_, text) = server.text("/metrics").await;
    assert!(
        text.contains("buildhost_farm_hosts{state=\"halted\"} 50"),
        "{text}"
    );
}
