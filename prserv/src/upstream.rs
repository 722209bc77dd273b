//! The parent in a hierarchy of PR servers. It is read, never written to.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::client::{Client, ClientError, Patience, Target};
use crate::policy::Parent;
use crate::tuple::Tuple;

/// BitBake's clients wait 30 seconds for us; the parent must be quicker.
const PATIENCE: Patience = Patience {
    timeout: Duration::from_secs(5),
    tries: 2,
};

/// As many connections to the parent at most.
const CONNECTIONS_MAX: usize = 32;

/// A parent server and connections to it.
#[derive(Debug)]
pub(crate) struct Upstream {
    target: Target,
    idle: Mutex<Vec<Client>>,
    places: Semaphore,
}

impl Upstream {
    /// Connects when it is first asked.
    pub(crate) fn new(target: Target) -> Self {
        Self {
            target,
            idle: Mutex::default(),
            places: Semaphore::new(CONNECTIONS_MAX),
        }
    }

    /// What the parent has of a tuple. A parent that does not answer is [`Parent::Down`].
    pub(crate) async fn parent_of(&self, tuple: &Tuple) -> Parent {
        let Ok(_place) = self.places.acquire().await else {
            return Parent::Down;
        };
        let idle = self.idle().pop();
        let mut client = idle.unwrap_or_else(|| Client::new(self.target.clone(), PATIENCE));
        match ask(&mut client, tuple).await {
            Ok(parent) => {
                self.idle().push(client);
                parent
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(upstream = %self.target, error, "the upstream server fails");
                Parent::Down
            }
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(client: &mut Client, tuple: &Tuple) -> Result<Parent, ClientError> {
    Ok(match client.greatest_and_own(tuple).await? {
        (None, _) => Parent::Unaware,
        (Some(max), checksum) => Parent::Aware { max, checksum },
    })
}
