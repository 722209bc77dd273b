//! A client of the agent's administration API, over its unix socket.

mod upgrade;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::builds::Problem;
use reqwest::StatusCode;
use reqwest::blocking::{Body, Request, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use upgrade::Line;

/// How long the agent may take to begin an answer.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);

/// Why the agent gave no answer, or none that we wanted.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no agent answers at {}; is buildhost-agent running, and is this its socket?", socket.display())]
    NoAgent {
        /// Where we asked.
        socket: PathBuf,
        /// What the system said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The console broke off, or never came.
    #[error("cannot connect with the console")]
    Console(#[source] io::Error),
    /// It said no, and why.
    #[error("{detail}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The reason and the way out.
        detail: String,
    },
    /// The answer broke off or made no sense.
    #[error("the agent's answer cannot be used")]
    Answer(#[from] reqwest::Error),
    /// A file of ours.
    #[error("cannot read or write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

/// Where an agent is asked.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    http: reqwest::blocking::Client,
}

impl Client {
    /// Asks the agent at `socket`; connects only when something is asked.
    pub fn new(socket: &Path) -> Result<Self, ClientError> {
        let http = reqwest::blocking::Client::builder()
            .unix_socket(socket)
            .no_proxy()
            .timeout(None);
        Ok(Self {
            socket: socket.to_owned(),
            http: http.build()?,
        })
    }

    /// Gets what is at a path.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        Ok(self
            .ask(self.http.get(url(path)).timeout(ANSWER_LIMIT).build()?)?
            .json()?)
    }

    /// Posts a body and gets the answer.
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let request = self.http.post(url(path)).json(body).timeout(ANSWER_LIMIT);
        Ok(self.ask(request.build()?)?.json()?)
    }

    /// Posts a body and gets the answer, and whether something new was made.
    pub fn create<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(T, bool), ClientError> {
        let request = self.http.post(url(path)).json(body).timeout(ANSWER_LIMIT);
        let answer = self.ask(request.build()?)?;
        let is_new = answer.status() == StatusCode::CREATED;
        Ok((answer.json()?, is_new))
    }

    /// Deletes what is at a path.
    pub fn delete(&self, path: &str) -> Result<(), ClientError> {
        let request = self.http.delete(url(path)).timeout(ANSWER_LIMIT);
        self.ask(request.build()?).map(drop)
    }

    /// Puts the content of a file, from its beginning.
    pub fn put_file(&self, path: &str, file: File) -> Result<(), ClientError> {
        self.ask(self.http.put(url(path)).body(Body::new(file)).build()?)
            .map(drop)
    }

    /// Connects with the console at a path, to watch or to type as well.
    pub fn console(&self, path: &str, types: bool) -> Result<Line, ClientError> {
        let method = if types { "POST" } else { "GET" };
        upgrade::ask(&self.socket, method, path)
    }

    /// Copies what is at a path, as it comes, and says how much that was.
    pub fn copy(&self, path: &str, to: &mut impl Write) -> Result<u64, ClientError> {
        let mut answer = self.ask(self.http.get(url(path)).build()?)?;
        Ok(answer.copy_to(to)?)
    }

    fn ask(&self, request: Request) -> Result<Response, ClientError> {
        let answer = self.http.execute(request).map_err(|source| {
            if source.is_connect() {
                ClientError::NoAgent {
                    socket: self.socket.clone(),
                    source: source.into(),
                }
            } else {
                ClientError::Answer(source)
            }
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer.text()?;
        let detail = serde_json::from_str(&text).map_or(text, |problem: Problem| problem.detail);
        Err(refused(status, detail))
    }
}

fn refused(status: StatusCode, detail: String) -> ClientError {
    let detail = if detail.is_empty() {
        status.to_string()
    } else {
        detail
    };
    ClientError::Refused {
        status: status.as_u16(),
        detail,
    }
}

/// The host's name means nothing: the socket says who is asked.
fn url(path: &str) -> String {
    format!("http://agent/api/v1/{path}")
}
