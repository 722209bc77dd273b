//! The artifacts of a build, as its host lists them.

use askama::Template;
use config::BuildId;
use config::builds::Artifact;

use crate::frame::Frame;

/// The artifacts of a build.
#[derive(Debug, Template)]
#[template(path = "farm_artifacts.html")]
pub struct FarmArtifacts {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The build.
    pub build: BuildId,
    /// The artifacts.
    pub artifacts: Vec<Artifact>,
}

#[cfg(test)]
mod tests {
    use super::super::examples::frame;
    use super::*;

    #[test]
    fn artifacts_are_links_with_sizes() {
        let artifact =
            serde_json::json!({"name": "a b.deb", "bytes": 2048, "sha256": "0".repeat(64)});
        let mut page = FarmArtifacts {
            frame: frame("Artifacts"),
            build: BuildId(7),
            artifacts: vec![serde_json::from_value(artifact).unwrap()],
        };
        let html = page.render().unwrap();
        assert!(
            html.contains("href=\"/builds/7/artifacts/a%20b.deb\"") && html.contains("2.0 KiB")
        );
        page.artifacts.clear();
        assert!(page.render().unwrap().contains("has no artifacts"));
    }
}
