//! `machinectl init` on real loop devices, and the mounts of its files at the next boot.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::store::subvolumes::is_btrfs;
use ::sys::command::{self, prepare};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tests::hosts::{CommandOutput, run};
use tests::mount::enter_own_namespace;
use tests::write_file;

/// A directory in which volumes are created, with an `/etc` of its own as far as `init` changes it.
struct Fixture(tempfile::TempDir);

impl Fixture {
    fn new() -> Self {
        enter_own_namespace();
        let directory = tempfile::Builder::new()
            .prefix("a volume-")
            .tempdir()
            .unwrap();
        let fixture = Self(directory);
        write_file(&fixture.path("fstab"), "# no line\n");
        fs::create_dir(fixture.path("units")).unwrap();
        for (from, to) in [("fstab", "/etc/fstab"), ("units", "/etc/systemd/system")] {
            mount(
                Some(&fixture.path(from)),
                to,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
            .unwrap();
        }
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs `machinectl init` in the directory.
    fn init(&self, arguments: &[&str]) -> CommandOutput {
        let mut command = prepare(tests::program("machinectl"));
        command
            .arg("init")
            .args(arguments)
            .current_dir(self.0.path());
        run(command, b"")
    }
}

fn unmount(path: &Path) {
    umount2(path, MntFlags::empty()).unwrap();
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = umount2(&self.path("default"), MntFlags::MNT_DETACH);
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_line_in_fstab_mounts_a_new_volume_at_each_boot() {
    let fixture = Fixture::new();
    let options = ["default", "--size", "0.3 GB", "--at-boot", "fstab"];
    let plan = fixture
        .init(&[&options[..], &["--dry-run"]].concat())
        .success();
    assert!(
        plan.stdout
            .contains("would mount it at each boot by a line in /etc/fstab\n"),
        "{plan:?}"
    );
    let created = fixture.init(&options).success();
    assert!(
        created.stderr.contains("created volume default"),
        "{created:?}"
    );
    let volume = fixture.path("default");
    assert!(is_btrfs(&volume).unwrap());
    let file = fs::metadata(fixture.path("default.btrfs")).unwrap();
    assert_eq!(file.len(), 286 << 20, "a multiple of 1 MiB");

    unmount(&volume);
    assert!(!is_btrfs(&volume).unwrap());
    let mut mount = prepare("mount");
    mount.arg(&volume);
    command::run(mount, Duration::from_mins(1)).unwrap();
    assert!(is_btrfs(&volume).unwrap());
    // A repetition changes nothing.
    let before = fs::read_to_string("/etc/fstab").unwrap();
    let repeated = fixture.init(&options).success();
    assert!(
        repeated.stderr.contains("is a volume already"),
        "{repeated:?}"
    );
    assert_eq!(fs::read_to_string("/etc/fstab").unwrap(), before);
    assert_eq!(before.lines().count(), 2, "{before}");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_unit_mounts_a_new_volume_at_each_boot() {
    let fixture = Fixture::new();
    let without = fixture.init(&["default", "--size", "300M", "--at-boot", "none"]);
    let without = without.success();
    assert!(
        without
            .stderr
            .contains("nothing mounts it at the next boot"),
        "{without:?}"
    );
    assert_eq!(fs::read_dir("/etc/systemd/system").unwrap().count(), 0);
    // The volume of an earlier call gets its unit, too.
    let answer = fixture.init(&["default", "--at-boot", "unit"]).success();
    let mut escape = prepare("systemd-escape");
    escape
        .args(["--path", "--suffix=mount"])
        .arg(fixture.path("default"));
    let name = command::run(escape, Duration::from_mins(1)).unwrap();
    let name = String::from_utf8(name).unwrap();
    let units = Path::new("/etc/systemd/system");
    let unit = units.join(name.trim());
    let shown = unit.display().to_string().replace('\\', "\\\\");
    let message = format!("{shown} mounts it at each boot");
    assert!(answer.stderr.contains(&message), "{message}: {answer:?}");
    assert_eq!(
        fs::metadata(&unit).unwrap().permissions().mode() & 0o777,
        0o644
    );
    let enabled = units.join("local-fs.target.wants").join(name.trim());
    assert!(enabled.is_symlink());
    let mut verify = prepare("systemd-analyze");
    verify.args(["verify", "--man=no"]).arg(&unit);
    command::run(verify, Duration::from_mins(1)).unwrap();
}
