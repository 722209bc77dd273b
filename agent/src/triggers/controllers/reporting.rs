//! The content of a report, from the directory of a build.

use std::io;
use std::path::Path;

use config::builds::Build;
use config::task::Outcome;
use controllers::{Ending, Upload};
use state::paths::ARTIFACTS;

/// Returns the uploads of a build in the order of their names. Blocks.
///
/// # Errors
/// Their list cannot be read.
pub(super) fn uploads(directory: &Path) -> io::Result<Vec<Upload>> {
    let uploads = jobs::build::uploads(directory)?;
    let upload = |it: jobs::build::Upload| Upload {
        path: directory.join(ARTIFACTS).join(it.archive.as_str()),
        kind: it.kind.into(),
        instance: it.instance.into(),
        name: it.archive.into(),
    };
    Ok(uploads.into_iter().map(upload).collect())
}

/// Returns the uploads of a build with a script: those of these files that are artifacts. Blocks.
pub(super) fn archives(directory: &Path, files: Vec<String>) -> Vec<Upload> {
    let upload = |name: String| Upload {
        path: directory.join(ARTIFACTS).join(&name),
        kind: "artifacts".to_owned(),
        instance: "job".to_owned(),
        name,
    };
    let mut uploads: Vec<_> = files.into_iter().map(upload).collect();
    uploads.retain(|upload| std::fs::symlink_metadata(&upload.path).is_ok_and(|it| it.is_file()));
    uploads
}

/// Returns the end of a build for its controller. An interrupted build has no result, whatever an
/// earlier attempt has left. Blocks.
///
/// # Errors
/// The result cannot be read.
pub(super) fn ending(directory: &Path, build: &Build) -> io::Result<Ending> {
    let outcome = build.outcome.unwrap_or(Outcome::Abnormal);
    if let Some(task) = build.controller.as_ref().filter(|task| task.script) {
        return Ok(Ending::Script {
            outcome,
            message: build.message.clone(),
            is_over_limit: build.finished.is_some_and(|at| at >= task.expires),
        });
    }
    if outcome == Outcome::Interrupt {
        return Ok(Ending::Status(outcome));
    }
    let result = jobs::build::report_to_controller(directory, outcome, &build.message)?;
    Ok(result.map_or(Ending::Status(outcome), |text| {
        Ending::Result(text.into_bytes())
    }))
}

#[cfg(test)]
mod tests {
    use config::builds::{Request, Submitter};
    use config::task::RESULT;
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn an_interrupted_build_has_no_result() {
        let request: Request =
            serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
        let mut build = Build::new(
            config::BuildId(1),
            request,
            "default".parse().unwrap(),
            "0".repeat(64).parse().unwrap(),
            Submitter::root(),
            Timestamp::UNIX_EPOCH,
        );
        let directory = tempfile::tempdir().unwrap();
        let mut ending = |outcome| {
            build.outcome = Some(outcome);
            super::ending(directory.path(), &build).unwrap()
        };
        assert_eq!(ending(Outcome::Abort), Ending::Status(Outcome::Abort));
        let text = b": 1\nname: x\nversion: 1\nstatus: success\n";
        sys::file::replace(&directory.path().join(RESULT), text).unwrap();
        assert_eq!(ending(Outcome::Success), Ending::Result(text.to_vec()));
        let interrupted = ending(Outcome::Interrupt);
        assert_eq!(interrupted, Ending::Status(Outcome::Interrupt));
    }
}
