//! The settings of the object store.

use std::path::PathBuf;

use farm_objects::Address;
use serde::Deserialize;

/// The section `[objects]` as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenObjects {
    url: Option<String>,
    endpoint: Option<String>,
    region: Option<String>,
    credentials: Option<PathBuf>,
}

/// The settings of the object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectsSettings {
    /// The bucket or the directory.
    pub address: Address,
    /// The address of the server; `None` for that of AWS in the region.
    pub endpoint: Option<String>,
    /// The region.
    pub region: String,
    /// The file with the credentials; `None` if they are in the environment.
    pub credentials: Option<PathBuf>,
}

impl WrittenObjects {
    /// Checks the section.
    pub(super) fn check(
        self,
        fault: &mut impl FnMut(&'static str, String),
    ) -> Option<ObjectsSettings> {
        if let Some(endpoint) = &self.endpoint
            && !endpoint.starts_with("http://")
            && !endpoint.starts_with("https://")
        {
            let text = format!("is `{endpoint}`; it must begin with `http://` or `https://`");
            fault("objects.endpoint", text);
        }
        let Some(url) = self.url else {
            let text = "is missing; it is such as `s3://bucket/prefix`".to_owned();
            fault("objects.url", text);
            return None;
        };
        match url.parse() {
            Ok(address) => Some(ObjectsSettings {
                address,
                endpoint: self.endpoint.map(|it| it.trim_end_matches('/').to_owned()),
                region: self.region.unwrap_or_else(|| "us-east-1".to_owned()),
                credentials: self.credentials,
            }),
            Err(error) => {
                fault("objects.url", error.to_string());
                None
            }
        }
    }
}
