//! `machinectl diff` on real btrfs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use ::store::SubvolumeBackend;
use ::store::subvolumes::BtrfsBackend;
use serde_json::{Value, json};
use tests::hosts::BuildHost;
use tests::write_file;

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn revisions_are_compared_by_their_content_manifests() {
    let host = BuildHost::new(256);
    let tree = host.mount.directory("tree");
    write_file(&tree.join("manifest"), ": 1\nid: linux\nsummary: Linux\n");
    write_file(&tree.join("disk.img"), "disk");
    write_file(&tree.join("old"), "old");
    let import = ["import", "linux", tree.to_str().unwrap()];
    host.machinectl(&import, b"").success();
    host.machinectl(&import, b"").success();
    let diff = |revisions: [&str; 2], options: &[&str]| {
        let command = [&["diff", "linux"], &revisions[..], options].concat();
        host.machinectl(&command, b"")
    };
    let same = diff(["1", "2"], &[]).success();
    assert_eq!(same.stdout, "");
    assert!(same.stderr.contains("have the same content"), "{same:?}");

    write_file(&tree.join("disk.img"), &"disk".repeat(512));
    fs::set_permissions(tree.join("disk.img"), Permissions::from_mode(0o640)).unwrap();
    fs::remove_file(tree.join("old")).unwrap();
    write_file(&tree.join("new file"), "new");
    host.machinectl(&import, b"").success();
    let text = diff(["2", "3"], &[]);
    let line = "changed  1 KiB   2 KiB  disk.img    has another content, has another mode";
    assert!(text.stdout.contains(line), "{text:?}");
    text.refused(
        23,
        "revision 3 of linux differs from revision 2: 1 added, 1 missing, 1 changed",
    );
    let found = diff(["2", "3"], &["--json", "-q"]);
    assert_eq!(found.code, Some(23));
    let found: Value = serde_json::from_str(&found.stdout).unwrap();
    let entry = |name, change, before: Value, after: Value, differences: &[&str]| {
        json!({
            "name": name, "change": change, "bytes_before": before, "bytes_after": after,
            "differences": differences,
        })
    };
    let changed = ["has another content", "has another mode"];
    let expected = json!({
        "machine": "linux", "older": 2, "newer": 3,
        "differences": [
            entry("disk.img", "changed", json!(4), json!(2048), &changed),
            entry("new%20file", "added", Value::Null, json!(3), &["was added"]),
            entry("old", "missing", json!(3), Value::Null, &["is missing"]),
        ],
    });
    assert_eq!(found, expected);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_revision_without_a_content_manifest_is_not_compared() {
    let host = BuildHost::new(256);
    let work = host.mount.path().join("work");
    BtrfsBackend.create(&work).unwrap();
    let add = ["add", "linux", "--from", work.to_str().unwrap()];
    host.machinectl(&add, b"").success();
    host.machinectl(&["diff", "linux", "1", "1"], b"").refused(
        3,
        "has no content manifest; `buildhost record linux 1` records its content",
    );
    host.machinectl(&["diff", "linux", "1", "2"], b"")
        .refused(3, "has no content manifest");
    host.machinectl(&["diff", "linux", "2", "1"], b"")
        .refused(10, "has no complete revision 2");
    host.machinectl(&["diff", "other", "1", "2"], b"")
        .refused(10, "there is no machine `other`");
}
