//! The server's side of `bitbake-prserv --start`: a session of its own, a pid file, and a line on
//! stdout when it is ready.

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;

use anyhow::Context;

/// A pid file, deleted on drop.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
}

/// Detaches the process from the caller's session and directory.
pub(crate) fn detach() -> anyhow::Result<()> {
    nix::unistd::setsid().context("cannot start a session")?;
    Ok(env::set_current_dir("/")?)
}

impl PidFile {
    /// Writes the file, then tells the waiting caller that the server is ready.
    pub(crate) fn announce(path: &Path) -> anyhow::Result<Self> {
        // A stale file: the caller has checked that its process is dead.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot replace {}", path.display()));
            }
            _ => {}
        }
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
            let error = &error as &dyn Error;
            tracing::debug!(error, path = %self.path.display(), "cannot delete the pid file");
        }
    }
}
