//! The side of a server that `bitbake-prserv --start` has started: a session of its own, a pid
//! file, and a word to who waits for it.

use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::Context;

/// A pid file; it goes with its server.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
}

/// Leaves the session and the directory of who started us.
pub(crate) fn detach() -> anyhow::Result<()> {
    nix::unistd::setsid().context("cannot start a session")?;
    Ok(env::set_current_dir("/")?)
}

impl PidFile {
    /// Writes the file, and tells who waits that we are ready.
    pub(crate) fn announce(path: &Path) -> anyhow::Result<Self> {
        let _ = fs::remove_file(path); // a dead server's: who started us has checked
        let written =
            File::create_new(path).and_then(|mut file| writeln!(file, "{}", process::id()));
        written.with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(std::io::stdout(), "ready")?;
        Ok(Self {
            path: path.to_owned(),
        })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the pid file is gone already");
        }
    }
}
