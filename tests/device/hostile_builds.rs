//! Builds of a hostile submitter that lie to the agent, in a virtual machine and in a container: the
//! shell script in their source is the worker.

use std::fs;

use config::builds::{Build, State};
use config::task::Outcome;
use tests::agent::AgentHost;
use tests::attacks::refused;

use crate::guest_failures::worker;

/// The machines, a virtual machine and a container.
const MACHINES: [(&str, &str); 2] = [("demo", "virtual machine"), ("box", "container")];

/// The worker: it runs the source. `put` puts a file, and `try` adds to the result whether a
/// command succeeds.
const WORKER: &str = r#"
put() { tftp -p -l "$1" -r "$2" $host; }
try() { target=$1; shift; if "$@" >/dev/null 2>&1; then report="$report reached-$target"
    else report="$report refused-$target"; fi; }
result() { printf ': 1\nstatus: %s\nmessage: %s\n' "$1" "$2" >result; put result result.manifest; }
tftp -g -r task.manifest -l task $host
tftp -g -r sources/hello-1.0.tar.gz -l source.tar.gz $host
gunzip -c source.tar.gz | tar -xf -
. ./hello-1.0/hello.c
"#;

/// Starts a host on which both machines run scripts.
fn host() -> AgentHost {
    let mut host = AgentHost::new("builds.retries_max = 0\nguests.parallel_max = 2\n");
    host.add("demo", |files| {
        let manifest = fs::read_to_string(files.join("manifest")).unwrap();
        tests::write_file(&files.join("manifest"), &(manifest + "frozen: off\n"));
    });
    host.add_container("box", |_| {});
    host.add_worker("script", &worker(WORKER));
    host.start();
    host
}

/// Runs a script in both machines, and returns the builds with the kinds of their guests.
fn run(host: &AgentHost, script: &str) -> [(Build, &'static str); 2] {
    let submitted =
        MACHINES.map(|(machine, kind)| (host.submit_to(machine, "script", script), kind));
    submitted.map(|(id, kind)| (host.wait_for(id, State::Finished), kind))
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_build_can_neither_forge_records_nor_lines() {
    let host = host();
    forge_files(&host);
    forge_lines(&host);
    flood_records(&host);
    host.wait_until_torn_down();
}

/// Puts files that only the host may write, and chooses values of packages.
fn forge_files(host: &AgentHost) {
    let script = r#"
echo forged >forged
try put-provenance put forged artifacts/provenance.json
try put-packages put forged artifacts/packages.manifest
request='{"import-one": {"version": "hello-1.0-r0", "pkgarch": "all", "checksum": "c", "value": "9"}}'
printf 'PRSERVICE 1.0\n\n%s\n' "$request" | nc $host 8585 >answer
try import grep -q '"value"' answer
result success "$report"
"#;
    for (build, kind) in run(host, script) {
        assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
        for attack in ["put-provenance", "put-packages", "import"] {
            let expected = format!("refused-{attack}");
            assert!(build.message.contains(&expected), "{kind}: {build:?}");
            refused(
                &format!("{kind} -> records"),
                attack,
                "reserved for the host",
            );
        }
    }
    let archive = "mkdir upload; echo forged >upload/provenance.json\n\
        tar -cf u.tar upload; put u.tar upload.tar; result success x\n";
    for (build, kind) in run(host, archive) {
        assert_eq!((build.outcome, build.attempts), (Some(Outcome::Error), 1));
        assert!(build.message.contains("reserved"), "{kind}: {build:?}");
        refused(
            &format!("{kind} -> records"),
            "provenance.json in upload.tar",
            &build.message,
        );
    }
}

/// Sends escape sequences and additional lines in the message of a result.
fn forge_lines(host: &AgentHost) {
    let script = r"
printf ': 1\nstatus: error\nmessage:\\\n\033[2J\033]0;pwned\007one\nINFO forged line\n\\\n' >result
put result result.manifest
";
    for (build, kind) in run(host, script) {
        assert_eq!(build.outcome, Some(Outcome::Error), "{build:?}");
        let id = build.id.to_string();
        for command in [
            &["builds"][..],
            &["builds", &id],
            &["explain", &id],
            &["top", "--once"],
        ] {
            let shown = host.machinectl(command);
            let text = format!("{}{}", shown.stdout, shown.stderr);
            let is_control = |c: char| c.is_control() && c != '\n' && c != '\t';
            assert!(!text.contains(is_control), "{command:?}: {text:?}");
            assert!(
                !text.lines().any(|line| line.starts_with("INFO forged")),
                "{text}"
            );
        }
        let log = host.log();
        assert!(!log.contains('\u{1b}'), "{log:?}");
        assert!(
            !log.lines().any(|line| line.starts_with("INFO forged")),
            "{log}"
        );
        let boundary = format!("{kind} -> terminal and log");
        refused(
            &boundary,
            "escape sequences in a message",
            "control characters are escaped",
        );
        refused(
            &boundary,
            "lines in a message",
            "control characters are escaped",
        );
    }
}

/// Reports more packages than a build can have, and more values than a manifest can have.
fn flood_records(host: &AgentHost) {
    let many = |line: &str, count: u32| {
        format!(
            "{{ printf ': 1\\nstatus: success\\n'; yes '{line}' | head -n {count}; }} >result\n\
             put result result.manifest\n"
        )
    };
    for (attack, script, reason) in [
        (
            "10 001 packages",
            many(":", 10_001),
            "more than 10000 packages",
        ),
        (
            "a million values",
            many("a:", 1_000_000),
            "more than 100000 manifests and values",
        ),
    ] {
        for (build, kind) in run(host, &script) {
            assert_eq!((build.outcome, build.attempts), (Some(Outcome::Error), 1));
            assert!(build.message.contains(reason), "{kind}: {build:?}");
            refused(&format!("{kind} -> records"), attack, &build.message);
        }
    }
}
