//! Jobs of GitLab in containers: scripts, logs, artifacts and final states, whatever is killed.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use config::builds::State;
use config::task::Outcome;
use gitlab_runner_mock::{
    GitlabRunnerMock, MockJob, MockJobArtifactWhen, MockJobBuilder, MockJobState, MockJobStepName,
    MockJobStepWhen,
};
use rustix::process::Signal;
use tests::agent::AgentHost;
use tests::wait_until;
use tokio::runtime::Runtime;

use crate::controllers::{builds, controllers};

const SECRET: &str = "correct-horse-battery";

/// A GitLab for tests, and a host that asks it for jobs.
struct Lab {
    gitlab: GitlabRunnerMock,
    host: AgentHost,
    _token: tempfile::NamedTempFile,
    _runtime: Runtime,
}

impl Lab {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let gitlab = runtime.block_on(GitlabRunnerMock::start());
        gitlab.set_update_interval(1);
        let token = tempfile::NamedTempFile::new().unwrap();
        sys::file::replace(token.path(), gitlab.runner_token().as_bytes()).unwrap();
        fs::set_permissions(token.path(), fs::Permissions::from_mode(0o600)).unwrap();
        let settings = format!(
            "[[controllers]]\nname = \"lab\"\nkind = \"gitlab\"\nurl = \"{}\"\ntoken = \"{}\"\n\
             images = [\"=demo\"]\npoll_seconds = 1\n",
            gitlab.uri(),
            token.path().display(),
        );
        let mut host = AgentHost::new(&settings);
        host.add_container("demo", |_| {});
        host.add_toolchain("1");
        host.start();
        Self {
            gitlab,
            host,
            _token: token,
            _runtime: runtime,
        }
    }

    /// Enqueues a job with this script.
    fn enqueue(&self, script: &[&str], more: impl FnOnce(&mut MockJobBuilder)) -> MockJob {
        let mut job = self.gitlab.job_builder("test".to_owned());
        for key in [
            "CI_JOB_TOKEN",
            "CI_BUILD_TOKEN",
            "CI_REGISTRY_PASSWORD",
            "CI_DEPENDENCY_PROXY_PASSWORD",
        ] {
            job.add_variable(key.to_owned(), "glcbt-64_secret".to_owned(), false, true);
        }
        job.add_variable("PASSWORD".to_owned(), SECRET.to_owned(), false, true);
        job.add_variable("GIT_STRATEGY".to_owned(), "none".to_owned(), true, false);
        let (script, when) = (
            script.iter().map(|it| (*it).to_owned()).collect(),
            MockJobStepWhen::OnSuccess,
        );
        job.add_step(MockJobStepName::Script, script, 3600, when, false);
        more(&mut job);
        let job = job.build();
        self.gitlab.enqueue_job(job.clone());
        job
    }

    /// Waits until the log of a job has a text, and returns the number of its build.
    fn wait_for_text(&self, job: &MockJob, text: &str) -> u64 {
        wait_until(&format!("the log has {text}"), || log(job).contains(text));
        builds(&self.host).iter().map(|it| it.id.0).max().unwrap()
    }

    fn wait_until_settled(&self) {
        wait_until("no lease is open", || {
            controllers(&self.host)[0].open.is_empty()
        });
    }
}

fn log(job: &MockJob) -> String {
    String::from_utf8_lossy(&job.log()).into_owned()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_job_has_its_log_artifacts_and_one_final_state_though_the_agent_is_killed() {
    let mut lab = Lab::start();
    let gate = "while [ ! -e /gate ]; do sleep 1; done";
    let script = [
        "echo begin <$PASSWORD>",
        gate,
        "echo result >r.txt",
        "exit 3",
    ];
    let script = script.map(|it| it.replace("<$PASSWORD>", "\"<$PASSWORD>\""));
    let script: Vec<_> = script.iter().map(String::as_str).collect();
    let job = lab.enqueue(&script, |job| {
        let (when, format) = (MockJobArtifactWhen::Always, Some("gzip".to_owned()));
        let paths = vec!["*.txt".to_owned()];
        job.add_artifact(None, false, paths, Some(when), "junit".into(), format, None);
        let after = vec!["echo after $CI_JOB_STATUS".to_owned()];
        let always = MockJobStepWhen::Always;
        job.add_step(MockJobStepName::AfterScript, after, 300, always, true);
    });
    let id = lab.wait_for_text(&job, "begin <***>");
    lab.host.stop(Signal::KILL);
    lab.host.start();
    lab.host.open_gate("demo", id);
    wait_until("the job has failed", || job.state() == MockJobState::Failed);
    lab.wait_until_settled();
    let text = log(&job);
    assert_eq!(text.matches("begin <***>").count(), 1, "{text}");
    assert!(!text.contains(SECRET), "{text}");
    assert!(
        text.contains("script has failed with exit code 3\n"),
        "{text}"
    );
    assert!(text.contains("\nafter failed\n"), "{text}");
    let uploaded: Vec<_> = job.uploaded_artifacts().collect();
    assert_eq!(uploaded.len(), 1, "{text}");
    assert_eq!(uploaded[0].filename.as_deref(), Some("artifacts.gz"));
    let build = lab.host.wait_for(id, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Error));
    assert_eq!(build.message, "the job has failed with exit code 3");
    let own = lab
        .host
        .machinectl(&["log", &id.to_string()])
        .success()
        .stdout;
    assert!(!own.contains(SECRET), "{own}");
    assert_eq!(
        builds(&lab.host)
            .iter()
            .filter(|it| it.controller.is_some())
            .count(),
        1
    );
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_job_that_is_canceled_at_gitlab_ends_and_the_next_one_runs() {
    let lab = Lab::start();
    let job = lab.enqueue(
        &["echo begin", "while :; do sleep 1; echo on; done"],
        |_| (),
    );
    let id = lab.wait_for_text(&job, "begin");
    job.cancel();
    let build = lab.host.wait_for(id, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Abort));
    assert!(
        build.message.contains("canceled at GitLab"),
        "{}",
        build.message
    );
    lab.wait_until_settled();
    assert_eq!(job.state(), MockJobState::Cancelled);
    let next = lab.enqueue(&["echo fine"], |_| ());
    wait_until("the next job succeeds", || {
        next.state() == MockJobState::Success
    });
    assert!(log(&next).contains("\nfine\n"), "{}", log(&next));
    lab.wait_until_settled();
}
