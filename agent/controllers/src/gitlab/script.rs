//! The script that a guest runs for a job: checkout, steps and archives, in the order of GitLab; pure.

use std::fmt::Write as _;

use super::artifacts::{self, condition};
use super::dependencies;
use super::job::{Job, JobStep};
use super::shell::quoted;
use super::variables::{Value, Variables};

/// The beginning of a script, which prefers `bash`, as the steps of GitLab do.
const HEAD: &str = "#!/bin/sh\n\
    if [ -z \"$BASH_VERSION\" ] && command -v bash >/dev/null 2>&1; then exec bash \"$0\"; fi\n\
    export GIT_TERMINAL_PROMPT=0\n";

/// The message of a job that has failed, before its exit code.
const FAILED: &str = "the job has failed with exit code ";

/// Returns the exit code in the message of a job that has failed.
pub(super) fn exit_code(message: &str) -> Option<u8> {
    message.strip_prefix(FAILED)?.trim().parse().ok()
}

/// Returns the script of a job of the GitLab at an address, whose directories are below `root`. It is run as a file, ends with the
/// exit code of the first step that has failed, and puts archives into `$BUILDHOST_OUT`.
pub(super) fn print(job: &Job, variables: &Variables, server: &str, root: &str) -> String {
    let mut text = String::from(HEAD);
    let directories = [format!("{root}/project"), format!("{root}/variables")];
    let _ = writeln!(
        text,
        "mkdir -p {} {} || exit 1",
        quoted(&directories[0]),
        quoted(&directories[1])
    );
    for (key, value) in variables.iter() {
        add_variable(&mut text, key, value);
    }
    text.push_str("cd \"$CI_PROJECT_DIR\" || exit 1\n_buildhost_status=0\n");
    if !matches!(variables.get("GIT_STRATEGY"), Some("none" | "empty")) {
        add_checkout(&mut text, job, variables);
    }
    dependencies::add(&mut text, job, server, root);
    for step in &job.steps {
        add_step(&mut text, step);
    }
    artifacts::add(&mut text, job, variables);
    // The agent tells GitLab the exit code of the message.
    let _ = writeln!(
        text,
        "if [ $_buildhost_status != 0 ] && [ -n \"$BUILDHOST_MESSAGE\" ]; then \
         echo \"{FAILED}$_buildhost_status\" >\"$BUILDHOST_MESSAGE\"; fi\n\
         exit $_buildhost_status"
    );
    text
}

fn add_variable(text: &mut String, key: &str, value: &Value) {
    match value {
        Value::Text(value) => {
            let _ = writeln!(text, "export {key}={}", quoted(value));
        }
        Value::File { path, content } => {
            let (path, content) = (quoted(path), quoted(content));
            let _ = writeln!(
                text,
                "printf %s {content} >{path} || exit 1\nexport {key}={path}"
            );
        }
    }
}

fn add_checkout(text: &mut String, job: &Job, variables: &Variables) {
    let git = &job.git_info;
    let refspecs: Vec<_> = git.refspecs.iter().map(|it| quoted(it)).collect();
    let depth = match git.depth {
        0 => String::new(),
        depth => format!("--depth {depth} "),
    };
    let _ = write!(
        text,
        "echo 'Getting the sources'\n\
         git init -q && git remote add origin {} &&\n\
         git fetch -q {depth}origin {} && git checkout -q -f {} || exit 1\n",
        quoted(git.repo_url.reveal()),
        refspecs.join(" "),
        quoted(&git.sha),
    );
    let recursive = match variables.get("GIT_SUBMODULE_STRATEGY") {
        Some("normal") => "",
        Some("recursive") => " --recursive",
        _ => return,
    };
    let _ = writeln!(text, "git submodule update -q --init{recursive} || exit 1");
}

/// Adds a step in a shell of its own, which stops at the first command that fails. The state of the
/// job does not depend on `after_script`.
fn add_step(text: &mut String, step: &JobStep) {
    let _ = write!(
        text,
        "if {}; then\n\
         ( [ $_buildhost_status = 0 ] && export CI_JOB_STATUS=success || export CI_JOB_STATUS=failed\n\
         if (set -o pipefail) 2>/dev/null; then set -o pipefail; fi\n\
         set -e; eval {} ) </dev/null\n\
         _buildhost_code=$?\n",
        condition(step.when.unwrap_or_default()),
        quoted(&commands(step)),
    );
    let failed = format!("{} has failed with exit code", step.name);
    if step.allow_failure || step.name == "after_script" {
        let _ = writeln!(
            text,
            "[ $_buildhost_code = 0 ] || printf '%s\\n' {}\" $_buildhost_code, which is allowed\"",
            quoted(&failed)
        );
    } else {
        let _ = writeln!(
            text,
            "if [ $_buildhost_code != 0 ]; then printf '%s\\n' {}\" $_buildhost_code\"\n\
             [ $_buildhost_status != 0 ] || _buildhost_status=$_buildhost_code; fi",
            quoted(&failed)
        );
    }
    text.push_str("fi\n");
}

/// Returns the commands of a step, each of which is shown before.
fn commands(step: &JobStep) -> String {
    let mut text = String::new();
    for command in &step.script {
        let first = command.lines().next().unwrap_or_default();
        let more = if command.trim_end().contains('\n') {
            " # and more lines"
        } else {
            ""
        };
        let shown = quoted(&format!("$ {first}{more}"));
        let _ = writeln!(text, "printf '%s\\n' {shown}\n{command}");
    }
    text
}

#[cfg(test)]
mod tests;
