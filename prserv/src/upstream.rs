//! The parent in a hierarchy of PR servers. It is only read.

use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::client::{Client, ClientError, RetryPolicy, Target};
use crate::policy::ParentState;
use crate::tuple::Tuple;

/// The total is well below the 30 seconds after which BitBake's clients give up.
const RETRY_POLICY: RetryPolicy = RetryPolicy {
    timeout: Duration::from_secs(5),
    attempts: 2,
};

const CONNECTIONS_MAX: usize = 32;

/// A parent server and a pool of connections to it.
#[derive(Debug)]
pub(crate) struct Upstream {
    target: Target,
    idle: Mutex<Vec<Client>>,
    permits: Semaphore,
}

impl Upstream {
    /// Creates a pool. The first connection is opened by the first request.
    pub(crate) fn new(target: Target) -> Self {
        Self {
            target,
            idle: Mutex::default(),
            permits: Semaphore::new(CONNECTIONS_MAX),
        }
    }

    /// Returns the parent's state of a tuple: [`ParentState::Unreachable`] if it does not respond.
    pub(crate) async fn state_of(&self, tuple: &Tuple) -> ParentState {
        let Ok(_permit) = self.permits.acquire().await else {
            return ParentState::Unreachable;
        };
        let idle = self.idle().pop();
        let mut client = idle.unwrap_or_else(|| Client::new(self.target.clone(), RETRY_POLICY));
        match request_state(&mut client, tuple).await {
            Ok(state) => {
                self.idle().push(client);
                state
            }
            Err(error) => {
                let error = &error as &dyn Error;
                tracing::warn!(error, upstream = %self.target, "cannot query the upstream server");
                ParentState::Unreachable
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn request_state(client: &mut Client, tuple: &Tuple) -> Result<ParentState, ClientError> {
    Ok(match client.package_and_tuple_pr(tuple).await? {
        (None, _) => ParentState::PackageUnknown,
        (Some(max), checksum_max) => ParentState::PackageKnown { max, checksum_max },
    })
}
