//! Requests and their answers.

use std::fs::File;
use std::io::{self, Read, Write};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::StatusCode;
use reqwest::blocking::{Body, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{ANSWER_LIMIT, Client, ClientError, Created, Result};

/// The size of one read of an answer.
const PIECE: usize = 64 * 1024;
/// The characters of a path's segment that are encoded: all but the unreserved ones of
/// RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

impl Client {
    /// Gets a JSON document.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.send(self.http.get(url(path)).timeout(ANSWER_LIMIT))?;
        Ok(answer.json()?)
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
        let answer = self.send(self.http.post(url(path)).json(body).timeout(ANSWER_LIMIT))?;
        let is_new = answer.status() == StatusCode::CREATED;
        let value = answer.json()?;
        Ok(Created { value, is_new })
    }

    /// Posts a JSON document to a route that works for as long as other hosts take.
    pub(crate) fn create_slowly<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Created<T>> {
        let answer = self.send(self.http.post(url(path)).json(body))?;
        let is_new = answer.status() == StatusCode::CREATED;
        let value = answer.json()?;
        Ok(Created { value, is_new })
    }

    /// Puts a JSON document and returns the answer with the information if it is new.
    pub(crate) fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Created<T>> {
        let answer = self.send(self.http.put(url(path)).json(body).timeout(ANSWER_LIMIT))?;
        let is_new = answer.status() == StatusCode::CREATED;
        let value = answer.json()?;
        Ok(Created { value, is_new })
    }

    /// Deletes the object at a path.
    pub(crate) fn delete(&self, path: &str) -> Result<()> {
        self.send(self.http.delete(url(path)).timeout(ANSWER_LIMIT))
            .map(drop)
    }

    /// Deletes objects and returns the answer.
    pub(crate) fn delete_for<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.send(self.http.delete(url(path)).timeout(ANSWER_LIMIT))?;
        Ok(answer.json()?)
    }

    /// Uploads the content of a file from its current position.
    pub(crate) fn put_file(&self, path: &str, file: File) -> Result<()> {
        self.send(self.http.put(url(path)).body(Body::new(file)))
            .map(drop)
    }

    /// Copies the document at a path to `sink` as it arrives. Returns the number of bytes.
    pub(crate) fn copy(&self, path: &str, sink: &mut impl Write) -> Result<u64> {
        let mut answer = self.send(self.http.get(url(path)))?;
        let mut piece = vec![0; PIECE];
        let mut copied = 0;
        loop {
            let count = match answer.read(&mut piece) {
                Ok(0) => return Ok(copied),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ClientError::Body(error)),
            };
            sink.write_all(&piece[..count])
                .map_err(ClientError::Write)?;
            copied += count as u64;
        }
    }

    fn send(&self, request: RequestBuilder) -> Result<Response> {
        let answer = request.send().map_err(|source| {
            if source.is_connect() {
                let socket = self.socket.clone();
                let source = source.into();
                ClientError::NoAgent { socket, source }
            } else {
                ClientError::Answer(source)
            }
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        Err(ClientError::refused(status, &answer.text()?))
    }
}

/// Returns a name as one segment of a path.
pub(crate) fn segment(name: &str) -> String {
    utf8_percent_encode(name, ENCODED).to_string()
}

/// Returns the address of a path of the API. The host's name is arbitrary: the socket decides.
fn url(path: &str) -> String {
    format!("http://agent/api/v1/{path}")
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;
    use reqwest::Url;

    use super::*;

    proptest! {
        #[test]
        fn every_name_of_a_file_is_one_segment_of_a_path(name in "[^/.]{1,20}|[ %+?#&;:\\\\,-]{1,9}") {
            let Ok(name) = name.parse::<config::FileName>() else {
                return Ok(());
            };
            let address = Url::parse(&url(&format!("builds/1/artifacts/{}", segment(name.as_str())))).unwrap();
            let last = address.path_segments().and_then(Iterator::last).unwrap();
            prop_assert_eq!(percent_decode_str(last).decode_utf8().unwrap(), name.as_str());
            prop_assert_eq!((address.query(), address.fragment()), (None, None));
        }
    }
}
