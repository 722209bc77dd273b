//! Scripts of jobs, run by shells.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::super::job::tests::job;
use super::*;

/// A program in the place of `zip`, which lists what it would pack.
const ZIP: &str = "#!/bin/sh\nfor out; do :; done\nsort >\"$out\"\n";

/// A guest for the scripts of jobs: a directory with a shell.
struct Guest {
    place: tempfile::TempDir,
    shell: &'static str,
}

impl Guest {
    fn new(shell: &'static str) -> Self {
        let place = tempfile::tempdir().unwrap();
        for name in ["out", "bin"] {
            std::fs::create_dir(place.path().join(name)).unwrap();
        }
        let zip = place.path().join("bin/zip");
        std::fs::write(&zip, ZIP).unwrap();
        std::fs::set_permissions(&zip, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { place, shell }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.place.path().join(name)
    }

    /// Runs the script of a job with these values.
    fn run(&self, more: &Value) -> (i32, String) {
        let job = job(more);
        let root = self.path("root");
        let root = root.to_str().unwrap();
        let mut text = print(&job, &Variables::of(&job, root), "http://gitlab/", root);
        if self.shell == "dash" {
            let line = HEAD.lines().nth(1).unwrap();
            text = text.replacen(line, "", 1);
        }
        let script = self.path("job.sh");
        std::fs::write(&script, text).unwrap();
        let path = format!(
            "{}:{}",
            self.path("bin").display(),
            std::env::var("PATH").unwrap()
        );
        let output = Command::new(self.shell)
            .arg(&script)
            .env("PATH", path)
            .env("BUILDHOST_OUT", self.path("out"))
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(text).unwrap(),
        )
    }

    fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.path(name)).ok()
    }
}

/// Returns the values of a job without sources that has these steps.
fn steps(script: &[&str], after: &[&str]) -> Value {
    json!({
        "variables": [{"key": "GIT_STRATEGY", "value": "none"}],
        "steps": [
            {"name": "script", "script": script, "when": "on_success"},
            {"name": "after_script", "script": after, "when": "always", "allow_failure": true},
        ],
    })
}

#[test]
fn a_script_stops_at_its_first_failure_and_after_script_decides_nothing() {
    for shell in ["bash", "dash"] {
        let guest = Guest::new(shell);
        let after = ["echo after $CI_JOB_STATUS", "false", "echo never"];
        let (code, text) = guest.run(&steps(&["echo one", "(exit 7)", "echo two"], &after));
        assert_eq!(code, 7, "{text}");
        assert_eq!(
            text,
            "$ echo one\none\n$ (exit 7)\nscript has failed with exit code 7\n\
             $ echo after $CI_JOB_STATUS\nafter failed\n$ false\n\
             after_script has failed with exit code 1, which is allowed\n"
        );
        let (code, text) = guest.run(&steps(
            &["X=1", "echo $X\necho y"],
            &["echo after $CI_JOB_STATUS$X"],
        ));
        assert_eq!(code, 0, "{text}");
        assert_eq!(
            text,
            "$ X=1\n$ echo $X # and more lines\n1\ny\n$ echo after $CI_JOB_STATUS$X\nafter success\n"
        );
    }
}

#[test]
fn a_failure_within_a_pipe_counts_where_the_shell_can_tell() {
    let (code, text) = Guest::new("bash").run(&steps(&["(exit 3) | cat"], &[]));
    assert_eq!(code, 3, "{text}");
}

#[test]
fn variables_are_texts_and_files() {
    for shell in ["bash", "dash"] {
        let guest = Guest::new(shell);
        let mut values = steps(&["printf '<%s>' \"$A\" \"$B\" \"$(cat \"$F\")\"; pwd"], &[]);
        values["variables"] = json!([
            {"key": "GIT_STRATEGY", "value": "empty"},
            {"key": "A", "value": "it's $(touch x) `touch y`\nz", "raw": true},
            {"key": "B", "value": "${A}!"},
            {"key": "F", "value": "line\nline two", "file": true},
        ]);
        let (code, text) = guest.run(&values);
        assert_eq!(code, 0, "{text}");
        let a = "it's $(touch x) `touch y`\nz";
        let project = guest.path("root/project");
        let expected = format!("<{a}><{a}!><line\nline two>{}\n", project.display());
        assert!(text.ends_with(&expected), "{text}");
        assert_eq!(std::fs::read_dir(project).unwrap().count(), 0);
    }
}

#[test]
fn artifacts_are_packed_by_patterns_and_conditions() {
    for shell in ["bash", "dash"] {
        let guest = Guest::new(shell);
        let mut values = steps(
            &["mkdir -p out; touch -- out/a.log out/b.txt '-x y'; echo r >r.xml; exit 4"],
            &[],
        );
        values["artifacts"] = json!([
            {"paths": ["out/*.log", "-x y", "missing", "/etc/passwd"], "when": "always"},
            {"paths": ["out"], "when": "on_success"},
            {"paths": ["r.xml"], "when": "on_failure", "artifact_format": "gzip", "artifact_type": "junit"},
            {"paths": ["nothing*"], "when": "always", "name": "empty"},
        ]);
        let (code, text) = guest.run(&values);
        assert_eq!(code, 4, "{text}");
        assert_eq!(
            guest.read("out/gitlab-artifacts-0.zip").unwrap(),
            "./-x y\n./out/a.log\n",
            "{text}"
        );
        assert_eq!(guest.read("out/gitlab-artifacts-1.zip"), None);
        let packed = Command::new("gzip")
            .args(["-dc"])
            .arg(guest.path("out/gitlab-artifacts-2.gz"))
            .output();
        assert_eq!(packed.unwrap().stdout, b"r\n");
        assert_eq!(guest.read("out/gitlab-artifacts-3.zip"), None);
        assert!(text.contains("There are no files for empty.zip"), "{text}");
    }
}

#[test]
fn artifacts_that_cannot_be_packed_fail_the_job() {
    let guest = Guest::new("dash");
    std::fs::write(guest.path("bin/zip"), "#!/bin/sh\nexit 12\n").unwrap();
    let mut values = steps(&["touch a"], &[]);
    values["artifacts"] = json!([{"paths": ["a"]}]);
    let (code, text) = guest.run(&values);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("The artifacts cannot be packed"), "{text}");
}

/// Runs `git` in a directory, without the settings of the host.
fn git(directory: &Path, arguments: &[&str]) -> Output {
    let output = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(["-c", "user.name=x", "-c", "user.email=x@example.org"])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

#[test]
fn the_commit_of_the_job_is_checked_out() {
    for shell in ["bash", "dash"] {
        let guest = Guest::new(shell);
        let repository = guest.path("repository");
        std::fs::create_dir(&repository).unwrap();
        git(&repository, &["init", "-q", "-b", "main"]);
        for text in ["first", "second"] {
            std::fs::write(repository.join("file"), text).unwrap();
            git(&repository, &["add", "file"]);
            git(&repository, &["commit", "-q", "-m", text]);
        }
        let first = git(&repository, &["rev-parse", "HEAD^"]).stdout;
        let mut values = steps(&["cat file"], &[]);
        values["variables"] = json!([]);
        values["artifacts"] = json!([{"untracked": true}]);
        values["git_info"] = json!({
            "repo_url": format!("file://{}", repository.display()),
            "sha": String::from_utf8(first).unwrap().trim(),
            "refspecs": ["+refs/heads/main:refs/remotes/origin/main"],
            "depth": 10,
        });
        let (code, text) = guest.run(&values);
        assert_eq!(code, 0, "{text}");
        assert!(
            text.starts_with("Getting the sources\n$ cat file\nfirst"),
            "{text}"
        );
        values["git_info"]["sha"] = "0".repeat(40).into();
        let (code, text) = Guest::new(shell).run(&values);
        assert_eq!(code, 1, "{text}");
        assert!(!text.contains("cat file"), "{text}");
    }
}

/// A program in the place of `curl`, which writes what it was asked for.
const CURL: &str = "#!/bin/sh\nread -r header\nfor url; do :; done\n\
                    while [ \"$1\" != -o ]; do shift; done\n\
                    [ \"$header\" != 'header = \"JOB-TOKEN: gone-1\"' ] || exit 22\n\
                    printf '%s %s\\n' \"$header\" \"$url\" >\"$2\"\n";
/// A program in the place of `unzip`.
const UNZIP: &str = "#!/bin/sh\nfor file; do :; done\ncat \"$file\" >>unpacked\n";

#[test]
fn the_artifacts_of_other_jobs_are_unpacked_before_the_steps() {
    let needs = |tokens: &[&str]| {
        let mut job = steps(&["cat unpacked"], &[]);
        let numbered = tokens.iter().zip(1..);
        let dependency = |(token, id): (&&str, u64)| json!({"id": id, "name": format!("it's {id}"), "token": token, "artifacts_file": {"filename": "a.zip"}});
        job["dependencies"] = numbered.map(dependency).collect();
        job
    };
    for shell in ["bash", "dash"] {
        let guest = Guest::new(shell);
        for (name, program) in [("curl", CURL), ("unzip", UNZIP)] {
            let path = guest.path("bin").join(name);
            std::fs::write(&path, program).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let (code, text) = guest.run(&needs(&["glcbt-1", "glcbt-2"]));
        assert_eq!(code, 0, "{text}");
        for id in [1, 2] {
            let expected = format!(
                "\nheader = \"JOB-TOKEN: glcbt-{id}\" http://gitlab/api/v4/jobs/{id}/artifacts?direct_download=false\n"
            );
            assert!(text.contains(&expected), "{text}");
            assert!(text.contains(&format!("Getting the artifacts of it's {id} ({id})\n")));
        }
        assert!(!guest.path("root/dependency.zip").exists());
        let (code, text) = guest.run(&needs(&["gone-1"]));
        assert_eq!(code, 1, "{text}");
        assert!(
            text.ends_with("The artifacts of it's 1 cannot be had\n"),
            "{text}"
        );
    }
}
