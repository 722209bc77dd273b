//! A build host and a development host, each on a btrfs of its own, and
//! `machinectl` as a person calls it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use store::subvolumes::{BtrfsBackend, SubvolumeBackend};
use store::{MachineView, Volume};
use sys::{command, file};

use crate::mount::Mount;

const LIMIT: Duration = Duration::from_mins(1);

/// What a call of a program came to.
#[derive(Debug)]
pub struct Answer {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Answer {
    /// The answer, if it is good.
    ///
    /// # Panics
    /// When it is not.
    #[expect(
        clippy::return_self_not_must_use,
        reason = "often that is all one asks"
    )]
    pub fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// The answer, if it is a refusal of this code with these words.
    ///
    /// # Panics
    /// When it is not.
    pub fn refused(self, code: i32, words: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.contains(words), "{self:?}");
        assert_eq!(
            self.stderr.lines().count(),
            1,
            "one clear message: {self:?}"
        );
    }
}

/// Runs a program with some input.
///
/// # Panics
/// When it cannot be run.
#[expect(clippy::expect_used, reason = "a test cannot go on without it")]
pub fn run(mut command: Command, input: &[u8]) -> Answer {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program");
    let mut stdin = child.stdin.take().expect("its input");
    let output = std::thread::scope(|scope| {
        // It may end without reading everything.
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output()
    });
    let output = output.expect("its output");
    Answer {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A host with a volume.
#[derive(Debug)]
pub struct BuildHost {
    /// The file system.
    pub mount: Mount,
    /// The volume.
    pub volume: Volume,
}

impl BuildHost {
    /// A host whose volume has so many MiB.
    ///
    /// # Panics
    /// When it cannot be made.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn new(mebibytes: u64) -> Self {
        let mount = Mount::btrfs(mebibytes);
        let volume = Volume::open(&mount.directory("machines")).expect("a volume");
        mount.directory("toolchains");
        Self { mount, volume }
    }

    /// `machinectl` on this host, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command::prepare(crate::program("machinectl"));
        command.args(arguments);
        command.env("BUILDHOST_VOLUME", self.volume.path());
        command.env("BUILDHOST_TOOLCHAINS", self.mount.path().join("toolchains"));
        command
    }

    /// Calls `machinectl` with some input.
    pub fn machinectl(&self, arguments: &[&str], input: &[u8]) -> Answer {
        run(self.command(arguments), input)
    }

    /// Looks at a machine.
    ///
    /// # Panics
    /// When it is not there.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn look(&self, machine: &str) -> MachineView {
        self.volume
            .look(&machine.parse().expect("a name"))
            .expect("a machine")
    }

    /// Everything below the volume's directory and what it is, to compare.
    pub fn listing(&self) -> Vec<String> {
        listing(self.volume.path())
    }
}

/// Everything below a volume's directory and what it is, to compare.
pub fn listing(volume: &Path) -> Vec<String> {
    let mut list = Vec::new();
    walk(volume, volume, &mut list);
    list.sort();
    list
}

#[expect(clippy::expect_used, reason = "a test cannot go on without it")]
fn walk(root: &Path, directory: &Path, list: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path
            .strip_prefix(root)
            .unwrap_or(&path)
            .display()
            .to_string();
        let subvolume = BtrfsBackend.info(&path).ok().flatten();
        let what = match (subvolume, fs::read_link(&path)) {
            (_, Ok(target)) => format!(" -> {}", target.display()),
            (Some(known), _) if known.read_only => " (read-only)".to_owned(),
            (Some(_), _) => " (writable)".to_owned(),
            _ => fs::read(&path).map_or(String::new(), |content| {
                let hash = file::digest(&content[..]).expect("a hash").to_string();
                format!(" {} bytes ({})", content.len(), &hash[..8])
            }),
        };
        list.push(format!("{name}{what}"));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(root, &path, list);
        }
    }
}

/// A host on which machine images are made.
#[derive(Debug)]
pub struct DevelopmentHost {
    mount: Mount,
}

impl DevelopmentHost {
    /// A host with so many MiB.
    pub fn new(mebibytes: u64) -> Self {
        let mount = Mount::btrfs(mebibytes);
        Self { mount }
    }

    /// Where a subvolume is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.mount.path().join(name)
    }

    /// Makes a read-only image with some files, as a change of another one if there
    /// is one.
    ///
    /// # Panics
    /// When it cannot.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
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
        BtrfsBackend.seal(&path).expect("a read-only image");
    }

    /// What `btrfs send` makes of an image.
    ///
    /// # Panics
    /// When it fails.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
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
