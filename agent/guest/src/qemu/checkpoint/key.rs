//! The key of a checkpoint: everything that it depends on besides its own files.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use config::machine::Firmware;

use crate::qemu::accelerator::Accelerator;
use crate::qemu::cmdline::command_line;
use crate::qemu::uefi;
use crate::spec::{BootMode, Spec};

/// The format of the key and of the files. A checkpoint of another one is never restored.
const FORMAT: &str = "buildhost-frozen 1";

/// Returns the key of a guest's checkpoint on this host: QEMU, its command line, the
/// firmware, the kernel and the processor.
pub(super) fn key(spec: &Spec, program: &str, accelerator: Accelerator) -> io::Result<String> {
    let mut parts = command_line(
        &Spec {
            name: String::new(),
            directory: PathBuf::new(),
            machine: spec.machine.clone(),
            uefi: spec.uefi.clone(),
            run_dir: PathBuf::new(),
            network: String::new(),
            port: None,
            boot: BootMode::CheckpointSource,
            shared_memory: None,
            keep_open: Vec::new(),
            ..*spec
        },
        accelerator,
    );
    parts.insert(0, OsString::from(FORMAT));
    parts.push(OsString::from(identity(program)?));
    if spec.machine.firmware == Firmware::Uefi {
        parts.push(OsString::from(uefi::identity(&spec.uefi)?));
    }
    let kernel = rustix::system::uname();
    parts.push(kernel.release().to_string_lossy().into_owned().into());
    let processors = sys::trusted::read_text("/proc/cpuinfo")?;
    let is_relevant = |line: &&str| line.starts_with("model name") || line.starts_with("flags");
    let processor = processors.lines().filter(is_relevant).take(2);
    parts.extend(processor.map(OsString::from));
    let lines = parts.iter().map(|line| line.to_string_lossy());
    Ok(lines.collect::<Vec<_>>().join("\n") + "\n")
}

/// Returns a text that differs between versions of a program, without running it.
fn identity(program: &str) -> io::Result<String> {
    let program = sys::command::find(program).ok_or(io::ErrorKind::NotFound)?;
    let file = fs::metadata(&program)?;
    let (size, changed) = (file.len(), file.mtime());
    Ok(format!("{} {size} {changed}", program.display()))
}
