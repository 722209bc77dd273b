//! The client of GitLab against a server for tests, over HTTP.

#![expect(clippy::unwrap_used, reason = "a test fails at the first error")]
#![expect(
    clippy::disallowed_methods,
    reason = "tests write files that they have made"
)]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use config::task::Outcome;
use controllers::gitlab::{
    Archive, Client, FailureReason, FinalState, Given, Job, JobKey, JobState, Progress, ReportStep,
    Server, TraceAnswer, Work, next_piece, system_id,
};
use controllers::{Answer, TakeError};
use gitlab_runner_mock::{
    GitlabRunnerMock, MockJob, MockJobBuilder, MockJobState, MockJobStepName, MockJobStepWhen,
};
use tokio::runtime::Runtime;

/// A GitLab for tests, and what its client needs.
struct Host {
    gitlab: GitlabRunnerMock,
    place: tempfile::TempDir,
    _runtime: Runtime,
}

impl Host {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        Self {
            gitlab: runtime.block_on(GitlabRunnerMock::start()),
            place: tempfile::tempdir().unwrap(),
            _runtime: runtime,
        }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.place.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Returns a client, as an agent makes one at its start.
    fn client(&self, token: &str) -> Client {
        let server = Server {
            url: self.gitlab.uri().to_string(),
            token: self.file("token", token),
            system_id: system_id("host"),
            connect_max: Duration::from_secs(30),
            request_max: Duration::from_mins(1),
        };
        Client::new(server).unwrap()
    }

    /// Returns a job whose tokens have the length of real ones.
    fn builder(&self, name: &str) -> MockJobBuilder {
        let mut builder = self.gitlab.job_builder(name.to_owned());
        for key in [
            "CI_JOB_TOKEN",
            "CI_BUILD_TOKEN",
            "CI_REGISTRY_PASSWORD",
            "CI_DEPENDENCY_PROXY_PASSWORD",
        ] {
            builder.add_variable(key.to_owned(), "glcbt-64_secret".to_owned(), false, true);
        }
        builder
    }

    /// Enqueues a job and takes it.
    fn take(&self, set: impl FnOnce(&mut MockJobBuilder)) -> (Client, MockJob, Box<Job>) {
        let mut builder = self.builder("test");
        let script = vec!["make".to_owned()];
        builder.add_step(
            MockJobStepName::Script,
            script,
            3600,
            MockJobStepWhen::OnSuccess,
            false,
        );
        set(&mut builder);
        let mock = builder.build();
        self.gitlab.enqueue_job(mock.clone());
        let client = self.client(self.gitlab.runner_token());
        let Given { key, job } = client.request_job().unwrap().unwrap();
        assert_eq!(key.id, mock.id());
        (client, mock, job.unwrap())
    }
}

#[test]
fn a_job_is_taken_once_and_becomes_a_script() {
    let host = Host::start();
    let client = host.client(host.gitlab.runner_token());
    assert_eq!(client.request_job(), Ok(None));
    let (client, mock, job) = host.take(|job| {
        job.add_variable("PASSWORD".into(), "correct horse".into(), false, true);
    });
    assert_eq!(mock.state(), MockJobState::Running);
    assert_eq!(client.request_job(), Ok(None));
    assert_eq!(job.limit(), Some(Duration::from_hours(1)));
    let work = Work::of(&job, "http://gitlab", "/buildhost/gitlab").unwrap();
    let script = work.script.reveal();
    assert!(script.contains("'https://bla/dummy.git'"), "{script}");
    assert!(script.contains("export PASSWORD='correct horse'"));
    assert_eq!(
        config::secrets::Mask::new(&work.masked).text("a correct horse"),
        "a ***"
    );
}

#[test]
fn a_wrong_token_is_refused() {
    let host = Host::start();
    host.gitlab.add_dummy_job("test".to_owned());
    let refused = host.client("another").request_job();
    assert!(
        matches!(&refused, Err(TakeError::Refused(text)) if text.contains("403")),
        "{refused:?}"
    );
}

#[test]
fn another_agent_continues_the_log_and_reports_the_only_final_state() {
    let host = Host::start();
    let (client, mock, job) = host.take(|_| ());
    let log = b"one\ntwo\n";
    let piece = next_piece(0, 4).unwrap();
    let answer = client.send_trace(&job.key, &piece, log[..4].to_vec());
    let TraceAnswer::Continue {
        offset: Some(offset),
        pause,
    } = answer
    else {
        panic!("{answer:?}");
    };
    assert_eq!((offset, pause), (4, Some(Duration::from_secs(3))));
    assert!(matches!(
        client.touch(&job.key),
        TraceAnswer::Continue { offset: None, .. }
    ));
    // The terms of the lease are all that another agent has.
    let terms = serde_json::to_string(&job.key).unwrap();
    let (next, key) = (
        host.client(host.gitlab.runner_token()),
        serde_json::from_str(&terms).unwrap(),
    );
    let again = next.send_trace(&key, &piece, log[..4].to_vec());
    assert!(matches!(again, TraceAnswer::Retry(_)), "{again:?}");
    let piece = next_piece(offset, log.len() as u64).unwrap();
    let answer = next.send_trace(&key, &piece, log[4..].to_vec());
    assert!(
        matches!(
            answer,
            TraceAnswer::Continue {
                offset: Some(8),
                ..
            }
        ),
        "{answer:?}"
    );
    assert_eq!(mock.log(), log);
    let state = FinalState::of(Outcome::Error, Some(3), false);
    assert!(matches!(next.finish(&key, state), Answer::Accepted(_)));
    assert_eq!(mock.state(), MockJobState::Failed);
    assert!(matches!(
        next.finish(&key, FinalState::Success),
        Answer::Refused(_)
    ));
    assert_eq!(mock.state(), MockJobState::Failed);
}

/// Does one step of a report, as an agent does. Returns false after the final state.
fn step(host: &Host, key: &JobKey, log: &[u8], work: &Work, progress: &mut Progress) -> bool {
    let client = host.client(host.gitlab.runner_token());
    let state = JobState::Ended(FinalState::Success);
    let length = log.len() as u64;
    match progress.next_step(state, length, &work.archives, Duration::ZERO) {
        ReportStep::Piece(piece) => {
            // A piece is shorter here, so that there are some.
            let piece = piece.start..piece.end.min(piece.start + 5);
            let place = |at| usize::try_from(at).unwrap();
            let bytes = log[place(piece.start)..place(piece.end)].to_vec();
            progress.note(&client.send_trace(key, &piece, bytes));
            true
        }
        ReportStep::Archive(archive) => {
            let path = host.file(&archive.file, "PK");
            let answer = client.upload(key, &archive, &path);
            assert!(matches!(answer, Answer::Accepted(_)), "{answer:?}");
            progress.uploaded.push(archive.file);
            true
        }
        ReportStep::Finish(state) => {
            let answer = client.finish(key, state);
            assert!(matches!(answer, Answer::Accepted(_)), "{answer:?}");
            false
        }
        step => panic!("{step:?}"),
    }
}

#[test]
fn each_step_of_a_report_may_be_that_of_another_agent() {
    let host = Host::start();
    let (_, mock, job) = host.take(|job| job.add_artifact_paths(vec!["out/*".into()]));
    let work = Work::of(&job, "http://gitlab", "/buildhost/gitlab").unwrap();
    let log = b"a log of some length\n";
    let mut stored = serde_json::to_string(&Progress::default()).unwrap();
    loop {
        let mut progress = serde_json::from_str(&stored).unwrap();
        if !step(&host, &job.key, log, &work, &mut progress) {
            break;
        }
        stored = serde_json::to_string(&progress).unwrap();
        assert_eq!(mock.state(), MockJobState::Running);
    }
    assert_eq!(mock.log(), log);
    assert_eq!(mock.log_patches(), 5);
    assert_eq!(mock.uploaded_artifacts().count(), 1);
    assert_eq!(mock.state(), MockJobState::Success);
}

#[test]
fn a_canceled_job_is_over() {
    let host = Host::start();
    let (client, mock, job) = host.take(|_| ());
    mock.cancel();
    let over = TraceAnswer::Over("the job is canceled at GitLab".to_owned());
    assert_eq!(client.touch(&job.key), over);
    assert_eq!(client.send_trace(&job.key, &(0..1), b"x".to_vec()), over);
    let refused = client.finish(&job.key, FinalState::Success);
    assert!(matches!(refused, Answer::Refused(_)), "{refused:?}");
    assert_eq!(mock.state(), MockJobState::Cancelled);
    assert_eq!(mock.log(), b"");
}

#[test]
fn archives_are_uploaded_before_the_final_state() {
    let host = Host::start();
    let (client, mock, job) = host.take(|job| job.add_artifact_paths(vec!["out/*".into()]));
    let work = Work::of(&job, "http://gitlab", "/buildhost/gitlab").unwrap();
    let [archive] = work.archives.as_slice() else {
        panic!("{:?}", work.archives);
    };
    let missing = client.upload(&job.key, archive, &host.place.path().join("missing"));
    assert!(matches!(missing, Answer::Retry(_)), "{missing:?}");
    let path = host.file(&archive.file, "PK");
    let stays = Archive {
        expire_in: Some("1 week".to_owned()),
        ..archive.clone()
    };
    assert!(matches!(
        client.upload(&job.key, &stays, &path),
        Answer::Accepted(_)
    ));
    assert!(matches!(
        client.finish(&job.key, FinalState::Success),
        Answer::Accepted(_)
    ));
    assert_eq!(mock.state(), MockJobState::Success);
    let uploaded: Vec<_> = mock.uploaded_artifacts().collect();
    assert_eq!(uploaded.len(), 1);
    assert_eq!(*uploaded[0].data, b"PK");
    assert_eq!(uploaded[0].filename.as_deref(), Some("artifacts.zip"));
    assert_eq!(uploaded[0].artifact_type.as_deref(), Some("archive"));
    assert_eq!(uploaded[0].artifact_format.as_deref(), Some("zip"));
}

/// A program in the place of `unzip`: the archive is one of tar.
const UNZIP: &str = "#!/bin/sh\nfor file; do :; done\nexec tar -xf \"$file\"\n";

#[test]
fn a_job_gets_the_artifacts_of_an_earlier_one() {
    let host = Host::start();
    let (client, earlier, job) = host.take(|job| job.add_artifact_paths(vec!["out".into()]));
    let work = Work::of(&job, "http://gitlab", "/buildhost/gitlab").unwrap();
    let place = host.place.path();
    host.file("result", "made earlier");
    let archive = place.join("archive");
    let run = |command: &mut std::process::Command| {
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    let mut pack = std::process::Command::new("tar");
    pack.arg("-cf")
        .arg(&archive)
        .arg("-C")
        .arg(place)
        .arg("result");
    assert!(run(&mut pack).0);
    let sent = client.upload(&job.key, &work.archives[0], &archive);
    assert!(matches!(sent, Answer::Accepted(_)), "{sent:?}");
    client.finish(&job.key, FinalState::Success);

    let (_, mock, job) = host.take(|job| {
        job.add_variable("GIT_STRATEGY".into(), "none".into(), true, false);
        job.dependency(earlier);
    });
    let root = place.join("guest").display().to_string();
    let work = Work::of(&job, host.gitlab.uri().as_ref(), &root).unwrap();
    let bin = place.join("bin");
    std::fs::create_dir(&bin).unwrap();
    let unzip = bin.join("unzip");
    std::fs::write(&unzip, UNZIP).unwrap();
    std::fs::set_permissions(&unzip, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let script = host.file("script", work.script.reveal());
    // The step of the job, `make`, fails: there is nothing to make.
    let mut sh = std::process::Command::new("bash");
    let (_, text) = run(sh.arg(script).env("PATH", path).env("BUILDHOST_OUT", place));
    let result = std::fs::read_to_string(place.join("guest/project/result"));
    assert_eq!(result.unwrap_or_default(), "made earlier", "{text}");
    let masked = config::secrets::Mask::new(&work.masked);
    let token = mock.dependencies()[0].token();
    assert_eq!(masked.text(token), "***");
}

#[test]
fn a_job_that_cannot_be_done_fails_as_unsupported() {
    let host = Host::start();
    let mut builder = host.builder("test");
    builder.add_step(
        MockJobStepName::Script,
        vec![],
        1,
        MockJobStepWhen::Always,
        false,
    );
    builder.add_variable("PIN".into(), "1234".into(), false, true);
    let mock = builder.build();
    host.gitlab.enqueue_job(mock.clone());
    let client = host.client(host.gitlab.runner_token());
    let given = client.request_job().unwrap().unwrap();
    let reason = given.job.unwrap_err();
    assert!(reason.starts_with("PIN cannot be masked"), "{reason}");
    let state = FinalState::Failed(FailureReason::RunnerUnsupported, None);
    assert!(matches!(
        client.finish(&given.key, state),
        Answer::Accepted(_)
    ));
    assert_eq!(mock.state(), MockJobState::Failed);
}

#[test]
fn a_server_that_cannot_be_reached_is_asked_again() {
    let host = Host::start();
    let (_, _, job) = host.take(|_| ());
    let server = Server {
        // The port of discard, where nothing listens.
        url: "http://127.0.0.1:9".to_owned(),
        token: host.file("token", "glrt-secret"),
        system_id: system_id("host"),
        connect_max: Duration::from_secs(5),
        request_max: Duration::from_secs(5),
    };
    let client = Client::new(server).unwrap();
    assert!(matches!(
        client.request_job(),
        Err(TakeError::Unavailable(_))
    ));
    assert!(matches!(client.touch(&job.key), TraceAnswer::Retry(_)));
    assert!(matches!(
        client.finish(&job.key, FinalState::Success),
        Answer::Retry(_)
    ));
    assert!(!format!("{client:?}").contains("glrt-secret"));
}
