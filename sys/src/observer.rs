//! Functions that learn about the activity of a peer.

use std::fmt;
use std::sync::Arc;

/// A function that is called whenever a peer is active. It must not block.
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn() + Send + Sync>);

impl Observer {
    /// Creates an observer that calls a function.
    pub fn new(observe: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(observe))
    }

    /// Calls the function.
    pub fn observe(&self) {
        (self.0)();
    }
}

impl Default for Observer {
    /// Creates an observer without effect.
    fn default() -> Self {
        Self::new(|| ())
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
