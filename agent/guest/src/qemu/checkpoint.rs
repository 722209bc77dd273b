//! Guests that are frozen at one instant and woken from there, again and again.
//!
//! These files lie beside the machine's own: its memory, as the guest left it; the
//! state of its devices; its disk and its firmware's variables at that instant, clones
//! of the machine's, which stay whole for cold starts; and what all of them depend on,
//! so that nothing is woken where it does not fit.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::machine::{Firmware, Machine, UEFI_VARIABLES};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::qmp::{Monitor, QmpError};
use super::{Accelerator, arguments, uefi};
use crate::error::GuestError;
use crate::guest::{BootMode, Spec};

pub(crate) const MEMORY: &str = "frozen.memory";
const STATE: &str = "frozen.state";
/// The state while it is written.
const HALF: &str = "frozen.state.half";
const DISK: &str = "frozen.disk";
pub(super) const VARIABLES: &str = "frozen.vars";
const KEY: &str = "frozen.key";
/// Says why there is no frozen guest and can be none.
const UNFIT: &str = "frozen.unfit";
/// The form of the key and of the files; another one is never woken.
const FORM: &str = "buildhost-frozen 1";
/// The name of the state's descriptor in QEMU.
const DESCRIPTOR: &str = "state";
/// How long QEMU may take to write or read the state: half a megabyte.
const LIMIT: Duration = Duration::from_secs(30);

/// Makes ready what a guest in this place needs before QEMU is started.
pub(crate) fn prepare(spec: &Spec, accelerator: Accelerator) -> Result<(), GuestError> {
    let failed = |name: &str| {
        let path = spec.directory.join(name);
        |source| GuestError::Open { path, source }
    };
    match spec.boot {
        BootMode::Cold => Ok(()),
        BootMode::CheckpointSource => {
            forget(&spec.directory).map_err(failed(STATE))?;
            let memory = File::create(spec.directory.join(MEMORY));
            let size = spec.machine.memory_kib.get() * 1024;
            memory
                .and_then(|file| file.set_len(size))
                .map_err(failed(MEMORY))?;
            clone(spec, spec.machine.disk.as_str(), DISK)?;
            if spec.machine.firmware == Firmware::Uefi {
                clone(spec, UEFI_VARIABLES, VARIABLES)?;
            }
            let key = key(spec, accelerator).map_err(failed(KEY))?;
            let path = spec.directory.join(KEY);
            sys::file::replace(&path, key.as_bytes()).map_err(failed(KEY))
        }
        BootMode::Restore => {
            let wanted = key(spec, accelerator).map_err(failed(KEY))?;
            let found = fs::read_to_string(spec.directory.join(KEY)).map_err(failed(KEY))?;
            let complete = spec.directory.join(STATE).is_file();
            if complete && found == wanted {
                Ok(())
            } else {
                Err(GuestError::Stale)
            }
        }
    }
}

/// Copies a file of the machine; where the file system can, no byte is written for that.
fn clone(spec: &Spec, from: &str, to: &str) -> Result<(), GuestError> {
    let (mut from, _) = super::open(spec.directory.join(from), false)?;
    let path = spec.directory.join(to);
    let copied = File::create(&path).and_then(|mut to| {
        if rustix::fs::ioctl_ficlone(&to, &from).is_ok() {
            return Ok(());
        }
        io::copy(&mut from, &mut to).map(|_| ())
    });
    copied.map_err(|source| GuestError::Open { path, source })
}

/// The file with the disk of a guest.
pub(super) fn disk(spec: &Spec) -> &str {
    match spec.boot {
        BootMode::Cold => spec.machine.disk.as_str(),
        BootMode::CheckpointSource | BootMode::Restore => DISK,
    }
}

/// Whether a frozen guest lies in a directory. It may be stale.
pub fn is_frozen(directory: &Path) -> bool {
    [STATE, MEMORY, DISK, KEY]
        .iter()
        .all(|name| directory.join(name).is_file())
}

/// What the memory of a frozen guest takes of the file system.
pub fn bytes(directory: &Path) -> u64 {
    let memory = fs::metadata(directory.join(MEMORY));
    memory.map_or(0, |memory| memory.blocks() * 512)
}

/// Why no guest of this directory can be frozen, when that was found out.
pub fn is_unfit(directory: &Path) -> Option<String> {
    fs::read_to_string(directory.join(UNFIT)).ok()
}

/// Notes that no guest of this directory can be frozen.
///
/// # Errors
/// When the file cannot be written.
pub fn set_unfit(directory: &Path, why: &str) -> io::Result<()> {
    sys::file::replace(&directory.join(UNFIT), why.as_bytes())
}

/// Takes a frozen guest away. It is no fault when there is none.
///
/// # Errors
/// When a file of it is there and cannot be removed.
pub fn forget(directory: &Path) -> io::Result<()> {
    // Without its state, what is left of it is none.
    for name in [STATE, HALF, MEMORY, DISK, VARIABLES, KEY, UNFIT] {
        match fs::remove_file(directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Makes the disk of a guest that was woken in a directory the machine's own, and takes
/// away what it was woken from: the machine starts cold where that guest has come to.
///
/// # Errors
/// When a file of it cannot be renamed or removed.
pub fn thaw(directory: &Path, machine: &Machine) -> io::Result<()> {
    if machine.firmware == Firmware::Uefi {
        fs::rename(directory.join(VARIABLES), directory.join(UEFI_VARIABLES))?;
    }
    fs::rename(directory.join(DISK), directory.join(&machine.disk))?;
    forget(directory)
}

/// Everything that a frozen guest depends on besides its own files.
fn key(spec: &Spec, accelerator: Accelerator) -> io::Result<String> {
    let mut frozen = arguments(
        &Spec {
            name: String::new(),
            directory: PathBuf::new(),
            machine: spec.machine.clone(),
            uefi: spec.uefi.clone(),
            run: PathBuf::new(),
            network: String::new(),
            boot: BootMode::CheckpointSource,
            keep: Vec::new(),
            ..*spec
        },
        accelerator,
    );
    frozen.insert(0, OsString::from(FORM));
    frozen.push(OsString::from(program()?));
    if spec.machine.firmware == Firmware::Uefi {
        frozen.push(OsString::from(uefi::identity(&spec.uefi)?));
    }
    let kernel = rustix::system::uname();
    frozen.push(kernel.release().to_string_lossy().into_owned().into());
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let about = |line: &&str| line.starts_with("model name") || line.starts_with("flags");
    let processor = processors.lines().filter(about).take(2);
    frozen.extend(processor.map(OsString::from));
    let lines = frozen.iter().map(|line| line.to_string_lossy());
    Ok(lines.collect::<Vec<_>>().join("\n") + "\n")
}

/// Tells one QEMU from another without running it.
fn program() -> io::Result<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all = std::env::split_paths(&path).map(|directory| directory.join(super::PROGRAM));
    let program = all.find(|path| path.is_file());
    let program = program.ok_or(io::ErrorKind::NotFound)?;
    let file = fs::metadata(&program)?;
    let (size, changed) = (file.len(), file.mtime());
    Ok(format!("{} {size} {changed}", program.display()))
}

/// Stops the guest and writes its state; everything is on disk then.
pub(crate) async fn save(monitor: &mut Monitor, directory: &Path) -> Result<(), QmpError> {
    monitor.command("stop").await?;
    ignore_shared(monitor).await?;
    // Not under its name before it is complete.
    let half = directory.join(HALF);
    let file = File::create(&half)?;
    monitor.give(DESCRIPTOR, &file).await?;
    let uri = json!({ "uri": format!("fd:{DESCRIPTOR}") });
    monitor.execute("migrate", uri).await?;
    settled(monitor, "save").await?;
    let directory = directory.to_owned();
    let sync = move || -> io::Result<()> {
        file.sync_all()?;
        File::open(directory.join(MEMORY))?.sync_all()?;
        File::open(directory.join(DISK))?.sync_all()?;
        fs::rename(half, directory.join(STATE))?;
        File::open(directory)?.sync_all()
    };
    let synced = tokio::task::spawn_blocking(sync).await;
    Ok(synced.map_err(io::Error::other)??)
}

/// Reads the state of a frozen guest into a QEMU that waits for it.
pub(crate) async fn load(monitor: &mut Monitor, directory: &Path) -> Result<(), QmpError> {
    ignore_shared(monitor).await?;
    let file = File::open(directory.join(STATE))?;
    monitor.give(DESCRIPTOR, &file).await?;
    let uri = json!({ "uri": format!("fd:{DESCRIPTOR}") });
    monitor.execute("migrate-incoming", uri).await?;
    settled(monitor, "load").await
}

/// Whether QEMU has read the state that it was started for, or was started for none.
/// Who was to let it read that may have died.
pub(crate) async fn check_loaded(monitor: &mut Monitor) -> Result<(), QmpError> {
    let status = monitor.execute("query-status", json!({})).await?;
    match status.get("status").and_then(Value::as_str) {
        Some("inmigrate") => Err(QmpError::State("load")),
        _ => Ok(()),
    }
}

/// The memory is in its file and not in the state.
async fn ignore_shared(monitor: &mut Monitor) -> Result<(), QmpError> {
    let capability = json!({ "capability": "x-ignore-shared", "state": true });
    let capabilities = json!({ "capabilities": [capability] });
    let set = monitor.execute("migrate-set-capabilities", capabilities);
    set.await.map(|_| ())
}

async fn settled(monitor: &mut Monitor, doing: &'static str) -> Result<(), QmpError> {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        let state = monitor.execute("query-migrate", json!({})).await?;
        match state.get("status").and_then(Value::as_str) {
            Some("completed") => return Ok(()),
            Some("failed" | "cancelled") => break,
            _ => sleep(Duration::from_millis(2)).await,
        }
    }
    Err(QmpError::State(doing))
}
