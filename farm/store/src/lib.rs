//! The queue of a farm in PostgreSQL. Only coordinators use it.
//!
//! Each [`Operation`] is one statement that commits by itself, or reads around one. An operation whose
//! commit is unknown is repeated by its caller. `farm_simulation::tables` specifies every operation, and a
//! test compares both.

mod archives;
mod beats;
mod claims;
mod enrolment;
mod hosts;
mod known;
mod listing;
mod notifications;
mod operations;
mod projects;
mod reads;
mod retention;
mod rows;
mod schedules;
mod schema;
mod sources;
mod sql;
mod tokens;
mod transfers;
mod trials;
mod views;
mod windows;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime,
};
use farm_core::operation::{Answer, Operation, Unknown};
use tokio_postgres::{Config, NoTls};

pub use archives::{ArchiveState, Uploads};
pub use enrolment::Secret;
use known::Known;
pub use notifications::{Ends, Notification, Package, Told, package};
use schema::{MIGRATIONS, PARTITIONS};
pub use sources::{Shelves, SourceCounts};
pub use sql::ALL as STATEMENTS;
pub use transfers::Site;
pub use trials::Revisions;

/// Returns the statement for a page of builds and its parameters, for tests of plans.
pub fn listing(query: &farm_core::view::BuildQuery) -> (String, Vec<String>) {
    let listing = listing::page(query, listing::Order::Newest);
    (listing.sql, listing.parameters)
}

/// Returns the statement for a page of hosts and its parameters, for tests of plans.
pub fn host_listing(query: &farm_core::view::HostQuery) -> (String, Vec<String>) {
    let listing = hosts::page(query, 60_000);
    (listing.sql, listing.parameters)
}

/// The limits of each connection. Time is UTC, so that days are the same everywhere.
const CONNECTION: &str = "SET statement_timeout = '5s'; SET lock_timeout = '2s';
    SET idle_in_transaction_session_timeout = '5s'; SET timezone = 'UTC';
    SET synchronous_commit = on";
/// The rows of a submitter and day, so that coordinators seldom wait for each other.
const SLOTS: u8 = 16;
/// The time within which a connection must be there.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// A failure of the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection was there in time.
    #[error("cannot get a connection to the database")]
    Pool(#[source] Box<deadpool_postgres::PoolError>),
    /// A statement failed. It may have been committed all the same.
    #[error("a statement of the database failed")]
    Statement(#[source] Box<tokio_postgres::Error>),
    /// The address of the database cannot be used.
    #[error("`{url}` is not the address of a database; it looks like postgres://user@host/name")]
    Address {
        /// The address, without its password.
        url: String,
        /// The reason.
        source: Box<tokio_postgres::Error>,
    },
    /// A row has something that this version does not understand.
    #[error("row {row} of table {table} cannot be read: {reason}")]
    Row {
        /// The table.
        table: &'static str,
        /// The key.
        row: i64,
        /// The reason.
        reason: String,
    },
    /// A table was changed while it was read, three times in a row.
    #[error("build {0} changes too fast")]
    Changing(u64),
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Statement(Box::new(error))
    }
}

/// The connections to the database of a farm.
#[derive(Debug, Clone)]
pub struct Store {
    pool: Pool,
    known: Arc<Mutex<Known>>,
    /// The rows in which this coordinator counts the use of submitters.
    slot: i16,
    /// True if the files of builds that end are to go into an object store.
    archives: bool,
    /// The rules for notifications that weigh the ends of builds.
    rules: Arc<[String]>,
}

impl Store {
    /// Connects, and migrates the schema.
    ///
    /// # Errors
    /// The address is wrong, or the database does not answer.
    pub async fn open(url: &str, connections_max: usize) -> Result<Self, StoreError> {
        let config: Config = url.parse().map_err(|source| StoreError::Address {
            url: without_password(url),
            source: Box::new(source),
        })?;
        Self::from_config(config, connections_max).await
    }

    async fn from_config(mut config: Config, connections_max: usize) -> Result<Self, StoreError> {
        config
            .connect_timeout(CONNECT_MAX)
            .tcp_user_timeout(CONNECT_MAX)
            .application_name("buildhost-farm");
        let recycling_method = RecyclingMethod::Fast;
        let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method });
        let known: Arc<Mutex<Known>> = Arc::default();
        let known_too = Arc::clone(&known);
        let limits = Hook::async_fn(move |client, _| {
            // Connections end when a backup is restored, after which beats are lower.
            lock(&known_too).forget_floors();
            Box::pin(async move {
                let set = client.batch_execute(CONNECTION).await;
                set.map_err(HookError::Backend)
            })
        });
        let pool = Pool::builder(manager)
            .max_size(connections_max)
            .wait_timeout(Some(CONNECT_MAX))
            .create_timeout(Some(CONNECT_MAX))
            .recycle_timeout(Some(CONNECT_MAX))
            .runtime(Runtime::Tokio1)
            .post_create(limits)
            .build();
        // The builder fails only without a runtime.
        let pool = pool.map_err(|error| {
            let error =
                deadpool_postgres::PoolError::PostCreateHook(HookError::message(error.to_string()));
            StoreError::Pool(Box::new(error))
        })?;
        let slot = i16::from(RandomState::new().build_hasher().finish().to_le_bytes()[0] % SLOTS);
        let store = Self {
            pool,
            known,
            slot,
            archives: false,
            rules: Arc::default(),
        };
        store.migrate().await?;
        store.maintain().await?;
        Ok(store)
    }

    /// Notes with each result that the files of the build go into an object store.
    #[must_use]
    pub fn archiving(self, archives: bool) -> Self {
        Self { archives, ..self }
    }

    /// Executes an operation.
    ///
    /// # Errors
    /// The commit is unknown.
    pub async fn apply(&self, operation: &Operation) -> Result<Answer, Unknown> {
        self.try_apply(operation).await.map_err(|error| {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "an operation of the farm's store failed");
            Unknown
        })
    }

    /// Creates the partitions that the next months need.
    ///
    /// # Errors
    /// The database fails.
    pub async fn maintain(&self) -> Result<(), StoreError> {
        Ok(self.connection().await?.batch_execute(PARTITIONS).await?)
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let connection = self.connection().await?;
        connection.batch_execute(&MIGRATIONS.begin()).await?;
        let version: i32 = connection
            .query_one(&MIGRATIONS.version(), &[])
            .await?
            .get(0);
        connection
            .batch_execute(&MIGRATIONS.finish(version))
            .await?;
        if version < MIGRATIONS.newest() {
            let version = MIGRATIONS.newest();
            tracing::info!(version, "migrated the schema of the farm");
        }
        Ok(())
    }

    /// Returns what this process knows of the hosts.
    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    async fn connection(&self) -> Result<Object, StoreError> {
        let connection = self.pool.get().await;
        connection.map_err(|error| StoreError::Pool(Box::new(error)))
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns an address without what stands between `:` and `@`.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return "…".to_owned();
    };
    match rest.split_once('@') {
        Some((user, host)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}@{host}")
        }
        None => url.to_owned(),
    }
}
