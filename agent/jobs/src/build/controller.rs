//! The answer to a controller whose task a build was: the result of the worker, and its uploads.

use std::io;
use std::path::Path;

use config::task::{Outcome, REPORT_BYTES_MAX, controller_report};

use super::collect;

pub use super::upload::instances::{Upload, uploads};

/// Returns the result manifest for the controller of a finished build, which has this outcome and
/// message, from the directory of the build. Returns `None` without a result of the worker that a
/// controller would take. Blocks.
///
/// # Errors
/// The result cannot be read.
pub fn report_to_controller(
    directory: &Path,
    outcome: Outcome,
    message: &str,
) -> io::Result<Option<String>> {
    let text = collect::text(directory).map_err(io::Error::other)?;
    let report = |text: String| controller_report(&text, outcome, message, REPORT_BYTES_MAX);
    Ok(text.ok().and_then(report))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use config::task;
    use lz4_flex::frame::FrameEncoder;

    use super::*;

    #[test]
    fn the_result_of_the_worker_is_reported_as_it_was_put() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path();
        let report = |outcome| report_to_controller(directory, outcome, "why").unwrap();
        assert_eq!(report(Outcome::Abnormal), None);
        let text = ": 1\r\nstatus: abnormal\r\nupdate-log:\\\r\nold form\r\n\\\r\n";
        let mut encoder = FrameEncoder::new(Vec::new());
        encoder.write_all(text.as_bytes()).unwrap();
        let packed = encoder.finish().unwrap();
        sys::file::replace(&directory.join(task::RESULT_LZ4), &packed).unwrap();
        assert_eq!(report(Outcome::Abnormal).as_deref(), Some(text));
        sys::file::replace(&directory.join(task::RESULT), b"no manifest").unwrap();
        assert_eq!(report(Outcome::Error), None);
    }
}
