//! Mirrors of repositories over ssh: a real sshd, and a confined git.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sys::command;
use tests::ssh::SshServer;
use tests::write_file;
use yocto::{Mirrors, Policy};

const LIMIT: Duration = Duration::from_mins(1);

fn git(repository: &Path, arguments: &[&str]) -> String {
    let mut git: Command = command::prepare("git");
    for role in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{role}_NAME"), "t");
        git.env(format!("GIT_{role}_EMAIL"), "t");
    }
    git.arg("-C").arg(repository).args(arguments);
    let output = command::run(git, LIMIT).unwrap();
    String::from_utf8(output).unwrap().trim().to_owned()
}

/// Returns mirrors that use the keys in a directory.
fn mirrors(root: &Path, keys: &Path) -> Mirrors {
    let mirrors = Mirrors::new(
        &root.join("mirrors"),
        Policy {
            hosts: vec!["127.0.0.1".to_owned()],
            ssh_directory: keys.to_owned(),
            ..Policy::default()
        },
    );
    mirrors.prepare().unwrap();
    mirrors
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_repository_is_mirrored_over_ssh_with_the_keys_of_the_settings() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let origin = root.join("origin");
    let keys = root.join("keys");
    for path in [&origin, &keys] {
        std::fs::create_dir(path).unwrap();
    }
    git(&origin, &["init", "--quiet", "--initial-branch=main"]);
    write_file(&origin.join("layer.conf"), "one");
    git(&origin, &["add", "."]);
    git(&origin, &["commit", "--quiet", "-m", "one"]);
    let commit = git(&origin, &["rev-parse", "HEAD"]).parse().unwrap();
    let server = SshServer::start();
    let url = format!("ssh://root@127.0.0.1:{}{}", server.port(), origin.display());
    let (url, main) = (url.parse().unwrap(), "main".parse().unwrap());
    let fault = || {
        let error = mirrors(&root, &keys).update(&url, &main).unwrap_err();
        assert!(error.is_refusal(), "{error}");
        sys::error_report::chain(&error)
    };
    let unknown = fault();
    assert!(
        unknown.contains("Host key verification failed"),
        "{unknown}"
    );
    server.fill_ssh_directory(&keys, "other");
    let denied = fault();
    assert!(denied.contains("Permission denied"), "{denied}");
    server.fill_ssh_directory(&keys, "user");
    let found = mirrors(&root, &keys).update(&url, &main).unwrap();
    assert_eq!(found, commit);
}
