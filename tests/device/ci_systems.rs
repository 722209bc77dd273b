//! Steps of CI systems, as the page about controllers has them.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use config::builds::State;
use config::task::Outcome;
use rustix::process::{Pid, Signal, kill_process};
use sys::command::{prepare, run};
use tempfile::TempDir;
use tests::agent::{AgentHost, ENDLESS_PROGRAM};
use tests::wait_until;

/// The time limit of a step.
const LIMIT: Duration = Duration::from_mins(5);

/// Returns the first recipe in a language on the page, for the demo's machine.
fn recipe(language: &str) -> String {
    let page = include_str!("../../docs/controllers.md");
    let (_, block) = page.split_once(&format!("```{language}\n")).unwrap();
    let (block, _) = block.split_once("```").unwrap();
    block.replace("linux-gcc_14", "demo")
}

/// A checkout of the demo's source in a node of a CI system, whose steps find `buildhost`.
struct Node {
    directory: TempDir,
    socket: PathBuf,
}

impl Node {
    fn new(host: &AgentHost) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let node = Self {
            directory,
            socket: host.run_directory().join("agent.sock"),
        };
        symlink(tests::program("machinectl"), node.path("buildhost")).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/demo-source/hello-1.0");
        let mut copy = prepare("cp");
        copy.arg("-R").arg(source).arg(node.path("checkout"));
        run(copy, LIMIT).unwrap();
        for arguments in ["init -q", "add .", "commit -q -m hello"] {
            let mut git = node.step("git");
            git.args(["-c", "user.name=t", "-c", "user.email=t@example.org"]);
            git.args(arguments.split(' '));
            run(git, LIMIT).unwrap();
        }
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns a program that is run as a step.
    fn step(&self, program: impl Into<OsString>) -> Command {
        let mut step = prepare(program.into());
        let path = std::env::var("PATH").unwrap();
        step.env("PATH", format!("{}:{path}", self.path("").display()))
            .env("BUILDHOST_SOCKET", &self.socket)
            .current_dir(self.path("checkout"));
        step
    }
}

/// Checks that a directory has the package of a build, its revision and its provenance.
fn assert_packages(directory: &Path) {
    let names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for end in [".ipk", "packages.manifest", "provenance.json"] {
        assert!(names.iter().any(|name| name.ends_with(end)), "{names:?}");
    }
}

#[test]
#[ignore = "needs root: real btrfs and network namespaces"]
fn the_stage_of_jenkins_builds_a_package() {
    let host = AgentHost::ready_with_container("");
    let node = Node::new(&host);
    let stage = recipe("groovy");
    let steps: Vec<_> = stage
        .lines()
        .filter_map(|line| line.trim().strip_prefix("sh '"))
        .collect();
    assert_eq!(steps.len(), 2);
    for line in steps {
        let mut step = node.step("sh");
        step.arg("-ec").arg(line.trim_end_matches('\''));
        run(step, LIMIT).unwrap();
    }
    assert_packages(&node.path("checkout/packages"));
    let lines = recipe("sh");
    let mut step = node.step("sh");
    step.arg("-ec").arg(lines);
    run(step, LIMIT).unwrap();
}

/// Starts a step that follows a build of an endless program.
fn follow(node: &Node, source: &str) -> Child {
    let mut step = node.step("buildhost");
    step.args(["build", "demo", source, "--follow", "--cancel-on-signal"]);
    step.spawn().unwrap()
}

fn end(mut step: Child) -> Option<i32> {
    kill_process(Pid::from_child(&step), Signal::TERM).unwrap();
    step.wait().unwrap().code()
}

#[test]
#[ignore = "needs root: real btrfs and network namespaces"]
fn a_step_that_is_ended_cancels_its_build_and_no_build_of_others() {
    let host = AgentHost::ready_with_container("");
    let node = Node::new(&host);
    let source = host.source(ENDLESS_PROGRAM);
    let first = follow(&node, &source);
    wait_until("the first step has submitted the build", || {
        host.machinectl(&["builds", "1"]).code == Some(0)
    });
    host.wait_for(1, State::Running);
    let mut second = node.step("buildhost");
    second.args(["build", "demo", &source, "--follow", "--cancel-on-signal"]);
    let said = node.path("second");
    second.stderr(fs::File::create(&said).unwrap());
    let second = second.spawn().unwrap();
    wait_until("the second step has the same build", || {
        fs::read_to_string(&said).unwrap().contains("build 1")
    });
    assert_eq!(end(second), None, "ended by the signal");
    assert_eq!(host.build(1).state, State::Running);
    assert_eq!(end(first), Some(31), "the build ended with abort");
    assert_eq!(host.build(1).outcome, Some(Outcome::Abort));
}

/// Tests that take minutes; `scripts/test --long` runs them.
mod long {
    use super::*;

    /// The programs of Buildbot, as requirements for pip.
    const BUILDBOT: [&str; 2] = ["buildbot==4.3.0", "buildbot-worker==4.3.0"];

    /// The settings of a master with a worker in its process, behind the recipe.
    const MASTER: &str = r#"
from buildbot.plugins import schedulers, worker

BuildmasterConfig = {
    "buildbotNetUsageData": None,
    "protocols": {"null": {}},
    "db": {"db_url": "sqlite:///state.sqlite"},
    "workers": [worker.LocalWorker("local")],
    "builders": [util.BuilderConfig(name="hello", workernames=["local"], factory=factory)],
    "schedulers": [schedulers.Periodic("once", builderNames=["hello"], periodicBuildTimer=86400)],
}
"#;

    /// Installs Buildbot. Returns the directory of its programs.
    fn buildbot() -> PathBuf {
        let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/buildbot");
        let (tools, ready) = (cache.join("bin"), cache.join("ready"));
        if !ready.exists() {
            let mut venv = prepare("python3");
            venv.args(["-m", "venv", "--clear"]).arg(&cache);
            run(venv, LIMIT).unwrap();
            let mut install = prepare(tools.join("python"));
            install
                .args(["-m", "pip", "--quiet", "install"])
                .args(BUILDBOT);
            run(install, LIMIT).unwrap();
            tests::write_file(&ready, &BUILDBOT.join("\n"));
        }
        tools
    }

    /// Returns the results of the builds that have finished; 0 is a success.
    fn results(database: &Path) -> Vec<i64> {
        let Ok(database) = rusqlite::Connection::open(database) else {
            return Vec::new();
        };
        let query = "SELECT results FROM builds WHERE complete_at IS NOT NULL";
        let read = || {
            let mut query = database.prepare(query)?;
            let rows = query.query_map([], |row| row.get(0))?;
            rows.collect::<Result<_, _>>()
        };
        // The tables are made while the master starts.
        read().unwrap_or_default()
    }

    #[test]
    #[ignore = "needs root and downloads Buildbot"]
    fn a_master_of_buildbot_builds_a_package() {
        let tools = buildbot();
        let host = AgentHost::ready_with_container("");
        let node = Node::new(&host);
        let master = node.path("master");
        let mut create = node.step(tools.join("buildbot"));
        create.args(["create-master", "--quiet"]).arg(&master);
        run(create, LIMIT).unwrap();
        let repository = node.path("checkout").display().to_string();
        let factory = recipe("python").replace("https://git.example.org/hello.git", &repository);
        tests::write_file(&master.join("master.cfg"), &(factory + MASTER));
        let mut start = node.step(tools.join("buildbot"));
        start.args(["start", "--nodaemon"]).arg(&master);
        start.stdout(fs::File::create(node.path("master.log")).unwrap());
        let mut running = start.spawn().unwrap();
        let log = || fs::read_to_string(node.path("master.log")).unwrap();
        wait_until("the build has finished", || {
            assert!(running.try_wait().unwrap().is_none(), "{}", log());
            !results(&master.join("state.sqlite")).is_empty()
        });
        let found = results(&master.join("state.sqlite"));
        end(running);
        assert_eq!(found, [0], "{}", log());
        assert_packages(&master.join("workers/local/hello/build/packages"));
        assert_eq!(host.build(1).outcome, Some(Outcome::Success));
    }
}
