//! Machines of stock Debian, from a mirror to a built package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ::sys::command;
use config::builds::Build;
use config::task::Outcome;
use tempfile::TempDir;
use tests::agent::AgentHost;
use tests::guest_files::StaticWorker;
use tests::write_file;

/// The text of a source package of Debian.
const CHANGELOG: &str = "hello-stock (1.2-3) unstable; urgency=low\n\n  * Test.\n\n -- Test <test@example.org>  Thu, 01 Jan 2026 00:00:00 +0000\n";
const CONTROL: &str = "Source: hello-stock\nSection: misc\nPriority: optional\nMaintainer: Test <test@example.org>\nBuild-Depends: debhelper-compat (= 13)\nStandards-Version: 4.6.2\nRules-Requires-Root: no\n\nPackage: hello-stock\nArchitecture: any\nDepends: ${shlibs:Depends}, ${misc:Depends}\nDescription: says hello\n It is a test.\n";
const RULES: &str = "#!/usr/bin/make -f\n%:\n\tdh $@\n";
const MAKEFILE: &str = "hello: hello.c\n\t$(CC) $(CFLAGS) -o $@ $<\ninstall: hello\n\tinstall -D hello $(DESTDIR)/usr/bin/hello-stock\n";
const PROGRAM: &str = "#include <stdio.h>\nint main(void) { return puts(\"hello\") < 0; }\n";

fn finish(command: Command) -> String {
    let output = command::run(command, Duration::from_mins(1)).unwrap();
    String::from_utf8(output).unwrap()
}

/// Makes a machine named `deb` of stock Debian, and starts the agent with a toolchain.
fn stock_debian(toolchain: &str, options: &[&str]) -> AgentHost {
    let worker = StaticWorker::extract();
    let mut host = AgentHost::with_volume(8192, "");
    let worker_path = worker.path();
    let line = [
        "image",
        "make",
        "deb",
        "--debian",
        "bookworm",
        "--worker",
        &worker_path,
    ];
    let line = [&line, options].concat();
    let answer = host.host.machinectl(&line, b"").success();
    assert!(answer.stderr.contains("buildhost build deb"), "{answer:?}");
    assert_eq!(work_directories(), [""; 0]);
    host.host.machinectl(&["verify", "deb"], b"").success();
    worker.add_toolchain(&host, toolchain, &[]);
    host.start();
    host
}

/// Returns the temporary directories that are left.
fn work_directories() -> Vec<String> {
    let names = fs::read_dir("/var/tmp").unwrap().flatten();
    let names = names.map(|it| it.file_name().to_string_lossy().into_owned());
    let is_left = |name: &String| name.starts_with("buildhost-image.");
    // Another test may make a machine at the same time.
    let is_used = |name: &String| {
        let directory = fs::File::open(Path::new("/var/tmp").join(name)).unwrap();
        let lock = rustix::fs::FlockOperation::NonBlockingLockShared;
        rustix::fs::flock(directory, lock).is_err()
    };
    names.filter(is_left).filter(|it| !is_used(it)).collect()
}

/// Builds sources, waits for the end, and returns the record.
fn build(host: &AgentHost, id: u64, sources: &[PathBuf]) -> Build {
    let sources: Vec<_> = sources.iter().map(|it| it.display().to_string()).collect();
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    let line = [&["build", "deb"], &sources[..], &["--follow"]].concat();
    let answer = host.machinectl(&line);
    let build = host.build(id);
    assert!(build.outcome.is_some(), "{answer:?}");
    build
}

/// A source tree of a package of Debian.
struct SourceTree(TempDir);

impl SourceTree {
    fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(tree.path("hello-stock-1.2/debian/source")).unwrap();
        for (name, text) in [
            ("Makefile", MAKEFILE),
            ("hello.c", PROGRAM),
            ("debian/changelog", CHANGELOG),
            ("debian/control", CONTROL),
            ("debian/rules", RULES),
            ("debian/source/format", "3.0 (quilt)\n"),
        ] {
            tree.write(name, text);
        }
        let mut chmod = command::prepare("chmod");
        chmod
            .arg("755")
            .arg(tree.path("hello-stock-1.2/debian/rules"));
        finish(chmod);
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        write_file(&self.path("hello-stock-1.2").join(name), text);
    }

    /// Packs files below the tree's parent into an archive.
    fn archive(&self, name: &str, directory: &str, content: &[&str]) -> PathBuf {
        let mut tar = command::prepare("tar");
        tar.args(["--sort=name", "--mtime=@0", "-czf"])
            .arg(self.path(name));
        tar.arg("-C").arg(self.path(directory)).args(content);
        finish(tar);
        self.path(name)
    }

    /// Returns a source package: the description and the two archives that it names.
    fn source_package(&self) -> Vec<PathBuf> {
        let original = "hello-stock_1.2.orig.tar.gz";
        let debian = "hello-stock_1.2-3.debian.tar.gz";
        let upstream = ["hello-stock-1.2/Makefile", "hello-stock-1.2/hello.c"];
        let archives = [
            self.archive(original, ".", &upstream),
            self.archive(debian, "hello-stock-1.2", &["debian"]),
        ];
        let list = |program: &str| -> String {
            let lines = archives.iter().map(|archive| {
                let mut sum = command::prepare(program);
                sum.arg(archive);
                let sum = finish(sum);
                let sum = sum.split_whitespace().next().unwrap();
                let bytes = archive.metadata().unwrap().len();
                let name = archive.file_name().unwrap().to_str().unwrap();
                format!(" {sum} {bytes} {name}\n")
            });
            lines.collect()
        };
        let description = format!(
            "Format: 3.0 (quilt)\nSource: hello-stock\nBinary: hello-stock\nArchitecture: any\nVersion: 1.2-3\nMaintainer: Test <test@example.org>\nStandards-Version: 4.6.2\nChecksums-Sha256:\n{}Files:\n{}",
            list("sha256sum"),
            list("md5sum"),
        );
        let dsc = self.path("hello-stock_1.2-3.dsc");
        write_file(&dsc, &description);
        [vec![dsc], archives.into()].concat()
    }
}

fn artifacts(build: &Build) -> Vec<&str> {
    build.artifacts.iter().map(|it| it.name.as_str()).collect()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_stock_debian_container_builds_packages_of_debian() {
    let host = stock_debian("debian", &["--kind", "nspawn"]);
    let tree = SourceTree::new();
    let built = build(&host, 1, &tree.source_package());
    assert_eq!(built.outcome, Some(Outcome::Success), "{}", host.log_of(1));
    let package = built
        .packages
        .iter()
        .find(|it| it.package.name == "hello-stock");
    let package = package.unwrap();
    assert_eq!(package.package.version, "1.2");
    assert_eq!(package.revision, "r3.0");
    for name in [
        "hello-stock_1.2-3_amd64.deb",
        "hello-stock_1.2-3_amd64.changes",
        "hello-stock_1.2-3_amd64.buildinfo",
    ] {
        assert!(artifacts(&built).contains(&name), "{built:?}");
    }

    tree.write("hello.c", &PROGRAM.replace("hello", "good morning"));
    let archive = tree.archive("tree.tar.gz", ".", &["hello-stock-1.2"]);
    let built = build(&host, 2, &[archive]);
    assert_eq!(built.outcome, Some(Outcome::Success), "{}", host.log_of(2));
    let mut revisions = built.packages.iter().map(|it| &it.revision);
    assert!(revisions.all(|it| it == "r3.1"), "{built:?}");

    let control = CONTROL.replace("(= 13)", "(= 13), libabsent-dev (>= 2)");
    tree.write("debian/control", &control);
    let archive = tree.archive("tree.tar.gz", ".", &["hello-stock-1.2"]);
    let built = build(&host, 3, &[archive]);
    assert_eq!(built.outcome, Some(Outcome::Error));
    let remedy = "image make … --include libabsent-dev";
    assert!(built.message.contains(remedy), "{}", built.message);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_stock_debian_with_systemd_restores_from_its_checkpoint() {
    let host = stock_debian("shell", &["--minimal", "--size", "3G"]);
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("build.sh");
    write_file(
        &script,
        "cat /proc/1/comm >artifacts/init\nsystemctl list-units --failed --no-legend >artifacts/failed\nip route >artifacts/route\n",
    );
    let built = build(&host, 1, &[script]);
    assert_eq!(built.outcome, Some(Outcome::Success), "{}", host.log_of(1));
    assert!(built.restored, "{built:?}");
    let kept = directory.path().join("kept").display().to_string();
    host.machinectl(&["artifacts", "1", "--output", &kept])
        .success();
    let read = |name: &str| fs::read_to_string(Path::new(&kept).join(name)).unwrap();
    assert_eq!(read("init"), "systemd\n");
    assert_eq!(read("failed"), "");
    assert!(
        read("route").contains("169.254.111.222"),
        "{}",
        read("route")
    );
}
