//! The receivers of what a server reports.

use sys::observer::Observer;
use tokio::sync::mpsc;

use super::Event;

/// The receivers of what a server reports.
#[derive(Debug)]
pub struct Reports {
    /// Receives the actions of the guest.
    pub events: mpsc::Sender<Event>,
    /// Observes each request, and each progress of a transfer.
    pub observer: Observer,
}

impl From<mpsc::Sender<Event>> for Reports {
    fn from(events: mpsc::Sender<Event>) -> Self {
        let observer = Observer::default();
        Self { events, observer }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::client::{Client, Timeouts};
    use crate::server::{Namespace, Server};

    #[test]
    fn requests_and_blocks_are_observed() {
        let mut namespace = Namespace::new(0, 0);
        namespace.offer("file", "x".repeat(500_000));
        let (events, _receiver) = mpsc::channel(10);
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let observer = Observer::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let address = "127.0.0.1:0".parse().unwrap();
        let server = Server::start(&[address], namespace, Reports { events, observer }).unwrap();
        let client = Client::new(server.addresses()[0], Timeouts::default());
        assert!(client.get("nothing", &mut Vec::new()).is_err());
        let after_request = calls.load(Ordering::Relaxed);
        assert!(after_request > 0);
        client.get("file", &mut Vec::new()).unwrap();
        let steps = calls.load(Ordering::Relaxed) - after_request;
        assert!(steps > 10, "{steps} steps of many windows");
    }
}
