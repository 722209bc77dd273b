//! A GitLab as a controller: its jobs are tasks with scripts.

use std::ops::Range;

use config::settings::{ControllerRules, GitlabRules};
use config::task::GivenScript;
use serde::{Deserialize, Serialize};

use super::Work;
use super::artifacts::Archive;
use super::client::{Client, Server, system_id};
use super::ending::{FailureReason, FinalState};
use super::images::machine;
use super::job::{Given, Job, JobKey};
use super::script::exit_code;
use super::token::TokenError;
use super::trace::TraceAnswer;
use crate::{Answer, Controller, Ending, Offer, ScriptFacts, TakeError, Taken, Upload};

/// The directories of a job in a guest.
const ROOT: &str = "/buildhost/gitlab";
/// The number of attempts to send the final state of a job that cannot be done here.
const REFUSALS_MAX: u32 = 3;
/// The largest number of texts that are masked.
const MASKED_MAX: usize = 200;

/// The terms of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Terms {
    #[serde(flatten)]
    key: JobKey,
    archives: Vec<Archive>,
}

/// A GitLab as a controller.
#[derive(Debug)]
pub struct Gitlab {
    url: String,
    rules: GitlabRules,
    client: Client,
}

impl Gitlab {
    /// Returns the client of a GitLab for a host with this name.
    ///
    /// # Errors
    /// The token cannot be used.
    pub fn new(
        controller: &ControllerRules,
        rules: &GitlabRules,
        host: &str,
    ) -> Result<Self, TokenError> {
        let client = Client::new(Server {
            url: controller.url.clone(),
            token: rules.token.clone(),
            system_id: system_id(host),
            connect_max: controller.connect_max,
            request_max: controller.request_max,
        })?;
        Ok(Self {
            url: controller.url.clone(),
            rules: rules.clone(),
            client,
        })
    }

    /// Returns the task of a job, or the reason why it cannot be done here.
    fn task(&self, job: &Job) -> Result<Taken, String> {
        let machine = machine(&self.rules.images, job.image())?;
        let work = Work::of(job, &self.url, ROOT)?;
        if work.masked.len() > MASKED_MAX {
            return Err(format!(
                "more than {MASKED_MAX} masked variables are not supported"
            ));
        }
        let text = |value: &config::secrets::SecretValue| {
            String::from_utf8_lossy(value.bytes()).into_owned()
        };
        let script = GivenScript {
            script: work.script.reveal().to_owned(),
            masked: work.masked.iter().map(text).collect(),
        };
        let terms = Terms {
            key: job.key.clone(),
            archives: work.archives,
        };
        let json = |error: serde_json::Error| error.to_string();
        Ok(Taken {
            session: format!("job {}", job.key.id),
            package: job.job_info.project_name.clone(),
            version: job.job_info.name.clone(),
            machine: machine.clone(),
            auxiliaries: Vec::new(),
            script: Some(ScriptFacts {
                masked: script.masked.len(),
                limit: job.limit(),
            }),
            manifest: serde_json::to_vec(&script).map_err(json)?,
            terms: serde_json::to_string(&terms).map_err(json)?,
        })
    }

    /// Ends a job that cannot be done here.
    fn refuse(&self, key: &JobKey, reason: &str) -> Result<(), TakeError> {
        let text = format!("{reason}\n").into_bytes();
        self.client.send_trace(key, &(0..text.len() as u64), text);
        let state = FinalState::Failed(FailureReason::RunnerUnsupported, None);
        let mut answers = (0..REFUSALS_MAX).map(|_| self.client.finish(key, state));
        let is_settled = |answer: &Answer| !matches!(answer, Answer::Retry(_));
        answers
            .any(|answer| is_settled(&answer))
            .then_some(())
            .ok_or_else(|| {
                TakeError::Unavailable(format!(
                    "job {} cannot be done here, and GitLab cannot be told",
                    key.id
                ))
            })
    }
}

fn read(terms: &str) -> Result<Terms, Answer> {
    serde_json::from_str(terms)
        .map_err(|error| Answer::Refused(format!("the terms of the lease are unreadable: {error}")))
}

impl Controller for Gitlab {
    fn take(&self, _offer: &Offer) -> Result<Option<Taken>, TakeError> {
        let Some(Given { key, job }) = self.client.request_job()? else {
            return Ok(None);
        };
        match job.and_then(|job| self.task(&job)) {
            Ok(taken) => Ok(Some(taken)),
            Err(reason) => self.refuse(&key, &reason).map(|()| None),
        }
    }

    fn archives(&self, terms: &str) -> Vec<String> {
        let archives = read(terms).map(|terms| terms.archives).unwrap_or_default();
        archives.into_iter().map(|archive| archive.file).collect()
    }

    fn send_log(&self, terms: &str, piece: Option<(&Range<u64>, Vec<u8>)>) -> TraceAnswer {
        match (read(terms), piece) {
            (Err(_), _) => TraceAnswer::Over("the terms of the lease are unreadable".to_owned()),
            (Ok(terms), Some((piece, bytes))) => self.client.send_trace(&terms.key, piece, bytes),
            (Ok(terms), None) => self.client.touch(&terms.key),
        }
    }

    fn upload(&self, _session: &str, terms: &str, upload: &Upload) -> Answer {
        let terms = match read(terms) {
            Ok(terms) => terms,
            Err(answer) => return answer,
        };
        match terms.archives.iter().find(|it| it.file == upload.name) {
            Some(archive) => self.client.upload(&terms.key, archive, &upload.path),
            None => Answer::Refused("the job has no such archive".to_owned()),
        }
    }

    fn report(&self, _session: &str, terms: &str, _: (&str, &str), ending: &Ending) -> Answer {
        let terms = match read(terms) {
            Ok(terms) => terms,
            Err(answer) => return answer,
        };
        let state = match ending {
            Ending::Script {
                outcome,
                message,
                is_over_limit,
            } => FinalState::of(*outcome, exit_code(message), *is_over_limit),
            Ending::Status(outcome) => FinalState::of(*outcome, None, false),
            Ending::Result(_) => FinalState::Failed(FailureReason::RunnerSystemFailure, None),
        };
        self.client.finish(&terms.key, state)
    }
}
