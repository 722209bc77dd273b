use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;

/// The answers of an index by their paths, and how it lies.
#[derive(Debug, Default)]
struct Script {
    answers: BTreeMap<String, Value>,
    /// The credentials that it wants, as the header has them.
    authorization: Option<String>,
    /// Breaks off every answer of a path.
    cut: Option<&'static str>,
    /// The paths that were asked for, with those that were unchanged marked.
    log: Vec<String>,
}

/// A layer index on a port of the loopback interface.
struct Index {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

impl Index {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(Script::default()));
        let shared = Arc::clone(&script);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(&stream.unwrap(), &shared);
            }
        });
        let index = Self { address, script };
        index.fill();
        index
    }

    /// Sets the answers of an index with two layers on `wrynose`, and one of them on `master`.
    fn fill(&self) {
        let base = format!("http://{}/layerindex/api/", self.address);
        let links = [
            "branches",
            "layerItems",
            "layerBranches",
            "layerDependencies",
            "recipes",
            "machines",
            "distros",
        ];
        let root: BTreeMap<_, _> = links
            .iter()
            .map(|it| (*it, format!("{base}{it}/")))
            .collect();
        self.set("", json!(root));
        self.set("branches/", json!([{"id": 1, "name": "wrynose"}, {"id": 2, "name": "master"}, {"id": 3, "name": "other"}]));
        self.set("layerItems/", json!([
            {"id": 10, "name": "openembedded-core", "vcs_url": "https://git.example.org/oe", "summary": "Core"},
            {"id": 11, "name": "meta-oe", "vcs_url": "https://git.example.org/meta-oe", "summary": null},
            {"id": 12, "name": "not a name", "vcs_url": "https://git.example.org/x"}]));
        self.set("layerBranches/?filter=branch__name:wrynose", json!([
            {"id": 100, "layer": 10, "branch": 1, "vcs_subdir": "meta", "actual_branch": ""},
            {"id": 101, "layer": 11, "branch": 1, "vcs_subdir": "meta-oe/", "actual_branch": "wrynose-next"},
            {"id": 102, "layer": 12, "branch": 1},
            {"id": 103, "layer": 99, "branch": 1}]));
        self.set(
            "layerBranches/?filter=branch__name:master",
            json!([
            {"id": 110, "layer": 10, "branch": 2, "vcs_subdir": "meta"}]),
        );
        for list in ["layerDependencies", "recipes", "machines", "distros"] {
            for branch in ["wrynose", "master"] {
                self.set(
                    &format!("{list}/?filter=layerbranch__branch__name:{branch}"),
                    json!([]),
                );
            }
        }
        let of = |list: &str| format!("{list}/?filter=layerbranch__branch__name:wrynose");
        self.set(&of("layerDependencies"), json!([{"layerbranch": 101, "dependency": 10, "required": true}, {"layerbranch": 101, "dependency": 12}]));
        self.set(
            &of("machines"),
            json!([{"layerbranch": 100, "name": "qemux86-64", "description": "QEMU"}]),
        );
        self.set(
            &of("distros"),
            json!([{"layerbranch": 100, "name": "nodistro", "description": ""}]),
        );
        self.set(&of("recipes"), json!([
            {"layerbranch": 100, "pn": "core-image-minimal", "pv": "1.0", "filename": "core-image-minimal.bb", "filepath": "recipes-core/images", "inherits": "core-image image"},
            {"layerbranch": 100, "pn": "busybox", "pv": "1.37", "filename": "busybox_1.37.bb", "filepath": "recipes-core/busybox", "inherits": "kernel-image"}]));
    }

    fn set(&self, path: &str, answer: Value) {
        let path = format!("/layerindex/api/{path}");
        self.script.lock().unwrap().answers.insert(path, answer);
    }

    fn address(&self) -> Address {
        Address::parse(&format!(
            "http://{}/layerindex/branch/master/layers/",
            self.address
        ))
        .unwrap()
    }

    fn sync(&self, mark: &str) -> Result<Synced, IndexError> {
        sync(&self.address(), &releases(), mark)
    }

    /// Returns the text of the failure to ask the index.
    fn fault(&self) -> String {
        let error = self.sync("").unwrap_err();
        sys::error_report::chain(&error).replace(&self.address.to_string(), "HOST")
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.script.lock().unwrap().log)
    }
}

/// Answers one request.
fn answer(stream: &TcpStream, script: &Mutex<Script>) {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        match line.trim() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut script = script.lock().unwrap();
    let path = lines[0].split(' ').nth(1).unwrap().to_owned();
    let header = |name: &str| {
        let line = lines
            .iter()
            .find(|line| line.to_lowercase().starts_with(name));
        line.and_then(|line| line.split_once(": "))
            .map(|(_, value)| value.to_owned())
    };
    let known = script.answers.get(&path).or(script
        .answers
        .get(path.split("?filter=name").next().unwrap()));
    let is_known =
        script.authorization.is_none() || script.authorization == header("authorization");
    let (status, body, mut headers) = match known {
        _ if !is_known => ("401 Unauthorized", String::new(), String::new()),
        Some(Value::String(location)) => (
            "302 Found",
            String::new(),
            format!("Location: {location}\r\n"),
        ),
        Some(body) => ("200 OK", body.to_string(), String::new()),
        None => ("404 Not Found", String::new(), String::new()),
    };
    let etag = format!("\"{}\"", sys::file::digest_of(body.as_bytes()));
    let is_same = status == "200 OK" && header("if-none-match").as_ref() == Some(&etag);
    let (status, body) = if is_same {
        ("304 Not Modified", String::new())
    } else {
        (status, body)
    };
    script
        .log
        .push(format!("{}{path}", if is_same { "= " } else { "" }));
    headers.push_str("ETag: ");
    headers.push_str(&etag);
    headers.push_str("\r\n");
    let length = body.len()
        + if script.cut.is_some_and(|cut| path.contains(cut)) {
            10
        } else {
            0
        };
    let text = format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    let mut stream = stream;
    let _ = stream.write_all(text.as_bytes());
}

/// Returns two releases of one branch, whose names are not its name, and `master`.
fn releases() -> Vec<Release> {
    let release = |name: &str, branch: &str| {
        let text = format!(
            r#"{{"name": "{name}", "branch": "{branch}", "layers": [], "bitbake": {{"url": "/b", "reference": "HEAD"}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    };
    vec![
        release("products-6", "wrynose"),
        release("stable", "wrynose"),
        release("master", "master"),
    ]
}

#[test]
fn an_index_becomes_the_layers_of_releases() {
    let index = Index::new();
    let Synced::Changed { content, notes, .. } = index.sync("").unwrap() else {
        panic!("unchanged");
    };
    insta::assert_debug_snapshot!(content.layers);
    insta::assert_debug_snapshot!(notes);
    let log = index.log();
    assert_eq!(
        log[1],
        "/layerindex/api/branches/?filter=name:masterORwrynose"
    );
    assert!(!log.iter().any(|path| path.contains("other")), "{log:?}");
}

#[test]
fn an_unchanged_index_is_not_read_again() {
    let index = Index::new();
    let Synced::Changed { mark, .. } = index.sync("").unwrap() else {
        panic!("unchanged");
    };
    index.log();
    assert_eq!(index.sync(&mark).unwrap(), Synced::Unchanged);
    let log = index.log();
    assert!(log.iter().all(|path| path.starts_with("= ")), "{log:?}");
    // Other releases need other content, although the answers are the same.
    assert_ne!(
        sync(&index.address(), &releases()[..1], &mark).unwrap(),
        Synced::Unchanged
    );
    index.set(
        "layerItems/",
        json!([{"id": 10, "name": "renamed", "vcs_url": "/x"}]),
    );
    let Synced::Changed { content, .. } = index.sync(&mark).unwrap() else {
        panic!("unchanged");
    };
    assert_eq!(content.layers[0].layer.name.as_str(), "renamed");
    assert_ne!(index.sync("nonsense").unwrap(), Synced::Unchanged);
}

#[test]
fn credentials_are_sent_and_never_shown() {
    let index = Index::new();
    index.script.lock().unwrap().authorization = Some("Basic dTpwdw==".to_owned());
    let url = format!("http://u:pw@{}/layerindex/api/", index.address);
    let address = Address::parse(&url).unwrap();
    sync(&address, &releases(), "").unwrap();
    let wrong = Address::parse(&url.replace("pw", "secret")).unwrap();
    let error = sync(&wrong, &releases(), "").unwrap_err().to_string();
    assert!(
        error.contains("401") && error.contains("credentials"),
        "{error}"
    );
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn a_lying_index_is_refused_as_a_whole() {
    let root = |link: &str| {
        let links = [
            "branches",
            "layerItems",
            "layerBranches",
            "layerDependencies",
            "recipes",
            "machines",
            "distros",
        ];
        json!(
            links
                .iter()
                .map(|it| (*it, link.to_owned()))
                .collect::<BTreeMap<_, _>>()
        )
    };
    let recipes = "recipes/?filter=layerbranch__branch__name:wrynose";
    for (path, answer, reason) in [
        (
            "",
            root("http://other.example.org/x"),
            "leads to another host",
        ),
        (
            "",
            json!("http://other.example.org/"),
            "answers with status 302",
        ),
        ("", json!([]), "does not answer as a layer index"),
        ("", json!({"branches": "x"}), "missing field `layerItems`"),
        (
            "layerItems/",
            json!({"results": []}),
            "does not answer as a layer index",
        ),
        (
            "layerItems/",
            json!([{"id": 1}]),
            "object 1: missing field `name`",
        ),
        (
            recipes,
            json!([{"layerbranch": 1, "pn": "a"}, {"layerbranch": "x"}]),
            "object 2: invalid type",
        ),
        (
            "branches/",
            json!([]),
            "has no layers of the branches master, wrynose",
        ),
        ("layerItems/", json!([]), "has no layers of the branches"),
    ] {
        let index = Index::new();
        index.set(path, answer);
        let fault = index.fault();
        assert!(fault.contains(reason), "{path}: {fault}");
    }
    let index = Index::new();
    index
        .script
        .lock()
        .unwrap()
        .answers
        .remove(&format!("/layerindex/api/{recipes}"));
    assert!(index.fault().contains("answers with status 404"));
    index.fill();
    index.script.lock().unwrap().cut = Some("recipes");
    assert!(index.fault().contains("ends early"), "{}", index.fault());
}

#[test]
fn an_index_that_does_not_answer_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/layerindex/api/", listener.local_addr().unwrap());
    drop(listener);
    let error = sync(&Address::parse(&url).unwrap(), &releases(), "").unwrap_err();
    assert_eq!(error.to_string(), format!("cannot get {url}"));
}

#[test]
fn an_index_that_is_too_slow_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/layerindex/api/", listener.local_addr().unwrap());
    // It begins each answer, and never ends it.
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{");
            open.push(stream);
        }
    });
    let address = Address::parse(&url).unwrap();
    let limit = std::time::Duration::from_millis(200);
    let error = sync_within(&address, &releases(), "", limit).unwrap_err();
    let text = sys::error_report::chain(&error);
    assert!(text.contains(&url) && text.contains("timed out"), "{text}");
}
