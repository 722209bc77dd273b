//! A build host and a development host, each on its own btrfs, and the command line on them.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use store::subvolumes::{BtrfsBackend, SubvolumeBackend};
use store::{MachineView, Volume};
use sys::{command, file};

use crate::mount::Mount;

const LIMIT: Duration = Duration::from_mins(1);

/// The end of a program: its exit code and its output.
#[derive(Debug)]
pub struct CommandOutput {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// The standard output.
    pub stdout: String,
    /// The standard error.
    pub stderr: String,
}

impl CommandOutput {
    /// Checks that the program succeeded.
    #[expect(
        clippy::return_self_not_must_use,
        reason = "most callers only check for success"
    )]
    pub fn success(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Checks that the program failed with an exit code and a single message that contains a text.
    pub fn refused(self, code: i32, text: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.contains(text), "{self:?}");
        assert_eq!(
            self.stderr.lines().count(),
            1,
            "one clear message: {self:?}"
        );
    }
}

/// Runs a program with this input to its end.
pub fn run(mut command: Command, input: &[u8]) -> CommandOutput {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program");
    let mut stdin = child.stdin.take().expect("its input");
    let output = std::thread::scope(|scope| {
        // The program may end without reading all of its input.
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output()
    });
    let output = output.expect("its output");
    CommandOutput {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A host with a volume and a directory of toolchains.
#[derive(Debug)]
pub struct BuildHost {
    /// The file system.
    pub mount: Mount,
    /// The volume.
    pub volume: Volume,
}

impl BuildHost {
    /// Creates a host whose file system has this many MiB.
    pub fn new(mebibytes: u64) -> Self {
        let mount = Mount::btrfs(mebibytes);
        let directory = mount.directory("machines");
        fs::set_permissions(&directory, Permissions::from_mode(0o700)).expect("a closed volume");
        let volume = Volume::open(&directory).expect("a volume");
        mount.directory("toolchains");
        Self { mount, volume }
    }

    /// Returns a call of `machinectl` on this host.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command::prepare(crate::program("machinectl"));
        command.args(arguments);
        command.env("BUILDHOST_VOLUME", self.volume.path());
        // The contexts of the user who runs the tests have no influence.
        command.env("XDG_CONFIG_HOME", self.mount.path().join("config"));
        command.env("BUILDHOST_TOOLCHAINS", self.mount.path().join("toolchains"));
        command
    }

    /// Runs `machinectl` with this input.
    pub fn machinectl(&self, arguments: &[&str], input: &[u8]) -> CommandOutput {
        run(self.command(arguments), input)
    }

    /// Returns the view of a machine.
    pub fn view(&self, machine: &str) -> MachineView {
        self.volume
            .view(&machine.parse().expect("a name"))
            .expect("a machine")
    }

    /// Returns [`listing`] of the volume.
    pub fn listing(&self) -> Vec<String> {
        listing(self.volume.path())
    }
}

/// Returns the sorted entries below a directory, each with its kind or a hash of its content.
pub fn listing(volume: &Path) -> Vec<String> {
    let mut list = Vec::new();
    walk(volume, volume, &mut list);
    list.sort();
    list
}

fn walk(root: &Path, directory: &Path, list: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path
            .strip_prefix(root)
            .unwrap_or(&path)
            .display()
            .to_string();
        let subvolume = BtrfsBackend.info(&path).ok().flatten();
        let description = match (subvolume, fs::read_link(&path)) {
            (_, Ok(target)) => format!(" -> {}", target.display()),
            (Some(known), _) if known.read_only => " (read-only)".to_owned(),
            (Some(_), _) => " (writable)".to_owned(),
            _ => fs::read(&path).map_or(String::new(), |content| {
                let hash = file::digest(&content[..]).expect("a hash").to_string();
                format!(" {} bytes ({})", content.len(), &hash[..8])
            }),
        };
        list.push(format!("{name}{description}"));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(root, &path, list);
        }
    }
}

/// A host on which a developer makes machine images.
#[derive(Debug)]
pub struct DevelopmentHost {
    mount: Mount,
}

impl DevelopmentHost {
    /// Creates a host with this many MiB.
    pub fn new(mebibytes: u64) -> Self {
        let mount = Mount::btrfs(mebibytes);
        Self { mount }
    }

    /// Returns the path of a subvolume.
    pub fn path(&self, name: &str) -> PathBuf {
        self.mount.path().join(name)
    }

    /// Creates a read-only image with these files, from a base image if one is given.
    pub fn image(&self, name: &str, base: Option<&str>, files: &[(&str, &[u8])]) {
        let path = self.path(name);
        match base {
            Some(base) => BtrfsBackend.snapshot(&self.path(base), &path),
            None => BtrfsBackend.create(&path),
        }
        .expect("a subvolume");
        for (file, content) in files {
            BtrfsBackend
                .write(&path.join(file), content)
                .expect("a file");
        }
        BtrfsBackend
            .make_read_only(&path)
            .expect("a read-only image");
    }

    /// Returns the send stream of an image, relative to a parent if one is given.
    pub fn send(&self, name: &str, parent: Option<&str>) -> Vec<u8> {
        let mut send = command::prepare("btrfs");
        send.args(["--quiet", "send"]);
        if let Some(parent) = parent {
            send.arg("-p").arg(self.path(parent));
        }
        send.arg(self.path(name));
        command::run(send, LIMIT).expect("btrfs send")
    }
}
