//! Projects of BitBake for tests: the layer of the demo, and a checkout of BitBake, which the
//! variable BITBAKE names. BitBake is no part of this repository.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use sys::command;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_mins(1);
/// The files of the project.
const FILES: [&str; 3] = ["project.json", "repo-bitbake.tar", "repo-demo-layer.tar"];

/// The directory of the project, beside that of the layer.
const PROJECT: &str = "project";

/// A project with a copy of the demo's layer.
#[derive(Debug)]
pub struct BitBakeProject {
    directory: TempDir,
    document: Value,
}

impl BitBakeProject {
    /// Creates a project with these targets.
    pub fn new(targets: &[&str]) -> Self {
        let checkout = std::env::var("BITBAKE");
        let checkout = checkout.expect("the variable BITBAKE names a checkout of BitBake");
        let directory = tempfile::tempdir().expect("a directory");
        let project = directory.path().join(PROJECT);
        fs::create_dir(&project).expect("a directory");
        let layer = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/demo-layer");
        let mut copy = command::prepare("cp");
        copy.args(["-R", layer]).arg(directory.path());
        command::run(copy, LIMIT).expect("a copy");
        let mut archive = command::prepare("git");
        archive.args(["-C", &checkout, "archive", "--prefix=bitbake/", "-o"]);
        archive.arg(project.join("repo-bitbake.tar"));
        archive.args(["HEAD", ".", ":(exclude)lib/toaster", ":(exclude)doc"]);
        command::run(archive, LIMIT).expect("an archive of BitBake");
        let repository = |name: &str| json!({"name": name, "archive": format!("repo-{name}.tar")});
        let document = json!({
            "version": 1,
            "targets": targets,
            "variables": [],
            "repositories": [repository("bitbake"), repository("demo-layer")],
            "bitbake": {"repository": "bitbake", "path": ""},
            "layers": [{"name": "demo", "repository": "demo-layer", "path": ""}],
        });
        Self {
            directory,
            document,
        }
    }

    /// Returns the path of a file of the layer.
    pub fn layer(&self, file: &str) -> PathBuf {
        self.directory.path().join("demo-layer").join(file)
    }

    /// Replaces a text in a file of the layer.
    pub fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.layer(file);
        let text = fs::read_to_string(&path).expect("a text");
        assert!(text.contains(from), "{file}: {text}");
        crate::write_file(&path, &text.replace(from, to));
    }

    /// Replaces the targets.
    pub fn set_targets(&mut self, targets: &[&str]) {
        self.document["targets"] = json!(targets);
    }

    /// Writes the project, and returns its directory.
    pub fn write(&self) -> PathBuf {
        let place = self.directory.path().join(PROJECT);
        crate::write_file(&place.join("project.json"), &self.document.to_string());
        let mut tar = command::prepare("tar");
        tar.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "-cf"]);
        tar.arg(place.join("repo-demo-layer.tar"))
            .arg("-C")
            .arg(self.directory.path());
        tar.arg("demo-layer");
        command::run(tar, LIMIT).expect("an archive of the layer");
        place
    }

    /// Writes the project, and returns the paths of its files, the sources of a build.
    pub fn sources(&self) -> Vec<String> {
        let place = self.write();
        let path = |name: &str| place.join(name).display().to_string();
        FILES.map(path).to_vec()
    }
}
