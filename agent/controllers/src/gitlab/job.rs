//! The jobs of GitLab, as its API hands them out. Unknown values are ignored; pure.

use std::fmt;

use config::secrets::SecretValue;
use serde::{Deserialize, Serialize};

/// A text that no message shows: a token, or an address with one.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(String);

impl Hidden {
    /// Returns the text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Hidden {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The identity of a job, and the token for everything about it: the terms of its lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobKey {
    /// The number.
    pub id: u64,
    /// The token.
    pub token: Hidden,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Job {
    /// Its identity.
    #[serde(flatten)]
    pub key: JobKey,
    /// Its names.
    pub job_info: JobInfo,
    pub(super) git_info: GitInfo,
    #[serde(default)]
    pub(super) runner_info: RunnerInfo,
    #[serde(default)]
    pub(super) variables: Vec<Variable>,
    pub(super) steps: Vec<JobStep>,
    #[serde(default)]
    pub(super) image: Option<Image>,
    #[serde(default)]
    pub(super) services: Option<Vec<Image>>,
    #[serde(default)]
    pub(super) artifacts: Option<Vec<Artifacts>>,
    #[serde(default)]
    pub(super) dependencies: Option<Vec<Dependency>>,
}

/// The names of a job.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct JobInfo {
    /// The name of the job.
    pub name: String,
    /// The name of its project.
    pub project_name: String,
}

/// The sources of a job.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct GitInfo {
    /// The address of the repository, with the token.
    pub(super) repo_url: Hidden,
    pub(super) sha: String,
    #[serde(default)]
    pub(super) refspecs: Vec<String>,
    #[serde(default)]
    pub(super) depth: u32,
}

/// The limits of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct RunnerInfo {
    /// The time limit in seconds; none if 0.
    #[serde(default)]
    pub(super) timeout: u64,
}

/// A variable of a job.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Variable {
    pub(super) key: String,
    pub(super) value: Hidden,
    #[serde(default)]
    pub(super) masked: bool,
    /// Set if the value is the content of a file whose path the variable has.
    #[serde(default)]
    pub(super) file: bool,
    /// Set if other variables in the value are not replaced.
    #[serde(default)]
    pub(super) raw: bool,
}

/// A step of a job.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct JobStep {
    pub(super) name: String,
    #[serde(default)]
    pub(super) script: Vec<String>,
    #[serde(default)]
    pub(super) when: Option<When>,
    #[serde(default)]
    pub(super) allow_failure: bool,
}

/// The image of a job, by which its machine is chosen, or of a service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Image {
    #[serde(default)]
    pub(super) name: String,
}

/// Files that a job keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Artifacts {
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) paths: Option<Vec<String>>,
    #[serde(default)]
    pub(super) exclude: Option<Vec<String>>,
    #[serde(default)]
    pub(super) untracked: bool,
    #[serde(default)]
    pub(super) when: Option<When>,
    #[serde(default)]
    pub(super) artifact_type: Option<String>,
    #[serde(default)]
    pub(super) artifact_format: Option<String>,
    #[serde(default)]
    pub(super) expire_in: Option<String>,
}

/// A job whose artifacts another one needs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Dependency {
    #[serde(default)]
    pub(super) id: u64,
    #[serde(default)]
    pub(super) name: String,
    /// The token of that job.
    #[serde(default)]
    pub(super) token: Hidden,
    #[serde(default)]
    pub(super) artifacts_file: Option<ArtifactsFile>,
}

/// The archive of a job's artifacts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct ArtifactsFile {
    #[serde(default)]
    pub(super) filename: Option<String>,
}

/// The condition of a step or of artifacts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum When {
    /// If everything before has succeeded.
    #[default]
    OnSuccess,
    /// If something before has failed.
    OnFailure,
    /// In any case.
    Always,
}

/// A job that was taken, which needs a final state in any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The identity.
    pub key: JobKey,
    /// The job, or the reason why it cannot be done here. The job then fails as *unsupported*.
    pub job: Result<Box<Job>, String>,
}

/// Reads a job.
///
/// # Errors
/// The text has not even the identity of a job.
pub(super) fn parse(text: &[u8]) -> Result<Given, String> {
    let fault = |error: serde_json::Error| {
        format!("its answer is not a job of GitLab: {}", position(&error))
    };
    let key: JobKey = serde_json::from_slice(text).map_err(fault)?;
    let job = serde_json::from_slice::<Job>(text).map_err(fault);
    let job = job.and_then(|job| match unsupported(&job) {
        Some(reason) => Err(reason),
        None => Ok(Box::new(job)),
    });
    Ok(Given { key, job })
}

/// Returns the place of an error without its text, which may quote a secret.
fn position(error: &serde_json::Error) -> String {
    format!("line {}, column {}", error.line(), error.column())
}

/// Returns the reason why a job cannot be done; `None` if it can.
fn unsupported(job: &Job) -> Option<String> {
    if job.services.iter().flatten().next().is_some() {
        return Some("`services` are not supported: use a machine that has them".to_owned());
    }
    let mut dependencies = job.with_artifacts();
    if let Some(other) = dependencies.find(|it| !is_token(it.token.reveal())) {
        return Some(format!(
            "the token for the artifacts of {} is unusable",
            other.name
        ));
    }
    for artifacts in job.artifacts.iter().flatten() {
        if artifacts.exclude.iter().flatten().next().is_some() {
            return Some("`artifacts:exclude` is not supported".to_owned());
        }
        if !matches!(
            artifacts.artifact_format.as_deref(),
            None | Some("zip" | "gzip")
        ) {
            return Some("artifacts are supported as zip and gzip only".to_owned());
        }
    }
    job.masked().err()
}

impl Job {
    /// Returns the texts that the log must not have: the job's token, the password of its repository
    /// and its masked variables.
    ///
    /// # Errors
    /// The name of a masked variable whose value cannot be masked.
    pub fn masked(&self) -> Result<Vec<SecretValue>, String> {
        let mut values = vec![secret(self.key.token.reveal(), "the token of the job")?];
        if let Some(password) = password(self.git_info.repo_url.reveal()) {
            values.push(secret(password, "the password of the repository")?);
        }
        for other in self.with_artifacts() {
            values.push(secret(other.token.reveal(), "the token of another job")?);
        }
        let masked = self.variables.iter().filter(|it| it.masked);
        for variable in masked.filter(|it| !it.value.reveal().is_empty()) {
            values.push(secret(variable.value.reveal(), &variable.key)?);
        }
        Ok(values)
    }

    /// Returns the jobs whose artifacts this one needs.
    pub(super) fn with_artifacts(&self) -> impl Iterator<Item = &Dependency> {
        let all = self.dependencies.iter().flatten();
        all.filter(|it| {
            let file = it.artifacts_file.as_ref();
            file.is_some_and(|it| it.filename.is_some())
        })
    }

    /// Returns the time limit of the job; `None` if it has none.
    pub fn limit(&self) -> Option<std::time::Duration> {
        let seconds = self.runner_info.timeout;
        (seconds > 0).then(|| std::time::Duration::from_secs(seconds))
    }

    /// Returns the name of the image; `None` if the job names none.
    pub fn image(&self) -> Option<&str> {
        let image = self.image.as_ref()?;
        Some(image.name.as_str()).filter(|name| !name.is_empty())
    }
}

/// Returns true for a token that a script can hand to programs.
fn is_token(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.~+/=".contains(c);
    !text.is_empty() && text.chars().all(is_plain)
}

fn secret(value: &str, name: &str) -> Result<SecretValue, String> {
    SecretValue::new(value.as_bytes().to_vec())
        .map_err(|error| format!("{name} cannot be masked: {error}"))
}

/// Returns the password in an address.
fn password(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (user, _) = authority.rsplit_once('@')?;
    let (_, password) = user.split_once(':')?;
    (!password.is_empty()).then_some(password)
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Returns a job with these further values.
    pub(in crate::gitlab) fn value(more: &Value) -> Value {
        let mut job = json!({
            "id": 17, "token": "job-token-17", "unknown": {"x": 1},
            "job_info": {"id": 17, "name": "test", "stage": "build", "project_name": "hello"},
            "git_info": {
                "repo_url": "https://gitlab-ci-token:repository-token@gitlab.example.org/a/hello.git",
                "sha": "265c14cf140a66cfc61e40e4ab45c95ba8df5ed1",
                "refspecs": ["+refs/heads/main:refs/remotes/origin/main"], "depth": 50
            },
            "runner_info": {"timeout": 3600, "runner_session_url": null},
            "variables": [], "services": [], "image": null, "dependencies": [],
            "steps": [{"name": "script", "script": ["true"], "timeout": 3600,
                       "when": "on_success", "allow_failure": false}],
        });
        for (name, value) in more.as_object().unwrap() {
            job[name] = value.clone();
        }
        job
    }

    /// Returns a job with these further values.
    pub(in crate::gitlab) fn job(more: &Value) -> Job {
        serde_json::from_value(value(more)).unwrap()
    }

    #[test]
    fn a_job_is_read_and_unknown_values_are_ignored() {
        let given = parse(value(&json!({})).to_string().as_bytes()).unwrap();
        let job = given.job.unwrap();
        assert_eq!((given.key.id, &*job.job_info.name), (17, "test"));
        assert_eq!(job.key, given.key);
        assert_eq!(job.limit(), Some(std::time::Duration::from_hours(1)));
        assert_eq!(job.image(), None);
        let debug = format!("{job:?}");
        assert!(
            !debug.contains("token-17") && !debug.contains("repository-token"),
            "{debug}"
        );
    }

    #[test]
    fn a_job_that_cannot_be_done_has_its_identity_for_the_final_state() {
        for (more, expected) in [
            (json!({"services": [{"name": "postgres"}]}), "`services`"),
            (
                json!({"artifacts": [{"paths": ["x"], "exclude": ["y"]}]}),
                "`artifacts:exclude`",
            ),
            (
                json!({"artifacts": [{"paths": ["x"], "artifact_format": "raw"}]}),
                "zip and gzip only",
            ),
            (
                json!({"dependencies": [{"id": 1, "name": "x", "token": "a\nb",
                       "artifacts_file": {"filename": "a.zip"}}]}),
                "the token for the artifacts of x is unusable",
            ),
            (
                json!({"variables": [{"key": "SHORT", "value": "abc", "masked": true}]}),
                "SHORT cannot be masked",
            ),
            (json!({"steps": null}), "not a job of GitLab"),
        ] {
            let given = parse(value(&more).to_string().as_bytes()).unwrap();
            assert_eq!(given.key.id, 17);
            let reason = given.job.unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        }
        for text in ["", "[]", "{\"id\": 17}", "<html>"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn what_others_have_left_empty_is_supported() {
        let more = json!({
            "dependencies": [{"id": 1, "name": "x", "token": "t", "artifacts_file": null}],
            "artifacts": [{"paths": ["x"], "exclude": null, "artifact_format": "gzip"}],
            "variables": [{"key": "EMPTY", "value": "", "masked": true}],
        });
        assert!(
            parse(value(&more).to_string().as_bytes())
                .unwrap()
                .job
                .is_ok()
        );
    }

    #[test]
    fn tokens_and_masked_variables_are_hidden() {
        let other = json!({"id": 1, "name": "x", "token": "other-token", "artifacts_file": {"filename": "a"}});
        let job = job(&json!({"dependencies": [other], "variables": [
            {"key": "PASSWORD", "value": "correct horse", "masked": true},
            {"key": "PLACE", "value": "not a secret", "masked": false},
        ]}));
        let shown = config::secrets::Mask::new(&job.masked().unwrap()).text(
            "job-token-17 other-token gitlab-ci-token:repository-token@ correct horse not a secret",
        );
        assert_eq!(shown, "*** *** gitlab-ci-token:***@ *** not a secret");
    }

    #[test]
    fn only_an_authority_has_a_password() {
        for (url, expected) in [
            ("https://user:secret@host/x", Some("secret")),
            ("https://user@host/x", None),
            ("https://host/x:y@z", None),
            ("git@host:x/y", None),
        ] {
            assert_eq!(password(url), expected, "{url}");
        }
    }
}
