//! The log on standard error.

use std::fmt;
use std::io::IsTerminal;

use config::settings::Log;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// The filter of the log, which can be replaced while the agent runs.
pub struct LogFilter(Box<dyn Fn(EnvFilter) + Send + Sync>);

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogFilter")
    }
}

impl LogFilter {
    /// Replaces the filter.
    ///
    /// # Errors
    /// The directives are invalid; the filter stays.
    pub fn set(&self, directives: &str) -> Result<(), ParseError> {
        self.0(EnvFilter::builder().parse(directives)?);
        Ok(())
    }
}

/// Starts the log.
///
/// # Errors
/// The directives of the filter are invalid.
pub fn start(settings: &Log) -> Result<LogFilter, ParseError> {
    let filter = EnvFilter::builder().parse(&settings.filter)?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // The only error of a replacement is a subscriber that is gone, and this one never goes.
    Ok(if settings.json {
        let subscriber = subscriber.json().with_filter_reloading();
        let handle = subscriber.reload_handle();
        subscriber.init();
        LogFilter(Box::new(move |filter| drop(handle.reload(filter))))
    } else {
        let subscriber = subscriber.with_filter_reloading();
        let handle = subscriber.reload_handle();
        subscriber.init();
        LogFilter(Box::new(move |filter| drop(handle.reload(filter))))
    })
}
