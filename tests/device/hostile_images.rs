//! Images of a hostile sender, with entries that are not regular files in the place of files that
//! the host reads: each makes its own machine unusable and harms nothing else. Disk images that name
//! other files, change themselves, or are larger than the volume when they are decompressed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ::sys::command;
use config::builds::State;
use config::task::Outcome;
use rustix::process::Signal;
use tests::agent::AgentHost;
use tests::attacks::refused;
use tests::hosts::BuildHost;
use tests::send_stream::{SendStream, crc32c};
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
                .any(|line| line.contains(machine) & line.contains(reason))
        });
        for (arguments, text) in [
            (&["list"][..], "unusable: "),
            (&["doctor"], "[unusable-manifest]"),
        ] {
            let output = host.machinectl(arguments);
            let mut lines = output.stdout.lines();
            assert!(
                lines.any(|line| line.contains(machine) & line.contains(text)),
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

/// Returns the CRC-32C as VHDX images use it.
fn crc32c_inverted(bytes: &[u8]) -> u32 {
    // The initial inversion is that of the first four bytes.
    let mut bytes = bytes.to_vec();
    bytes[..4].iter_mut().for_each(|byte| *byte = !*byte);
    !crc32c(&bytes)
}

/// Sets the checksum of a part of a VHDX image, which is at its fifth byte.
fn seal(part: &mut [u8]) {
    part[4..8].fill(0);
    let checksum = crc32c_inverted(part);
    part[4..8].copy_from_slice(&checksum.to_le_bytes());
}

/// Gives a VHDX image a log with one entry, which fills a part of the image with zeros.
fn add_log(image: &mut [u8]) {
    let log = usize::try_from(u64::from_le_bytes(
        image[(64 << 10) + 72..][..8].try_into().unwrap(),
    ))
    .unwrap();
    for header in [64 << 10, 128 << 10] {
        let header = &mut image[header..][..4096];
        header[48..64].fill(7);
        seal(header);
    }
    let length = image.len() as u64;
    let entry = &mut image[log..][..4096];
    entry.fill(0);
    for (position, bytes) in [
        (0, &b"loge"[..]),
        (8, &4096_u32.to_le_bytes()),
        (16, &1_u64.to_le_bytes()),
        (24, &1_u32.to_le_bytes()),
        (32, &[7; 16]),
        (48, &length.to_le_bytes()),
        (56, &length.to_le_bytes()),
        (64, b"zero"),
        (72, &4096_u64.to_le_bytes()),
        (80, &(3_u64 << 20).to_le_bytes()),
        (88, &1_u64.to_le_bytes()),
    ] {
        entry[position..][..bytes.len()].copy_from_slice(bytes);
    }
    seal(entry);
}

fn write(path: &str, bytes: &[u8]) {
    ::sys::file::replace(Path::new(path), bytes).unwrap();
}

fn run_tool(program: &str, arguments: &[&str]) {
    let mut tool = command::prepare(program);
    tool.args(arguments);
    command::run(tool, Duration::from_mins(1)).unwrap();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn disk_images_read_and_change_nothing_but_themselves() {
    let host = BuildHost::new(256);
    let from = tempfile::tempdir().unwrap();
    let at = |name: &str| from.path().join(name).display().to_string();
    let secret = noise(1);
    write(&at("secret"), &secret);
    // An image of one file whose header leaves the capacity to the descriptor inside.
    run_tool("qemu-img", &["create", "-f", "vmdk", &at("vmdk"), "1M"]);
    let mut forged = fs::read(at("vmdk")).unwrap();
    forged[12..20].fill(0);
    let descriptor = format!(
        "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n\
         createType=\"monolithicFlat\"\nRW 2048 FLAT \"{}\" 0\n\0",
        at("secret")
    );
    forged[512..512 + descriptor.len()].copy_from_slice(descriptor.as_bytes());
    write(&at("forged"), &forged);
    write(
        &at("descriptor"),
        descriptor.trim_end_matches('\0').as_bytes(),
    );
    run_tool("qemu-img", &["create", "-f", "vhdx", &at("vhdx"), "8M"]);
    let mut logged = fs::read(at("vhdx")).unwrap();
    add_log(&mut logged);
    write(&at("logged"), &logged);
    run_tool("qemu-img", &["create", "-f", "vdi", &at("huge"), "5T"]);
    for (image, code, text) in [
        ("forged", 3, "is one of several files of a disk"),
        ("descriptor", 3, "is one of several files of a disk"),
        ("logged", 14, "contains a log that needs to be replayed"),
        ("huge", 3, "the virtual disk in"),
    ] {
        for compress in [false, true] {
            if compress {
                run_tool("gzip", &[&at(image)]);
                fs::rename(at(&format!("{image}.gz")), at(image)).unwrap();
            }
            let before = fs::read(at(image)).unwrap();
            let answer = host.machinectl(&["import", "evil", &at(image)], b"");
            refused("disk image -> host", image, &answer.stderr);
            answer.refused(code, text);
            assert!(host.listing().is_empty(), "{:?}", host.listing());
            assert!(fs::read(at(image)).unwrap() == before);
        }
    }
}

/// Returns this many MiB that are not zeros.
fn noise(mebibytes: usize) -> Vec<u8> {
    b"content ".repeat(mebibytes << 17)
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn decompression_bombs_end_on_the_full_volume_and_give_its_space_back() {
    let host = BuildHost::new(128);
    let from = tempfile::tempdir().unwrap();
    let at = |name: &str| from.path().join(name).display().to_string();
    let bomb = noise(400);
    write(&at("disk.img"), &[b"\xeb\0", &bomb[..]].concat());
    write(
        &at("qcow2"),
        &[b"QFI\xfb\0\0\0\x03", &[0; 512][..], &bomb].concat(),
    );
    run_tool("tar", &["-C", &at(""), "-cf", &at("tar"), "disk.img"]);
    let free = host.volume.free().unwrap();
    for (name, program) in [
        ("disk.img", "zstd"),
        ("disk.img", "gzip"),
        ("qcow2", "zstd"),
        ("tar", "zstd"),
    ] {
        let mut compress = command::prepare(program);
        compress.args(["-c", &at(name)]);
        let compressed = command::run(compress, Duration::from_mins(2)).unwrap();
        assert!(compressed.len() < 4 << 20);
        write(&at("bomb"), &compressed);
        let answer = host.machinectl(&["import", "evil", &at("bomb")], b"");
        refused("compressed file -> volume", name, &answer.stderr);
        assert_eq!(answer.code, Some(16), "{answer:?}");
        assert!(host.listing().is_empty(), "{:?}", host.listing());
        let lost = free.saturating_sub(host.volume.free().unwrap());
        assert!(lost < 16 << 20, "{name}: {lost} bytes are not given back");
    }
}
