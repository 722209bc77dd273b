//! Bisections of a project on the command line: by the commits of a layer, and by the revisions of its
//! host machine. The toolchain is a script that reads the archives as BitBake's would.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use config::builds::State;
use config::task::Outcome;
use sys::command;
use tempfile::TempDir;
use tests::agent::AgentHost;
use tests::{wait_until, write_file};

use crate::rebuild_bisect::upgrade;

const LIMIT: Duration = Duration::from_mins(1);
const MARKER: &str = "root/etc/marker";

/// Fails if the recipe of the layer says so, or if the machine lacks a file.
const BUILD: &str = r#"#!/bin/sh
set -eu
grep -q '"targets"' "$BUILDHOST_SOURCES/project.json"
tar -xf "$BUILDHOST_SOURCES/repo-meta-camera.tar"
cat meta-camera/recipe
if grep -q broken meta-camera/recipe; then exit 1; fi
test -e /etc/marker
"#;

/// The repositories of a release and of a layer.
struct Repositories(TempDir);

impl Repositories {
    fn new() -> Self {
        let own = Self(tempfile::tempdir().unwrap());
        own.commit("bitbake", "bin/bitbake", "#!/bin/sh\n");
        let core = "BBFILE_COLLECTIONS += \"core\"\nLAYERSERIES_CORENAMES = \"own\"\n";
        own.commit("core", "meta/conf/layer.conf", core);
        let camera = "BBFILE_COLLECTIONS += \"camera\"\nLAYERDEPENDS_camera = \"core\"\n\
                      LAYERSERIES_COMPAT_camera = \"own\"\n";
        own.commit("meta-camera", "conf/layer.conf", camera);
        own
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    /// Commits a file to a repository, which is made if missing, and returns the commit.
    fn commit(&self, repository: &str, file: &str, text: &str) -> String {
        let directory = self.path(repository);
        let path = directory.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_file(&path, text);
        let git = |arguments: &[&str]| {
            let mut git: Command = command::prepare("git");
            for role in ["AUTHOR", "COMMITTER"] {
                git.env(format!("GIT_{role}_NAME"), "t");
                git.env(format!("GIT_{role}_EMAIL"), "t@example.org");
            }
            git.arg("-C").arg(&directory).args(arguments);
            let output = command::run(git, LIMIT).unwrap();
            String::from_utf8(output).unwrap().trim().to_owned()
        };
        git(&["init", "--quiet", "--initial-branch=own"]);
        git(&["add", "."]);
        git(&["commit", "--quiet", "-m", text.trim()]);
        git(&["rev-parse", "HEAD"])
    }
}

/// Returns a host with a release, a layer, and the project `camera` on the container `demo`.
fn host(repositories: &Repositories) -> AgentHost {
    let root = repositories.path("");
    let settings = format!("layers.directories = [\"{}\"]\n", root.display());
    let mut host = AgentHost::new(&settings);
    host.add_container("demo", |files| write_file(&files.join(MARKER), ""));
    host.add_build_program("bitbake", BUILD);
    host.start();
    let [bitbake, core, camera] = ["bitbake", "core", "meta-camera"]
        .map(|name| repositories.path(name).display().to_string());
    let lines: [&[&str]; 4] = [
        &[
            "layer", "add", "core", &core, "--branch", "own", "--path", "meta",
        ],
        &[
            "layer",
            "add",
            "meta-camera",
            &camera,
            "--branch",
            "own",
            "--needs",
            "core",
        ],
        &[
            "release",
            "add",
            "own",
            "--branch",
            "own",
            "--bitbake",
            &bitbake,
            "--bitbake-branch",
            "own",
            "--layer",
            "core",
        ],
        &[
            "project",
            "add",
            "camera",
            "--release",
            "own",
            "--host-machine",
            "demo",
            "--layer",
            "meta-camera",
            "--target",
            "image",
        ],
    ];
    for line in lines {
        host.machinectl(line).success();
    }
    host
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn bisect_finds_the_commit_of_a_layer_and_the_revision_of_the_machine() {
    let repositories = Repositories::new();
    let commits = [
        "one",
        "two",
        "three: broken",
        "four: broken",
        "five: broken",
    ]
    .map(|text| repositories.commit("meta-camera", "recipe", text));
    let host = host(&repositories);
    let bisect = [
        "project",
        "bisect",
        "camera",
        "meta-camera",
        "--good",
        &commits[0],
    ];
    let planned = host.machinectl(&[&bisect[..], &["--dry-run"]].concat());
    let planned = planned.success().stdout;
    assert!(planned.contains("one of 4 commits"), "{planned}");
    let found = host.machinectl(&bisect).success();
    assert_eq!(found.stdout, format!("{}\n", commits[2]), "{found:?}");
    let good = format!("commit {} is good", commits[1]);
    assert!(found.stderr.contains(&good), "{found:?}");

    // The layer is mended, and the machine is not.
    repositories.commit("meta-camera", "recipe", "six");
    upgrade(&host, |files| write_file(&files.join("root/etc/more"), "2"));
    upgrade(&host, |files| fs::remove_file(files.join(MARKER)).unwrap());
    wait_until("the newest revision has an image", || {
        let view = host.host.view("demo");
        let newest = view.revisions.last().unwrap().uuid.to_string();
        view.images.iter().any(|image| {
            let of = image.provenance.as_ref().map(|it| &it.revision_uuid);
            image.complete && of == Some(&newest)
        })
    });
    let submitted = host.machinectl(&["project", "build", "camera"]).success();
    let id: u64 = submitted.stdout.trim().parse().unwrap();
    let build = host.wait_for(id, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Error), "{}", host.log_of(id));
    let found = host.machinectl(&["bisect", &id.to_string()]).success();
    assert_eq!(found.stdout, "3\n", "{found:?}");
    host.wait_until_torn_down();
}
