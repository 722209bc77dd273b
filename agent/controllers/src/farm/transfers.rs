//! Transfers: connections to the coordinator that waits for something, and to one that has it sent.

use config::MachineName;
use config::task::Digest;
use farm_core::Revision;
use farm_core::transfers::{PROTOCOL, STATUS, TransferOrder};
use reqwest_tls::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, UPGRADE};
use reqwest_tls::{Body, Response, StatusCode, Upgraded};

use super::client::{Client, FarmError, refusal, with_key};
use super::key::FarmKey;

/// A file as the agent of this host answers with it.
#[derive(Debug)]
pub struct Supply {
    /// The status of the answer.
    pub status: u16,
    /// Its headers. The coordinator gets the type and the length.
    pub headers: HeaderMap,
    /// The content.
    pub body: Body,
}

/// The content of a source, as it arrives.
#[derive(Debug)]
pub struct SourceContent {
    url: String,
    response: Response,
}

impl Client {
    /// Sends a file to the coordinator that waits for it.
    ///
    /// # Errors
    /// Nobody waits any more, or the connection is cut.
    pub async fn supply(
        &self,
        key: &FarmKey,
        order: &TransferOrder,
        supply: Supply,
    ) -> Result<(), FarmError> {
        let url = &order.coordinator;
        let request = self.http.post(address(order)).header(STATUS, supply.status);
        let names = [CONTENT_TYPE, CONTENT_LENGTH].into_iter();
        let passed = names.filter_map(|name| Some((supply.headers.get(&name)?.clone(), name)));
        let request = passed.fold(request, |request, (value, name)| {
            request.header(name, value)
        });
        let request = with_key(request.body(supply.body), key);
        self.send(url, request).await.map(drop)
    }

    /// Connects to the coordinator that waits for an image.
    ///
    /// # Errors
    /// Nobody waits any more, or the coordinator cannot be reached.
    pub async fn join(&self, key: &FarmKey, order: &TransferOrder) -> Result<Upgraded, FarmError> {
        self.switch(key, &order.coordinator, address(order)).await
    }

    /// Connects to a host that has a revision, through a coordinator.
    ///
    /// # Errors
    /// No host has it, or the coordinator cannot be reached.
    pub async fn fetch(
        &self,
        key: &FarmKey,
        machine: &MachineName,
        revision: Revision,
    ) -> Result<Upgraded, FarmError> {
        let (url, revision) = (self.url(), revision.0);
        let address = format!("{url}/farm/v1/machines/{machine}/revisions/{revision}");
        self.switch(key, url, address).await
    }

    /// Fetches a source of a build, through any coordinator.
    ///
    /// # Errors
    /// No coordinator has it, or none can be reached.
    pub async fn source(&self, key: &FarmKey, digest: &Digest) -> Result<SourceContent, FarmError> {
        let url = self.url().to_owned();
        let request = self.http.get(format!("{url}/farm/v1/sources/{digest}"));
        let response = self.send(&url, with_key(request, key)).await?;
        Ok(SourceContent { url, response })
    }

    /// Returns the next part of a source; `None` at its end.
    ///
    /// # Errors
    /// The connection is cut. The next request asks another coordinator.
    pub async fn part(&self, content: &mut SourceContent) -> Result<Option<Vec<u8>>, FarmError> {
        match content.response.chunk().await {
            Ok(part) => Ok(part.map(Vec::from)),
            Err(error) => {
                let reason = sys::error_report::chain(&error.without_url());
                Err(self.unavailable(&content.url, reason))
            }
        }
    }

    /// Gives a source up whose coordinator sends nothing. The next request asks another one.
    pub fn give_up(&self, content: &SourceContent) -> FarmError {
        self.unavailable(&content.url, "it sends nothing".to_owned())
    }

    /// Switches the protocol of a connection.
    async fn switch(
        &self,
        key: &FarmKey,
        url: &str,
        address: String,
    ) -> Result<Upgraded, FarmError> {
        let request = self.http.get(address).header(CONNECTION, "upgrade");
        let sent = with_key(request.header(UPGRADE, PROTOCOL), key)
            .send()
            .await;
        let fault = |error: reqwest_tls::Error| {
            self.unavailable(url, sys::error_report::chain(&error.without_url()))
        };
        let response = sent.map_err(fault)?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return response.upgrade().await.map_err(fault);
        }
        let (url, status) = (url.to_owned(), response.status().as_u16());
        let reason = refusal(response).await;
        Err(FarmError::Refused {
            url,
            status,
            reason,
        })
    }
}

/// Returns the address to which a transfer is sent.
fn address(order: &TransferOrder) -> String {
    format!("{}/farm/v1/transfers/{}", order.coordinator, order.id)
}
