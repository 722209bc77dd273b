//! Requests and their answers.

mod body;

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::http::request::Builder;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::connect::Connector;
use crate::endpoint::Endpoint;
use crate::error::ConnectError;
use crate::{ANSWER_LIMIT, Client, ClientError, Created, Result};

pub(crate) use body::{Body, boxed};

/// The size of a document that is read into memory.
const DOCUMENT_BYTES_MAX: usize = 256 << 20;

/// An HTTP client of one agent. It works while a future of it runs on a runtime.
#[derive(Debug)]
pub(crate) struct Http {
    client: legacy::Client<Connector, Body>,
    connector: Connector,
    /// The beginning of the addresses, with the path of the API.
    base: String,
    authorization: Option<HeaderValue>,
}

impl Http {
    /// Returns a client; connects on the first request.
    pub(crate) fn new(endpoint: Endpoint) -> Result<Self> {
        let authorization = match &endpoint {
            Endpoint::Network(network) => network.token.as_ref().map(|token| {
                let mut value = HeaderValue::try_from(format!("Bearer {}", token.secret()))?;
                value.set_sensitive(true);
                Ok::<_, hyper::http::Error>(value)
            }),
            Endpoint::Socket(_) | Endpoint::Ssh(_) => None,
        };
        let base = format!("{}/{}", endpoint.base(), endpoint.api());
        let connector = Connector::new(endpoint);
        let client = legacy::Client::builder(TokioExecutor::new()).build(connector.clone());
        Ok(Self {
            client,
            connector,
            base,
            authorization: authorization.transpose().map_err(answer)?,
        })
    }

    /// Returns a request for a path of the API, without a body.
    pub(crate) fn request(&self, method: Method, path: &str) -> Builder {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/{path}", self.base))
            .header(USER_AGENT, concat!("buildhost/", env!("CARGO_PKG_VERSION")));
        match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        }
    }

    /// Sends a request. Returns the answer if the agent does not refuse it.
    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>> {
        let sent = self.client.request(request).await;
        let response = sent.map_err(|error| self.explain(error))?;
        let status = response.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        if status == StatusCode::UNAUTHORIZED && self.authorization.is_none() {
            let place = self.place();
            return Err(ClientError::NoToken { place });
        }
        let text = document(response).await?;
        let text = String::from_utf8_lossy(&text);
        Err(ClientError::refused(&self.place(), status, &text))
    }

    fn place(&self) -> String {
        self.connector.endpoint().place()
    }

    /// Returns the error of a request that got no answer.
    fn explain(&self, error: legacy::Error) -> ClientError {
        let is_not_http = {
            let inner = error.source().and_then(|it| it.downcast_ref());
            inner.is_some_and(|it: &hyper::Error| it.is_parse())
        };
        if is_not_http && matches!(self.connector.endpoint(), Endpoint::Network(_)) {
            let place = self.place();
            return ClientError::NotHttp { place };
        }
        // The connector's error is the whole message.
        let connect = error.source().and_then(|it| it.downcast_ref());
        match connect.cloned() {
            Some::<Arc<ConnectError>>(error) => ClientError::Connect(error),
            None => answer(error),
        }
    }
}

/// Returns the whole content of an answer.
async fn document(response: Response<Incoming>) -> Result<Bytes> {
    let body = Limited::new(response.into_body(), DOCUMENT_BYTES_MAX);
    let body = body.collect().await.map_err(ClientError::Answer)?;
    Ok(body.to_bytes())
}

fn answer(error: impl Into<Box<dyn Error + Send + Sync>>) -> ClientError {
    ClientError::Answer(error.into())
}

/// Returns a runtime on the calling thread.
pub(crate) fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(answer)
}

impl Client {
    /// Gets a JSON document.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.read(Method::GET, path)
    }

    /// Posts a JSON document and returns the answer.
    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        Ok(self.create(path, body)?.value)
    }

    /// Posts a JSON document and returns the answer with the information if it is new.
    pub(crate) fn create<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Created<T>> {
        self.write(Method::POST, path, body, Some(ANSWER_LIMIT))
    }

    /// Posts a JSON document to a route that works for as long as other hosts take.
    pub(crate) fn create_slowly<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Created<T>> {
        self.write(Method::POST, path, body, None)
    }

    /// Puts a JSON document and returns the answer with the information if it is new.
    pub(crate) fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Created<T>> {
        self.write(Method::PUT, path, body, Some(ANSWER_LIMIT))
    }

    /// Posts a JSON document to a route whose answer has nothing that is needed.
    pub(crate) fn command(&self, path: &str, body: &impl Serialize) -> Result<()> {
        let text = serde_json::to_vec(body).map_err(answer)?;
        let request = self
            .http
            .request(Method::POST, path)
            .header(CONTENT_TYPE, "application/json")
            .body(body::boxed(Full::from(text)))
            .map_err(answer)?;
        self.exchange(request, Some(ANSWER_LIMIT)).map(drop)
    }

    /// Deletes the object at a path.
    pub(crate) fn delete(&self, path: &str) -> Result<()> {
        let request = self.without_body(Method::DELETE, path)?;
        self.exchange(request, Some(ANSWER_LIMIT)).map(drop)
    }

    /// Deletes objects and returns the answer.
    pub(crate) fn delete_for<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.read(Method::DELETE, path)
    }

    /// Uploads the content of a file from its current position. `passed` counts its bytes.
    pub(crate) fn put_file(&self, path: &str, file: File, passed: Arc<AtomicU64>) -> Result<()> {
        let body = body::of_file(file, passed).map_err(answer)?;
        let request = self.http.request(Method::PUT, path);
        let request = request.body(body).map_err(answer)?;
        let sent = self.exchange(request, None);
        sent.map(drop).map_err(|error| match error {
            ClientError::Answer(_) => self.refusal(path).unwrap_or(error),
            error => error,
        })
    }

    /// Returns the refusal of an upload for lack of rights. An agent that refuses one closes the
    /// connection before it has read everything, and the answer can be lost; without a body it
    /// arrives.
    fn refusal(&self, path: &str) -> Option<ClientError> {
        let request = self.without_body(Method::PUT, path).ok()?;
        match self.exchange(request, Some(ANSWER_LIMIT)) {
            Err(
                error @ (ClientError::NoToken { .. }
                | ClientError::Refused {
                    status: 401 | 403, ..
                }),
            ) => Some(error),
            _ => None,
        }
    }

    /// Copies the document at a path to `sink` as it arrives. Returns the number of bytes.
    pub(crate) fn copy(&self, path: &str, sink: &mut impl Write) -> Result<u64> {
        let request = self.without_body(Method::GET, path)?;
        self.runtime.block_on(async {
            let mut body = self.http.send(request).await?.into_body();
            let mut copied = 0;
            while let Some(frame) = body.frame().await {
                let Ok(bytes) = frame.map_err(answer)?.into_data() else {
                    continue;
                };
                sink.write_all(&bytes).map_err(ClientError::Write)?;
                copied += bytes.len() as u64;
            }
            Ok(copied)
        })
    }

    fn without_body(&self, method: Method, path: &str) -> Result<Request<Body>> {
        let request = self.http.request(method, path);
        request.body(body::boxed(Empty::new())).map_err(answer)
    }

    fn read<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T> {
        let request = self.without_body(method, path)?;
        let (_, document) = self.exchange(request, Some(ANSWER_LIMIT))?;
        serde_json::from_slice(&document).map_err(answer)
    }

    fn write<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        limit: Option<Duration>,
    ) -> Result<Created<T>> {
        let text = serde_json::to_vec(body).map_err(answer)?;
        let request = self
            .http
            .request(method, path)
            .header(CONTENT_TYPE, "application/json")
            .body(body::boxed(Full::from(text)))
            .map_err(answer)?;
        let (status, document) = self.exchange(request, limit)?;
        Ok(Created {
            value: serde_json::from_slice(&document).map_err(answer)?,
            is_new: status == StatusCode::CREATED,
        })
    }

    /// Sends a request and reads the whole answer.
    fn exchange(
        &self,
        request: Request<Body>,
        limit: Option<Duration>,
    ) -> Result<(StatusCode, Bytes)> {
        let exchange = async {
            let response = self.http.send(request).await?;
            let status = response.status();
            Ok((status, document(response).await?))
        };
        self.runtime.block_on(async {
            match limit {
                None => exchange.await,
                Some(limit) => {
                    let answered = timeout(limit, exchange).await;
                    answered.unwrap_or(Err(ClientError::TimedOut { limit }))
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use config::uri::percent_encode;
    use hyper::Uri;
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_name_of_a_file_is_one_segment_of_a_path(name in "[^/.]{1,20}|[ %+?#&;:\\\\,-]{1,9}") {
            let Ok(name) = name.parse::<config::FileName>() else {
                return Ok(());
            };
            let address = format!("http://agent/api/v1/builds/1/artifacts/{}", percent_encode(name.as_str()));
            let address: Uri = address.parse().unwrap();
            let last = address.path().rsplit('/').next().unwrap();
            prop_assert_eq!(percent_decode_str(last).decode_utf8().unwrap(), name.as_str());
            prop_assert_eq!(address.query(), None);
        }
    }
}
