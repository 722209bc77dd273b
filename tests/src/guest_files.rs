//! The worker and the toolchains that machines of stock distributions need.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sys::command;
use tempfile::TempDir;

use crate::agent::AgentHost;

const LIMIT: Duration = Duration::from_mins(1);

/// A static worker, from the demo's toolchain.
#[derive(Debug)]
pub struct StaticWorker(TempDir);

impl StaticWorker {
    /// Extracts the worker.
    pub fn extract() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let archive = std::env::var_os("BUILDHOST_TEST_TOOLCHAIN");
        let archive = archive.expect("BUILDHOST_TEST_TOOLCHAIN is set by scripts/test");
        let archive = Path::new(&archive).join("toolchain.tar.gz");
        let mut tar = command::prepare("tar");
        tar.arg("-xzf").arg(archive);
        tar.arg("-C").arg(directory.path()).arg("buildhost-worker");
        command::run(tar, LIMIT).expect("the worker");
        Self(directory)
    }

    /// Returns its path.
    pub fn path(&self) -> String {
        self.file().display().to_string()
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("buildhost-worker")
    }

    /// Makes a toolchain of this kind the toolchain `default` of a host. The options are those of
    /// `scripts/make-toolchain`.
    pub fn add_toolchain(&self, host: &AgentHost, kind: &str, options: &[&str]) {
        let directory = self.0.path().join(kind);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/make-toolchain");
        let mut make = command::prepare(script);
        make.arg(&directory).args(["--kind", kind, "--worker"]);
        make.arg(self.file()).args(options);
        command::run(make, LIMIT).expect("a toolchain");
        let directory = directory.display().to_string();
        host.host
            .machinectl(&["toolchain", "add", "default", &directory], b"")
            .success();
    }
}
