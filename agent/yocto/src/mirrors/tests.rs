mod http;

use std::process::Command;

use tempfile::TempDir;

use super::*;

/// A directory with a repository `origin`, and mirrors that may read everything in it.
struct Host {
    directory: TempDir,
    mirrors: Mirrors,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let mirrors = Mirrors::new(&root.join("mirrors"), policy(&root));
        mirrors.prepare().unwrap();
        let host = Self { directory, mirrors };
        std::fs::create_dir(host.path("origin")).unwrap();
        host.git(&["init", "--quiet", "--initial-branch=main"]);
        host.commit("meta/conf/layer.conf", "one");
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join(name)
    }

    /// Returns other mirrors, after a change of what they may use.
    fn mirrors_with(&self, change: impl FnOnce(&mut Policy)) -> Mirrors {
        let mut policy = policy(&self.path(""));
        change(&mut policy);
        let mirrors = Mirrors::new(&self.path("others"), policy);
        mirrors.prepare().unwrap();
        mirrors
    }

    fn url(&self, name: &str) -> RepositoryUrl {
        self.path(name).display().to_string().parse().unwrap()
    }

    fn git(&self, arguments: &[&str]) -> String {
        let mut git: Command = prepare_git();
        git.arg("-C").arg(self.path("origin")).args(arguments);
        let output = sys::command::run(git, LOCAL_LIMIT).unwrap();
        String::from_utf8(output).unwrap().trim().to_owned()
    }

    fn commit(&self, file: &str, text: &str) -> Reference {
        let path = self.path("origin").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self.git(&["add", "."]);
        self.git(&["commit", "--quiet", "-m", text]);
        self.git(&["rev-parse", "HEAD"]).parse().unwrap()
    }

    fn update(&self, name: &str, reference: &str) -> Result<Reference, MirrorError> {
        self.mirrors
            .update(&self.url(name), &reference.parse().unwrap())
    }

    fn archive(&self, name: &str, commit: &Reference) -> Vec<u8> {
        let directory = self.directory.path();
        let file = self
            .mirrors
            .archive(&self.url(name), commit, "repo", directory, 1 << 20);
        std::fs::read(file.unwrap().path()).unwrap()
    }
}

fn policy(root: &Path) -> Policy {
    Policy {
        directories: vec![root.to_owned()],
        hosts: vec!["127.0.0.1".to_owned(), "git.example.org".to_owned()],
        ssh_directory: "/root/.ssh".into(),
        ..Policy::default()
    }
}

fn prepare_git() -> Command {
    let mut git = sys::command::prepare("git");
    for role in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{role}_NAME"), "t")
            .env(format!("GIT_{role}_EMAIL"), "t");
    }
    git.env("GIT_CONFIG_GLOBAL", "/dev/null");
    git
}

#[test]
fn branches_tags_and_commits_are_found_in_a_mirror() {
    let host = Host::new();
    let first = host.update("origin", "main").unwrap();
    host.git(&["tag", "-a", "-m", "v", "v1"]);
    let second = host.commit("meta/conf/layer.conf", "two");
    assert_eq!(host.update("origin", "main").unwrap(), second);
    assert_eq!(host.update("origin", "HEAD").unwrap(), second);
    assert_eq!(host.update("origin", "v1").unwrap(), first);
    assert_eq!(host.update("origin", first.as_str()).unwrap(), first);
    let read = |commit: &Reference, file: &str| {
        let directory = "meta".parse().unwrap();
        host.mirrors
            .read_file(&host.url("origin"), commit, &directory, file)
            .unwrap()
    };
    assert_eq!(read(&first, "conf/layer.conf").as_deref(), Some("one"));
    assert_eq!(read(&second, "conf/layer.conf").as_deref(), Some("two"));
    assert_eq!(read(&second, "conf/none"), None);
    let between = host
        .mirrors
        .commits_between(&host.url("origin"), &first, &second);
    assert_eq!(between.unwrap(), std::slice::from_ref(&second));
    let is_ancestor = |older, newer| {
        host.mirrors
            .is_ancestor(&host.url("origin"), older, newer)
            .unwrap()
    };
    assert!(is_ancestor(&first, &second) && !is_ancestor(&second, &first));
    // A history that was replaced does not disturb, and the old commit is still there.
    host.git(&["checkout", "--quiet", "-B", "main", first.as_str()]);
    let third = host.commit("meta/conf/layer.conf", "three");
    assert_eq!(host.update("origin", "main").unwrap(), third);
}

#[test]
fn a_commit_without_a_branch_is_fetched_by_its_hash() {
    let host = Host::new();
    let lost = host.commit("file", "lost");
    host.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    host.git(&["config", "uploadpack.allowAnySHA1InWant", "true"]);
    assert_eq!(host.update("origin", lost.as_str()).unwrap(), lost);
}

#[test]
fn what_is_missing_or_forbidden_is_named() {
    let host = Host::new();
    for (name, reference, reason) in [
        ("origin", "none", "has no branch, tag or commit none"),
        (
            "origin",
            &"1".repeat(40),
            "has no branch, tag or commit 1111",
        ),
        ("missing", "main", "cannot read the directory"),
    ] {
        let error = host.update(name, reference).unwrap_err();
        assert!(error.is_refusal());
        let text = sys::error_report::chain(&error);
        assert!(text.contains(reason), "{text}");
    }
    let url = "https://other.example.org/x".parse().unwrap();
    let error = host
        .mirrors
        .update(&url, &"main".parse().unwrap())
        .unwrap_err();
    assert!(error.to_string().contains("layers.git_hosts"), "{error}");
    // Nobody listens there.
    let url = "git://127.0.0.1:9/x".parse().unwrap();
    let error = host
        .mirrors
        .update(&url, &"main".parse().unwrap())
        .unwrap_err();
    assert!(matches!(error, MirrorError::Unreachable { .. }), "{error}");
}

#[test]
fn equal_commits_have_equal_archives() {
    let host = Host::new();
    let commit = host.update("origin", "main").unwrap();
    let first = host.archive("origin", &commit);
    std::fs::remove_dir_all(host.path("mirrors")).unwrap();
    host.mirrors.prepare().unwrap();
    host.update("origin", "main").unwrap();
    assert_eq!(host.archive("origin", &commit), first);
    let mut tar = sys::command::prepare("tar");
    std::fs::write(host.path("a.tar"), first).unwrap();
    tar.arg("-tf").arg(host.path("a.tar"));
    let list = String::from_utf8(sys::command::run(tar, LOCAL_LIMIT).unwrap()).unwrap();
    assert!(list.contains("repo/meta/conf/layer.conf\n"), "{list}");
    let small = host.mirrors.archive(
        &host.url("origin"),
        &commit,
        "r",
        host.directory.path(),
        512,
    );
    assert!(matches!(small, Err(MirrorError::Git { .. })), "{small:?}");
}

#[test]
fn a_directory_without_git_becomes_a_commit_of_its_content() {
    let host = Host::new();
    let plain = host.path("plain");
    std::fs::create_dir_all(plain.join("conf")).unwrap();
    std::fs::write(plain.join("conf/layer.conf"), "one").unwrap();
    let first = host.update("plain", "HEAD").unwrap();
    assert!(first.is_commit());
    assert_eq!(host.update("plain", "HEAD").unwrap(), first);
    std::fs::write(plain.join("conf/layer.conf"), "two").unwrap();
    let second = host.update("plain", "HEAD").unwrap();
    assert_ne!(first, second);
    // An earlier content is still there, by its commit.
    assert_eq!(host.update("plain", first.as_str()).unwrap(), first);
    let read = host.mirrors.read_file(
        &host.url("plain"),
        &first,
        &LayerPath::default(),
        "conf/layer.conf",
    );
    assert_eq!(read.unwrap().as_deref(), Some("one"));
    assert!(!plain.join(".git").exists());
    let error = host.update("plain", "main").unwrap_err().to_string();
    assert!(error.contains("has only `HEAD`"), "{error}");
}

#[test]
fn the_locks_of_a_killed_git_are_removed() {
    let host = Host::new();
    host.update("origin", "main").unwrap();
    let mirror = host
        .mirrors
        .git(&host.url("origin"))
        .unwrap()
        .mirror()
        .to_owned();
    let lock = mirror.join("refs/heads/main.lock");
    std::fs::write(&lock, "").unwrap();
    std::fs::write(mirror.join("config.lock"), "").unwrap();
    host.commit("file", "two");
    host.update("origin", "main").unwrap_err();
    host.mirrors.prepare().unwrap();
    assert!(!lock.exists());
    host.update("origin", "main").unwrap();
}

#[test]
#[ignore = "needs root: a repository of another user"]
fn a_repository_of_another_user_is_read_without_its_hooks() {
    let host = Host::new();
    let commit = host.update("origin", "main").unwrap();
    let planted = host.path("planted");
    let hook = format!("touch {}", planted.display());
    host.git(&["config", "uploadpack.packObjectsHook", &hook]);
    host.git(&["config", "core.fsmonitor", &hook]);
    let mut chown = sys::command::prepare("chown");
    chown.args(["-R", "65534:65534"]).arg(host.path("origin"));
    sys::command::run(chown, LOCAL_LIMIT).unwrap();
    std::fs::remove_dir_all(host.path("mirrors")).unwrap();
    host.mirrors.prepare().unwrap();
    assert_eq!(host.update("origin", "main").unwrap(), commit);
    assert!(!planted.exists());
}
