//! The worker of a machine, with which its guests fetch their toolchain.

use std::path::{Path, PathBuf};

use crate::error::{DistributionError, UnusableWorker};

/// The name of the program.
const NAME: &str = "buildhost-worker";
/// The places of the program, relative to the directory of the program that makes the machine: an
/// installation, and the output of cargo.
const PLACES: [&str; 3] = [
    NAME,
    "../lib/buildhost/buildhost-worker",
    "../x86_64-unknown-linux-gnu/worker/buildhost-worker",
];
/// The start of an executable file.
const ELF: &[u8] = b"\x7fELF";
/// The type of the program header that names the dynamic loader.
const INTERPRETER: u32 = 3;

/// A worker that runs in every distribution: a program that is linked statically.
#[derive(Debug, Clone)]
pub struct WorkerProgram {
    /// Its place.
    pub path: PathBuf,
    pub(crate) content: Vec<u8>,
}

/// Finds the worker: at the given path only, or where installations and builds have it.
///
/// # Errors
/// No place has one.
pub fn find(given: Option<&Path>) -> Result<WorkerProgram, DistributionError> {
    let program = std::env::current_exe().unwrap_or_default();
    let directory = program.parent().unwrap_or(Path::new("/"));
    let places = match given {
        Some(path) => vec![path.to_owned()],
        None => PLACES.iter().map(|place| directory.join(place)).collect(),
    };
    let mut unusable = Vec::new();
    for path in places {
        match load(&path) {
            Ok(content) => {
                let path = path.canonicalize().unwrap_or(path);
                return Ok(WorkerProgram { path, content });
            }
            Err(reason) => unusable.push(UnusableWorker { path, reason }),
        }
    }
    Err(DistributionError::NoWorker(unusable))
}

fn load(path: &Path) -> Result<Vec<u8>, &'static str> {
    let content = sys::trusted::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "does not exist",
        _ => "cannot be read",
    })?;
    match is_static(&content) {
        Some(true) => Ok(content),
        Some(false) => Err("is linked dynamically"),
        None => Err("is not a program for 64-bit Linux"),
    }
}

/// Returns true if a program of 64-bit Linux needs no dynamic loader. Returns `None` for other files.
fn is_static(program: &[u8]) -> Option<bool> {
    let number = |at: usize, length: usize| {
        let bytes = program.get(at..at.checked_add(length)?)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        )
    };
    // The class of 64 bits, in little-endian order.
    if !program.starts_with(ELF) || program.get(4..6)? != [2, 1] {
        return None;
    }
    let (first, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        if number(first.checked_add(index * size)?, 4)? == INTERPRETER as usize {
            return Some(false);
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_dynamic_loader_is_refused() {
        let test = std::env::current_exe().unwrap();
        assert_eq!(load(&test), Err("is linked dynamically"));
        let mut program = std::fs::read(test).unwrap();
        // No program headers.
        program[56..58].fill(0);
        assert_eq!(is_static(&program), Some(true));
        assert_eq!(is_static(&program[..40]), None);
        assert_eq!(is_static(b"#!/bin/sh\n"), None);
    }

    #[test]
    fn a_missing_worker_is_reported_with_every_place() {
        let error = find(Some(Path::new("/nowhere/worker")))
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "no worker for the machine: `/nowhere/worker` does not exist; make one with \
             scripts/make-toolchain or scripts/install, and name it with --worker"
        );
    }
}
