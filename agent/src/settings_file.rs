//! The settings file, and what a reload makes of it.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use config::settings::{Fault, Settings};
use state::AgentState;
use store::default_paths;
use tracing::{error, info, warn};
use tracing_subscriber::filter::ParseError;

use crate::log::LogFilter;

/// Names of settings.
type Names = Vec<&'static str>;

/// A settings file.
#[derive(Debug, Clone)]
pub struct SettingsFile(PathBuf);

/// A reason not to use a settings file.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read the settings {}: {error}; `buildhost-agent --example` prints an example", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The failure.
        error: io::Error,
    },
    /// The file has faults.
    #[error("{}", Lines(path, faults))]
    Faulty {
        /// The file.
        path: PathBuf,
        /// All faults, in the order of their lines.
        faults: Vec<Fault>,
    },
    /// The filter of the log has a fault.
    #[error("the setting log.filter cannot be used")]
    Filter(#[from] ParseError),
}

/// A line for each fault of a file.
struct Lines<'a>(&'a PathBuf, &'a [Fault]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.1.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(
                f,
                "{end}{}:{}: {}",
                self.0.display(),
                fault.line,
                fault.text
            )?;
        }
        Ok(())
    }
}

impl SettingsFile {
    /// Names a settings file, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads the settings.
    ///
    /// # Errors
    /// The file cannot be read, or has faults.
    pub fn read(&self) -> Result<Settings, SettingsError> {
        let path = || self.0.clone();
        let text = sys::trusted::read_text(&self.0).map_err(|error| SettingsError::Unreadable {
            path: path(),
            error,
        })?;
        let mut settings = Settings::parse(&text).map_err(|faults| SettingsError::Faulty {
            path: path(),
            faults,
        })?;
        default_paths::use_those_of_host(&mut settings.paths);
        Ok(settings)
    }

    /// Reads the settings again and applies those that can change. A file that cannot be used
    /// changes nothing. Blocks.
    pub(crate) fn reload(&self, agent: &AgentState, log: &LogFilter) {
        match self.apply(agent, log) {
            Ok((applied, kept)) => {
                let (applied, kept) = (applied.join(" "), kept.join(" "));
                info!(applied, "reloaded the settings");
                if !kept.is_empty() {
                    warn!(kept, "changed settings need a restart of the agent");
                }
            }
            Err(error) => error!(
                error = &error as &dyn Error,
                "cannot reload the settings; the earlier ones stay in effect"
            ),
        }
    }

    /// Returns the names of what is in effect, and of what needs a restart.
    fn apply(&self, agent: &AgentState, log: &LogFilter) -> Result<(Names, Names), SettingsError> {
        let reloaded = agent.settings().reload(self.read()?);
        log.set(&reloaded.settings.log.filter)?;
        agent.current_settings.set(reloaded.settings);
        agent.reloaded.notify_waiters();
        agent.wake.notify_one();
        Ok((reloaded.applied, reloaded.kept))
    }
}
