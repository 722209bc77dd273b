//! The command line on another host: builds, logs, artifacts and consoles over TLS and through ssh.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use config::builds::HoldKind;
use tempfile::TempDir;
use tests::agent::AgentHost;
use tests::hosts::{CommandOutput, run};
use tests::ssh::SshServer;
use tests::terminal::Terminal;
use tests::wait_until;

use crate::attach::PROMPT;

const BROKEN_PROGRAM: &str = "int main(void) { return nonsense; }\n";
const GOOD_PROGRAM: &str = "int main(void) { return 0; }\n";

/// A build host with an agent, and the home of a user with the contexts `tls` and `ssh` of it.
struct Remote {
    host: AgentHost,
    server: SshServer,
    home: TempDir,
}

impl Remote {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        tests::write_file(&at("certificate"), &pair.cert.pem());
        tests::write_file(&at("key"), &pair.signing_key.serialize_pem());
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let host = AgentHost::ready(&format!(
            "http.listen = \"127.0.0.1:{port}\"\nhttp.tls_certificate = \"{}\"\n\
             http.tls_key = \"{}\"\nhttp.token_file = \"{}\"\n",
            at("certificate").display(),
            at("key").display(),
            at("tokens").display()
        ));
        let tokens = at("tokens");
        let add = ["token", "add", "remote", "--scope", "admin", "--tokens"];
        let token = host.machinectl(&[&add[..], &[tokens.to_str().unwrap()]].concat());
        let token = token.success().stdout;
        let remote = Self {
            host,
            server: SshServer::start(),
            home,
        };
        let (url, ca) = (
            format!("https://localhost:{port}"),
            remote.text("certificate"),
        );
        let mut tls = remote.command(&["context", "add", "tls", &url, "--ca-file", &ca]);
        tls.args(["--token-file", "-"]);
        run(tls, token.as_bytes()).success();
        let socket = remote.host.run_directory().join("agent.sock");
        let mut ssh = remote.command(&["context", "add", "ssh", "ssh:root@127.0.0.1"]);
        ssh.arg("--socket").arg(socket).arg("--program");
        run(
            {
                ssh.arg(tests::program("machinectl"));
                ssh
            },
            b"",
        )
        .success();
        remote
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = sys::command::prepare(tests::program("machinectl"));
        command.env_remove("XDG_CONFIG_HOME");
        command.env("HOME", self.home.path());
        command.env("BUILDHOST_SSH", self.server.ssh());
        command.args(arguments);
        command
    }

    /// Calls a command with a context.
    fn call(&self, context: &str, arguments: &[&str]) -> CommandOutput {
        run(
            self.command(&[&["--host", context], arguments].concat()),
            b"",
        )
    }

    fn terminal(&self, context: &str, arguments: &[&str]) -> Terminal {
        Terminal::start(self.command(&[&["--host", context], arguments].concat()))
    }

    /// Builds, reads the log and fetches the artifacts.
    fn build(&self, context: &str) {
        let source = self.host.source(GOOD_PROGRAM);
        let build = ["build", "demo", &source, "--no-coalesce", "--follow"];
        let followed = self.call(context, &build).success();
        assert!(followed.stdout.contains("hello"), "{followed:?}");
        let id = self.newest(context);
        let log = self.call(context, &["log", "-f", &id]).success();
        assert_eq!(log.stdout, followed.stdout);
        let directory = self.text(context);
        self.call(context, &["artifacts", &id, "--output", &directory])
            .success();
        let files = sys::file::entries(&self.path(context)).unwrap();
        assert!(files.len() > 1, "{files:?}");
    }

    /// Types into the shell of a build at a breakpoint, while a reader follows the log.
    fn log_in(&self, context: &str) {
        let source = self.host.source(GOOD_PROGRAM);
        let mut shell = self.terminal(context, &["login", "demo", &source]);
        shell.wait_for("connected");
        let id = self.newest(context);
        let mut follower = self.terminal(context, &["log", "-f", &id]);
        shell.type_in("\recho it is $((41 + 1))\r");
        shell.wait_for("it is 42");
        let mut watcher = self.terminal(context, &["console", &id, "--read-only"]);
        watcher.wait_for("it is 42");
        watcher.type_in("\x1d");
        assert_eq!(watcher.wait(), Some(0));
        shell.type_in("exit\r");
        assert_eq!(shell.wait(), Some(0));
        follower.wait_for("finished with success");
        assert_eq!(follower.wait(), Some(0));
    }

    /// Boots a copy of the guest of a failed build.
    fn attach(&self, context: &str) {
        let source = self.host.source(BROKEN_PROGRAM);
        let build = ["build", "demo", &source, "--no-coalesce", "--hold", "-f"];
        assert_eq!(self.call(context, &build).code, Some(30));
        let id = self.newest(context);
        let mut copy = self.terminal(context, &["attach", &id]);
        copy.wait_for(PROMPT);
        copy.type_in("\x1d");
        assert_eq!(copy.wait(), Some(0));
        self.call(context, &["release", &id]).success();
        let id = id.parse().unwrap();
        wait_until("nothing is held", || {
            let held = self.host.build(id).interactive.held;
            held.map(|held| held.kind) != Some(HoldKind::Guest)
        });
    }

    fn newest(&self, context: &str) -> String {
        let list = self.call(context, &["builds", "--count", "1", "--json"]);
        let list: serde_json::Value = serde_json::from_str(&list.success().stdout).unwrap();
        list[0]["id"].to_string()
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU, network namespaces and sshd"]
fn everything_about_builds_works_over_tls_and_through_ssh() {
    let remote = Remote::new();
    for context in ["tls", "ssh"] {
        remote.build(context);
        remote.log_in(context);
        remote.attach(context);
        remote
            .call(context, &["list"])
            .refused(3, "`list` works with the files of a build host");
    }
    remote.host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs and sshd"]
fn a_failed_way_through_ssh_has_a_reason_and_a_remedy() {
    let host = AgentHost::new("");
    let server = SshServer::start_with_banner("No trespassing\n");
    let home = tempfile::tempdir().unwrap();
    let call = |ssh: &str, arguments: &[&str]| {
        let mut command = host.host.command(&[]);
        command.env("HOME", home.path()).env("BUILDHOST_SSH", ssh);
        command.args(arguments).arg("builds");
        run(command, b"")
    };
    let here = ["--host", "ssh:root@127.0.0.1"];
    let refused = |ssh: &str, code, text| call(ssh, &here).refused(code, text);
    refused(
        &server.ssh_with_other_key(),
        24,
        "add your key there with `ssh-copy-id",
    );
    refused(
        &server.ssh_to_unknown_host(),
        24,
        "log in once with `ssh root@127.0.0.1`",
    );
    refused("ssh '", 2, "BUILDHOST_SSH cannot be used");
    refused("/no/ssh", 24, "cannot run `/no/ssh");

    let program = tests::program("machinectl").display().to_string();
    let add = |name: &str, program: &str| {
        let mut command = host.host.command(&["context", "add", name, here[1]]);
        command.env("HOME", home.path());
        command.args(["--program", program, "--socket", "/no/agent.sock"]);
        run(command, b"").success();
    };
    add("no-agent", &program);
    add("no-program", "/no/buildhost");
    add("talkative", "echo");
    let ssh = server.ssh();
    call(&ssh, &["--host", "no-agent"])
        .refused(4, "ssh:root@127.0.0.1: no agent answers at /no/agent.sock");
    call(&ssh, &["--host", "no-program"]).refused(1, "there is no program `/no/buildhost`");
    call(&ssh, &["--host", "talkative"]).refused(24, "its shell prints something");
}
