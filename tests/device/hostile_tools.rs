//! Tools that were taken over by the data that they read: stand-ins with the names of tar, cp,
//! qemu-img and decompressors try to reach the host from the place of these programs.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ::sys::command;
use tests::attacks::refused;
use tests::hosts::{BuildHost, CommandOutput, run};
use tests::write_file;

/// A script that runs each attack in a shell of its own and fails with a list of those that had an
/// effect. `$D` is the directory that the tool writes to.
const STAND_IN: &str = r#"#!/bin/bash
for last; do :; done
D=$last; [ -d "$D" ] || D=$(dirname "$D"); export D
reached=
attack() { bash -ec "$2" >/dev/null 2>&1 </dev/null && reached+=" [$1]"; }
ATTACKS
echo "reached:$reached" >&2
exit 1
"#;

/// The attacks by name, as commands of a shell.
fn attacks(host: &BuildHost, outside: &Path, port: u16) -> Vec<(&'static str, String)> {
    let outside = outside.display();
    let volume = host.volume.path().display();
    let pid = std::process::id();
    [
        ("write to /etc", ": >>/etc/passwd".to_owned()),
        ("read /etc", "head -c 1 /etc/passwd".to_owned()),
        ("list /root", "ls /root".to_owned()),
        ("read a secret", format!("cat {outside}/secret")),
        ("write to the state", format!("echo x >{outside}/state")),
        (
            "change another machine",
            format!("touch {volume}/good/x; rm {volume}/good/x"),
        ),
        (
            "read another machine",
            format!("cat {volume}/good/good/disk.img"),
        ),
        (
            "open a connection",
            format!("exec 3<>/dev/tcp/127.0.0.1/{port}"),
        ),
        ("signal a process", format!("kill -0 {pid}")),
        ("see processes", format!("ls /proc/{pid}")),
        (
            "mount",
            "mount -t tmpfs x /usr/local; umount /usr/local".to_owned(),
        ),
        ("enter a namespace", "unshare --mount true".to_owned()),
        (
            "use a device",
            "trap 'rm -f $D/zero' EXIT; mknod $D/zero c 1 5; head -c 1 $D/zero".to_owned(),
        ),
        ("change a program", "touch /usr/bin/true".to_owned()),
    ]
    .into()
}

/// Creates the machine `good`, and files of every kind that a tool reads.
fn make_files(host: &BuildHost, from: &Path) {
    let at = |name: &str| from.join(name).display().to_string();
    for directory in ["tree", "outside", "bin"] {
        fs::create_dir(at(directory)).unwrap();
    }
    for name in ["tree/disk.img", "outside/secret", "outside/state"] {
        write_file(Path::new(&at(name)), "content");
    }
    write_file(Path::new(&at("k")), "kernel");
    write_file(Path::new(&at("tree/manifest")), ": 1\nid: x\nsummary: y\n");
    host.machinectl(&["import", "good", &at("tree")], b"")
        .success();
    for name in ["m.tar", "m.tar.zst"] {
        host.machinectl(&["export", "good", "-o", &at(name)], b"")
            .success();
    }
    for command in [
        ["xz", "--keep", &at("k")].as_slice(),
        &["qemu-img", "create", "-f", "vmdk", &at("disk.vmdk"), "1M"],
    ] {
        let mut make = command::prepare(command[0]);
        make.args(&command[1..]);
        run(make, b"").success();
    }
    fs::set_permissions(at("disk.vmdk"), Permissions::from_mode(0o644)).unwrap();
    host.machinectl(&["export", "good", "-o", &at("m.btrfs.zst")], b"")
        .success();
}

/// Returns the names of the attacks that a stand-in reports.
fn reached(output: &CommandOutput) -> &str {
    let (_, reached) = output.stderr.rsplit_once("reached:").unwrap();
    reached.trim()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn tools_that_were_taken_over_reach_nothing_of_the_host() {
    let host = BuildHost::new(256);
    let from = tempfile::tempdir().unwrap();
    let at = |name: &str| from.path().join(name).display().to_string();
    make_files(&host, from.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let attacks = attacks(&host, Path::new(&at("outside")), port);
    let calls: Vec<_> = attacks
        .iter()
        .map(|(name, script)| format!("attack '{name}' '{}'\n", script.replace('\'', "'\\''")))
        .collect();
    let stand_in = STAND_IN.replace("ATTACKS", &calls.concat());
    let before = host.listing();

    // Without confinement, every attack has an effect.
    let mut shell = command::prepare("bash");
    shell.args(["-c", &stand_in, "tool", &at("outside")]);
    let all: Vec<_> = attacks
        .iter()
        .map(|(name, _)| format!("[{name}]"))
        .collect();
    assert_eq!(reached(&run(shell, b"")), all.join(" "));
    write_file(Path::new(&at("outside/state")), "content");

    for (tool, arguments) in [
        ("tar", ["import", "evil", &at("m.tar")].as_slice()),
        ("tar", &["import", "evil", &at("m.tar.zst")]),
        ("zstd", &["import", "evil", &at("m.tar.zst")]),
        ("cp", &["import", "evil", &at("tree")]),
        (
            "cp",
            &["import", "evil", &at("m.tar"), "--kernel", &at("k")],
        ),
        ("xz", &["import", "evil", &at("k.xz")]),
        ("qemu-img", &["import", "evil", &at("disk.vmdk")]),
        ("zstd", &["add", "good2", "--from", &at("m.btrfs.zst")]),
        ("tar", &["export", "good", "-o", &at("out.tar")]),
        ("zstd", &["export", "good", "-o", &at("out.tar.zst")]),
        ("zstd", &["export", "good", "-o", &at("out.btrfs.zst")]),
    ] {
        let program = at(&format!("bin/{tool}"));
        write_file(Path::new(&program), &stand_in);
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        let mut command = host.command(arguments);
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", at("bin")));
        let output = run(command, b"");
        assert_ne!(output.code, Some(0), "{tool} {arguments:?}");
        assert_eq!(reached(&output), "", "{tool} {arguments:?}");
        fs::remove_file(program).unwrap();
        for (name, _) in &attacks {
            let boundary = format!("taken-over {tool} of {} -> host", arguments[0]);
            refused(&boundary, name, "mount view, namespaces, rights");
        }
    }
    assert_eq!(host.listing(), before);
    assert_eq!(fs::read_to_string(at("outside/state")).unwrap(), "content");
    assert!(!Path::new(&at("out.tar")).exists());
}
