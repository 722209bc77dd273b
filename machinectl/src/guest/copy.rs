//! `guest cp`: copies files and directories as archives, by `tar` in the guest.

use std::io::{self, PipeReader};
use std::path::Path;
use std::thread;

use clap::Args;
use client::{Client, ExecError};
use config::BuildId;
use config::exec::{Command, CommandEnd};

use super::exec::lost;
use super::pack::{NAME, Pack};
use super::path::CopyPath;
use super::unpack::{self, UnpackError, Unpacked};
use crate::exit_code::{ExitStatus, Failure};
use crate::options::DryRun;
use crate::output::Output;

/// Unpacks an archive with the entry `content` at the path $1: below it with the name $2 if it is a
/// directory.
const PUT: &str = r#"set -e
case $1 in */) dir=$1 name=$2 ;; *)
    if [ -d "$1" ]; then dir=$1 name=$2; else dir=$(dirname -- "$1") name=$(basename -- "$1"); fi ;;
esac
mkdir -p -- "$dir"
cd -- "$dir"
new=.buildhost-cp.$$
trap 'rm -rf -- "$new"' EXIT
mkdir -- "$new"
tar -xof - -C "$new"
if [ -d "$new/content" ] && [ -d "$name" ]; then cp -a -- "$new/content/." "$name/"
else mv -f -- "$new/content" "$name"; fi
"#;

/// Packs the path $1.
const GET: &str = r#"set -e
[ -e "$1" ] || [ -L "$1" ] || { echo "there is no $1 in the guest" >&2; exit 1; }
cd -- "$(dirname -- "$1")"
exec tar -cf - -- "./$(basename -- "$1")"
"#;

/// The largest size of what comes out of a guest, by default.
const BYTES_MAX: u64 = 10 << 30;
/// The largest part of an error of `tar` that is shown.
const ERROR_MAX: usize = 2000;

/// The arguments of `guest cp`.
#[derive(Debug, Args)]
pub(crate) struct Copy {
    /// The file or directory; that of a guest is NUMBER:PATH
    #[arg(value_name = "SOURCE")]
    from: CopyPath,
    /// The target; that in a guest is NUMBER:PATH
    #[arg(value_name = "TARGET")]
    to: CopyPath,
    /// The largest size of what comes out of a guest
    #[arg(long, value_name = "BYTES", default_value_t = BYTES_MAX)]
    bytes_max: u64,
    #[command(flatten)]
    dry_run: DryRun,
}

pub(super) fn run(client: &Client, arguments: &Copy, output: &Output) -> Result<(), Failure> {
    match (&arguments.from, &arguments.to) {
        (CopyPath::Local(from), CopyPath::Guest(id, to)) => {
            if arguments.dry_run.enabled {
                let from = from.display();
                return output.plan(format_args!("copy {from} to {to} in the guest {id}"));
            }
            put(client, from, *id, to)
        }
        (CopyPath::Guest(id, from), CopyPath::Local(to)) => {
            if arguments.dry_run.enabled {
                let to = to.display();
                return output.plan(format_args!("copy {from} of the guest {id} to {to}"));
            }
            let unpacked = get(client, *id, from, to, arguments.bytes_max)?;
            if unpacked.left_out > 0 {
                output.status(format_args!(
                    "left out {} devices, sockets and pipes",
                    unpacked.left_out
                ));
            }
            Ok(())
        }
        (CopyPath::Local(_), CopyPath::Local(_)) | (CopyPath::Guest(..), CopyPath::Guest(..)) => {
            let text = "one of the two paths is in a guest: NUMBER:PATH, such as 7:/root";
            Err(Failure::new(ExitStatus::Usage, text))
        }
    }
}

/// Returns the command that runs a script with arguments.
fn script(script: &str, arguments: &[&str]) -> Command {
    let words = ["sh", "-c", script, "cp"].into_iter();
    Command {
        command: words
            .chain(arguments.iter().copied())
            .map(str::to_owned)
            .collect(),
        unlogged: true,
        ..Command::default()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot copy {path}")]
struct LocalError {
    path: String,
    source: io::Error,
}

fn local(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let path = path.display().to_string();
    move |source| Failure::new(ExitStatus::Failure, LocalError { path, source })
}

/// Copies a file or directory into a guest.
fn put(client: &Client, from: &Path, id: BuildId, to: &str) -> Result<(), Failure> {
    let pack = Pack::of(from).map_err(local(from))?;
    let resolved = std::path::absolute(from).map_err(local(from))?;
    let name = resolved.file_name().and_then(|name| name.to_str());
    let name = name.unwrap_or(NAME);
    let exec = client.exec(id, &script(PUT, &[to, name]))?;
    let mut errors = Vec::new();
    let end = exec.run(pack, &mut io::sink(), &mut errors);
    check(id, end, &errors)
}

/// Copies a file or directory out of a guest.
fn get(
    client: &Client,
    id: BuildId,
    from: &str,
    to: &Path,
    bytes_max: u64,
) -> Result<Unpacked, Failure> {
    let source = Path::new(from).file_name().and_then(|name| name.to_str());
    let Some(source) = source else {
        let text = format!("`{from}` has no name; an example is {id}:/root/file");
        return Err(Failure::new(ExitStatus::Usage, text));
    };
    let (directory, name) = unpack::place(to, source);
    // Beside the target, so that a rename publishes it.
    let place = tempfile::Builder::new()
        .prefix(".buildhost-cp.")
        .tempdir_in(&directory)
        .map_err(local(&directory))?;
    let exec = client.exec(id, &script(GET, &[from]))?;
    let (reader, mut writer) = io::pipe().map_err(local(to))?;
    let (into, new) = (place.path().to_owned(), name.clone());
    let unpacking = thread::spawn(move || unpack_all(reader, &into, &new, bytes_max));
    let mut errors = Vec::new();
    let end = exec.run(io::empty(), &mut writer, &mut errors);
    drop(writer);
    let unpacked = unpacking.join().unwrap_or_else(|_| {
        let error = io::Error::other("the thread that unpacks has failed");
        Err(UnpackError::Archive(error))
    });
    match (end, unpacked) {
        // The unpacking thread left first, and knows why.
        (Err(ExecError::Output(_)), Err(error)) => Err(refused(error)),
        (end, unpacked) => {
            check(id, end, &errors)?;
            let unpacked = unpacked.map_err(refused)?;
            let target = directory.join(&name);
            unpack::publish(&place.path().join(&name), &target).map_err(local(&target))?;
            Ok(unpacked)
        }
    }
}

fn unpack_all(
    mut reader: PipeReader,
    into: &Path,
    name: &std::ffi::OsStr,
    bytes_max: u64,
) -> Result<Unpacked, UnpackError> {
    let unpacked = unpack::unpack(&mut reader, into, name, bytes_max)?;
    // What follows the archive, such as its padding.
    io::copy(&mut reader, &mut io::sink()).map_err(UnpackError::Archive)?;
    Ok(unpacked)
}

fn refused(error: UnpackError) -> Failure {
    let status = match &error {
        UnpackError::Create { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
            ExitStatus::DiskFull
        }
        UnpackError::Create { .. } => ExitStatus::Failure,
        _ => ExitStatus::Refused,
    };
    Failure::new(status, error)
}

/// Fails unless the command that packs or unpacks has succeeded.
fn check(id: BuildId, end: Result<CommandEnd, ExecError>, errors: &[u8]) -> Result<(), Failure> {
    match end {
        Ok(CommandEnd::Exited(0)) => Ok(()),
        Ok(CommandEnd::Lost | CommandEnd::Abandoned) => {
            Err(Failure::new(ExitStatus::GuestLost, lost(id)))
        }
        Ok(end) => {
            let text = String::from_utf8_lossy(&errors[..errors.len().min(ERROR_MAX)]);
            let text = match text.trim() {
                "" => format!("the guest cannot copy: {end}"),
                text => format!("the guest cannot copy: {text}"),
            };
            Err(Failure::new(ExitStatus::Failure, text))
        }
        Err(error) => Err(Failure::new(ExitStatus::Failure, error)),
    }
}
