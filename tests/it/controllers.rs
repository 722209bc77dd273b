//! Controllers that the settings do not name: their leases are given up by a command.

use config::builds::{Build, ControllerTask, Request, State};
use config::task::Outcome;
use jiff::Timestamp;
use serde_json::{Value, json};
use tests::api_host::{ApiHost, request};
use tests::hosts::{CommandOutput, run};

/// The settings of a controller that is never asked, because no scheduler runs.
const NAMED: &str =
    "[[controllers]]\nname = \"ci\"\nurl = \"http://localhost/\"\ntoolchain_version = \"1.0\"\n";

fn machinectl(host: &ApiHost, arguments: &[&str]) -> CommandOutput {
    let mut command = sys::command::prepare(tests::program("machinectl"));
    let socket = host.path("run/agent.sock");
    command.arg("--socket").arg(socket).args(arguments);
    run(command, b"")
}

/// Takes a task of a controller.
fn take(host: &ApiHost, controller: &str, session: &str) -> Build {
    let request: Request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
    let task = ControllerTask {
        controller: controller.parse().unwrap(),
        priority: "0".parse().unwrap(),
        session: session.to_owned(),
        package: "libhello".to_owned(),
        version: "1.0.0".to_owned(),
        expires: Timestamp::MAX,
        auxiliaries: Vec::new(),
        script: false,
        guarded: false,
        trial: None,
    };
    let request = Request {
        controller: Some(task),
        ..request
    };
    let submitter = format!("controller:{controller}").parse().unwrap();
    let toolchain = "default".parse().unwrap();
    let taken = host.block_on(async {
        let id = host.host.records.reserve_id().await.unwrap();
        let terms = String::new();
        let records = &host.host.records;
        records
            .submit_leased(id, request, toolchain, submitter, terms, Timestamp::now())
            .await
    });
    taken.unwrap().unwrap()
}

fn finish(host: &ApiHost, mut build: Build) {
    build.enter(State::Finished, Timestamp::now()).unwrap();
    build.outcome = Some(Outcome::Success);
    host.block_on(host.host.records.save(&mut build)).unwrap();
}

fn open_leases(host: &ApiHost) -> usize {
    let open = host.block_on(host.host.records.open_leases());
    open.unwrap().len()
}

#[test]
fn a_controller_that_was_removed_from_the_settings_is_forgotten_as_a_whole() {
    let host = ApiHost::new("");
    let (ended, waiting) = (take(&host, "ci", "t/1"), take(&host, "ci", "t/2"));
    let other = take(&host, "another", "t/1");
    finish(&host, ended.clone());
    machinectl(&host, &["builds", "delete", &ended.id.to_string()])
        .refused(3, "has not reached its controller");

    let plan = machinectl(&host, &["controllers", "forget", "ci", "--dry-run"]).success();
    let expected = "would never report the result of build 1 (libhello)\n\
                    would end build 2 (libhello), and never report its result\n";
    assert_eq!(plan.stdout, expected);
    assert_eq!(open_leases(&host), 3, "a rehearsal changes nothing");

    let done = machinectl(&host, &["controllers", "forget", "ci", "--json"]).success();
    let done: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(done["controller"], json!("ci"));
    assert_eq!(done["builds"].as_array().unwrap().len(), 2, "{done}");
    let read = |id| host.block_on(host.host.records.get(id)).unwrap().unwrap();
    let build = read(waiting.id);
    assert_eq!(build.outcome, Some(Outcome::Abort));
    assert!(build.message.contains("was forgotten"), "{}", build.message);
    assert_eq!(read(ended.id).outcome, Some(Outcome::Success));
    assert_eq!(read(other.id).outcome, None);
    assert_eq!(open_leases(&host), 1, "that of the other controller");
    machinectl(&host, &["controllers", "forget", "ci"])
        .refused(10, "no lease of controller ci is open");
    machinectl(&host, &["builds", "delete", &ended.id.to_string()]).success();
}

#[test]
fn a_controller_of_the_settings_is_not_forgotten() {
    let host = ApiHost::new(NAMED);
    take(&host, "ci", "t/1");
    for option in [&[][..], &["--dry-run"]] {
        let arguments = [&["controllers", "forget", "ci"], option].concat();
        machinectl(&host, &arguments).refused(3, "the settings of the agent name controller ci");
    }
    assert_eq!(open_leases(&host), 1);
}

#[test]
fn a_token_that_may_only_submit_forgets_no_controller() {
    let host = ApiHost::new("");
    take(&host, "ci", "t/1");
    host.allow(&[("submit", "secret")]);
    let answer = host
        .remote("POST", "/api/v1/controllers/ci/forget")
        .bearer_auth("secret")
        .json(&json!({}))
        .send();
    assert_eq!(answer.unwrap().status(), 403);
    assert_eq!(open_leases(&host), 1);
    let url = "http://localhost/api/v1/controllers/ci/forget";
    let local = request(&host.local(), "POST", url).json(&json!({"dry_run": true}));
    assert_eq!(local.send().unwrap().status(), 200);
}

#[test]
fn a_rehearsal_of_an_enrolment_names_the_farm_and_sends_nothing() {
    let host = ApiHost::new(
        "[[controllers]]\nname = \"farm\"\nkind = \"farm\"\nurls = [\"http://localhost:1\", \"http://localhost:2\"]\n",
    );
    let token = host.path("token");
    tests::write_file(&token, "token");
    let token = token.display().to_string();
    let enrol = |name| machinectl(&host, &["enrol", name, "--token", &token, "--dry-run"]);
    assert_eq!(
        enrol("farm").success().stdout,
        "would enrol this host in farm farm, http://localhost:1, with a key of its own\n"
    );
    assert!(!host.path("state/controllers").exists());
    enrol("other").refused(10, "`name = \"other\"` and `kind = \"farm\"`");
    let listed = machinectl(&host, &["controllers", "--no-legend"]).success();
    let coordinators = listed
        .stdout
        .lines()
        .filter(|it| it.contains("coordinator"));
    let coordinators: Vec<_> = coordinators.collect();
    assert_eq!(coordinators.len(), 2, "{}", listed.stdout);
    for (line, port) in coordinators.iter().zip(["1", "2"]) {
        let url = format!("http://localhost:{port}");
        assert!(line.contains(&url) && line.ends_with("not asked"), "{line}");
    }
}
