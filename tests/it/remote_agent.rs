//! The command line and an agent on the network: TLS, tokens, contexts, and the reasons for which
//! there is no connection.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tests::api_host::ApiHost;
use tests::hosts::{CommandOutput, run};

/// An agent with TLS, and the home of a user of another host.
struct Remote {
    host: ApiHost,
    home: TempDir,
}

impl Remote {
    fn new(names: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let pair = rcgen::generate_simple_self_signed(names).unwrap();
        tests::write_file(&at("certificate"), &pair.cert.pem());
        tests::write_file(&at("key"), &pair.signing_key.serialize_pem());
        let host = ApiHost::new(&format!(
            "http.tls_certificate = \"{}\"\nhttp.tls_key = \"{}\"\n",
            at("certificate").display(),
            at("key").display()
        ));
        host.allow(&[("read", "r"), ("submit", "s"), ("admin", "a")]);
        for (name, secret) in [("read", "r"), ("submit", "s"), ("wrong", "x")] {
            write_secret(&at(name), secret, 0o600);
        }
        write_secret(&at("open"), "r", 0o644);
        Self { host, home }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.host.address.port())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = sys::command::prepare(tests::program("machinectl"));
        command.env_remove("XDG_CONFIG_HOME");
        command.env("HOME", self.home.path()).args(arguments);
        command
    }

    fn call(&self, arguments: &[&str]) -> CommandOutput {
        run(self.command(arguments), b"")
    }

    /// Calls a command with an address, the certificate and a token.
    fn call_with(&self, url: &str, token: &str, arguments: &[&str]) -> CommandOutput {
        let (ca, token) = (self.path("certificate"), self.path(token));
        let mut command = self.command(arguments);
        command.env("BUILDHOST_HOST", url);
        command.env("BUILDHOST_CA_FILE", ca);
        command.env("BUILDHOST_TOKEN_FILE", token);
        run(command, b"")
    }
}

fn write_secret(path: &Path, secret: &str, mode: u32) {
    tests::write_file(path, &format!("{secret}\n"));
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn commands_work_over_tls_with_what_the_token_allows() {
    let remote = Remote::new(&["localhost"]);
    let url = remote.url();
    let builds = remote.call_with(&url, "read", &["builds", "--json"]);
    assert_eq!(builds.success().stdout, "[]\n");
    let source = remote.path("source");
    tests::write_file(&source, &"x".repeat(3 << 20));
    let build = ["build", "linux", source.to_str().unwrap()];
    remote.call_with(&url, "read", &build).refused(
        3,
        "this request needs the scope submit; token:read-1 has read",
    );
    let submitted = remote.call_with(&url, "submit", &build).success();
    assert_eq!(submitted.stdout, "1\n");
    let stored = remote.host.path("state/sources");
    let stored = sys::file::entries(&stored).unwrap();
    assert_eq!(stored.len(), 1, "the source has arrived: {stored:?}");
    remote
        .call_with(&url, "submit", &["drain"])
        .refused(3, "this request needs the scope admin");
    remote
        .call_with(&url, "wrong", &["builds"])
        .refused(3, "the token is unknown");
    remote
        .call_with(&url, "open", &["builds"])
        .refused(3, "others can use");
    remote
        .call_with(&url, "nothing", &["builds"])
        .refused(10, "cannot read the token in");
    remote
        .call_with(&url, "read", &["list"])
        .refused(3, "`list` works with the files of a build host");
    remote
        .call_with(&url, "read", &["rebuild", "1", "--on-revision", "1"])
        .refused(
            3,
            "`rebuild --on-revision` works with the files of a build host",
        );
    remote
        .call_with("local", "read", &["--socket", "/no/socket", "builds"])
        .refused(4, "no agent answers at /no/socket");
}

#[test]
fn a_failed_connection_has_a_reason_and_a_remedy() {
    let remote = Remote::new(&["build1"]);
    let url = remote.url();
    let port = remote.host.address.port();
    let call = |url: &str| remote.call_with(url, "read", &["builds"]);
    call(&url).refused(24, "its certificate is not for `localhost`");
    call(&format!("http://localhost:{port}"))
        .refused(24, "does not answer in HTTP; does it need https://?");
    call(&format!("http://build1:{port}")).refused(3, "a token is not sent to http://build1");
    call("https://localhost:1").refused(4, "no agent answers at https://localhost:1");
    let unknown = call("ftp://localhost");
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("expected https://HOST:PORT"));
    remote
        .call(&["--host", &url, "builds"])
        .refused(24, "no trusted authority has signed its certificate");
    remote
        .call(&["--host", &url, "--ca-file", "/dev/null", "builds"])
        .refused(1, "cannot use the certificates in /dev/null");

    let plain = ApiHost::new("");
    let plain = format!("https://localhost:{}", plain.address.port());
    call(&plain).refused(24, "it does not speak TLS");
}

#[test]
fn a_context_names_a_host_and_keeps_its_token() {
    let remote = Remote::new(&["localhost"]);
    let (url, ca) = (remote.url(), remote.path("certificate"));
    let ca = ca.to_str().unwrap();
    assert_eq!(remote.call(&["context", "list"]).success().stdout, "");
    remote
        .call(&["context", "show"])
        .refused(10, "no context is in use");
    let add = ["context", "add", "farm", &url, "--ca-file", ca, "--use"];
    let with_token = [add.as_slice(), &["--token-file", "-"]].concat();
    run(remote.command(&with_token), b"two words").refused(3, "standard input has no token");
    run(remote.command(&with_token), b"r\n").success();
    let token = remote.path(".config/buildhost/tokens/farm");
    let mode = std::fs::metadata(&token).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    remote.call(&add).refused(11, "context farm exists already");

    remote.call(&["builds"]).success();
    remote.call(&["--host", "farm", "builds"]).success();
    remote
        .call(&["list"])
        .refused(3, &format!("the agent in use is at {url}"));
    remote
        .call(&["--host", "lab", "builds"])
        .refused(10, "there is no context lab; there are: farm");
    let shown = remote.call(&["context", "show", "--json"]).success().stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["host"], url);
    assert_eq!(shown["token_file"], token.to_str().unwrap());
    assert_eq!(shown["current"], true);

    remote.call(&["context", "use", "local"]).success();
    remote
        .call(&["--volume", "/no/volume", "list"])
        .refused(20, "there is no volume");
    remote.call(&["context", "remove", "farm"]).success();
    assert!(!token.exists());
    remote
        .call(&["context", "use", "farm"])
        .refused(10, "`buildhost context add` adds one");
    remote
        .call(&["--host", "local", "context", "list"])
        .refused(2, "--host has no meaning");
}
