//! Completions of the command line, as a real bash asks for them, and as zsh and fish do.

use std::process::Command;

use tests::api_host::ApiHost;
use tests::hosts::run;

/// Calls the function that bash calls at TAB, and prints what it has found.
const ASK: &str = r#"
source <(buildhost completions bash)
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_clap_complete_buildhost buildhost "${!#}" ""
printf '%s\n' "${COMPREPLY[@]}"
"#;

/// A shell whose PATH has the program as `buildhost`, for which an agent runs.
struct Shell {
    host: ApiHost,
    directory: tempfile::TempDir,
}

impl Shell {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("buildhost");
        std::os::unix::fs::symlink(tests::program("machinectl"), link).unwrap();
        Self {
            host: ApiHost::new(""),
            directory,
        }
    }

    fn command(&self, program: &str) -> Command {
        let path = std::env::var("PATH").unwrap();
        let mut command = sys::command::prepare(program);
        command.env(
            "PATH",
            format!("{}:{path}", self.directory.path().display()),
        );
        command.env("BUILDHOST_SOCKET", self.host.path("run/agent.sock"));
        command.env("BUILDHOST_VOLUME", "/no/volume");
        command.env("XDG_CONFIG_HOME", self.directory.path().join("config"));
        command
    }

    /// Returns what bash offers for the last word of a line.
    fn bash(&self, line: &str) -> Vec<String> {
        let mut bash = self.command("bash");
        bash.args(["--norc", "-c", ASK, "ask"])
            .args(line.split(' '));
        let found = run(bash, b"").success().stdout;
        let found = found.split(['\n', '\u{b}']).map(str::trim);
        found
            .filter(|it| !it.is_empty())
            .map(str::to_owned)
            .collect()
    }

    fn call(&self, line: &str) {
        let mut command = self.command("buildhost");
        run(
            {
                command.args(line.split(' '));
                command
            },
            b"",
        )
        .success();
    }
}

#[test]
fn bash_completes_what_exists() {
    let shell = Shell::new();
    shell.call("context add farm https://build1:8000");
    let value = shell.directory.path().join("value");
    tests::write_file(&value, "open sesame");
    shell.call(&format!(
        "secret add upload-key --from-file {}",
        value.display()
    ));
    for (line, expected) in [
        ("buildhost con", vec!["console", "context", "controllers"]),
        ("buildhost context use ", vec!["farm"]),
        ("buildhost --host ", vec!["farm", "local"]),
        ("buildhost secret delete ", vec!["upload-key"]),
        ("buildhost secret delete x", vec![]),
        ("buildhost builds --outcome ab", vec!["abort", "abnormal"]),
        ("buildhost builds --state r", vec!["running"]),
        ("buildhost builds ", vec!["delete", "help"]),
    ] {
        let mut found = shell.bash(line);
        let mut expected = expected;
        found.retain(|word| !word.starts_with('-'));
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{line}");
    }
}

#[test]
fn nothing_is_offered_and_nothing_is_said_without_an_agent() {
    let shell = Shell::new();
    shell.host.host.stopping.cancel();
    for shell_name in ["bash", "zsh", "fish"] {
        let mut command = shell.command("buildhost");
        command.env("BUILDHOST_COMPLETE", shell_name);
        command.env("BUILDHOST_SOCKET", "/no/socket");
        command
            .env("_CLAP_COMPLETE_INDEX", "3")
            .env("_CLAP_IFS", "\n");
        command.args(["--", "buildhost", "project", "show", ""]);
        let answer = run(command, b"").success();
        assert_eq!(answer.stderr, "", "{shell_name}");
        let words = answer.stdout.lines().filter(|word| !word.starts_with('-'));
        assert_eq!(words.count(), 0, "{shell_name}: {}", answer.stdout);
    }
}

#[test]
fn each_shell_has_a_script() {
    let shell = Shell::new();
    for (name, part) in [
        ("bash", "complete -o nospace"),
        ("zsh", "#compdef buildhost"),
        (
            "fish",
            "complete --keep-order --exclusive --command buildhost",
        ),
    ] {
        let mut command = shell.command("buildhost");
        let script = run(
            {
                command.args(["completions", name]);
                command
            },
            b"",
        );
        let script = script.success().stdout;
        assert!(script.contains(part), "{script}");
        assert!(script.contains("BUILDHOST_COMPLETE"), "{script}");
    }
}
