//! The descriptions of the APIs of an agent and of a coordinator, as two foreign linters judge them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sys::command::{CommandError, prepare, run};

/// The time limit for a check.
const LIMIT: Duration = Duration::from_mins(4);

/// The description of the coordinator's API.
const COORDINATOR: &str = include_str!("../../farm/src/api/openapi.json");

/// Returns the directory of this crate.
fn own(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Checks a description with both linters; a warning is an error.
fn lint(programs: &Path, description: &Path) -> [Result<Vec<u8>, CommandError>; 2] {
    let mut redocly = prepare(programs.join("redocly"));
    redocly.env("REDOCLY_TELEMETRY", "off");
    redocly.args(["lint", "--format", "json", "--config"]);
    redocly.arg(own("openapi/redocly.yaml")).arg(description);
    let mut spectral = prepare(programs.join("spectral"));
    spectral.args(["lint", "--fail-severity", "hint", "--ruleset"]);
    spectral.arg(own("openapi/spectral.yaml")).arg(description);
    [redocly, spectral].map(|linter| run(linter, LIMIT))
}

/// Tests that take minutes; `scripts/test --long` runs them.
mod long {
    use super::*;

    #[test]
    #[ignore = "downloads the linters"]
    fn two_linters_find_nothing_in_the_descriptions() {
        let programs = tests::npm::install("openapi");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("openapi.json");
        for description in [agent::api::OPENAPI, COORDINATOR] {
            tests::write_file(&path, description);
            let [redocly, spectral] = lint(&programs, &path).map(Result::unwrap);
            let redocly: serde_json::Value = serde_json::from_slice(&redocly).unwrap();
            assert_eq!(redocly["problems"], serde_json::json!([]));
            assert!(String::from_utf8_lossy(&spectral).contains("No results"));
        }
        // They judge: a description without its tags and responses is refused.
        let mut faulty: serde_json::Value = serde_json::from_str(agent::api::OPENAPI).unwrap();
        faulty["tags"] = serde_json::json!([]);
        faulty["paths"]["/metrics"]["get"]["responses"] = serde_json::json!({});
        tests::write_file(&path, &faulty.to_string());
        assert!(lint(&programs, &path).iter().all(Result::is_err));
    }
}
