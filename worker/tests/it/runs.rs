//! Whole bootstraps and builds, with toolchains that are shell scripts.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use config::task::{Outcome, TaskResult};
use tempfile::TempDir;
use tftp::client::{Client, Timeouts};
use worker::cli::Settings;
use worker::{bootstrap, build, fetch};

use crate::host::Host;

const TASK: &str = ": 1
build: 7
machine: demo
toolchain: default
:
source: hello.txt
sha256: 5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03
";
const SOURCE: (&str, &str) = ("sources/hello.txt", "hello\n");

/// A guest with a toolchain, and its host.
struct Guest {
    host: Host,
    place: TempDir,
    settings: Settings,
}

impl Guest {
    fn start(files: &[(&str, &str)], refused: &[&str]) -> Self {
        let host = Host::start(files, refused);
        let place = tempfile::tempdir().unwrap();
        let toolchain = place.path().join("toolchain");
        fs::create_dir(&toolchain).unwrap();
        let settings = Settings {
            client: Client::new(host.address(), Timeouts::default()),
            pr_host: host.address(),
            work: place.path().join("build"),
            worker: toolchain.join("buildhost-worker"),
            toolchain,
        };
        Self {
            host,
            place,
            settings,
        }
    }

    /// Starts a guest whose toolchain has this `build`, and whose host has the task.
    fn with_build(script: &str) -> Self {
        Self::with_build_and_refusals(script, &[])
    }

    fn with_build_and_refusals(script: &str, refused: &[&str]) -> Self {
        let guest = Self::start(&[("task.manifest", TASK), SOURCE], refused);
        guest.install("build", script);
        guest
    }

    fn install(&self, name: &str, script: &str) {
        let path = self.settings.toolchain.join(name);
        let mut file = File::create(&path).unwrap();
        write!(file, "#!/bin/sh\nset -e\n{script}\n").unwrap();
        drop(file);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn result(&self, name: &str) -> TaskResult {
        TaskResult::parse(&self.host.text(name)).unwrap()
    }
}

const PACKAGES: &str = "cat >$BUILDHOST_OUT/packages.manifest <<END
: 1
package: hello
version: 1.0
recipe-revision: r0
architecture: all
checksum: c0
file: hello.ipk
END";

#[test]
fn a_build_puts_its_artifacts_its_log_and_its_result() {
    let script = format!(
        "echo build $BUILDHOST_BUILD on $BUILDHOST_MACHINE with $BUILDHOST_TOOLCHAIN
         [ -z \"$(ls)\" ] && echo an empty place
         cp $BUILDHOST_SOURCES/hello.txt $BUILDHOST_OUT/hello.ipk
         echo notes >$BUILDHOST_OUT/notes
         {PACKAGES}"
    );
    let mut guest = Guest::with_build(&script);
    assert_eq!(build::run(&guest.settings).unwrap(), Outcome::Success);
    assert_eq!(
        guest.host.puts(),
        [
            "artifacts/hello.ipk",
            "artifacts/notes",
            "log",
            "result.manifest"
        ]
    );
    assert_eq!(guest.host.text("artifacts/hello.ipk"), "hello\n");
    insta::assert_snapshot!(guest.host.text("log"), @r"
    buildhost-worker: build 7 on demo with the toolchain default
    buildhost-worker: fetched hello.txt, 6 bytes
    build 7 on demo with default
    an empty place
    buildhost-worker: the result is: success
    ");
    let result = guest.result("result.manifest");
    assert_eq!(result.status, Outcome::Success);
    assert_eq!(result.packages[0].pr_version(), "hello-1.0-r0");
}

#[test]
fn a_build_finds_nothing_of_an_earlier_one() {
    let script = "ls $BUILDHOST_OUT . $BUILDHOST_SOURCES; touch $BUILDHOST_OUT/left here";
    let guest = Guest::with_build(script);
    build::run(&guest.settings).unwrap();
    let first = guest.host.text("log");
    build::run(&guest.settings).unwrap();
    assert_eq!(guest.host.text("log"), first);
}

#[test]
fn a_failed_build_is_an_error_with_its_last_lines() {
    let script = "echo compiling; echo partial >$BUILDHOST_OUT/config.log; echo 'hello.c:7: no such luck' >&2; exit 4";
    let guest = Guest::with_build(script);
    assert_eq!(build::run(&guest.settings).unwrap(), Outcome::Error);
    let result = guest.result("result.manifest");
    assert_eq!(result.message, "compiling\nhello.c:7: no such luck");
    assert_eq!(guest.host.text("artifacts/config.log"), "partial\n");
    assert!(guest.host.text("log").contains("ended with exit status: 4"));
}

#[test]
fn a_failed_build_without_output_is_described_by_its_exit_status() {
    let guest = Guest::with_build("kill -KILL $$");
    assert_eq!(build::run(&guest.settings).unwrap(), Outcome::Error);
    let message = guest.result("result.manifest").message;
    assert_eq!(
        message,
        "the toolchain's `build` ended with signal: 9 (SIGKILL)"
    );
}

#[test]
fn an_invalid_package_list_is_an_error() {
    let guest = Guest::with_build(PACKAGES);
    assert_eq!(build::run(&guest.settings).unwrap(), Outcome::Error);
    let message = guest.result("result.manifest").message;
    assert_eq!(
        message,
        "packages.manifest names hello.ipk, which is not among the artifacts"
    );
}

#[test]
fn a_missing_or_altered_input_is_abnormal() {
    let other = ("sources/hello.txt", "another\n");
    let guest = Guest::start(&[("task.manifest", TASK), other], &[]);
    guest.install("build", "echo never run");
    assert_eq!(build::run(&guest.settings).unwrap(), Outcome::Abnormal);
    let result = guest.result("result.manifest");
    assert_eq!(result.status, Outcome::Abnormal);
    assert!(
        result
            .message
            .starts_with("the source hello.txt has the SHA-256 "),
        "{}",
        result.message
    );
    assert!(!guest.host.text("log").contains("never run"));

    let guest = Guest::start(&[], &[]);
    assert_eq!(build::run(&guest.settings).unwrap(), Outcome::Abnormal);
    assert_eq!(
        guest.result("result.manifest").message,
        "cannot fetch `task.manifest`: the server refused: there is no such file (code 1)"
    );
}

#[test]
fn a_toolchain_without_build_is_an_error() {
    let guest = Guest::with_build("");
    fs::remove_file(guest.settings.toolchain.join("build")).unwrap();
    assert_eq!(build::run(&guest.settings).unwrap(), Outcome::Error);
    let message = guest.result("result.manifest").message;
    assert!(message.starts_with("cannot run "), "{message}");
}

#[test]
fn a_refused_artifact_is_an_error_and_the_others_arrive() {
    let refused = ["artifacts/large", "log"];
    let build = "for file in a large z; do echo $file >$BUILDHOST_OUT/$file; done";
    let mut guest = Guest::with_build_and_refusals(build, &refused);
    assert_eq!(build::run(&guest.settings).unwrap(), Outcome::Error);
    insta::assert_snapshot!(guest.result("result.manifest").message, @r"
    cannot put `artifacts/large`: the server refused: the file is too large (code 3)
    the log is lost: cannot put `log`: the server refused: the file is too large (code 3)
    ");
    let arrived = ["artifacts/a", "artifacts/z", "result.manifest"];
    assert_eq!(guest.host.puts(), arrived);
}

#[test]
fn a_refused_result_is_an_error_of_the_worker() {
    let guest = Guest::with_build_and_refusals("", &["result.manifest"]);
    let error = build::run(&guest.settings).unwrap_err();
    assert_eq!(error.to_string(), "cannot put `result.manifest`");
}

#[test]
fn a_bootstrap_runs_in_the_directory_of_the_toolchain() {
    let mut guest = Guest::start(&[], &[]);
    guest.install("bootstrap", "touch installed; ls; echo $BUILDHOST_WORKER");
    assert_eq!(bootstrap::run(&guest.settings).unwrap(), Outcome::Success);
    assert!(guest.settings.toolchain.join("installed").exists());
    assert_eq!(guest.host.puts(), ["log", "bootstrap.manifest"]);
    let log = guest.host.text("log");
    let log = log.replace(guest.place.path().to_str().unwrap(), "PLACE");
    insta::assert_snapshot!(log, @r"
    buildhost-worker: running the toolchain's `bootstrap`
    bootstrap
    installed
    PLACE/toolchain/buildhost-worker
    buildhost-worker: the result is: success
    ");
}

#[test]
fn a_toolchain_may_have_no_bootstrap() {
    let guest = Guest::start(&[], &[]);
    assert_eq!(bootstrap::run(&guest.settings).unwrap(), Outcome::Success);
    let result = guest.result("bootstrap.manifest");
    assert_eq!(result.status, Outcome::Success);
}

#[test]
fn a_failed_bootstrap_is_an_error_with_its_last_lines() {
    let guest = Guest::start(&[], &[]);
    guest.install("bootstrap", "echo the compiler does not work; false");
    assert_eq!(bootstrap::run(&guest.settings).unwrap(), Outcome::Error);
    let result = guest.result("bootstrap.manifest");
    assert_eq!(result.message, "the compiler does not work");
}

#[test]
fn fetch_gets_a_file_of_the_toolchain_or_leaves_nothing() {
    let guest = Guest::start(&[("toolchain.tar.gz", "archive")], &[]);
    let path = guest.place.path().join("archive");
    let client = &guest.settings.client;
    fetch::run(client, "toolchain.tar.gz", &path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "archive");
    let error = fetch::run(client, "other", &path).unwrap_err().to_string();
    assert_eq!(error, "cannot fetch `other`");
    assert!(!path.exists());
}
