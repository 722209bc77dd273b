//! The making of a machine's files, by a plan.

use std::fs;
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use config::machine::{FILE as MANIFEST, Kind};
use sys::command;
use sys::mount_view::{MountView, clone_mount};
use sys::user_namespace::{Ended, UserNamespace};

use crate::error::DistributionError;
use crate::plan::{ARCHIVE, GUEST, INITRD, Plan, ROOT, WORK};
use crate::request::Recipe;
use crate::work_directory::WorkDirectory;
use crate::worker::WorkerProgram;

/// The time limit of a recipe, whose mirror may be slow, and of the packing of a machine.
const LIMIT: Duration = Duration::from_hours(2);
/// The built-in files of [`GUEST`].
const FILES: [(&str, &str); 4] = [
    ("assemble", include_str!("../files/assemble")),
    ("debian", include_str!("../files/debian")),
    ("guest", include_str!("../files/guest")),
    (
        "buildhost.service",
        include_str!("../files/buildhost.service"),
    ),
];
/// The files of the host that installers read: keys, certificates, and the way to the network.
const HOST_FILES: [&str; 24] = [
    "/etc/alternatives",
    "/etc/apt",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/dnf",
    "/etc/dpkg",
    "/etc/gai.conf",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/mke2fs.conf",
    "/etc/nsswitch.conf",
    "/etc/pacman.conf",
    "/etc/pacman.d",
    "/etc/passwd",
    "/etc/pki",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl",
    "/etc/zypp",
    "/dev/fd",
    "/sys",
];
const DEVICES: [&str; 5] = [
    "/dev/full",
    "/dev/random",
    "/dev/tty",
    "/dev/urandom",
    "/dev/zero",
];
/// The number of lines in the message about a failure.
const REASONS_MAX: usize = 6;
/// The permissions of a program for other users.
const RUNNABLE_BY_ALL: u32 = 0o005;
/// The permission of a directory for other users.
const ENTERED_BY_ALL: u32 = 0o001;

/// A machine in the making.
#[derive(Debug)]
pub struct Making<'a> {
    plan: &'a Plan,
    work: WorkDirectory,
    namespace: UserNamespace,
    /// The directory of the namespace's root.
    inside: PathBuf,
}

/// The files of a machine, until this is dropped.
#[derive(Debug)]
pub struct MadeMachine {
    /// The directory, or the archive of a container's root, that an import reads.
    pub path: PathBuf,
    /// The machine's manifest.
    pub manifest: PathBuf,
    _work: WorkDirectory,
}

impl<'a> Making<'a> {
    /// Prepares the making of a machine below a directory with space for it.
    ///
    /// # Errors
    /// The caller is not root, a program or the recipe is missing, or the directory is unusable.
    pub fn prepare(
        recipe: &Recipe,
        plan: &'a Plan,
        worker: &WorkerProgram,
        parent: &Path,
    ) -> Result<Self, DistributionError> {
        if !rustix::process::geteuid().is_root() {
            return Err(DistributionError::NeedsRoot);
        }
        check_programs(recipe, plan.kind)?;
        let failed = |operation| DistributionError::file(operation, parent);
        let namespace = UserNamespace::create().map_err(DistributionError::Confine)?;
        let work = WorkDirectory::create(parent).map_err(failed("create a directory in"))?;
        let inside = work.create_for("inside", namespace.root());
        let inside = inside.map_err(failed("create a directory in"))?;
        for (name, user) in [
            ("guest", 0),
            ("machine", 0),
            ("tmp", namespace.root()),
            ("shm", namespace.root()),
            ("inside/root", namespace.root()),
            ("inside/out", namespace.root()),
        ] {
            let created = work.create_for(name, user);
            created.map_err(failed("create a directory in"))?;
        }
        let guest = work.path().join("guest");
        let built_in = FILES.map(|(name, text)| (name, text.as_bytes()));
        for (name, content) in built_in
            .iter()
            .chain([&("buildhost-worker", &*worker.content)])
        {
            write(&guest.join(name), content, 0o755)?;
        }
        Ok(Self {
            plan,
            work,
            namespace,
            inside,
        })
    }

    /// Runs the recipe and packs its result. Passes on each line that the recipe prints.
    ///
    /// # Errors
    /// The recipe or the packing fails, or the result has no machine.
    pub fn run(self, on_line: impl FnMut(&str) + Send) -> Result<MadeMachine, DistributionError> {
        let mut recipe = command::prepare(&self.plan.recipe);
        recipe.arg(ROOT);
        self.run_inside(recipe, self.plan.subject(), on_line)?;
        let mut assemble = command::prepare(Path::new(GUEST).join("assemble"));
        assemble.args(&self.plan.assemble);
        self.run_inside(assemble, "the packing of the machine", |_| {})?;
        let machine = self.work.path().join("machine");
        for &(name, is_required) in self.plan.files {
            self.collect(name, is_required, &machine)?;
        }
        let manifest = self.work.path().join(MANIFEST);
        let text = self.plan.manifest(machine.join(INITRD).is_file());
        write(&manifest, text.as_bytes(), 0o644)?;
        Ok(MadeMachine {
            path: match self.plan.kind {
                Kind::Kvm => machine,
                Kind::Nspawn => machine.join(ARCHIVE),
            },
            manifest,
            _work: self.work,
        })
    }

    /// Runs a program as root of the namespace.
    fn run_inside(
        &self,
        mut program: Command,
        subject: &str,
        on_line: impl FnMut(&str) + Send,
    ) -> Result<(), DistributionError> {
        program.env_clear().current_dir(WORK);
        program.envs([("LC_ALL", "C"), ("HOME", WORK), ("TMPDIR", "/tmp")]);
        program.env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
        program.envs(
            self.plan
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        );
        let view = self.view().map_err(DistributionError::Confine)?;
        let ended = self.namespace.run(view, program, LIMIT, on_line);
        conclude(ended.map_err(DistributionError::Confine)?, subject)
    }

    /// Returns the files that the recipe sees.
    fn view(&self) -> std::io::Result<MountView> {
        let mut view = MountView::of_programs();
        view.add_host_paths(HOST_FILES);
        // The target of a link lies elsewhere: systemd's in /run.
        let linked = HOST_FILES
            .iter()
            .filter_map(|path| fs::canonicalize(path).ok());
        view.add_host_paths(linked.filter(|path| !path.starts_with("/etc") && path.is_file()));
        for device in DEVICES {
            view.add_device(device);
        }
        view.mount(clone_mount(&self.work.path().join("guest"))?, GUEST);
        view.mount_writable(clone_mount(&self.inside)?, WORK);
        // Beside the directory of the namespace's root, who could make links of those in it.
        for (directory, target) in [("tmp", "/tmp"), ("shm", "/dev/shm")] {
            view.mount_writable(clone_mount(&self.work.path().join(directory))?, target);
        }
        // It may lie below the others.
        if let Some(directory) = &self.plan.recipe_directory {
            view.mount(clone_mount(directory)?, directory);
        }
        Ok(view)
    }

    /// Moves a result to the machine's files. It is a regular file below the work directory, and
    /// the namespace's users lose it.
    fn collect(
        &self,
        name: &'static str,
        is_required: bool,
        machine: &Path,
    ) -> Result<(), DistributionError> {
        let result = Path::new("inside/out").join(name);
        // The directory may be a link, too. It stays as it is: no process of the namespace runs.
        let file = match sys::untrusted::open(self.work.path(), &result) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_required => {
                return Ok(());
            }
            file => file.map_err(|source| DistributionError::NoFile { name, source })?,
        };
        let from = self.work.path().join(result);
        fchown(&file, Some(0), Some(0))
            .and_then(|()| file.set_permissions(fs::Permissions::from_mode(0o644)))
            .and_then(|()| fs::rename(&from, machine.join(name)))
            .map_err(DistributionError::file("move", from))
    }
}

/// Checks that the programs that the plan needs are installed.
fn check_programs(recipe: &Recipe, kind: Kind) -> Result<(), DistributionError> {
    let debian = ("mmdebstrap", "mmdebstrap");
    let disk = ("mke2fs", "e2fsprogs");
    let debian = matches!(recipe, Recipe::Debian(_)).then_some(debian);
    let disk = (kind == Kind::Kvm).then_some(disk);
    for (program, package) in debian.into_iter().chain(disk) {
        // `PATH` of users has no directory for programs of root.
        let is_installed = command::find(program).is_some()
            || Path::new("/usr/sbin").join(program).is_file()
            || Path::new("/sbin").join(program).is_file();
        if !is_installed {
            return Err(DistributionError::MissingProgram { program, package });
        }
    }
    let Recipe::File(file) = recipe else {
        return Ok(());
    };
    let mode = |path: &Path| {
        path.symlink_metadata()
            .map_or(0, |it| it.permissions().mode())
    };
    let directory = file.parent().unwrap_or(Path::new("/"));
    let is_usable = file.is_file()
        && mode(file) & RUNNABLE_BY_ALL == RUNNABLE_BY_ALL
        && mode(directory) & ENTERED_BY_ALL != 0;
    if is_usable {
        Ok(())
    } else {
        Err(DistributionError::UnusableRecipe(file.clone()))
    }
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), DistributionError> {
    sys::file::replace(path, content)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .map_err(DistributionError::file("write", path))
}

fn conclude(ended: Ended, subject: &str) -> Result<(), DistributionError> {
    let end = match ended.status {
        Some(status) if status.success() => return Ok(()),
        Some(status) => status.to_string(),
        None => format!("it took longer than {} hours", LIMIT.as_secs() / 3600),
    };
    Err(DistributionError::Failed {
        subject: subject.to_owned(),
        end,
        last_lines: reasons(ended.last_lines),
    })
}

/// Returns the last lines of a program without those that mmdebstrap marks as information and
/// warnings, unless it has printed only such ones.
fn reasons(lines: Vec<String>) -> Vec<String> {
    let is_reason = |line: &&String| !line.starts_with("I: ") && !line.starts_with("W: ");
    let found: Vec<_> = lines.iter().filter(is_reason).cloned().collect();
    let mut reasons = if found.is_empty() { lines } else { found };
    let excess = reasons.len().saturating_sub(REASONS_MAX);
    reasons.drain(..excess);
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_the_last_lines_of_the_program() {
        use std::os::unix::process::ExitStatusExt;
        let ended = |status| Ended {
            status,
            last_lines: vec![
                "E: no such suite".to_owned(),
                "E: apt-get failed\u{1b}".to_owned(),
            ],
        };
        let failed = |status| {
            conclude(ended(status), "the recipe")
                .unwrap_err()
                .to_string()
        };
        let status = std::process::ExitStatus::from_raw(25 << 8);
        insta::assert_snapshot!(format!("{}\n{}", failed(Some(status)), failed(None)));
        conclude(ended(Some(ExitStatusExt::from_raw(0))), "x").unwrap();
    }

    #[test]
    fn information_and_warnings_are_no_reasons() {
        let lines = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let printed = lines(&["I: extracting", "E: no such package", "W: no console"]);
        assert_eq!(reasons(printed), ["E: no such package"]);
        assert_eq!(reasons(lines(&["I: extracting"])), ["I: extracting"]);
        assert_eq!(reasons(lines(&["line"; 9])).len(), REASONS_MAX);
    }

    #[test]
    fn a_recipe_that_others_cannot_run_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("recipe");
        let recipe = Recipe::File(file.clone());
        for (mode, directory_mode, is_usable) in [
            (0o700, 0o755, false),
            (0o755, 0o700, false),
            (0o644, 0o755, false),
            (0o755, 0o711, true),
        ] {
            write(&file, b"#!/bin/sh\n", mode).unwrap();
            let permissions = fs::Permissions::from_mode(directory_mode);
            fs::set_permissions(directory.path(), permissions).unwrap();
            let checked = check_programs(&recipe, Kind::Nspawn);
            assert_eq!(checked.is_ok(), is_usable, "{mode:o} {directory_mode:o}");
        }
    }
}
