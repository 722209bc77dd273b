//! A coordinator that serves in this process, and a client of it.

use std::sync::Arc;

use axum::http::StatusCode;
use farm::api::{Attempts, Service, router};
use farm::coordinator::Coordinator;
use farm::secret;
use farm::sources::{Rules, Sources};
use farm_objects::Objects;
use farm_store::Store;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::farm::TERMS;
use super::host::offer;
use super::notifications::telling;

pub(crate) const TOKEN: &str = "the-token-of-clients-0123456789abcdef";

/// A coordinator with its address.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) base: String,
    pub(crate) http: reqwest::Client,
    service: Arc<Service>,
    archiving: Option<AbortHandle>,
}

impl Server {
    /// Starts a coordinator, which serves and watches until the runtime ends.
    pub(crate) async fn start(store: &Store) -> Self {
        Self::start_with(store, None).await
    }

    /// Starts a coordinator with sources.
    pub(crate) async fn start_with(store: &Store, rules: Option<Rules>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let mut coordinator = Coordinator::new(store.clone(), TERMS).reached_at(base.clone());
        if let Some(rules) = rules {
            let sources = Sources::open(store.clone(), base.clone(), rules).await;
            coordinator = coordinator.with_sources(sources.unwrap());
        }
        Self::serve(listener, base, coordinator)
    }

    /// Starts a coordinator that puts the files of builds into an object store and keeps them for a month. It has
    /// a rule for notifications.
    pub(crate) async fn archiving(store: &Store, objects: Objects) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let coordinator = Coordinator::new(store.clone(), TERMS).reached_at(base.clone());
        let coordinator = coordinator.keeping(1).archiving_to(objects);
        let rule = "[[notify]]\nname = \"team\"\nmail = [\"team@example.org\"]\n";
        let coordinator = coordinator.telling(telling(rule));
        let mut server = Self::serve(listener, base, coordinator);
        let archived = Arc::clone(&server.service);
        let archiving = tokio::spawn(async move { archived.coordinator.archive().await });
        server.archiving = Some(archiving.abort_handle());
        server
    }

    /// Ends the uploads of a coordinator, which continues to serve.
    pub(crate) fn stop_archiving(&self) {
        self.archiving.as_ref().unwrap().abort();
    }

    fn serve(listener: TcpListener, base: String, coordinator: Coordinator) -> Self {
        let service = Arc::new(Service {
            coordinator,
            client_token: Some(secret::hash(TOKEN)).into(),
            attempts: Attempts::default(),
            name: "camera farm".to_owned(),
        });
        let served = Arc::clone(&service);
        tokio::spawn(async move { axum::serve(listener, router(served)).await });
        let watched = Arc::clone(&service);
        tokio::spawn(async move { watched.coordinator.watch().await });
        let http = reqwest::Client::new();
        Self {
            base,
            http,
            service,
            archiving: None,
        }
    }

    /// Gives hosts new keys.
    pub(crate) async fn keys(&self, store: &Store, names: &[&str]) -> Vec<String> {
        let mut keys = Vec::new();
        for name in names {
            let (token, key) = (format!("token-{name}"), format!("{name:x<64}"));
            store.invite(secret::hash(&token), name, 60).await.unwrap();
            let enrolled = store.enrol(secret::hash(&token), secret::hash(&key)).await;
            assert!(enrolled.unwrap().is_some());
            keys.push(key);
        }
        keys
    }

    pub(crate) fn coordinator(&self) -> &Coordinator {
        &self.service.coordinator
    }

    /// Sends a request as a client.
    pub(crate) async fn send(
        &self,
        method: reqwest::Method,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> (StatusCode, Value) {
        let request = self.http.request(method, format!("{}{path}", self.base));
        let request = request.header("Content-Type", "application/json");
        let answer = request.bearer_auth(TOKEN).body(body).send().await.unwrap();
        let status = StatusCode::from_u16(answer.status().as_u16()).unwrap();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// Returns the token of a client that may do everything.
    #[expect(clippy::unused_self, reason = "the token belongs to the server")]
    pub(crate) fn token(&self) -> &'static str {
        TOKEN
    }

    /// Gets a text as a client. Fails if the answer is cut.
    pub(crate) async fn try_text(&self, path: &str) -> Result<String, reqwest::Error> {
        let request = self.http.get(format!("{}{path}", self.base));
        request.bearer_auth(TOKEN).send().await?.text().await
    }

    /// Gets a text as a client.
    pub(crate) async fn text(&self, path: &str) -> (StatusCode, String) {
        let request = self.http.get(format!("{}{path}", self.base));
        let answer = request.bearer_auth(TOKEN).send().await.unwrap();
        let status = StatusCode::from_u16(answer.status().as_u16()).unwrap();
        (status, answer.text().await.unwrap())
    }

    /// Gets a document as a client.
    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        let (status, text) = self.text(path).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// Polls as a host that offers the machine `linux`.
    pub(crate) async fn poll(&self, key: &str, number: u64, held: Value) -> Value {
        let id = json!({ "incarnation": 1, "number": number });
        let poll = json!({ "id": id, "held": held, "offer": offer(0) });
        let request = self.http.post(format!("{}/farm/v1/poll", self.base));
        let request = request.header("Content-Type", "application/json");
        let answer = request.bearer_auth(key).body(poll.to_string()).send();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }
}
