//! Machines whose init is a shell script of the test: the demo's kernel, or a container, with
//! busybox.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use config::machine::Machine;
use sys::command;
use tempfile::TempDir;

/// The part of a machine's init before the script of the test.
const PROLOGUE: &str = "#!/bin/busybox sh
/bin/busybox mkdir -p /bin /tmp
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
while read -r module; do insmod \"$module\"; done </modules/order
ip link set lo up
ip address add 169.254.111.1/24 dev eth0
ip link set eth0 up
host=169.254.111.222
cd /tmp
";

/// The manifest of the machine that [`machine`] creates.
pub const MANIFEST: &str = ": 1\nid: test\nsummary: a test\nram-minimum: 131072\nkernel: vmlinuz\n\
                            initrd: initrd\ncmdline: console=ttyS0 quiet panic=-1\n";

/// Creates the files of a virtual machine that runs a script and powers off.
pub fn machine(script: &str) -> (TempDir, Machine) {
    let directory = tempfile::tempdir().expect("a directory");
    let demo = demo_machine();
    let path = |name: &str| directory.path().join(name);
    fs::copy(demo.join("vmlinuz"), path("vmlinuz")).expect("the kernel");
    fs::copy(demo.join("initrd"), path("initrd")).expect("the RAM disk");
    let text = format!("{PROLOGUE}{script}\npoweroff -f\n");
    append_init(&path("initrd"), &text);
    let disk = File::create(path("disk.img")).expect("a disk");
    disk.set_len(16 << 20).expect("a disk");
    (directory, Machine::parse(MANIFEST).expect("a manifest"))
}

/// Creates the files of a container that runs a script and powers off.
pub fn container(script: &str) -> (TempDir, Machine) {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().join("root");
    for name in ["bin", "sbin", "usr", "dev", "proc", "sys", "run", "tmp"] {
        fs::create_dir_all(root.join(name)).expect("a directory");
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox");
    let prologue = "#!/bin/busybox sh\n/bin/busybox --install -s /bin\n\
                    export PATH=/bin\nhost=169.254.111.222\ncd /tmp\n";
    let init = root.join("sbin/init");
    crate::write_file(&init, &format!("{prologue}{script}\npoweroff -f\n"));
    fs::set_permissions(&init, Permissions::from_mode(0o755)).expect("a script");
    let manifest = ": 1\nid: test\nsummary: a test\ntype: nspawn\nram-minimum: 131072\n";
    (directory, Machine::parse(manifest).expect("a manifest"))
}

/// Builds the demo's machine, if it is missing, and returns its directory.
fn demo_machine() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let out = root.join("target/test-machine");
    let mut make = command::prepare(root.join("scripts/make-machine"));
    make.arg(&out);
    command::run(make, Duration::from_mins(5)).expect("the demo's machine");
    out
}

/// Appends an archive to a RAM disk. Its `/init` replaces that of the first archive.
fn append_init(initrd: &Path, script: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let init = directory.path().join("init");
    File::create(&init)
        .and_then(|mut file| file.write_all(script.as_bytes()))
        .expect("a script");
    fs::set_permissions(&init, Permissions::from_mode(0o755)).expect("a script");
    let mut cpio = command::prepare("cpio");
    cpio.args(["--create", "--format=newc", "--quiet"])
        .current_dir(&directory)
        .stdin(Stdio::piped())
        .stdout(
            File::options()
                .append(true)
                .open(initrd)
                .expect("the RAM disk"),
        );
    let mut running = command::Running::start(cpio).expect("cpio");
    let mut stdin = running.child.stdin.take().expect("a pipe");
    stdin.write_all(b"init\n").expect("a name");
    drop(stdin);
    running.finish(Duration::from_mins(1)).expect("an archive");
}
