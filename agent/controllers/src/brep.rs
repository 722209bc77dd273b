//! The protocol of brep, the controller of build2: requests for tasks, uploads and results over HTTP
//! with manifests.

mod http;
mod key;
mod request;
mod response;
mod result;

use std::sync::Arc;

use config::settings::ControllerRules;
use serde::{Deserialize, Serialize};

use crate::{Answer, Controller, Ending, Offer, TakeError, Taken, Upload};
use http::Http;
pub use key::{Key, KeyError, check as check_key};
pub use result::RESULT_BYTES_MAX;

/// The checksum of everything of this agent that may change results.
pub const AGENT_CHECKSUM: &str = concat!("buildhost-", env!("CARGO_PKG_VERSION"));

/// The terms of a task: what its report needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Terms {
    /// The address for the result.
    pub(crate) result_url: String,
    /// The addresses for uploads, by their types.
    #[serde(default)]
    pub(crate) upload_urls: Vec<(String, String)>,
    /// The text that the key signs, if the controller authenticates the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) challenge: Option<String>,
}

/// A client of one brep.
#[derive(Debug)]
pub struct Brep {
    rules: ControllerRules,
    key: Option<Arc<Key>>,
    http: Http,
}

impl Brep {
    /// Returns the client of a controller.
    ///
    /// # Errors
    /// The key cannot be used, or no connections can be made.
    pub fn new(rules: &ControllerRules) -> Result<Self, KeyError> {
        let key = rules.key.as_deref().map(Key::open).transpose()?;
        Ok(Self {
            rules: rules.clone(),
            key: key.map(Arc::new),
            http: Http::new(rules),
        })
    }

    /// Returns the signed challenge of a task in base64; `None` without a challenge.
    fn signed(&self, terms: &Terms) -> Result<Option<String>, String> {
        match (&terms.challenge, &self.key) {
            (None, _) => Ok(None),
            (Some(_), None) => Err(
                "the controller challenges this host, which has no key for it: set `key`"
                    .to_owned(),
            ),
            (Some(challenge), Some(key)) => {
                let signed = key
                    .sign(challenge)
                    .map_err(|error| sys::error_report::chain(&error))?;
                Ok(Some(signed))
            }
        }
    }

    /// Reads the terms and signs their challenge.
    fn prepare(&self, terms: &str) -> Result<(Terms, Option<String>), Answer> {
        let terms: Terms = serde_json::from_str(terms).map_err(|error| {
            Answer::Refused(format!("the terms of the lease are unreadable: {error}"))
        })?;
        let challenge = self.signed(&terms).map_err(Answer::Retry)?;
        Ok((terms, challenge))
    }
}

impl Controller for Brep {
    fn take(&self, offer: &Offer) -> Result<Option<Taken>, TakeError> {
        let fingerprint = self.key.as_deref().map(Key::fingerprint);
        let body = request::print(&self.rules, offer, fingerprint).map_err(TakeError::Refused)?;
        let text = self.http.request_task(body)?;
        response::parse(&text, offer, &self.rules.url).map_err(TakeError::Refused)
    }

    fn upload(&self, session: &str, terms: &str, upload: &Upload) -> Answer {
        let (terms, challenge) = match self.prepare(terms) {
            Ok(prepared) => prepared,
            Err(answer) => return answer,
        };
        let url = terms
            .upload_urls
            .iter()
            .find(|(kind, _)| *kind == upload.kind);
        let Some((_, url)) = url else {
            return Answer::Refused(format!(
                "the controller takes no uploads of the type {}",
                upload.kind
            ));
        };
        self.http.upload(url, session, challenge.as_deref(), upload)
    }

    fn report(&self, session: &str, terms: &str, package: (&str, &str), ending: &Ending) -> Answer {
        let (terms, challenge) = match self.prepare(terms) {
            Ok(prepared) => prepared,
            Err(answer) => return answer,
        };
        let body = result::print(session, challenge.as_deref(), package, ending);
        self.http.report(&terms.result_url, body)
    }
}

#[cfg(test)]
mod tests {
    use config::settings::{ControllerRules, Settings};

    use crate::{Offer, OfferedMachine};

    /// Returns the rules of a controller with these further settings.
    pub(super) fn rules(more: &str) -> ControllerRules {
        let text = format!(
            "[[controllers]]\nname = \"ci\"\nurl = \"http://ci.example.org/?build-task\"\n\
             toolchain_version = \"0.17.0\"\n{more}"
        );
        Settings::parse(&text).unwrap().controllers.remove(0)
    }

    /// Returns an offer of machines.
    pub(super) fn offer(names: &[&str]) -> Offer {
        let machine = |name: &&str| OfferedMachine {
            name: name.parse().unwrap(),
            id: format!("id-of-{name}"),
            summary: "A machine".to_owned(),
            memory_kib: 524_288,
            memory_max_kib: None,
        };
        Offer {
            agent: "host".to_owned(),
            toolchain: "default".to_owned(),
            machines: names.iter().map(machine).collect(),
            auxiliaries: Vec::new(),
            auxiliary_memory_kib: 0,
        }
    }
}
