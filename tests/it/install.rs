//! The installation by scripts/install: its files, that they work, and its removal.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sys::command;

const LIMIT: Duration = Duration::from_mins(3);

fn run(program: impl AsRef<Path>, arguments: &[&str]) -> String {
    let mut call = command::prepare(program.as_ref());
    call.args(arguments);
    let printed = command::run(call, LIMIT).unwrap();
    String::from_utf8(printed).unwrap()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn an_installation_with_a_program_missing_changes_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let (root, programs) = (scratch.path().join("root"), scratch.path().join("programs"));
    std::fs::create_dir_all(root.join("usr/bin")).unwrap();
    tests::write_file(&root.join("usr/bin/prserv"), "installed");
    std::fs::create_dir(&programs).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/install");
    let mut install = command::prepare(script);
    install
        .arg("--root")
        .arg(&root)
        .arg("--programs")
        .arg(&programs);
    let refused = install.args(["--prefix", "/usr"]).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("programs/machinectl is missing; nothing was changed"),
        "{said}"
    );
    assert_eq!(files(&root), [root.join("usr/bin/prserv")]);
}

#[test]
fn an_installation_works_under_its_prefix_and_can_be_removed() {
    let scratch = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/install");
    let (root, prefix) = (scratch.path().join("root"), scratch.path().join("usr"));
    let programs = tests::program("machinectl").parent().unwrap().to_owned();
    let install = |options: &[&str]| {
        let paths = ["--root", root.to_str().unwrap(), "--prefix"];
        let paths = [&paths[..], &[prefix.to_str().unwrap()]].concat();
        run(script, &[&paths[..], options].concat())
    };
    install(&["--programs", programs.to_str().unwrap()]);
    // An installation can be repeated.
    install(&["--programs", programs.to_str().unwrap()]);
    // The units start their programs by the prefix, which the root directory contains.
    let installed = root.join(prefix.strip_prefix("/").unwrap());
    std::os::unix::fs::symlink(&installed, &prefix).unwrap();

    let version = env!("CARGO_PKG_VERSION");
    for program in [
        "buildhost",
        "buildhost-agent",
        "buildhost-signer",
        "prserv",
        "hashserv",
    ] {
        assert!(run(prefix.join("bin").join(program), &["--version"]).contains(version));
        let section = if program == "buildhost-agent" { 8 } else { 1 };
        let page = format!("share/man/man{section}/{program}.{section}");
        let page = std::fs::read_to_string(prefix.join(page));
        assert!(page.unwrap().contains(".SH SYNOPSIS"), "{program}");
    }
    for toolchain in ["bitbake", "debian", "shell"] {
        let directory = prefix.join("lib/buildhost/toolchains").join(toolchain);
        let archive = directory.join("toolchain.tar.gz");
        let files = run("tar", &["-tzf", archive.to_str().unwrap()]);
        for file in ["build", "buildhost-worker", "version"] {
            assert!(files.lines().any(|it| it == file), "{toolchain}: {files}");
        }
    }
    let settings = root.join("etc/buildhost/agent.toml");
    let mut check = command::prepare(prefix.join("bin/buildhost-agent"));
    check.args(["--check", "--config", settings.to_str().unwrap()]);
    let checked = check.output().unwrap();
    // The settings are valid; a host without a volume is told the first steps.
    let said = String::from_utf8(checked.stderr).unwrap();
    let has_no_volume = checked.status.code() == Some(3) && said.contains("1. `buildhost init");
    assert!(checked.status.success() || has_no_volume, "{said}");
    let completions = prefix.join("share/bash-completion/completions/buildhost");
    run("bash", &["-n", completions.to_str().unwrap()]);
    let units = ["buildhost-agent", "prserv", "hashserv"]
        .map(|unit| prefix.join(format!("lib/systemd/system/{unit}.service")));
    let units = units.each_ref().map(|unit| unit.to_str().unwrap());
    run(
        "systemd-analyze",
        &[&["verify", "--man=no"], &units[..]].concat(),
    );

    install(&["--remove"]);
    let farm_settings = root.join("etc/buildhost/farm.toml");
    let mut left = files(&root);
    left.sort();
    assert_eq!(left, [settings, farm_settings]);
}
