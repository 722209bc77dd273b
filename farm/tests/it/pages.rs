//! The pages: signing in, rights, forged requests, revoked tokens.

use axum::http::StatusCode;
use config::tokens::Scope;
use farm::secret;
use farm_store::Store;
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::redirect::Policy;
use server_tests::Cluster;
use tokio::task::block_in_place;

use super::farm::{open, submit};
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
