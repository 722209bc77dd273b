//! TLS: the trusted authorities, and the meaning of a failed handshake.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error, OtherError, RootCertStore};

use super::Stream;
use crate::endpoint::{AgentUrl, NetworkEndpoint};
use crate::error::ConnectError;

/// Returns the configuration of TLS for an agent.
pub(super) fn configuration(network: &NetworkEndpoint) -> Result<ClientConfig, ConnectError> {
    let roots = match &network.ca_file {
        Some(path) => from_file(path).map_err(|reason| ConnectError::CaFile {
            path: path.clone(),
            reason,
        })?,
        None => of_system(),
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&network.url, &error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn of_system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn from_file(path: &Path) -> Result<RootCertStore, String> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("it has no certificate in the form of PEM".to_owned());
    }
    Ok(roots)
}

/// Makes a connection one with TLS.
pub(super) async fn connect(
    config: ClientConfig,
    url: &AgentUrl,
    stream: TcpStream,
) -> Result<Stream, ConnectError> {
    let name = ServerName::try_from(url.host().to_owned());
    let name = name.map_err(|_| ConnectError::Tls {
        place: url.to_string(),
        reason: "its name cannot be that of a certificate".to_owned(),
    })?;
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream);
    match connected.await {
        Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
        Err(error) => Err(explain(url, error)),
    }
}

/// Returns the error of a handshake.
fn explain(url: &AgentUrl, error: io::Error) -> ConnectError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
    match tls {
        Some(tls) => failed(url, tls),
        None => ConnectError::NotReached {
            place: url.to_string(),
            source: error,
        },
    }
}

fn failed(url: &AgentUrl, error: &Error) -> ConnectError {
    ConnectError::Tls {
        place: url.to_string(),
        reason: reason(url.host(), error),
    }
}

/// Returns the reason of a failed handshake, with the remedy.
fn reason(host: &str, error: &Error) -> String {
    match error {
        Error::InvalidMessage(_) => {
            "it does not speak TLS; is its address http://…, or its port another one?".to_owned()
        }
        Error::InvalidCertificate(fault) => match fault {
            CertificateError::UnknownIssuer => {
                "no trusted authority has signed its certificate; name the authority's certificate with `--ca-file`".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("its certificate is not for `{host}`; use the name in the certificate, or make one for this name")
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired; renew it there".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet; are both clocks right?".to_owned()
            }
            CertificateError::Other(OtherError(other)) if other.to_string().contains("CaUsedAsEndEntity") => {
                "its certificate is that of an authority (CA:TRUE); make one for a server, with `-addext basicConstraints=critical,CA:FALSE`".to_owned()
            }
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::InvalidMessage;

    use super::*;

    #[test]
    fn a_failed_handshake_has_a_remedy() {
        for (error, expected) in [
            (
                Error::InvalidMessage(InvalidMessage::InvalidContentType),
                "it does not speak TLS",
            ),
            (
                Error::InvalidCertificate(CertificateError::UnknownIssuer),
                "no trusted authority",
            ),
            (
                Error::InvalidCertificate(CertificateError::NotValidForName),
                "its certificate is not for `h`",
            ),
            (
                Error::InvalidCertificate(CertificateError::Expired),
                "its certificate has expired",
            ),
        ] {
            let text = reason("h", &error);
            assert!(text.starts_with(expected), "{text}");
        }
    }

    #[test]
    fn a_file_without_a_certificate_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(
            from_file(file.path()).unwrap_err(),
            "it has no certificate in the form of PEM"
        );
        assert!(from_file(Path::new("/no/file")).is_err());
    }
}
