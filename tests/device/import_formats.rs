//! `machinectl import` and `add` by content: every format in every compression, and what is refused.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ::sys::command;
use config::task::Digest;
use rustix::fs::FileType;
use tempfile::TempDir;
use tests::hosts::{BuildHost, run};
use tests::random::Xorshift;
use tests::special_files::make_node;
use tests::terminal::Terminal;
use tests::write_file;

/// The formats of disk images, as options of `qemu-img convert`.
const FORMATS: [(&str, &[&str]); 9] = [
    ("raw", &["raw"]),
    ("qcow2", &["qcow2"]),
    ("compressed qcow2", &["qcow2", "-c"]),
    ("vmdk", &["vmdk"]),
    ("stream vmdk", &["vmdk", "-o", "subformat=streamOptimized"]),
    ("vdi", &["vdi"]),
    ("vhd", &["vpc", "-o", "force_size=on"]),
    ("fixed vhd", &["vpc", "-o", "subformat=fixed,force_size=on"]),
    ("vhdx", &["vhdx"]),
];
/// The programs that compress a file, as the option `-c` tells them.
const COMPRESSORS: [&str; 4] = ["xz", "zstd", "gzip", "bzip2"];
/// The size of the disk.
const BYTES: usize = 4 << 20;

/// A directory with files to import.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn name(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes a disk with data at its start and its end, and a hole between.
    fn disk(&self, name: &str) -> Vec<u8> {
        let mut bytes = vec![0; BYTES];
        let mut random = Xorshift::new(1);
        bytes[..70_000].copy_from_slice(&random.bytes(70_000));
        bytes[510..512].copy_from_slice(b"\x55\xaa");
        bytes[BYTES - 5000..].copy_from_slice(&random.bytes(5000));
        self.write(name, &bytes);
        bytes
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let file = File::create(self.path(name)).unwrap();
        file.write_all_at(bytes, 0).unwrap();
    }

    /// Compresses a file to another one.
    fn compress(&self, program: &str, from: &str, to: &str) {
        let mut compress = command::prepare(program);
        compress.arg("-c");
        compress.stdin(File::open(self.path(from)).unwrap());
        self.write(to, &finish(compress));
    }

    fn convert(&self, options: &[&str], from: &str, to: &str) {
        let mut convert = command::prepare("qemu-img");
        convert.args(["convert", "-f", "raw", "-O"]).args(options);
        finish_with(convert, &[&self.path(from), &self.path(to)]);
    }

    /// Writes an archive of entries of a directory.
    fn archive(&self, directory: &str, entries: &[&str], to: &str) {
        let mut tar = command::prepare("tar");
        tar.arg("-C").arg(self.path(directory)).args(["-cf", "-"]);
        self.write(to, &finish_with(tar, entries));
    }
}

fn finish(command: Command) -> Vec<u8> {
    command::run(command, Duration::from_mins(1)).unwrap()
}

fn finish_with<T: AsRef<std::ffi::OsStr>>(mut command: Command, arguments: &[T]) -> Vec<u8> {
    command.args(arguments);
    finish(command)
}

/// Returns the names of the files of the current revision.
fn current_files(host: &BuildHost) -> Vec<String> {
    let entries = fs::read_dir(host.volume.path().join("linux/linux")).unwrap();
    let names = entries.map(|it| it.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn disk_images_of_all_formats_and_compressions_become_the_same_disk() {
    let (host, files) = (BuildHost::new(1024), Files::new());
    let expected = files.disk("disk");
    for (number, (format, options)) in FORMATS.into_iter().enumerate() {
        // The names say nothing, and look like options and URLs.
        let name = format!("-x:{number}.tar");
        files.convert(options, "disk", &name);
        let mut names = vec![name.clone()];
        for program in COMPRESSORS {
            names.push(format!("{program}:{number}.iso"));
            files.compress(program, &name, &names[names.len() - 1]);
        }
        for name in names {
            let mut import = host.command(&["import", "linux", "--", &name]);
            import.current_dir(files.0.path());
            let output = run(import, b"").success();
            assert!(!output.stderr.contains("warning"), "{format}: {output:?}");
            let disk = host.volume.path().join("linux/linux/disk.img");
            assert!(fs::read(&disk).unwrap() == expected, "{format}: {name}");
            let data = disk.metadata().unwrap();
            assert!(data.blocks() < 1000, "{format}: {name}: {data:?}");
            assert_eq!((data.uid(), data.gid(), data.mode() & 0o777), (0, 0, 0o644));
            assert_eq!(
                current_files(&host),
                ["contents.b3", "disk.img", "manifest"],
                "{format}: {name}"
            );
        }
        host.machinectl(&["prune", "linux", "--keep", "1"], b"")
            .success();
    }
    host.machinectl(&["verify", "linux"], b"").success();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn exports_and_archives_are_recognized_in_all_compressions() {
    let (host, files) = (BuildHost::new(512), Files::new());
    let expected = files.disk("disk");
    host.machinectl(&["import", "linux", &files.name("disk")], b"")
        .success();
    for form in ["tar", "btrfs"] {
        let exported = format!("e.{form}");
        host.machinectl(&["export", "linux", "-o", &files.name(&exported)], b"")
            .success();
        let mut names = vec![exported.clone()];
        for program in COMPRESSORS {
            names.push(format!("{form}-{program}.img"));
            files.compress(program, &exported, &names[names.len() - 1]);
        }
        for name in names {
            let other = BuildHost::new(256);
            let (path, content) = (files.name(&name), fs::read(files.path(&name)).unwrap());
            let (arguments, input) = match form {
                "tar" => (vec!["import", "linux", &path], &b""[..]),
                _ => (vec!["add", "linux", "--from", "-"], &content[..]),
            };
            let other_form = match form {
                "tar" => vec!["add", "linux", "--from", &path],
                _ => vec!["import", "linux", &path],
            };
            let wrong = other.machinectl(&other_form, b"");
            match form {
                "tar" => wrong.refused(14, "no `btrfs send` stream"),
                _ => wrong.refused(3, "`buildhost add NAME --from FILE`"),
            }
            assert!(other.listing().is_empty(), "{name}");
            other.machinectl(&arguments, input).success();
            other.machinectl(&["verify", "linux"], b"").success();
            let disk = other.volume.path().join("linux/linux/disk.img");
            assert!(fs::read(disk).unwrap() == expected, "{name}");
            if form == "btrfs" {
                other.machinectl(&["delete", "linux"], b"").success();
                other
                    .machinectl(&["add", "linux", "--from", &path], b"")
                    .success();
            }
        }
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn damaged_compressed_files_are_refused_and_leave_nothing() {
    let (host, files) = (BuildHost::new(256), Files::new());
    files.disk("disk");
    host.machinectl(&["import", "linux", &files.name("disk")], b"")
        .success();
    for (form, arguments) in [
        ("tar", ["import", "new"].as_slice()),
        ("btrfs", &["add", "linux", "--from"]),
    ] {
        host.machinectl(
            &["export", "linux", "-o", &files.name(&format!("e.{form}"))],
            b"",
        )
        .success();
        let other = BuildHost::new(256);
        for program in COMPRESSORS {
            files.compress(program, &format!("e.{form}"), "whole");
            let whole = fs::read(files.path("whole")).unwrap();
            for length in [10, whole.len() / 2, whole.len() - 200] {
                files.write("cut", &whole[..length]);
                let path = files.name("cut");
                let arguments = [arguments, &[path.as_str()]].concat();
                other
                    .machinectl(&arguments, b"")
                    .refused(14, "damaged or ends too early");
                assert!(other.listing().is_empty(), "{form} {program} {length}");
            }
        }
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn files_that_are_no_machine_are_refused_by_name_and_leave_nothing() {
    let (host, files) = (BuildHost::new(256), Files::new());
    let mut iso = vec![0xeb; 40_000];
    iso[0x8001..0x8006].copy_from_slice(b"CD001");
    let mut kernel = vec![0xeb; 1024];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    let contents: [(&str, &[u8], &str); 8] = [
        ("empty", b"", "is empty"),
        ("iso.raw", &iso, "is an ISO 9660 image"),
        ("elf.qcow2", b"\x7fELF\x02\x01\x01\0\0", "is an ELF file"),
        (
            "text.img",
            b"<html>404 Not Found</html>\n",
            "is a text file",
        ),
        ("zip.img", b"PK\x03\x04\x14\0\0\0", "is a zip archive"),
        ("kernel.img", &kernel, "is a Linux kernel"),
        (
            "lz4.img",
            b"\x04\x22\x4d\x18\x64\x40",
            "compressed with lz4",
        ),
        (
            "stream.tar",
            b"btrfs-stream\0\x01\0\0\0",
            "`btrfs send` stream",
        ),
    ];
    let refused = |path: &str, code: i32, text: &str| {
        let answer = host.machinectl(&["import", "linux", path], b"");
        assert!(answer.stderr.contains(path), "{answer:?}");
        answer.refused(code, text);
        assert!(host.listing().is_empty(), "{path}: {:?}", host.listing());
    };
    for (name, bytes, text) in contents {
        files.write(name, bytes);
        refused(&files.name(name), 3, text);
        for program in ["gzip", "xz"] {
            let compressed = format!("{name}.{program}");
            files.compress(program, name, &compressed);
            refused(&files.name(&compressed), 3, text);
        }
    }
    files.compress("zstd", "text.img.gzip", "twice");
    refused(&files.name("twice"), 3, "is compressed, too");
    make_node(&files.path("pipe"), FileType::Fifo, (0, 0));
    refused(&files.name("pipe"), 3, "neither a regular file");
    refused(&files.name("missing"), 1, "No such file");
    refused("/dev/null", 3, "neither a regular file");
    let plan = ["import", "linux", &files.name("empty"), "--dry-run"];
    host.machinectl(&plan, b"").refused(3, "is empty");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn files_without_a_machine_say_what_is_missing() {
    let (host, files) = (BuildHost::new(256), Files::new());
    for directory in ["tree/top", "other", "layout/blobs", "empty"] {
        fs::create_dir_all(files.path(directory)).unwrap();
    }
    write_file(&files.path("tree/top/disk.img"), "disk");
    write_file(&files.path("other/data"), "data");
    write_file(&files.path("other/more"), "data");
    write_file(&files.path("layout/oci-layout"), "{}");
    let manifest = ": 1\nid: x\nsummary: y\nkernel: vmlinuz\n";
    write_file(&files.path("manifest"), manifest);
    files.archive("tree", &["top"], "top.tar");
    files.archive("other", &["data", "more"], "other.tar");
    files.archive("layout", &["oci-layout", "blobs"], "layout.tar");
    files.archive(".", &["manifest"], "manifest.tar");
    files.compress("bzip2", "top.tar", "top");
    let neither = "has neither `disk.img` nor `manifest`, and a machine needs one of them";
    for (source, text) in [
        ("top.tar", "its files lie in `top/`"),
        ("top", "its files lie in `top/`"),
        ("tree", "its files lie in `top/`"),
        ("other.tar", neither),
        ("other", neither),
        ("empty", neither),
        ("layout", "is an OCI image"),
        ("layout.tar", "is an OCI image"),
        ("manifest.tar", "lacks `vmlinuz`, which its manifest names"),
    ] {
        let path = files.name(source);
        let answer = host.machinectl(&["import", "linux", &path], b"");
        assert!(answer.stderr.contains(&path), "{answer:?}");
        answer.refused(3, text);
        assert!(host.listing().is_empty(), "{source}: {:?}", host.listing());
    }
    host.machinectl(&["import", "linux", &files.name("tree/top")], b"")
        .success();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn images_that_are_parts_of_a_disk_are_refused() {
    let (host, files) = (BuildHost::new(256), Files::new());
    files.disk("disk");
    let split = |form: &str| {
        [
            "vmdk".to_owned(),
            "-o".to_owned(),
            format!("subformat={form}"),
        ]
    };
    for (form, name) in [
        ("monolithicFlat", "flat"),
        ("twoGbMaxExtentSparse", "split"),
        ("twoGbMaxExtentFlat", "flats"),
    ] {
        let options = split(form);
        let options = options.each_ref().map(String::as_str);
        files.convert(&options, "disk", name);
    }
    let mut child = command::prepare("qemu-img");
    child.args(["create", "-f", "vmdk", "-F", "vmdk", "-b"]);
    files.convert(&["vmdk"], "disk", "base");
    finish_with(child, &[files.path("base"), files.path("child")]);
    // A type 4 in the header and a checksum of what is there before make a VHD with a parent.
    files.convert(&["vpc"], "disk", "vhd");
    let vhd = File::options().write(true).open(files.path("vhd")).unwrap();
    vhd.write_all_at(&[4], 63).unwrap();
    files.compress("gzip", "flat", "flat.gz");
    for (name, text) in [
        ("flat", "is one of several files of a disk"),
        ("flat.gz", "is one of several files of a disk"),
        ("split", "is one of several files of a disk"),
        ("split-s001", "is one of several files of a disk"),
        ("flats", "is one of several files of a disk"),
        ("child", "reads another file"),
        ("vhd", "holds only the differences"),
    ] {
        host.machinectl(&["import", "linux", &files.name(name)], b"")
            .refused(3, text);
        assert!(host.listing().is_empty(), "{name}: {:?}", host.listing());
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_published_checksum_is_verified() {
    let (host, files) = (BuildHost::new(256), Files::new());
    let bytes = files.disk("disk.raw");
    let sums = |hash: &Digest| {
        let text = format!("{}  other\n{hash} *disk.raw\n", "0".repeat(64));
        write_file(&files.path("SHA256SUMS"), &text);
    };
    let import = ["import", "linux", &files.name("disk.raw")];
    sums(&::sys::file::digest_of(b"other"));
    host.machinectl(&import, b"").refused(14, "SHA256SUMS");
    assert!(host.listing().is_empty());
    sums(&::sys::file::digest_of(&bytes));
    let output = host.machinectl(&import, b"").success();
    assert!(
        output.stderr.contains("has the SHA-256 that `SHA256SUMS`"),
        "{output:?}"
    );
    // A file that is not listed has no checksum.
    fs::rename(files.path("disk.raw"), files.path("new.raw")).unwrap();
    let output = host
        .machinectl(&["import", "linux", &files.name("new.raw")], b"")
        .success();
    assert!(!output.stderr.contains("SHA256SUMS"), "{output:?}");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_blank_disk_is_imported_with_a_warning() {
    let (host, files) = (BuildHost::new(256), Files::new());
    files.write("disk", &vec![0; 200_000]);
    files.compress("xz", "disk", "disk.xz");
    files.convert(&["vdi"], "disk", "disk.vdi");
    for name in ["disk", "disk.xz", "disk.vdi"] {
        let output = host
            .machinectl(&["import", "linux", &files.name(name)], b"")
            .success();
        assert!(
            output.stderr.contains("warning: the disk in") && output.stderr.contains(name),
            "{output:?}"
        );
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_progress_of_an_import_is_shown_on_a_terminal() {
    let (host, files) = (BuildHost::new(1024), Files::new());
    let mut random = Xorshift::new(3);
    let noise = random.bytes(1 << 20);
    files.write("disk", &noise.repeat(30));
    files.compress("bzip2", "disk", "disk.bz2");
    let path = files.name("disk.bz2");
    let terminal = Terminal::start(host.command(&["import", "linux", &path]));
    terminal.wait_for(" MiB of about ");
    terminal.wait_for("revision 1 is now current");
    assert!(Path::new(&path).exists());
}
