//! The services for BitBake that the agent contains: the PR service and the hash equivalence service.

use std::error::Error;

use config::settings::Settings;

use super::{hash_service, pr_service};

/// The services for BitBake that guests reach at their gateway.
#[derive(Debug, Clone)]
pub struct BitBakeServices {
    /// The PR service.
    pub pr: prserv::Service,
    /// The hash equivalence service, if the settings enable it.
    pub hashserv: Option<hashserv::Service>,
}

/// The error that a service cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the database {database} of the {service}; check `{section}` in the settings")]
pub struct OpenError {
    service: &'static str,
    section: &'static str,
    database: String,
    source: Box<dyn Error + Send + Sync>,
}

impl BitBakeServices {
    /// Opens the databases, which blocks.
    ///
    /// # Errors
    /// A database cannot be opened, or the settings name a server that has no valid address.
    pub fn open(settings: &Settings) -> Result<Self, OpenError> {
        let pr = open_pr(settings).map_err(|source| OpenError {
            service: "PR service",
            section: "[pr]",
            database: settings.pr.database.clone(),
            source,
        })?;
        let hashserv = open_hashserv(settings).map_err(|source| OpenError {
            service: "hash equivalence service",
            section: "[hashserv]",
            database: without_password(&settings.hashserv.database),
            source,
        })?;
        Ok(Self { pr, hashserv })
    }

    /// Returns the counters of the services, for Prometheus.
    pub fn metrics(&self) -> Vec<String> {
        let pr = Some(self.pr.metrics().to_text());
        let hashserv = self.hashserv.as_ref().map(|it| it.metrics().to_text());
        pr.into_iter().chain(hashserv).collect()
    }

    /// Commits what waits and closes the databases.
    pub async fn close(&self) {
        self.pr.close().await;
        if let Some(hashserv) = &self.hashserv {
            hashserv.close().await;
        }
    }
}

fn open_pr(settings: &Settings) -> Result<prserv::Service, Box<dyn Error + Send + Sync>> {
    let options = pr_service::options(&settings.pr)?;
    Ok(prserv::Service::open(&options)?)
}

fn open_hashserv(
    settings: &Settings,
) -> Result<Option<hashserv::Service>, Box<dyn Error + Send + Sync>> {
    if !settings.hashserv.enabled {
        return Ok(None);
    }
    let options = hash_service::options(&settings.hashserv)?;
    Ok(Some(hashserv::Service::open(&options)?))
}

/// Returns a database as messages show it.
fn without_password(database: &str) -> String {
    hashserv::store::Database::from(database).to_string()
}
