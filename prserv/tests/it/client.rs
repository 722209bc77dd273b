//! The client: retries, timeouts and proxies.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use prserv::client::{Client, ClientError, Proxies, RetryPolicy, Target};
use prserv::store::{Filter, Row};
use prserv::{History, Tuple, Value};

use super::harness::Server;

fn client(address: &str, proxies: &Proxies) -> Client {
    Client::new(
        Target::parse(address, proxies).unwrap(),
        RetryPolicy::default(),
    )
}

/// Starts a server that passes each connection, with the number of those before, to `handle`.
fn serve(handle: impl Fn(usize, TcpStream) + Send + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    thread::spawn(move || {
        for stream in listener.incoming() {
            handle(counter.fetch_add(1, Ordering::SeqCst), stream.unwrap());
        }
    });
    (address, connections)
}

/// Starts a relay to a server that closes its first connections after reading a request.
fn flaky_relay(to: std::net::SocketAddr, failures: usize) -> (String, Arc<AtomicUsize>) {
    serve(move |earlier, mut stream| {
        if earlier < failures {
            let _ = stream.read(&mut [0; 1024]);
        } else {
            relay(stream, TcpStream::connect(to).unwrap());
        }
    })
}

fn relay(left: TcpStream, right: TcpStream) {
    let pairs = [
        (left.try_clone().unwrap(), right.try_clone().unwrap()),
        (right, left),
    ];
    for (mut from, mut to) in pairs {
        thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}

/// Starts an HTTP proxy that records the heads of the requests.
fn proxy(status: &'static str) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let recorded = Arc::clone(&heads);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert!(reader.read_line(&mut head).unwrap() > 0);
            }
            let port = head
                .split_whitespace()
                .nth(1)
                .unwrap()
                .rsplit_once(':')
                .unwrap()
                .1
                .to_owned();
            recorded.lock().unwrap().push(head);
            let mut stream = reader.into_inner();
            write!(stream, "HTTP/1.1 {status}\r\nVia: test\r\n\r\n").unwrap();
            if status.starts_with("200") {
                // The requested name does not resolve; its port is that of the server.
                relay(
                    stream,
                    TcpStream::connect(format!("127.0.0.1:{port}")).unwrap(),
                );
            }
        }
    });
    (format!("http://me:secret@{address}"), heads)
}

#[tokio::test]
async fn a_request_is_attempted_four_times_on_lost_connections() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    let tuple = Tuple::new("v", "all", "c");
    let (address, connections) = flaky_relay(server.address, 3);
    let mut patient = client(&address, &Proxies::none());
    assert_eq!(patient.get_pr(&tuple, History::Ignore).await.unwrap(), "0");
    assert_eq!(connections.load(Ordering::SeqCst), 4);
    let (address, _) = flaky_relay(server.address, 4);
    let mut unlucky = client(&address, &Proxies::none());
    let error = unlucky.get_pr(&tuple, History::Ignore).await;
    assert!(matches!(error, Err(ClientError::Io { .. })), "{error:?}");
}

#[tokio::test]
async fn a_server_that_does_not_reply_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let target = Target::parse(&target, &Proxies::none()).unwrap();
    let retry = RetryPolicy {
        timeout: Duration::from_millis(50),
        attempts: 2,
    };
    let mut client = Client::new(target, retry);
    let error = client
        .get_pr(&Tuple::new("v", "a", "c"), History::Ignore)
        .await
        .unwrap_err();
    let ClientError::Io { source, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(source.kind(), std::io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_server_is_reached_through_a_proxy_with_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    let (url, heads) = proxy("200 Connection established");
    let address = format!("prs.invalid:{}", server.address.port());
    let mut client = client(&address, &Proxies::fixed(&url).unwrap());
    let tuple = Tuple::new("v", "all", "c");
    assert_eq!(client.get_pr(&tuple, History::Ignore).await.unwrap(), "0");
    assert_eq!(
        client.max_package_pr(&tuple.package).await.unwrap(),
        Some(Value::first())
    );
    let rows = client
        .export(&Filter::default(), History::Keep)
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(client.import(&rows).await.unwrap(), [true]);
    let heads = heads.lock().unwrap();
    assert_eq!(heads.len(), 1);
    assert!(
        heads[0].starts_with(&format!("CONNECT {address} HTTP/1.1\r\n")),
        "{heads:?}"
    );
    assert!(
        heads[0].contains("Proxy-Authorization: Basic bWU6c2VjcmV0\r\n"),
        "{heads:?}"
    );
}

/// Starts a server that answers every connection's requests with this line.
fn server_that_replies(line: &'static str) -> (String, Arc<AtomicUsize>) {
    serve(move |_, mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = writeln!(stream, "{line}");
    })
}

#[tokio::test]
async fn texts_of_a_server_are_escaped_in_errors_and_are_no_values() {
    for line in [
        r#"{"value": "\u001b[2J\n2026 INFO forged"}"#,
        r#"{"value": "../../etc"}"#,
        r#"{"value": "99999999999999999999999999999999999999999999999999999999999999999"}"#,
        r#"{"value": ["\u001b"]}"#,
        r#"{"invoke-error": {"message": "\u001b[2J\nforged"}}"#,
    ] {
        let (address, _) = server_that_replies(line);
        let mut client = client(&address, &Proxies::default());
        let tuple = Tuple::new("v", "a", "c");
        let error = client.get_pr(&tuple, History::Ignore).await.unwrap_err();
        let error = error.to_string();
        assert!(!error.contains(char::is_control), "{error:?}");
    }
}

#[tokio::test]
async fn a_refusal_is_an_error_with_its_message_and_is_not_repeated() {
    let reply = r#"{"invoke-error": {"message": "no imports here"}}"#;
    let (address, connections) = server_that_replies(reply);
    let mut client = client(&address, &Proxies::default());
    let value = Value::first();
    let tuple = Tuple::new("v", "a", "c");
    let error = client.import(&[Row { tuple, value }]).await.unwrap_err();
    assert!(error.to_string().contains("no imports here"), "{error}");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_error_contains_the_status_of_a_refusing_proxy() {
    let (url, _) = proxy("407 Proxy Authentication Required");
    let mut client = client("prs.invalid:1", &Proxies::fixed(&url).unwrap());
    let error = client
        .get_pr(&Tuple::new("v", "a", "c"), History::Ignore)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("407 Proxy Authentication Required"),
        "{error}"
    );
}
