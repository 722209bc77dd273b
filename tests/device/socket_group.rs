//! Access to the administration socket: only root and the members of the group in `http.group` may
//! open it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use config::BuildId;
use nix::unistd::Group;
use tests::api_host::ApiHost;
use tests::hosts::run;

/// A group of Debian without members.
const GROUP: &str = "games";
/// The user id of `nobody`.
const NOBODY: &str = "65534";
const SOURCE: &str = "41cf6794ba4200b839c53531555f0f3998df4cbb01a4d5cb0b94e3ca5e23947d";

/// Sends a request as `nobody`, with or without the group, and returns the status. It is `000` if
/// the socket cannot be opened.
fn status_for_nobody(
    host: &ApiHost,
    is_member: bool,
    method: &str,
    path: &str,
    body: &str,
) -> String {
    let group = Group::from_name(GROUP).unwrap().unwrap().gid;
    let groups = if is_member {
        format!("--groups={group}")
    } else {
        "--clear-groups".to_owned()
    };
    let mut command = ::sys::command::prepare("setpriv");
    command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")]);
    command.args([&groups, "curl", "--silent", "--output", "/dev/null"]);
    command.args(["--write-out", "%{http_code}", "--request", method]);
    command.args(["--header", "content-type: application/json"]);
    command.args(["--data", body, "--unix-socket"]);
    command.arg(host.path("run/agent.sock"));
    command.arg(format!("http://agent{path}"));
    run(command, b"").stdout
}

fn host(settings: &str) -> ApiHost {
    let host = ApiHost::new(settings);
    // All users can reach the socket, so that only its own permissions decide.
    for directory in ["", "run"] {
        let readable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(host.path(directory), readable).unwrap();
    }
    host
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn members_of_the_group_submit_under_their_names_and_others_are_refused() {
    let host = host(&format!("http.group = \"{GROUP}\"\n"));
    let build =
        format!(r#"{{"machine": "linux", "sources": [{{"name": "a", "sha256": "{SOURCE}"}}]}}"#);
    let source = format!("/api/v1/sources/{SOURCE}");
    let table = [
        ("GET", "/api/v1/builds", "", "200"),
        ("PUT", &source, "source", "201"),
        ("POST", "/api/v1/builds", &build, "201"),
        ("POST", "/api/v1/builds/1/cancel", "", "200"),
        ("DELETE", "/api/v1/builds/1", "", "403"),
        ("POST", "/api/v1/drain", "{}", "403"),
    ];
    for (method, path, body, status) in table {
        let outsider = status_for_nobody(&host, false, method, path, body);
        assert_eq!(outsider, "000", "{method} {path}");
        let member = status_for_nobody(&host, true, method, path, body);
        assert_eq!(member, status, "{method} {path}");
    }
    let build = host.block_on(host.host.records.get(BuildId(1)));
    assert_eq!(build.unwrap().unwrap().submitter.as_str(), "nobody");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn without_a_group_only_root_can_open_the_socket() {
    let host = host("");
    assert_eq!(
        status_for_nobody(&host, true, "GET", "/api/v1/builds", ""),
        "000"
    );
    let url = "http://agent/api/v1/builds";
    assert_eq!(host.local().get(url).send().unwrap().status(), 200);
}
