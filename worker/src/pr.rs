//! The client of the PR service. It speaks BitBake's protocol, lines of JSON over TCP,
//! without history.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use config::printable;
use serde_json::{Value, json};

/// The time limit of a connection, and of an answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The number of attempts: enough for a service that restarts.
const ATTEMPTS: u32 = 5;
/// The pause before the second attempt. It doubles with each.
const PAUSE: Duration = Duration::from_millis(200);
/// The length of an answer.
const ANSWER_MAX: u64 = 64 * 1024;

/// The reason for which no revision is known.
#[derive(Debug, thiserror::Error)]
pub enum PrError {
    /// The service cannot be reached, or closes the connection, by which it refuses.
    #[error("cannot ask the PR service at {server}")]
    Connection {
        /// The address of the service.
        server: SocketAddr,
        /// The error of the last attempt.
        source: io::Error,
    },
    /// The answer has no revision.
    #[error("the PR service answered `{}`, which is no revision", printable(.0))]
    Answer(String),
}

/// The key of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The package's name, version and recipe revision, such as `hello-1.0-r0`.
    pub version: String,
    /// The architecture of the package.
    pub architecture: String,
    /// The checksum of the package's inputs.
    pub checksum: String,
}

/// Returns the revision for a query. Tries several times: equal queries get equal answers.
///
/// # Errors
/// The service cannot be reached, or its answer has no revision.
pub fn get(server: SocketAddr, query: &Query) -> Result<String, PrError> {
    let mut attempt = 1;
    let answer = loop {
        match request(server, query) {
            Ok(answer) => break answer,
            Err(source) if attempt == ATTEMPTS => {
                return Err(PrError::Connection { server, source });
            }
            Err(_) => std::thread::sleep(PAUSE * 2_u32.pow(attempt - 1)),
        }
        attempt += 1;
    };
    revision(&answer).ok_or_else(|| PrError::Answer(answer.trim_end().to_owned()))
}

fn request(server: SocketAddr, query: &Query) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let request = json!({"get-pr": {
        "version": query.version,
        "pkgarch": query.architecture,
        "checksum": query.checksum,
        "history": false,
    }});
    let message = format!("PRSERVICE 1.0\nneeds-headers: false\n\n{request}\n");
    stream.write_all(message.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream.take(ANSWER_MAX)).read_line(&mut answer)?;
    if answer.ends_with('\n') {
        Ok(answer)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Returns the revision in an answer: a number in services up to BitBake 2.8, a string in
/// later ones.
fn revision(answer: &str) -> Option<String> {
    let text = match serde_json::from_str::<Value>(answer).ok()?.get("value")? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let is_valid = !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
    is_valid.then_some(text)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use super::*;

    fn query() -> Query {
        Query {
            version: "hello-1.0-r0".into(),
            architecture: "x86_64".into(),
            checksum: "c0".into(),
        }
    }

    /// Starts a service that gives one of these answers per connection, and returns the
    /// last request.
    fn service(answers: &'static [&'static str]) -> (SocketAddr, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let mut read = String::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                read.clear();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while !read.contains('}') {
                    reader.read_line(&mut read).unwrap();
                }
                stream.write_all(answer.as_bytes()).unwrap();
            }
            read
        });
        (address, thread)
    }

    #[test]
    fn the_request_is_that_of_bitbake() {
        let (server, thread) = service(&["{\"value\": \"0\"}\n"]);
        assert_eq!(get(server, &query()).unwrap(), "0");
        insta::assert_snapshot!(thread.join().unwrap(), @r#"
        PRSERVICE 1.0
        needs-headers: false

        {"get-pr":{"checksum":"c0","history":false,"pkgarch":"x86_64","version":"hello-1.0-r0"}}
        "#);
    }

    #[test]
    fn a_revision_may_be_a_number() {
        let (server, _) = service(&["{\"value\": 15}\n"]);
        assert_eq!(get(server, &query()).unwrap(), "15");
    }

    #[test]
    fn a_broken_connection_is_retried() {
        let (server, _) = service(&["", "{\"val", "{\"value\": \"1.9\"}\n"]);
        assert_eq!(get(server, &query()).unwrap(), "1.9");
    }

    #[test]
    fn an_answer_without_a_revision_is_quoted() {
        let (server, _) = service(&["{\"value\": null}\n"]);
        let error = get(server, &query()).unwrap_err().to_string();
        assert_eq!(
            error,
            "the PR service answered `{\"value\": null}`, which is no revision"
        );
    }
}
