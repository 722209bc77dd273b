use std::fs;

use super::*;
use crate::Choices;

/// Runs git with an identity of its own.
fn git(directory: &Path, line: &str) {
    let mut git = sys::command::prepare("git");
    git.arg("-C").arg(directory);
    git.args(["-c", "user.name=Test", "-c", "user.email=test@example.org"]);
    git.args(line.split(' '));
    sys::command::run(git, std::time::Duration::from_mins(1)).unwrap();
}

/// Makes a repository with these files.
fn repository(directory: &Path, files: &[&str]) {
    fs::create_dir_all(directory).unwrap();
    git(directory, "init --quiet --initial-branch=main");
    for file in files {
        let path = directory.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        sys::file::replace(&path, b"").unwrap();
    }
    git(directory, "add .");
    git(directory, "commit --quiet --message=first");
}

struct Work(tempfile::TempDir);

impl Work {
    /// A build directory beside BitBake, a clone with the layer core, and a layer without a remote
    /// repository.
    fn new() -> Self {
        let work = Self(tempfile::tempdir().unwrap());
        repository(&work.path("upstream"), &["meta/conf/layer.conf"]);
        repository(&work.path("checkouts/bitbake"), &["bin/bitbake"]);
        repository(&work.path("checkouts/meta-own"), &["conf/layer.conf"]);
        let (from, to) = (work.path("upstream"), work.path("checkouts/oe-core"));
        let line = format!("clone --quiet {} {}", from.display(), to.display());
        git(&work.path("checkouts"), &line);
        work.write(
            "conf/bblayers.conf",
            "BBLAYERS ?= \" \\\n ${TOPDIR}/../oe-core/meta \\\n ${TOPDIR}/../meta-own\"\n",
        );
        work.write(
            "conf/local.conf",
            "MACHINE ?= \"qemux86-64\"\nDL_DIR = \"/srv/dl\"\nEXTRA_IMAGE_FEATURES ?= \"x\"\n",
        );
        work
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(path)
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.path("checkouts/build").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        sys::file::replace(&path, text.as_bytes()).unwrap();
    }

    fn import(&self) -> Result<Imported, ImportError> {
        crate::read(&self.path("checkouts/build"), &Choices::default())
    }
}

#[test]
fn a_build_directory_becomes_a_project() {
    let work = Work::new();
    let imported = work.import().unwrap();
    let top = work.path("").display().to_string();
    let text = serde_json::to_string_pretty(&imported.project).unwrap();
    insta::assert_snapshot!(text.replace(top.trim_end_matches('/'), "TOP"));
    assert_eq!(
        imported.notes,
        ["DL_DIR: left out, because the host sets its own"]
    );
}

#[test]
fn what_builds_do_not_have_is_noted() {
    let work = Work::new();
    let clone = work.path("checkouts/oe-core");
    sys::file::replace(&clone.join("meta/new"), b"").unwrap();
    git(&clone, "add .");
    git(&clone, "commit --quiet --message=second");
    sys::file::replace(&clone.join("meta/newer"), b"").unwrap();
    let notes = work.import().unwrap().notes.join("\n");
    assert!(
        notes.contains("oe-core has changes that are not committed"),
        "{notes}"
    );
    assert!(
        notes.contains("oe-core has 1 commits that its remote"),
        "{notes}"
    );
}

#[test]
fn faults_name_the_file_and_the_remedy() {
    let work = Work::new();
    let fault = |work: &Work| work.import().unwrap_err().to_string();
    work.write("conf/local.conf", "A = \"b\"\nrequire site.conf\n");
    let text = fault(&work);
    assert!(text.contains("local.conf: line 2: `require`"), "{text}");
    work.write("conf/local.conf", "");
    fs::remove_dir_all(work.path("checkouts/bitbake")).unwrap();
    let text = fault(&work);
    assert!(
        text.contains("there is no BitBake (`bitbake/bin/bitbake`) in or beside"),
        "{text}"
    );
    work.write("conf/bblayers.conf", "BBLAYERS = \"/no/such/layer\"\n");
    let text = fault(&work);
    assert!(
        text.contains("bblayers.conf: the directory /no/such/layer does not exist"),
        "{text}"
    );
    let plain = work.path("plain");
    fs::create_dir(&plain).unwrap();
    work.write(
        "conf/bblayers.conf",
        &format!("BBLAYERS = \"{}\"\n", plain.display()),
    );
    let text = fault(&work);
    assert!(text.contains("is in no repository"), "{text}");
}
