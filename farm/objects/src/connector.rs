//! The HTTP client of the object store: the one with TLS that hosts use as well.

use std::pin::Pin;
use std::time::Duration;

use http_body_util::BodyExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use reqwest_tls::{Body, Client, Request, redirect};

/// The time limit for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// The time without a byte after which a request has failed. A part is sent within it.
const SILENCE_MAX: Duration = Duration::from_mins(2);

/// The maker of clients.
#[derive(Debug)]
pub(crate) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = Client::builder()
            .user_agent(concat!("buildhost/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_MAX)
            .read_timeout(SILENCE_MAX)
            .redirect(redirect::Policy::none())
            .build();
        let client = client.map_err(|error| object_store::Error::Generic {
            store: "S3",
            source: Box::new(error),
        })?;
        Ok(HttpClient::new(Service(client)))
    }
}

/// A client.
#[derive(Debug)]
struct Service(Client);

impl HttpService for Service {
    // The desugared form of an asynchronous method, as the trait has it.
    fn call<'life, 'future>(
        &'life self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'future>>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(self.send(request))
    }
}

impl Service {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let url = parts.uri.to_string().parse();
        let url = url.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let mut request = Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        *request.body_mut() = Some(Body::wrap(body));
        let response = self.0.execute(request).await.map_err(failure)?;
        let response: http::Response<Body> = response.into();
        let (parts, body) = response.into_parts();
        let body = HttpResponseBody::new(body.map_err(failure));
        Ok(HttpResponse::from_parts(parts, body))
    }
}

/// Returns a failure, with a kind that says if the request is repeated.
fn failure(error: reqwest_tls::Error) -> HttpError {
    let kind = if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_connect() {
        HttpErrorKind::Connect
    } else if error.is_decode() {
        HttpErrorKind::Decode
    } else {
        // The connection ended before the answer.
        HttpErrorKind::Interrupted
    };
    HttpError::new(kind, error.without_url())
}
