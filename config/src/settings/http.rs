//! The settings of what the agent answers over HTTP.

use std::path::PathBuf;

use super::reader::Reader;
use super::{absolute, address, small};

/// What the agent answers over HTTP, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// The group whose members may use the administration socket beside root.
    pub group: Option<String>,
    /// `host:port` on which others are answered.
    pub listen: Option<String>,
    /// How they are spoken to in secret.
    pub tls: Option<Tls>,
    /// The file with the tokens of those who may do more than look at what is public.
    pub token_file: PathBuf,
    /// The size of a request, sources aside.
    pub request_bytes_max: usize,
    /// How many requests a client may make in a second over a while; no limit if 0.
    pub requests_per_second_max: u32,
    /// How many connections there are at once.
    pub connections_max: usize,
}

/// The files of a server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate, with those that vouch for it; PEM.
    pub certificate: PathBuf,
    /// Its private key; PEM.
    pub key: PathBuf,
}

pub(super) fn http(reader: &mut Reader<'_>) -> Http {
    let some = |text: String| (!text.is_empty()).then_some(text);
    let certificate = some(reader.text("http.tls_certificate", "", absolute));
    let key = some(reader.text("http.tls_key", "", absolute));
    if certificate.is_some() != key.is_some() {
        let fault = "a certificate and its key are expected, or neither";
        reader.fault("http.tls_certificate", fault);
        reader.fault("http.tls_key", fault);
    }
    Http {
        group: some(reader.text("http.group", "", |_| Ok(()))),
        listen: some(reader.text("http.listen", "", address)),
        tls: certificate.zip(key).map(|(certificate, key)| Tls {
            certificate: certificate.into(),
            key: key.into(),
        }),
        token_file: reader.path("http.token_file", "/etc/buildhost/tokens"),
        request_bytes_max: 1024 * number(reader.number("http.request_kib_max", 1024, 1..=1 << 20)),
        requests_per_second_max: small(reader.number(
            "http.requests_per_second_max",
            50,
            0..=1_000_000,
        )),
        connections_max: number(reader.number("http.connections_max", 256, 1..=65536)),
    }
}

fn number(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
