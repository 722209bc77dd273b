//! Hostile peers of the PR service: guests at their gateway, pages in browsers, clients that read
//! nothing, and other users of the host.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

use config::settings::Settings;
use prserv::server::Limits;
use prserv::store::Filter;
use prserv::{History, OpenOptions, Server, Service, Tuple};
use serde_json::json;
use session::pr_service::server_for_guest;
use tempfile::TempDir;
use tests::attacks::refused;
use tests::net::connect_from;
use tests::wait_until;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const GREETING: &str = "PRSERVICE 1.0\n\n";
/// The connections that a guest may have.
const GUEST_CONNECTIONS_MAX: usize = 16;

/// A PR service and a server of it.
struct PrHost {
    runtime: Runtime,
    address: SocketAddr,
    service: Service,
    _directory: TempDir,
}

impl PrHost {
    fn new(server: impl FnOnce(Service) -> Server) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("prserv.sqlite3");
        let service = Service::open(&OpenOptions::new(path.to_str().unwrap())).unwrap();
        let runtime = Runtime::new().unwrap();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let address = listener.local_addr().unwrap();
        let server = server(service.clone());
        runtime.spawn(server.serve(listener, std::future::pending()));
        Self {
            runtime,
            address,
            service,
            _directory: directory,
        }
    }

    /// With the server that a guest reaches at its gateway.
    fn for_guest() -> Self {
        let pr = Settings::parse("").unwrap().pr;
        Self::new(|service| server_for_guest(service, &pr, "guest"))
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        let limit = Some(Duration::from_mins(1));
        stream.set_read_timeout(limit).unwrap();
        stream
    }

    /// Sends bytes on a connection of their own, and returns the whole reply.
    fn exchange(&self, bytes: &str) -> String {
        let mut stream = self.connect();
        // The server may close the connection before it has read everything.
        let _ = stream.write_all(bytes.as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        String::from_utf8_lossy(&reply).into_owned()
    }

    fn rows(&self) -> usize {
        let export = self.service.export(Filter::default(), History::Keep);
        self.runtime.block_on(export).unwrap().len()
    }
}

/// Sends a query and returns true if it is answered.
fn is_served(stream: &mut TcpStream) -> bool {
    let mut reply = [0; 16];
    let query = format!("{GREETING}{{\"ping\": {{}}}}\n");
    stream.write_all(query.as_bytes()).is_ok()
        && stream.read_exact(&mut reply).is_ok()
        && reply.starts_with(b"{\"alive\"")
}

#[test]
fn a_guest_has_at_most_sixteen_connections_and_those_are_served() {
    let host = PrHost::for_guest();
    let mut held: Vec<_> = (0..GUEST_CONNECTIONS_MAX).map(|_| host.connect()).collect();
    assert!(held.iter_mut().all(is_served));
    for _ in 0..50 {
        assert!(!is_served(&mut host.connect()));
    }
    assert!(held.iter_mut().all(|stream| {
        let mut reply = [0; 16];
        stream.write_all(b"{\"ping\": {}}\n").is_ok() && stream.read_exact(&mut reply).is_ok()
    }));
    refused(
        "guest -> PR service",
        "a 17th connection",
        "the share of a guest",
    );
    held.pop();
    wait_until("the place is free again", || is_served(&mut host.connect()));
}

#[test]
fn a_guest_can_neither_choose_values_nor_read_rows() {
    let host = PrHost::for_guest();
    let tuple = json!({"version": "hello-1.0-r0", "pkgarch": "all", "checksum": "c"});
    let mut import = tuple.clone();
    import["value"] = "99999".into();
    let all = json!({"version": null, "pkgarch": null, "checksum": null, "colinfo": true});
    for (attack, request) in [
        ("choose a value", json!({ "import-one": import })),
        ("read all rows", json!({ "export": all })),
    ] {
        let reply = host.exchange(&format!("{GREETING}{request}\n"));
        assert!(reply.contains("does not answer"), "{reply}");
        refused("guest -> PR service", attack, &reply);
    }
    assert_eq!(host.rows(), 0);
    let reply = host.exchange(&format!("{GREETING}{}\n", json!({ "get-pr": tuple })));
    assert_eq!(reply, "{\"value\": \"0\"}\n");
}

#[test]
fn pages_of_other_sites_can_not_change_rows() {
    let host = PrHost::new(Server::new);
    let params = ["v", "all", "c", "<int>99999</int>"]
        .map(|param| format!("<param><value>{param}</value></param>"));
    let call = format!(
        "<methodCall><methodName>importone</methodName><params>{}</params></methodCall>",
        params.concat()
    );
    let own = format!("Host: {}", host.address);
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    for (attack, line, headers, status) in [
        (
            "XML-RPC as text/plain",
            "POST /",
            "Content-Type: text/plain",
            "415",
        ),
        (
            "XML-RPC of a foreign origin",
            "POST /",
            "Content-Type: text/xml\r\nOrigin: https://evil.example",
            "403",
        ),
        (
            "websocket of a foreign origin",
            "GET /",
            &format!("{upgrade}\r\nOrigin: https://evil.example"),
            "403",
        ),
    ] {
        let length = call.len();
        let head = format!("{line} HTTP/1.1\r\n{own}\r\n{headers}\r\nContent-Length: {length}");
        let reply = host.exchange(&format!("{head}\r\n\r\n{call}"));
        assert!(
            reply.starts_with(&format!("HTTP/1.1 {status}")),
            "{attack}: {reply}"
        );
        refused("browser -> PR service", attack, &reply);
    }
    let rebound = "GET /api/v1/rows HTTP/1.1\r\nHost: rebound.example\r\nConnection: close\r\n\r\n";
    let reply = host.exchange(rebound);
    assert!(reply.starts_with("HTTP/1.1 403"), "{reply}");
    refused(
        "browser -> PR service",
        "read rows under a rebound name",
        &reply,
    );
    assert_eq!(host.rows(), 0);
}

#[test]
fn clients_that_read_no_export_are_closed_and_others_are_served() {
    let mut limits = Limits::default();
    limits.deadlines.write = Duration::from_secs(1);
    let host = PrHost::new(|service| Server::new(service).with_limits(limits));
    host.runtime.block_on(async {
        // Together, for one write to the disk.
        let mut rows = JoinSet::new();
        for number in 0..50 {
            let service = host.service.clone();
            let tuple = Tuple::new("x".repeat(20_000), "all", number.to_string());
            rows.spawn(async move { service.get_pr(&tuple, History::Ignore).await });
        }
        rows.join_all().await
    });
    let filter = json!({"version": null, "pkgarch": null, "checksum": null, "colinfo": false, "history": true});
    let export = format!("{}\n", json!({ "export": filter }));
    // More clients than are answered at once, each with more than all buffers hold.
    let mut slow: Vec<_> = (2..10)
        .map(|last| connect_from(last, host.address))
        .collect();
    for stream in &mut slow {
        let request = format!("{GREETING}{}", export.repeat(20));
        stream.write_all(request.as_bytes()).unwrap();
    }
    assert!(is_served(&mut host.connect()));
    let reply = host.exchange(&format!("{GREETING}{export}"));
    assert!(reply.len() > 50 * 20_000, "{} bytes", reply.len());
    for stream in &mut slow {
        wait_until("a slow connection is closed", || {
            let sent = stream.write(b"\n");
            sent.is_err_and(|error| error.kind() != ErrorKind::WouldBlock)
        });
    }
    refused(
        "network -> PR service",
        "read no export",
        "the write deadline",
    );
}

#[test]
fn a_pid_file_of_another_user_ends_no_process() {
    let directory = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let pid_file = format!("/tmp/PRServer_127.0.0.1_{port}.pid");
    let mut other = sys::command::prepare("sleep").arg("60").spawn().unwrap();
    let pid = other.id();
    for text in [pid.to_string(), format!("-{pid}")] {
        File::create(&pid_file)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let mut stop = sys::command::prepare(tests::program("prserv"));
        stop.arg0("bitbake-prserv").current_dir(directory.path());
        stop.args(["--stop", "--host", "127.0.0.1", "--port", &port.to_string()]);
        let ended = tests::hosts::run(stop, b"");
        assert_eq!(ended.code, Some(0), "{text}: {ended:?}");
        assert!(other.try_wait().unwrap().is_none(), "{text}");
        assert!(!Path::new(&pid_file).exists());
        let attack = format!("a pid file with {}", text.replace(&pid.to_string(), "PID"));
        refused("local user -> prserv --stop", &attack, "it names no server");
    }
    other.kill().unwrap();
    other.wait().unwrap();
}
