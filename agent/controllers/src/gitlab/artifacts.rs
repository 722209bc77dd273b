//! The archives of a job's artifacts: the part of its script that makes them, and their uploads; pure.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::job::{Artifacts, Job, When};
use super::shell::quoted;
use super::variables::Variables;

/// An archive of artifacts. It exists after the job only if there were such files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// The name of the file below `$BUILDHOST_OUT` of the guest.
    pub file: String,
    /// The name that it has at GitLab.
    pub name: String,
    /// The format.
    pub format: String,
    /// The type, such as `archive` or `junit`.
    pub kind: String,
    /// The time after which GitLab deletes it.
    #[serde(default)]
    pub expire_in: Option<String>,
}

/// Returns the archives of a job.
pub(super) fn archives(job: &Job, variables: &Variables) -> Vec<Archive> {
    let all = job.artifacts.iter().flatten().enumerate();
    all.map(|(number, artifacts)| archive(number, artifacts, variables))
        .collect()
}

fn archive(number: usize, artifacts: &Artifacts, variables: &Variables) -> Archive {
    let format = artifacts.artifact_format.as_deref().unwrap_or("zip");
    let suffix = if format == "gzip" { "gz" } else { format };
    let name = variables.expand(artifacts.name.as_deref().unwrap_or_default());
    let is_plain = |c: char| c.is_alphanumeric() || "-_.+ ".contains(c);
    let name: String = name
        .chars()
        .map(|c| if is_plain(c) { c } else { '_' })
        .collect();
    let name = if name.is_empty() { "artifacts" } else { &name };
    Archive {
        file: format!("gitlab-artifacts-{number}.{suffix}"),
        name: format!("{name}.{suffix}"),
        format: format.to_owned(),
        kind: artifacts
            .artifact_type
            .clone()
            .unwrap_or_else(|| "archive".to_owned()),
        expire_in: artifacts.expire_in.clone(),
    }
}

/// Adds the part of a script that makes the archives.
pub(super) fn add(text: &mut String, job: &Job, variables: &Variables) {
    for (number, artifacts) in job.artifacts.iter().flatten().enumerate() {
        let archive = archive(number, artifacts, variables);
        let paths = artifacts.paths.iter().flatten();
        let paths: Vec<_> = paths.filter_map(|path| pattern(path, variables)).collect();
        let untracked = if artifacts.untracked {
            "git ls-files --others\n"
        } else {
            ""
        };
        let pack = if archive.format == "gzip" {
            "while IFS= read -r path; do gzip -c -- \"$path\" || exit 1; done >"
        } else {
            "zip -q -r -y -@ "
        };
        let _ = write!(
            text,
            "if {}; then\n\
             _buildhost_paths=$(shopt -s globstar nullglob 2>/dev/null\n\
             {untracked}for path in {}; do [ ! -e \"$path\" ] || printf '%s\\n' \"$path\"; done)\n\
             if [ -z \"$_buildhost_paths\" ]; then printf '%s\\n' {}\n\
             elif printf '%s\\n' \"$_buildhost_paths\" | {{ {pack}\"$BUILDHOST_OUT\"/{}; }}; then :\n\
             else echo 'The artifacts cannot be packed'; [ $_buildhost_status != 0 ] || _buildhost_status=1; fi\n\
             fi\n",
            condition(artifacts.when.unwrap_or_default()),
            paths.join(" "),
            quoted(&format!("There are no files for {}", archive.name)),
            archive.file,
        );
    }
}

/// Returns the condition of a step or of artifacts.
pub(super) fn condition(when: When) -> &'static str {
    match when {
        When::OnSuccess => "[ $_buildhost_status = 0 ]",
        When::OnFailure => "[ $_buildhost_status != 0 ]",
        When::Always => "true",
    }
}

/// Returns a pattern of files as a word of a shell that expands only `*`, `?` and brackets; `None` if
/// it leads out of the project.
fn pattern(path: &str, variables: &Variables) -> Option<String> {
    let path = variables.expand(path);
    let project = variables.get("CI_PROJECT_DIR").unwrap_or_default();
    let path = match path.strip_prefix(project) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.trim_start_matches('/'),
        _ => path.as_str(),
    };
    let path = if path.is_empty() { "." } else { path };
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return None;
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "*?[]^!-_./+@%,:".contains(c);
    let word = |c: char| {
        if is_plain(c) {
            c.to_string()
        } else {
            quoted(&c.to_string())
        }
    };
    // Names that begin with `-` are no options.
    Some(format!("./{}", path.chars().map(word).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::job::tests::job;
    use super::*;

    #[test]
    fn archives_have_names_and_types() {
        let job = job(&json!({
            "variables": [{"key": "CI_COMMIT_REF_NAME", "value": "feature/x"}],
            "artifacts": [
                {"paths": ["out"], "name": "hello-$CI_COMMIT_REF_NAME", "expire_in": "1 day"},
                {"paths": ["r.xml"], "artifact_type": "junit", "artifact_format": "gzip"},
            ],
        }));
        let archives = archives(&job, &Variables::of(&job, "/r"));
        let names: Vec<_> = archives
            .iter()
            .map(|it| [&it.file, &it.name, &it.format, &it.kind].map(String::as_str))
            .collect();
        assert_eq!(
            names,
            [
                [
                    "gitlab-artifacts-0.zip",
                    "hello-feature_x.zip",
                    "zip",
                    "archive"
                ],
                ["gitlab-artifacts-1.gz", "artifacts.gz", "gzip", "junit"],
            ]
        );
        assert_eq!(archives[0].expire_in.as_deref(), Some("1 day"));
    }

    #[test]
    fn patterns_stay_in_the_project_and_run_nothing() {
        let job = job(&json!({"variables": [{"key": "V", "value": "$(rm)"}]}));
        let variables = Variables::of(&job, "/r");
        for (path, expected) in [
            ("out/*.log", Some("./out/*.log")),
            ("$CI_PROJECT_DIR/out/", Some("./out/")),
            ("/r/project", Some("./.")),
            ("/r/projects/x", None),
            ("-rf", Some("./-rf")),
            ("/etc/passwd", None),
            ("a/../../etc", None),
            ("a b", Some("./a' 'b")),
            ("$V;", Some("./'$''('rm')'';'")),
            ("it's", Some("./it''\\'''s")),
        ] {
            assert_eq!(pattern(path, &variables).as_deref(), expected, "{path}");
        }
    }
}
