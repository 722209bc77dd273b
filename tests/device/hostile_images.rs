//! Images of a hostile sender, with entries that are not regular files in the place of files that
//! the host reads: each makes its own machine unusable and harms nothing else.

use config::builds::State;
use config::task::Outcome;
use rustix::process::Signal;
use tests::agent::AgentHost;
use tests::attacks::refused;
use tests::hosts::BuildHost;
use tests::send_stream::SendStream;
use tests::wait_until;

const MANIFEST: &[u8] = b": 1\nid: evil\nsummary: evil\n";

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_unusable_manifest_harms_only_its_machine() {
    let mut host = AgentHost::new("");
    host.add_container("demo", |_| {});
    host.add_toolchain("0.1.0");
    let long = vec![b'x'; 50_000];
    let attacks = [
        (
            "pipe",
            "regular file",
            SendStream::new("pipe-1").pipe("manifest"),
        ),
        (
            "zero",
            "symbolic link",
            SendStream::new("zero-1").symlink("manifest", "/dev/zero"),
        ),
        (
            "secret",
            "symbolic link",
            SendStream::new("secret-1").symlink("manifest", "/etc/shadow"),
        ),
        (
            "long",
            "larger than",
            SendStream::new("long-1")
                .file("manifest", &long)
                .append("manifest", 50_000, &long),
        ),
    ];
    for (machine, _, stream) in &attacks {
        let stream = stream.clone().end();
        host.host.machinectl(&["add", machine], &stream).success();
    }
    host.start();
    let build = host.submit("demo", "one");
    let finished = host.wait_for(build, State::Finished);
    assert_eq!(finished.outcome, Some(Outcome::Success), "{finished:?}");
    for (machine, reason, _) in &attacks {
        let shown = || host.machinectl(&["host", "status"]).success().stdout;
        wait_until("the host shows that the machine is unusable", || {
            shown()
                .lines()
                .any(|line| line.contains(machine) && line.contains(reason))
        });
        for (arguments, text) in [
            (&["list"][..], "unusable: "),
            (&["doctor"], "[unusable-manifest]"),
        ] {
            let output = host.machinectl(arguments);
            let mut lines = output.stdout.lines();
            assert!(
                lines.any(|line| line.contains(machine) && line.contains(text)),
                "{output:?}"
            );
        }
        refused("image -> agent", &format!("manifest: {machine}"), reason);
    }
    host.stop(Signal::TERM);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_unusable_content_manifest_is_refused() {
    let host = BuildHost::new(256);
    let stream = || SendStream::new("evil-1").file("manifest", MANIFEST);
    let attacks = [
        ("regular file", stream().pipe("contents.b3")),
        (
            "symbolic link",
            stream().symlink("contents.b3", "/dev/zero"),
        ),
        (
            "larger than",
            stream()
                .file("contents.b3", b"x")
                .resize("contents.b3", 8 << 30),
        ),
    ];
    for (reason, stream) in attacks {
        let answer = host.machinectl(&["add", "evil"], &stream.end());
        answer.refused(1, reason);
        refused("sender -> volume", "content manifest", reason);
    }
}
