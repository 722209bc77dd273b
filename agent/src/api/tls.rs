//! The TLS certificate and key of the API, reloaded when their files change.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::settings::Tls;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::reload::Reloadable;

/// The reloadable TLS configuration of a listener.
pub(super) type TlsConfig = Arc<Reloadable<ServerConfig>>;

/// Reads the certificate and the key that the settings name.
///
/// # Errors
/// A file cannot be read, or its content cannot be used.
pub(super) fn load(tls: &Tls) -> io::Result<TlsConfig> {
    let paths = vec![tls.certificate.clone(), tls.key.clone()];
    Reloadable::new(paths, read).map(Arc::new)
}

fn read(paths: &[PathBuf]) -> io::Result<ServerConfig> {
    let [certificate, key] = paths else {
        return Err(io::Error::other("a certificate and a key are expected"));
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate)
        .map_err(|error| unusable(certificate, &error))?
        .collect();
    let chain = chain.map_err(|error| unusable(certificate, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| unusable(certificate, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn unusable(path: &Path, error: &dyn Display) -> io::Error {
    io::Error::other(format!("cannot use {}: {error}", path.display()))
}
