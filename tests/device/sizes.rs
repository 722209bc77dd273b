//! The sizes of machines and revisions on real btrfs.

use ::store::SubvolumeBackend;
use ::store::subvolumes::BtrfsBackend;
use serde_json::Value;
use tests::hosts::BuildHost;

const MIB: u64 = 1 << 20;

/// Returns a host with a machine of two revisions, which share 4 MiB; the first one has 1 MiB of
/// its own, the second one 2 MiB.
fn host() -> BuildHost {
    let host = BuildHost::new(256);
    let work = host.mount.path().join("work");
    BtrfsBackend.create(&work).unwrap();
    let write = |name: &str, mebibytes: u64| {
        let content = vec![1; usize::try_from(mebibytes * MIB).unwrap()];
        BtrfsBackend.write(&work.join(name), &content).unwrap();
    };
    write("shared", 4);
    write("own", 1);
    let from = work.display().to_string();
    let add = ["add", "linux", "--from", &from];
    host.machinectl(&add, b"").success();
    write("own", 2);
    let upgrade = ["upgrade", "linux", "--from", &from];
    host.machinectl(&upgrade, b"").success();
    libbtrfsutil::delete_subvolume(&work).unwrap();
    libbtrfsutil::sync(host.mount.path()).unwrap();
    host
}

fn json(host: &BuildHost, arguments: &[&str]) -> Value {
    let output = host.machinectl(arguments, b"").success();
    serde_json::from_str(&output.stdout).unwrap()
}

/// Returns a number of bytes in MiB, without the file systems' rounding.
fn mebibytes(value: &Value) -> u64 {
    value.as_u64().unwrap() / MIB
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn sizes_are_counted_on_request_and_null_otherwise() {
    let host = host();
    let status = json(&host, &["status", "linux", "--json", "--sizes"]);
    assert_eq!(mebibytes(&status["bytes"]), 7, "{status:#}");
    let sizes = |revision: &Value| {
        let sizes = [&revision["bytes"], &revision["bytes_exclusive"]];
        sizes.map(mebibytes)
    };
    assert_eq!(sizes(&status["revisions"][0]), [5, 1], "{status:#}");
    assert_eq!(sizes(&status["revisions"][1]), [6, 2], "{status:#}");
    let volume = &status["volume"];
    assert_eq!(mebibytes(&volume["bytes"]), 256, "{status:#}");
    assert!(
        (100..256).contains(&mebibytes(&volume["bytes_free"])),
        "{status:#}"
    );

    let status = json(&host, &["status", "linux", "--json"]);
    assert_eq!(status["bytes"], Value::Null);
    assert_eq!(status["revisions"][0]["bytes_exclusive"], Value::Null);
    let list = json(&host, &["list", "--json", "--sizes"]);
    assert_eq!(mebibytes(&list[0]["bytes"]), 7, "{list:#}");
    let list = json(&host, &["list", "--json"]);
    assert_eq!(list[0]["bytes"], Value::Null);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn sizes_are_columns_of_the_tables() {
    let host = host();
    let text = |arguments: &[&str]| host.machinectl(arguments, b"").success().stdout;
    let list = text(&["list", "--sizes"]);
    let mut lines = list.lines();
    let headings = "MACHINE  CURRENT  REVISIONS  SIZE   TOOLCHAINS  BUILDS  STATE";
    assert_eq!(lines.next(), Some(headings), "{list}");
    assert!(
        list.contains("linux    2        2          7 MiB  "),
        "{list}"
    );
    assert!(!text(&["list"]).contains("SIZE"));

    let status = text(&["status", "linux", "--sizes"]);
    assert!(
        status.contains("size: 7 MiB\nfree in the volume: "),
        "{status}"
    );
    assert!(status.contains("SIZE   OWN    UUID"), "{status}");
    assert!(status.contains("6 MiB  2 MiB  "), "{status}");
    let status = text(&["status", "linux"]);
    assert!(
        status.contains(" of 256 MiB\n") && !status.contains("OWN"),
        "{status}"
    );
}
