//! Tasks of controllers in containers: results and uploads arrive once, whatever is killed or lost, and
//! urgent tasks interrupt others.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::builds::{Build, State};
use config::controllers::ControllerStatus;
use config::task::Outcome;
use rustix::process::Signal;
use sys::command;
use tests::agent::AgentHost;
use tests::controller::{Misbehavior, RequestKind, TestController};
use tests::wait_until;

use crate::guest_failures::worker;

/// A worker that builds a package after its gate is open, if its name begins with `slow`.
const WORKER: &str = "
tftp -g -r task.manifest $host
name=$(sed -n 's/^name: //p' task.manifest)
case $name in
slow*) while [ ! -e /gate ]; do sleep 1; done ;;
esac
mkdir -p upload/archive/one
echo content of $name >upload/archive/one/file
tar -cf upload.tar upload
tftp -p -l upload.tar $host
printf ': 1\\nname: %s\\nversion: 1.0.0\\nstatus: success\\nupdate-status: success\\n' $name >result.manifest
printf 'update-log:\\n\\\\\\nbuilt %s\\n\\\\\\n' $name >>result.manifest
tftp -p -l result.manifest $host
";

/// Starts a host whose machine `demo` is a container with this worker.
fn host(settings: &str) -> AgentHost {
    let mut host = AgentHost::new(settings);
    host.add_container("demo", |_| {});
    host.add_worker("default", &worker(WORKER));
    host.start();
    host
}

pub(crate) fn controllers(host: &AgentHost) -> Vec<ControllerStatus> {
    let answer = host.machinectl(&["controllers", "--json"]).success();
    serde_json::from_str(&answer.stdout).unwrap()
}

pub(crate) fn builds(host: &AgentHost) -> Vec<Build> {
    let answer = host.machinectl(&["builds", "--json"]).success();
    serde_json::from_str(&answer.stdout).unwrap()
}

pub(crate) fn wait_for_result(controller: &TestController, package: &str, expected: &[&str]) {
    wait_until(
        &format!("the results of {package} are {expected:?}"),
        || controller.state().accepted(package) == expected,
    );
}

/// Returns the files with a new key and its public part.
fn key(directory: &Path) -> (PathBuf, PathBuf) {
    let (private, public) = (directory.join("key.pem"), directory.join("public.pem"));
    let mut make = command::prepare("openssl");
    make.args(["genpkey", "-quiet", "-algorithm", "RSA", "-out"])
        .arg(&private);
    command::run(make, Duration::from_mins(1)).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o600)).unwrap();
    let mut export = command::prepare("openssl");
    export.args(["pkey", "-pubout", "-in"]).arg(&private);
    export.arg("-out").arg(&public);
    command::run(export, Duration::from_mins(1)).unwrap();
    (private, public)
}

/// Waits until the controller of the settings has all results.
pub(crate) fn wait_until_settled(host: &AgentHost) {
    wait_until("the leases are settled", || {
        controllers(host)[0].open.is_empty()
    });
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_task_is_built_and_its_result_and_uploads_arrive() {
    let controller = TestController::start();
    let directory = tempfile::tempdir().unwrap();
    let (private, public) = key(directory.path());
    controller.authenticate(&public);
    controller.add("libhello", "demo");
    let more = format!("key = \"{}\"", private.display());
    let host = host(&controller.settings("ci", &more));
    wait_for_result(&controller, "libhello", &["success"]);
    let state = controller.state();
    let [session] = state.sessions_of("libhello")[..] else {
        panic!("one session");
    };
    let result = session.result.as_ref().unwrap();
    assert_eq!(result.get("update-log"), Some("built libhello"));
    let [(kind, instance, _, content)] = &session.uploads[..] else {
        panic!("one upload: {:?}", session.uploads);
    };
    assert_eq!((&**kind, &**instance), ("archive", "one"));
    let content = String::from_utf8_lossy(content);
    assert!(content.contains("content of libhello"), "{content}");
    assert!(!session.unauthenticated);
    assert_eq!(state.bad_requests, [""; 0]);
    let (agent, machines) = &state.requests[0];
    assert_eq!(agent.get("fingerprint").unwrap().len(), 64);
    assert_eq!(machines[0].0, "demo");
    drop(state);
    let build = host.build(1);
    assert_eq!(build.outcome, Some(Outcome::Success));
    assert_eq!(build.submitter.as_str(), "controller:ci");
    let shown = host.machinectl(&["builds", "1"]).success().stdout;
    assert!(
        shown.contains("ci, priority 0, libhello 1.0.0, session t/libhello/"),
        "{shown}"
    );
    let given = host.state_directory().join("builds/1/given.manifest");
    let given = fs::read_to_string(given).unwrap();
    assert!(
        given.starts_with(": 1\nname: libhello\n") && given.contains("\\\n"),
        "{given}"
    );
    wait_until_settled(&host);
    let [status] = &controllers(&host)[..] else {
        panic!("one controller");
    };
    assert!(status.contact.answered.is_some() && status.contact.failure.is_empty());
    assert_eq!(status.tasks, 1);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn every_session_has_one_result_whatever_is_killed_or_lost() {
    let mut controller = TestController::start();
    let mut host = host(&controller.settings("ci", ""));
    // Answers are lost before and after the controller has acted on the requests.
    controller.misbehave(
        RequestKind::Task,
        &[
            Misbehavior::LostRequest,
            Misbehavior::Garbage,
            Misbehavior::Status(503),
            Misbehavior::Slow(Duration::from_secs(1)),
        ],
    );
    controller.misbehave(
        RequestKind::Upload,
        &[Misbehavior::LostAnswer, Misbehavior::Status(500)],
    );
    controller.misbehave(
        RequestKind::Result,
        &[
            Misbehavior::LostRequest,
            Misbehavior::LostAnswer,
            Misbehavior::Status(502),
        ],
    );
    controller.add("one", "demo");
    wait_for_result(&controller, "one", &["success"]);
    wait_until_settled(&host);
    assert_eq!(
        controller.state().sessions_of("one")[0].stale,
        1,
        "after the lost answer"
    );

    // The agent is killed while the task runs, and while its result waits for the controller.
    controller.add("slow-two", "demo");
    wait_until("the task runs", || {
        builds(&host)
            .iter()
            .any(|it| it.controller.is_some() && it.state == State::Running)
    });
    let id = builds(&host).iter().map(|it| it.id.0).max().unwrap();
    host.stop(Signal::KILL);
    controller.kill();
    host.start();
    host.open_gate("demo", id);
    host.wait_for(id, State::Finished);
    wait_until("a report has failed", || {
        let controllers = controllers(&host);
        controllers[0]
            .open
            .iter()
            .any(|it| it.failures > 0 && it.ended)
    });
    let refused = host.machinectl(&["builds", "delete", &id.to_string()]);
    assert!(
        refused.stderr.contains("has not reached its controller"),
        "{}",
        refused.stderr
    );
    host.stop(Signal::KILL);
    controller.restart();
    host.start();
    wait_for_result(&controller, "slow-two", &["success"]);
    wait_until_settled(&host);
    let state = controller.state();
    for session in state.sessions.values() {
        assert_eq!(session.accepted.len(), 1, "{session:?}");
    }
    assert_eq!(state.sessions.len(), 2);
    assert_eq!(state.bad_requests, [""; 0]);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_urgent_task_interrupts_a_slow_one_which_is_done_again() {
    let (slow, urgent) = (TestController::start(), TestController::start());
    let settings = [
        "guests.parallel_max = 1\n".to_owned(),
        slow.settings("slow", "priority = 90"),
        urgent.settings("urgent", "priority = 100"),
    ]
    .concat();
    let host = host(&settings);
    slow.add("slow-one", "demo");
    wait_until("the slow task runs", || {
        builds(&host)
            .iter()
            .any(|it| it.controller.is_some() && it.state == State::Running)
    });
    urgent.add("quick", "demo");
    wait_for_result(&urgent, "quick", &["success"]);
    wait_for_result(&slow, "slow-one", &["interrupt"]);
    wait_until("the slow task runs again", || {
        builds(&host)
            .iter()
            .filter(|it| it.state == State::Running)
            .count()
            == 1
    });
    let interrupted = builds(&host)
        .into_iter()
        .find(|it| it.outcome == Some(Outcome::Interrupt));
    let interrupted = interrupted.unwrap();
    assert!(
        interrupted.message.contains("controller urgent"),
        "{}",
        interrupted.message
    );
    assert_eq!(interrupted.attempts, 1, "nothing is repeated here");
    let again = builds(&host).iter().map(|it| it.id.0).max().unwrap();
    host.open_gate("demo", again);
    wait_for_result(&slow, "slow-one", &["interrupt", "success"]);
    for controller in [&slow, &urgent] {
        assert_eq!(controller.state().bad_requests, [""; 0]);
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_controller_that_was_removed_is_forgotten_with_its_guests_and_results() {
    let mut controller = TestController::start();
    let mut host = host(&controller.settings("ci", ""));
    controller.add("slow-one", "demo");
    wait_until("the task runs", || {
        builds(&host)
            .iter()
            .any(|it| it.controller.is_some() && it.state == State::Running)
    });
    let id = builds(&host).iter().map(|it| it.id.0).max().unwrap();
    host.machinectl(&["controllers", "forget", "ci"])
        .refused(3, "remove its [[controllers]] and restart the agent");
    // The next agent adopts the guest, and nobody is to have the result.
    host.stop(Signal::KILL);
    controller.kill();
    host.change_settings("");
    host.start();
    let found = host.machinectl(&["doctor"]).stdout;
    assert!(found.contains("buildhost controllers forget ci"), "{found}");
    let plan = host.machinectl(&["controllers", "forget", "ci", "--dry-run"]);
    let expected = format!("would end build {id} (slow-one), and never report its result\n");
    assert_eq!(plan.success().stdout, expected);
    host.machinectl(&["controllers", "forget", "ci"]).success();
    let build = host.build(id);
    assert_eq!(build.outcome, Some(Outcome::Abort), "{build:?}");
    assert!(build.message.contains("was forgotten"), "{}", build.message);
    host.machinectl(&["builds", "delete", &id.to_string()])
        .success();
    let found = host.machinectl(&["doctor"]).stdout;
    assert!(!found.contains("controllers forget"), "{found}");
    controller.restart();
    assert_eq!(controller.state().accepted("slow-one"), [""; 0]);
}
