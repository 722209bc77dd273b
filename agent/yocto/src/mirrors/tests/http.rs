//! Repositories over HTTP, as `git http-backend` serves them.

use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;

use super::*;

/// A server of repositories. It ends with the test.
struct GitServer {
    address: SocketAddr,
    /// The targets of the requests.
    log: Arc<Mutex<Vec<String>>>,
}

impl GitServer {
    /// Serves the repositories below a directory, to clients with this header `Authorization`.
    fn start(root: &Path, authorization: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let (root, shared) = (root.to_owned(), Arc::clone(&log));
        let authorization = authorization.map(str::to_owned);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Some(request) = Request::read(&stream) {
                    shared.lock().push(request.target.clone());
                    let is_allowed = authorization.is_none()
                        || authorization.as_deref() == request.header("authorization");
                    request.answer(&stream, &root, is_allowed);
                }
            }
        });
        Self { address, log }
    }

    fn url(&self, path: &str) -> RepositoryUrl {
        format!("http://{}/{path}", self.address).parse().unwrap()
    }
}

struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn read(stream: &TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut words = line.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim().split_once(": ") else {
                break;
            };
            headers.push((name.to_lowercase(), value.to_owned()));
        }
        let mut request = Self {
            method,
            target,
            headers,
            body: Vec::new(),
        };
        let length = request.header("content-length").map(str::parse);
        let length = length.transpose().ok()?.unwrap_or(0);
        reader.take(length).read_to_end(&mut request.body).ok()?;
        Some(request)
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    fn answer(&self, mut stream: &TcpStream, root: &Path, is_allowed: bool) {
        if !is_allowed {
            let text = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\n\
                        Content-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(text.as_bytes());
            return;
        }
        // A client of a proxy sends the whole address.
        let path = match self.target.strip_prefix("http://") {
            Some(rest) => &rest[rest.find('/').unwrap_or(0)..],
            None => &self.target,
        };
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut input = tempfile::tempfile().unwrap();
        input.write_all(&self.body).unwrap();
        input.rewind().unwrap();
        let mut backend = prepare_git();
        backend
            .arg("http-backend")
            .stdin(input)
            .stdout(Stdio::piped());
        for (name, value) in [
            ("GIT_PROJECT_ROOT", root.to_str().unwrap()),
            ("GIT_HTTP_EXPORT_ALL", "1"),
            ("REQUEST_METHOD", &self.method),
            ("PATH_INFO", path),
            ("QUERY_STRING", query),
            ("CONTENT_TYPE", self.header("content-type").unwrap_or("")),
            (
                "CONTENT_LENGTH",
                self.header("content-length").unwrap_or(""),
            ),
            (
                "HTTP_CONTENT_ENCODING",
                self.header("content-encoding").unwrap_or(""),
            ),
            ("GIT_PROTOCOL", self.header("git-protocol").unwrap_or("")),
        ] {
            backend.env(name, value);
        }
        let output = backend.output().unwrap().stdout;
        let is_missing = output.starts_with(b"Status: 404");
        let status = if is_missing {
            "404 Not Found"
        } else {
            "200 OK"
        };
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(&output);
    }
}

/// Returns the error of an update, with its causes.
fn fault(mirrors: &Mirrors, url: &RepositoryUrl) -> String {
    let error = mirrors.update(url, &"main".parse().unwrap()).unwrap_err();
    assert!(error.is_refusal(), "{error}");
    sys::error_report::chain(&error)
}

#[test]
fn a_repository_is_mirrored_over_http() {
    let host = Host::new();
    let server = GitServer::start(&host.path(""), None);
    let (url, main) = (server.url("origin/.git"), "main".parse().unwrap());
    let first: Reference = host.git(&["rev-parse", "HEAD"]).parse().unwrap();
    assert_eq!(host.mirrors.update(&url, &main).unwrap(), first);
    let second = host.commit("file", "two");
    assert_eq!(host.mirrors.update(&url, &main).unwrap(), second);
    // A commit that the mirror has needs no network.
    let before = server.log.lock().len();
    assert_eq!(host.mirrors.update(&url, &first).unwrap(), first);
    assert_eq!(server.log.lock().len(), before);
    let missing = fault(&host.mirrors, &server.url("missing/.git"));
    assert!(missing.contains("cannot read the repository"), "{missing}");
    assert!(missing.contains("not found"), "{missing}");
}

#[test]
fn passwords_come_from_the_file_of_the_settings_and_are_never_shown() {
    let host = Host::new();
    // u:pw
    let server = GitServer::start(&host.path(""), Some("Basic dTpwdw=="));
    let url = server.url("origin/.git");
    let refused = fault(&host.mirrors, &url);
    assert!(refused.contains("cannot read the repository"), "{refused}");
    let file = host.path("credentials");
    let with = |password: &str| {
        std::fs::write(&file, format!("http://u:{password}@{}\n", server.address)).unwrap();
        host.mirrors_with(|policy| policy.credentials = Some(file.clone()))
    };
    let refused = fault(&with("wrong-one"), &url);
    assert!(refused.contains("Authentication failed"), "{refused}");
    assert!(!refused.contains("wrong-one"), "{refused}");
    with("pw").update(&url, &"main".parse().unwrap()).unwrap();
}

#[test]
fn repositories_are_fetched_through_the_proxy_of_the_settings() {
    let host = Host::new();
    let server = GitServer::start(&host.path(""), None);
    let url: RepositoryUrl = "http://git.example.org/origin/.git".parse().unwrap();
    let through = |proxy: &str| {
        let proxies = proxies(Some(proxy), |_| None);
        host.mirrors_with(|policy| policy.proxies = proxies)
    };
    let proxy = format!("http://{}", server.address);
    let main = "main".parse().unwrap();
    through(&proxy).update(&url, &main).unwrap();
    let log = server.log.lock().clone();
    assert!(
        log[0].starts_with("http://git.example.org/origin/.git/info/refs"),
        "{log:?}"
    );
    // Nobody listens there.
    let refused = fault(&through("http://127.0.0.1:9"), &url);
    assert!(
        refused.contains("http://git.example.org/origin/.git"),
        "{refused}"
    );
}

#[test]
fn the_environment_names_the_proxies_unless_the_settings_do() {
    let environment = |name: &str| {
        let known = [("https_proxy", "http://p:1"), ("no_proxy", "localhost")];
        let found = known.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let pairs = |proxy| proxies(proxy, environment);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        pairs(None),
        [
            pair("https_proxy", "http://p:1"),
            pair("no_proxy", "localhost")
        ]
    );
    assert_eq!(pairs(Some("none")), []);
    let set = pairs(Some("http://q:2"));
    assert_eq!(
        set,
        [
            pair("http_proxy", "http://q:2"),
            pair("https_proxy", "http://q:2")
        ]
    );
}
