//! `machinectl import` and `export` on real btrfs.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::Duration;

use ::sys::command;
use tests::attacks::refused;
use tests::hosts::{BuildHost, run};
use tests::write_file;

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_raw_disk_with_a_kernel_is_imported_and_stays_sparse() {
    let host = BuildHost::new(256);
    let from = tempfile::tempdir().unwrap();
    let at = |name: &str| from.path().join(name).to_str().unwrap().to_owned();
    let disk = File::create(at("root.raw")).unwrap();
    disk.set_len(64 << 20).unwrap();
    write_file(&from.path().join("k"), "kernel");
    write_file(&from.path().join("i"), "initrd");
    let import = [
        "import",
        "linux",
        &at("root.raw"),
        "--kernel",
        &at("k"),
        "--initrd",
        &at("i"),
    ];
    let plan = host
        .machinectl(&[&import[..], &["--dry-run"]].concat(), b"")
        .success();
    assert!(plan.stdout.contains("would make revision 1 of"), "{plan:?}");
    assert!(host.listing().is_empty());
    host.machinectl(&import, b"").success();
    let current = host.volume.path().join("linux/linux");
    let data = fs::metadata(current.join("disk.img")).unwrap();
    assert!(data.len() == 64 << 20 && data.blocks() < 100, "{data:?}");
    let manifest = fs::read_to_string(current.join("manifest")).unwrap();
    assert!(
        manifest.contains("kernel: vmlinuz\ninitrd: initrd\n"),
        "{manifest}"
    );
    host.machinectl(&["verify", "linux"], b"").success();
    host.machinectl(&import, b"").success();
    assert_eq!(host.view("linux").current.map(|it| it.0), Some(2));
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn exported_machines_can_be_added_or_imported() {
    let host = BuildHost::new(256);
    let from = tempfile::tempdir().unwrap();
    let tree = from.path().join("tree");
    fs::create_dir(&tree).unwrap();
    write_file(&tree.join("disk.img"), "disk");
    write_file(&tree.join("manifest"), ": 1\nid: x\nsummary: y\n");
    host.machinectl(&["import", "linux", tree.to_str().unwrap()], b"")
        .success();
    for (name, verb) in [
        ("x.tar.zst", "import"),
        ("x.tar", "import"),
        ("x.btrfs", "add"),
        ("x.btrfs.zst", "add"),
    ] {
        let file = from.path().join(name);
        let file = file.to_str().unwrap();
        host.machinectl(&["export", "linux", "-o", file], b"")
            .success();
        let other = BuildHost::new(256);
        let arguments = match verb {
            "import" => vec!["import", "linux", file],
            _ => vec!["add", "linux", "--from", file],
        };
        other.machinectl(&arguments, b"").success();
        other.machinectl(&["verify", "linux"], b"").success();
    }
    let file = from.path().join("y.btrfs.zst");
    host.machinectl(&["export", "linux", "1", "-o", file.to_str().unwrap()], b"")
        .success();
    host.machinectl(&["add", "linux2", "--from", file.to_str().unwrap()], b"")
        .refused(13, "named `linux-1`");
    let mut zstd = command::prepare("zstd");
    zstd.arg("--test").arg(&file);
    run(zstd, b"").success();
    host.machinectl(&["export", "linux", "-o", "/tmp/x.zip"], b"")
        .refused(2, "must end in");
    assert_eq!(
        from.path().read_dir().unwrap().count(),
        6,
        "no incomplete files are left"
    );
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_qcow2_image_is_converted_on_import() {
    let host = BuildHost::new(256);
    let from = tempfile::tempdir().unwrap();
    let (raw, qcow) = (from.path().join("d.raw"), from.path().join("d.qcow2"));
    write_file(&raw, &"content ".repeat(512));
    let mut convert = command::prepare("qemu-img");
    convert
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .args([&raw, &qcow]);
    command::run(convert, Duration::from_mins(1)).unwrap();
    // The converter runs as another user, who may not read the second image.
    for mode in [0o644, 0o600] {
        fs::set_permissions(&qcow, Permissions::from_mode(mode)).unwrap();
        host.machinectl(&["import", "linux", qcow.to_str().unwrap()], b"")
            .success();
        let disk = host.volume.path().join("linux/linux/disk.img");
        assert_eq!(fs::read(&disk).unwrap(), fs::read(&raw).unwrap());
        let data = disk.metadata().unwrap();
        assert_eq!((data.uid(), data.gid(), data.mode() & 0o777), (0, 0, 0o644));
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn invalid_machines_are_refused_and_leave_nothing() {
    let host = BuildHost::new(256);
    let from = tempfile::tempdir().unwrap();
    let path = from.path().to_str().unwrap();
    host.machinectl(&["import", "linux", path], b"")
        .refused(3, "has neither `disk.img` nor `manifest`");
    write_file(&from.path().join("manifest"), ": 1\nid: x\ncolour: red\n");
    host.machinectl(&["import", "linux", path], b"").refused(
        3,
        "`colour` is not a value of a machine; `summary` is missing",
    );
    host.machinectl(&["import", "linux", "/no/such"], b"")
        .refused(1, "No such file");
    let tar = from.path().join("x.tar");
    write_file(&tar, "this is not an archive");
    host.machinectl(&["import", "linux", tar.to_str().unwrap()], b"")
        .refused(3, "is a text file");
    assert!(host.listing().is_empty());
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_disk_image_that_reads_other_files_is_refused() {
    let host = BuildHost::new(256);
    let from = tempfile::tempdir().unwrap();
    let at = |name: &str| from.path().join(name).display().to_string();
    write_file(&from.path().join("secret"), "TOP SECRET of the host");
    let create = |arguments: &[&str]| {
        let mut create = command::prepare("qemu-img");
        create.args(["create", "-f", "qcow2"]).args(arguments);
        command::run(create, Duration::from_mins(1)).unwrap();
    };
    create(&["-b", &at("secret"), "-F", "raw", &at("backing")]);
    let data_file = format!("data_file={},data_file_raw=on", at("data"));
    create(&["-o", &data_file, &at("external"), "1M"]);
    create(&[&at("huge"), "60T"]);
    for (image, message) in [
        ("backing", "reads another file"),
        ("external", "reads another file"),
        ("huge", "the virtual disk in"),
    ] {
        let answer = host.machinectl(&["import", "evil", &at(image)], b"");
        refused(
            "importer -> host",
            &format!("{image} image"),
            &answer.stderr,
        );
        answer.refused(3, message);
        assert!(host.listing().is_empty(), "{:?}", host.listing());
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn links_of_an_archive_are_replaced_and_not_followed() {
    let host = BuildHost::new(256);
    let from = tempfile::tempdir().unwrap();
    let at = |name: &str| from.path().join(name).display().to_string();
    let tree = from.path().join("tree");
    fs::create_dir(&tree).unwrap();
    write_file(&from.path().join("victim"), "the host's");
    write_file(&from.path().join("k"), "KERNEL");
    write_file(
        &from.path().join("m"),
        ": 1\nid: x\nsummary: y\nkernel: vmlinuz\n",
    );
    write_file(&tree.join("disk.img"), "disk");
    for name in ["vmlinuz", "manifest"] {
        symlink(at("victim"), tree.join(name)).unwrap();
    }
    let mut tar = command::prepare("tar");
    tar.args(["-cf", &at("evil.tar"), "-C", tree.to_str().unwrap(), "."]);
    command::run(tar, Duration::from_mins(1)).unwrap();
    let import = ["import", "evil", &at("evil.tar")];
    // The manifest is a link.
    let answer = host.machinectl(&import, b"");
    assert!(
        answer.code != Some(0) && answer.stderr.contains("symbolic link"),
        "{answer:?}"
    );
    refused("importer -> host", "manifest: a link", &answer.stderr);
    let files = ["--kernel", &at("k"), "--manifest", &at("m")];
    host.machinectl(&[&import[..], &files].concat(), b"")
        .success();
    assert_eq!(fs::read_to_string(at("victim")).unwrap(), "the host's");
    refused(
        "importer -> host",
        "write through links",
        "links are replaced",
    );
    let current = host.volume.path().join("evil/evil");
    let kernel = current.join("vmlinuz");
    assert!(kernel.symlink_metadata().unwrap().is_file());
    assert_eq!(fs::read_to_string(kernel).unwrap(), "KERNEL");
}
