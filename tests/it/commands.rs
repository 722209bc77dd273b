//! Toaster's commands and the verbs for tokens: arguments, output and exit codes.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use config::builds::State;
use config::projects::Project;
use config::task::Outcome;
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use tests::api_host::ApiHost;
use tests::hosts::{CommandOutput, run};
use tests::wait_until;

fn machinectl(host: &ApiHost) -> Command {
    let mut command = sys::command::prepare(tests::program("machinectl"));
    command.env("BUILDHOST_SOCKET", host.path("run/agent.sock"));
    command.env("BUILDHOST_TOKENS", host.path("tokens"));
    command
}

fn call(host: &ApiHost, arguments: &[&str]) -> CommandOutput {
    let mut command = machinectl(host);
    command.args(arguments);
    run(command, b"")
}

/// Records finished builds of these targets.
fn record_builds(host: &ApiHost, targets: &[&str]) {
    let records = &host.host.records;
    for target in targets {
        let request = format!(r#"{{"machine": "linux", "sources": [], "target": "{target}"}}"#);
        let request = serde_json::from_str(&request).unwrap();
        let (toolchain, root) = ("poky".parse().unwrap(), "root".parse().unwrap());
        let done = records.submit(request, toolchain, root, Timestamp::now());
        let mut build = host.block_on(done).unwrap();
        build.enter(State::Finished, Timestamp::now()).unwrap();
        build.outcome = Some(Outcome::Success);
        host.block_on(records.save(&mut build)).unwrap();
    }
}

#[test]
fn buildslist_prints_toasters_lines_oldest_first() {
    let host = ApiHost::new("");
    assert_eq!(call(&host, &["buildslist"]).success().stdout, "");
    record_builds(&host, &["a-img", "b-img:do_fetch"]);
    assert_eq!(
        call(&host, &["buildslist"]).success().stdout,
        "1: linux poky a-img\n2: linux poky b-img\n"
    );
}

/// Makes a repository with one empty file.
fn repository(directory: &Path, file: &str) {
    let path = directory.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    tests::write_file(&path, "");
    for line in [
        "init --quiet --initial-branch=main",
        "add .",
        "-c user.name=Test -c user.email=test@example.org commit --quiet --message=first",
    ] {
        let mut git = sys::command::prepare("git");
        git.arg("-C").arg(directory).args(line.split(' '));
        sys::command::run(git, Duration::from_mins(1)).unwrap();
    }
}

#[test]
fn buildimport_makes_a_project_and_prints_its_number() {
    let work = tempfile::tempdir().unwrap();
    let host = ApiHost::new(&format!("layers.directories = [{:?}]", work.path()));
    repository(&work.path().join("bitbake"), "bin/bitbake");
    repository(&work.path().join("meta-own"), "conf/layer.conf");
    let build = work.path().join("build");
    fs::create_dir_all(build.join("conf")).unwrap();
    let layers = "BBLAYERS = \"${TOPDIR}/../meta-own\"\n";
    tests::write_file(&build.join("conf/bblayers.conf"), layers);
    let local = "MACHINE = \"qemuarm64\"\nDL_DIR = \"/srv/dl\"\n";
    tests::write_file(&build.join("conf/local.conf"), local);
    let path = format!("--path={}", build.display());
    let line = ["buildimport", "--name=camera", &path, "--callback="];

    let answer = call(&host, &line).success();
    assert_eq!(answer.stdout, "|Project_id=1\n");
    assert!(answer.stderr.contains("DL_DIR: left out"), "{answer:?}");
    let shown = || call(&host, &["project", "show", "camera", "--json"]);
    let project: Project = serde_json::from_str(&shown().success().stdout).unwrap();
    assert_eq!(project.layers[0].name.as_str(), "meta-own");
    assert_eq!(project.variables[0].value.as_str(), "qemuarm64");

    tests::write_file(
        &build.join("conf/local.conf"),
        "DEFAULT_IMAGE = \"an-image\"\n",
    );
    let again = [&line[..], &["--command=reconfigure"]].concat();
    let answer = call(&host, &again).success();
    assert_eq!(answer.stdout, "|Default_image=an-image|Project_id=1\n");
    tests::write_file(&build.join("conf/bblayers.conf"), "");
    let answer = call(&host, &again);
    assert_eq!(answer.code, Some(3), "{answer:?}");
    assert!(
        answer.stderr.contains("BBLAYERS names no layer"),
        "{answer:?}"
    );

    let delete = ["buildimport", "--name=camera", "--delete-project=yes"];
    assert_eq!(
        call(&host, &delete).success().stdout,
        "Project 'camera' Deleted\n"
    );
    assert_eq!(shown().code, Some(10), "{:?}", shown());
}

#[test]
fn perf_measures_the_pages_and_fails_if_the_server_does_not_answer() {
    let host = ApiHost::new("");
    let url = format!("http://{}", host.address);
    let answer = call(&host, &["perf", "--url", &url]).success();
    let lines: Vec<_> = answer.stdout.lines().collect();
    assert_eq!(lines.len(), 6);
    assert!(
        lines[0].starts_with(&format!("Trying '{url}/health', 200, 0:00:0")),
        "{lines:?}"
    );
    let unused = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let answer = call(&host, &["perf", "--url", &format!("http://{unused}")]);
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(answer.stderr.contains("cannot fetch"), "{answer:?}");
}

#[test]
fn checksocket_prints_toasters_messages() {
    let host = ApiHost::new("");
    let taken = host.address.to_string();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let answer = call(&host, &["checksocket", &free.to_string()]).success();
    assert_eq!(
        answer.stdout,
        format!("Check if toaster can listen on {free}\nOK\n")
    );
    for (address, message) in [
        (
            taken.as_str(),
            format!("Port {} is already in use", host.address.port()),
        ),
        ("foo", "Invalid addr:port specified: foo".to_owned()),
        ("127.0.0.1:x", "Invalid port specified: x".to_owned()),
        (
            "192.0.2.1:8000",
            "IP address can't be assigned to".to_owned(),
        ),
    ] {
        call(&host, &["checksocket", address]).refused(1, &message);
    }
}

#[test]
fn checksettings_checks_the_settings_and_the_paths_in_them() {
    let host = ApiHost::new("");
    let path = host.path("agent.toml");
    let check = |text: &str| {
        tests::write_file(&path, text);
        call(
            &host,
            &["checksettings", "--config", &path.display().to_string()],
        )
    };
    let answer = check("[paths]\nrun = \"relative\"\ncolour = 1\n");
    assert_eq!(
        answer.stdout,
        "\n -- Validation: line 2: `paths.run`: an absolute path is expected\n\n -- Validation: line 3: `paths.colour` is not a setting\n"
    );
    assert_eq!(answer.code, Some(1));
    tests::write_file(&host.path("tokens"), "nonsense\n");
    let answer = check(&format!(
        "paths.volumes = [\"/nowhere\"]\npaths.toolchains = \"{0}/toolchains\"\nhttp.token_file = \"{0}/tokens\"\n",
        host.path("").display()
    ));
    assert!(answer.stdout.contains("/nowhere"), "{answer:?}");
    assert!(
        answer
            .stdout
            .contains("line 1: `NAME SCOPE SHA256 CREATED`"),
        "{answer:?}"
    );
    assert_eq!(
        answer.stdout.matches("-- Validation:").count(),
        2,
        "{answer:?}"
    );
}

#[test]
fn runbuilds_writes_its_pid_file_and_removes_it_at_the_end() {
    let host = ApiHost::new("");
    let mut runner = machinectl(&host)
        .arg("runbuilds")
        .env("BUILDDIR", host.path(""))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let file = host.path(".runbuilds.pid");
    let pid = Pid::from_child(&runner);
    wait_until("the runner has written its process id", || {
        let text = std::fs::read_to_string(&file);
        text.is_ok_and(|text| text == pid.as_raw_nonzero().to_string())
    });
    kill_process(pid, Signal::USR1).unwrap();
    assert!(runner.try_wait().unwrap().is_none());
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(runner.wait().unwrap().code(), Some(0));
    assert!(!file.exists());
}

#[test]
fn a_token_can_be_added_used_and_removed() {
    let host = ApiHost::new("");
    let secret = call(&host, &["token", "add", "nightly", "--scope", "submit"]);
    let secret = secret.success().stdout.trim().to_owned();
    assert!(
        secret.starts_with("buildhost_") && secret.len() == 74,
        "{secret}"
    );
    let builds = || {
        let request = host.remote("GET", "/api/v1/builds").bearer_auth(&secret);
        request.send().unwrap().status()
    };
    assert_eq!(builds(), 200);
    call(&host, &["token", "add", "nightly"]).refused(11, "already");
    let list = call(&host, &["token", "list"]).success().stdout;
    let row = list.strip_prefix("TOKEN    SCOPE   CREATED\nnightly  submit  20");
    assert!(row.is_some(), "{list}");
    call(&host, &["token", "remove", "nightly"]).success();
    assert_eq!(builds(), 401);
    call(&host, &["token", "remove", "nightly"]).refused(10, "no token nightly");
    let answer = call(&host, &["token", "add", "a b"]);
    assert_eq!(answer.code, Some(2), "{answer:?}");
}

#[test]
fn builddelete_deletes_records_and_files_and_skips_unknown_builds() {
    let host = ApiHost::new("");
    record_builds(&host, &["a", "b", "c"]);
    let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
    let (toolchain, root) = ("poky".parse().unwrap(), "root".parse().unwrap());
    let records = &host.host.records;
    let queued = records.submit(request, toolchain, root, Timestamp::now());
    host.block_on(queued).unwrap();
    let list = || host.get("/toastergui/api/builds").text().unwrap();
    assert!(list().contains(r#""count": 3}"#));
    let log = host.host.paths.build(config::BuildId(2)).join("log");
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    tests::write_file(&log, "hello");
    let answer = call(&host, &["builddelete", "2", "77", "1"]).success();
    assert_eq!(answer.stdout, "build 77 does not exist, skipping...\n");
    assert!(!log.exists());
    let left = list();
    assert!(
        left.contains(r#""id": 3"#) && left.contains(r#""count": 1}"#),
        "{left}"
    );
    let answer = call(&host, &["builddelete", "4", "3"]);
    assert_eq!(answer.code, Some(3), "{answer:?}");
    assert!(answer.stderr.contains("has not ended"), "{answer:?}");
    assert_eq!(list(), r#"{"builds": [], "count": 0}"#);
    assert_eq!(call(&host, &["builddelete"]).code, Some(2));
    assert_eq!(call(&host, &["builddelete", "x"]).code, Some(2));
}

#[test]
fn builds_delete_deletes_the_others_if_a_build_is_missing() {
    let host = ApiHost::new("");
    record_builds(&host, &["a", "b"]);
    let plan = call(&host, &["builds", "delete", "1", "2", "--dry-run"]).success();
    assert_eq!(plan.stdout, "would delete build 1\nwould delete build 2\n");
    let answer = call(&host, &["builds", "delete", "77", "1"]);
    assert_eq!(answer.code, Some(10), "{answer:?}");
    for message in ["deleted build 1\n", "there is no build 77"] {
        assert!(answer.stderr.contains(message), "{answer:?}");
    }
    let quiet = call(&host, &["builds", "delete", "2", "--quiet"]).success();
    assert_eq!(quiet.stderr, "");
    assert_eq!(call(&host, &["builds"]).success().stdout, "");
}

#[test]
fn messages_begin_with_the_name_of_the_call() {
    let host = ApiHost::new("");
    for name in ["buildhost", "machinectl"] {
        let program = host.path(name);
        std::os::unix::fs::symlink(tests::program("machinectl"), &program).unwrap();
        let mut command = sys::command::prepare(&program);
        command.env("BUILDHOST_SOCKET", host.path("run/agent.sock"));
        command.args(["builds", "77"]);
        let answer = run(command, b"");
        assert!(
            answer
                .stderr
                .starts_with(&format!("{name}: there is no build 77")),
            "{answer:?}"
        );
    }
}
