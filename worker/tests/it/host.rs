//! The host of a guest: the agent's TFTP server.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use config::task;
use tempfile::TempDir;
use tftp::server::{Event, Namespace, Server};
use tokio::sync::mpsc;

const SIZE_MAX: u64 = 1 << 20;

/// A host that serves until it is dropped.
pub(crate) struct Host {
    server: Server,
    events: mpsc::Receiver<Event>,
    directory: TempDir,
}

impl Host {
    /// Starts a host that offers `files`, names with contents, and refuses to store anything
    /// under the names in `refused`.
    pub(crate) fn start(files: &[(&str, &str)], refused: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let artifacts = directory.path().join(task::ARTIFACTS);
        fs::create_dir(&artifacts).unwrap();
        let mut namespace = Namespace::new(16 * SIZE_MAX, 100);
        for (name, content) in files {
            namespace.offer(name, (*content).to_owned());
        }
        for name in refused {
            namespace.accept(name, directory.path().join(name), 0);
        }
        for name in [task::LOG, task::RESULT, task::BOOTSTRAP] {
            namespace.accept(name, directory.path().join(name), SIZE_MAX);
        }
        namespace.accept_below(task::ARTIFACTS, artifacts, SIZE_MAX);
        let (sender, events) = mpsc::channel(100);
        let address = "127.0.0.1:0".parse().unwrap();
        Self {
            server: Server::start(&[address], namespace, sender).unwrap(),
            events,
            directory,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.addresses()[0]
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the content of a file that was put.
    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name))
            .unwrap_or_else(|error| panic!("{name} was not put: {error}"))
    }

    /// Returns the names of the files that were put, in order.
    pub(crate) fn puts(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.events.try_recv().ok())
            .filter_map(|event| match event {
                Event::Put { name, .. } => Some(name),
                _ => None,
            })
            .collect()
    }
}
