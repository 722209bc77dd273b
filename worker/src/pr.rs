//! Asks the PR service for a package's revision, in BitBake's protocol: lines of
//! JSON over TCP, and no history.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

/// How long to wait for a connection, and for an answer.
const WAIT: Duration = Duration::from_secs(30);
/// How often to ask: a service that restarts is back by then.
const ATTEMPTS: u32 = 5;
/// An answer is a line; a longer one is none.
const ANSWER_MAX: u64 = 64 * 1024;

/// Why no revision is known.
#[derive(Debug, thiserror::Error)]
pub enum PrError {
    /// The service cannot be reached, or hangs up: it refuses without a word.
    #[error("cannot ask the PR service at {server}")]
    Connection {
        /// Whom we asked.
        server: SocketAddr,
        /// What went wrong the last time.
        source: io::Error,
    },
    /// The answer is none.
    #[error("the PR service answered `{0}`, which is no revision")]
    Answer(String),
}

/// What a revision belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// As in `hello-1.0-r0`.
    pub version: String,
    /// The architecture of the package.
    pub architecture: String,
    /// What the package is made from: the same checksum, the same package.
    pub checksum: String,
}

/// Asks for a revision, several times if need be: asking again gives the same one.
///
/// # Errors
/// The service cannot be reached, or its answer makes no sense.
pub fn ask(server: SocketAddr, question: &Question) -> Result<String, PrError> {
    let mut attempt = 1;
    let answer = loop {
        match ask_once(server, question) {
            Ok(answer) => break answer,
            Err(source) if attempt == ATTEMPTS => {
                return Err(PrError::Connection { server, source });
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100) * 2_u32.pow(attempt)),
        }
        attempt += 1;
    };
    value(&answer).ok_or_else(|| PrError::Answer(answer.trim_end().to_owned()))
}

fn ask_once(server: SocketAddr, question: &Question) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, WAIT)?;
    stream.set_read_timeout(Some(WAIT))?;
    stream.set_write_timeout(Some(WAIT))?;
    let request = json!({"get-pr": {
        "version": question.version,
        "pkgarch": question.architecture,
        "checksum": question.checksum,
        "history": false,
    }});
    let words = format!("PRSERVICE 1.0\nneeds-headers: false\n\n{request}\n");
    stream.write_all(words.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream.take(ANSWER_MAX)).read_line(&mut answer)?;
    if answer.ends_with('\n') {
        Ok(answer)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// The revision in an answer; services up to BitBake 2.8 send a number, later ones
/// a text.
fn value(answer: &str) -> Option<String> {
    let text = match serde_json::from_str::<Value>(answer).ok()?.get("value")? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let fine = !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
    fine.then_some(text)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use super::*;

    fn question() -> Question {
        Question {
            version: "hello-1.0-r0".into(),
            architecture: "x86_64".into(),
            checksum: "c0".into(),
        }
    }

    /// A service that gives these answers, one a connection, and tells what it read.
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
    fn the_words_are_bitbakes() {
        let (server, thread) = service(&["{\"value\": \"0\"}\n"]);
        assert_eq!(ask(server, &question()).unwrap(), "0");
        insta::assert_snapshot!(thread.join().unwrap(), @r#"
        PRSERVICE 1.0
        needs-headers: false

        {"get-pr":{"checksum":"c0","history":false,"pkgarch":"x86_64","version":"hello-1.0-r0"}}
        "#);
    }

    #[test]
    fn a_number_is_an_answer_too() {
        let (server, _) = service(&["{\"value\": 15}\n"]);
        assert_eq!(ask(server, &question()).unwrap(), "15");
    }

    #[test]
    fn a_connection_that_breaks_is_made_again() {
        let (server, _) = service(&["", "{\"val", "{\"value\": \"1.9\"}\n"]);
        assert_eq!(ask(server, &question()).unwrap(), "1.9");
    }

    #[test]
    fn an_answer_without_a_revision_is_shown() {
        let (server, _) = service(&["{\"value\": null}\n"]);
        let error = ask(server, &question()).unwrap_err().to_string();
        assert_eq!(
            error,
            "the PR service answered `{\"value\": null}`, which is no revision"
        );
    }
}
