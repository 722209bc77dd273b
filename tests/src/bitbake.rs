//! Projects of BitBake for tests: the layer of the demo, and a checkout of BitBake, which the
//! variable BITBAKE names. BitBake is no part of this repository.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use sys::command;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_mins(1);
/// The directory of the project, beside that of the layer.
const PROJECT: &str = "project";
/// The name of the demo's layer.
const LAYER: &str = "demo-layer";

/// A project with a copy of the demo's layer, or with the layer `core`.
#[derive(Debug)]
pub struct BitBakeProject {
    directory: TempDir,
    document: Value,
}

impl BitBakeProject {
    /// Creates a project of the demo's layer with these targets.
    pub fn new(targets: &[&str]) -> Self {
        let project = Self::with_layer(targets, LAYER, "");
        let layer = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/demo-layer");
        let mut copy = command::prepare("cp");
        copy.args(["-R", layer]).arg(project.directory.path());
        command::run(copy, LIMIT).expect("a copy");
        project
    }

    /// Creates a project of the layer `core` with these targets. OE_CORE names a checkout.
    pub fn of_oe_core(targets: &[&str]) -> Self {
        let mut project = Self::with_layer(targets, "oe-core", "meta");
        project.document["variables"] = json!([{"name": "MACHINE", "value": "qemux86-64"}]);
        // It is fetched from the Internet, and the failure is an error of the build.
        project.document["local_conf"] = json!(["INHERIT:remove = \"uninative\""]);
        project.archive("OE_CORE", "oe-core", &[":(exclude)meta-selftest"]);
        project
    }

    /// Creates a project with the archive of BitBake. The caller provides the repository of the
    /// layer.
    fn with_layer(targets: &[&str], layer: &str, path: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join(PROJECT)).expect("a directory");
        let repository = |name: &str| json!({"name": name, "archive": archive_of(name)});
        let document = json!({
            "version": 1,
            "targets": targets,
            "variables": [],
            "repositories": [repository("bitbake"), repository(layer)],
            "bitbake": {"repository": "bitbake", "path": ""},
            "layers": [{"name": "demo", "repository": layer, "path": path}],
        });
        let project = Self {
            directory,
            document,
        };
        let unused = [":(exclude)lib/toaster", ":(exclude)doc"];
        project.archive("BITBAKE", "bitbake", &unused);
        project
    }

    /// Archives the checkout that a variable names.
    fn archive(&self, variable: &str, name: &str, unused: &[&str]) {
        let checkout = std::env::var(variable);
        let checkout = checkout.unwrap_or_else(|_| panic!("{variable} names no checkout"));
        let mut archive = command::prepare("git");
        let prefix = format!("--prefix={name}/");
        archive.args(["-C", &checkout, "archive", &prefix, "-o"]);
        archive.arg(self.directory.path().join(PROJECT).join(archive_of(name)));
        archive.args(["HEAD", "."]).args(unused);
        command::run(archive, LIMIT).expect("an archive of a checkout");
    }

    /// Returns the path of a file of the layer.
    pub fn layer(&self, file: &str) -> PathBuf {
        self.directory.path().join(LAYER).join(file)
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
        if self.directory.path().join(LAYER).exists() {
            let mut tar = command::prepare("tar");
            tar.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "-cf"]);
            tar.arg(place.join(archive_of(LAYER)));
            tar.arg("-C").arg(self.directory.path()).arg(LAYER);
            command::run(tar, LIMIT).expect("an archive of the layer");
        }
        place
    }

    /// Writes the project, and returns the paths of its files, the sources of a build.
    pub fn sources(&self) -> Vec<String> {
        let place = self.write();
        let repositories = self.document["repositories"].as_array();
        let archives = repositories.expect("repositories").iter();
        let archives = archives.map(|it| it["archive"].as_str().expect("an archive"));
        std::iter::once("project.json")
            .chain(archives)
            .map(|name| place.join(name).display().to_string())
            .collect()
    }
}

fn archive_of(repository: &str) -> String {
    format!("repo-{repository}.tar")
}
