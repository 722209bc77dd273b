//! BitBake's own clients at the services of several coordinators.

use std::path::Path;
use std::process::Output;

use nix::sys::signal::Signal;
use server_tests::{Cluster, RunningProgram, command};

use crate::program::{program, text, write};

/// Starts a coordinator with the services for BitBake. Returns the addresses of both.
fn start_for_bitbake(config: &Path) -> (RunningProgram, Vec<String>) {
    let mut serve = program();
    serve.arg("--config").arg(config).arg("serve");
    let server = RunningProgram::launch(serve);
    let log = server.log();
    let lines = log
        .lines()
        .filter_map(|line| line.split_once("for BitBake address="));
    let addresses = lines.filter_map(|(_, rest)| rest.split_whitespace().next());
    let addresses = addresses.map(str::to_owned).collect();
    (server, addresses)
}

/// Asks both services with the clients of BitBake, by turns at two coordinators. A checksum that returns
/// gets a new value.
const ASK: &str = r#"
import sys
sys.path.insert(0, sys.argv[1] + "/lib")
import hashserv
from prserv.client import PRClient
pr, hashes = sys.argv[2:4], sys.argv[4:6]
values = []
for address in pr + pr:
    client = PRClient()
    host, port = address.rsplit(":", 1)
    client.connect_tcp(host, int(port))
    for checksum in ("c1", "c2"):
        values.append(client.getPR("hello-1.0-r0", "core2-64", checksum))
    client.close()
print(*values)
with hashserv.create_client(hashes[0]) as client:
    told = client.report_unihash("1" * 64, "method", "2" * 64, "3" * 64)
    print(told["unihash"] == "3" * 64)
with hashserv.create_client(hashes[1]) as client:
    print(client.get_unihash("method", "1" * 64) == "3" * 64)
    # Another task with the same output is equivalent.
    told = client.report_unihash("4" * 64, "method", "2" * 64, "5" * 64)
    print(told["unihash"] == "3" * 64)
"#;

#[test]
#[ignore = "needs PostgreSQL and a checkout of BitBake"]
fn bitbakes_clients_see_one_database_at_all_coordinators_of_a_farm() {
    let Some(bitbake) = std::env::var_os("BITBAKE") else {
        panic!("BITBAKE does not name a checkout of BitBake");
    };
    let cluster = Cluster::start();
    let directory = tempfile::tempdir().unwrap();
    let settings = format!(
        "database = \"{}\"\nlisten = \"127.0.0.1:0\"\n[prserv]\nlisten = [\"127.0.0.1:0\"]\n\
         [hashserv]\nlisten = [\"127.0.0.1:0\"]\nanonymous = [\"@read\", \"@report\"]\n",
        cluster.url()
    );
    let config = write(directory.path(), "farm.toml", &settings);
    let (mut one, of_one) = start_for_bitbake(&config);
    let (mut two, of_two) = start_for_bitbake(&config);
    let script = write(directory.path(), "ask.py", ASK);
    let addresses = [&of_one[0], &of_two[0], &of_one[1], &of_two[1]];
    let mut python = command("python3");
    python.arg(script).arg(bitbake).args(addresses);
    let Output { stdout, stderr, .. } = python.output().unwrap();
    let expected = "0 1 2 3 4 5 6 7\nTrue\nTrue\nTrue\n";
    assert_eq!(text(&stdout), expected, "{}", text(&stderr));
    for server in [&mut one, &mut two] {
        server.signal(Signal::SIGTERM);
        assert!(server.wait().success(), "{}", server.log());
    }
}
