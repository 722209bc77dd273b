//! The settings of the HTTP server.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::{HOST_NAMES, Reader, host_name};

/// The settings of the HTTP server and of access to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// The group whose members may use the administration socket besides root.
    pub group: Option<String>,
    /// The network address to listen on, `host:port`.
    pub listen: Option<String>,
    /// The server's certificate; plain HTTP if `None`.
    pub tls: Option<Tls>,
    /// The file with the tokens for clients on the network.
    pub token_file: PathBuf,
    /// The access to the web pages.
    pub web: WebMode,
    /// The names under which clients may address the server, besides those of this host.
    pub allowed_hosts: Vec<String>,
    /// The largest request body, uploads of sources excepted.
    pub request_bytes_max: usize,
    /// The average rate of requests of one client; unlimited if 0.
    pub requests_per_second_max: u32,
    /// The largest number of simultaneous connections.
    pub connections_max: usize,
    /// The largest number of simultaneous connections of one address or IPv6 /64 network.
    pub connections_per_peer_max: usize,
    /// The time in which a client must send a part of the body of its request.
    pub body_max: Duration,
    /// The time in which a client must read a part of its response.
    pub write_max: Duration,
}

/// The access to the web pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebMode {
    /// Pages and actions, for clients with the rights that the API asks for.
    Full,
    /// Pages for everyone, without actions.
    Read,
    /// No pages.
    Off,
}

/// The files of a server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain; PEM.
    pub certificate: PathBuf,
    /// The private key; PEM.
    pub key: PathBuf,
}

pub(super) fn http(reader: &mut Reader<'_>) -> Http {
    let web_modes = [
        ("full", WebMode::Full),
        ("read", WebMode::Read),
        ("off", WebMode::Off),
    ];
    let certificate = reader.optional_path("http.tls_certificate");
    let key = reader.optional_path("http.tls_key");
    if certificate.is_some() != key.is_some() {
        let fault = "a certificate and its key are expected, or neither";
        reader.fault("http.tls_certificate", fault);
        reader.fault("http.tls_key", fault);
    }
    Http {
        group: reader.optional_text("http.group", |_| Ok(())),
        listen: reader.optional_address("http.listen"),
        tls: certificate
            .zip(key)
            .map(|(certificate, key)| Tls { certificate, key }),
        token_file: reader.path("http.token_file", "/etc/buildhost/tokens"),
        web: reader.choice("http.web", &web_modes),
        allowed_hosts: reader.list("http.allowed_hosts", HOST_NAMES, host_name),
        request_bytes_max: 1024 * reader.count("http.request_kib_max", 1024, 1..=1 << 20),
        requests_per_second_max: reader.small_number(
            "http.requests_per_second_max",
            50,
            0..=1_000_000,
        ),
        connections_max: reader.count("http.connections_max", 256, 1..=65536),
        connections_per_peer_max: reader.count("http.connections_per_peer_max", 64, 1..=65536),
        body_max: reader.seconds("http.body_seconds_max", 60),
        write_max: reader.seconds("http.write_seconds_max", 30),
    }
}
