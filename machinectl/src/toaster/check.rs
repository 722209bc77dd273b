//! Checks a host before a server is started on it.

use std::io;
use std::net::TcpListener;
use std::path::Path;

use config::settings::{Fault, Settings};
use config::tokens;
use store::Volume;
use store::toolchains::Toolchains;

use crate::{Ending, Failure, Voice};

/// Checks the settings and what they name, as a start of the agent would.
pub(super) fn settings(path: &Path, voice: &Voice) -> Result<(), Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let words = format!("cannot read the settings {}: {error}", path.display());
        Failure::new(Ending::Failed, words)
    })?;
    let faults = match Settings::parse(&text) {
        Ok(settings) => named(&settings),
        Err(faults) => faults.iter().map(Fault::to_string).collect(),
    };
    for fault in &faults {
        voice.print(&format!("\n -- Validation: {fault}\n"))?;
    }
    if faults.is_empty() {
        return Ok(());
    }
    let words = format!("{} cannot be used as it is", path.display());
    Err(Failure::new(Ending::Failed, words))
}

/// What is wrong with the things that settings name.
fn named(settings: &Settings) -> Vec<String> {
    let paths = &settings.paths;
    let volumes = paths
        .volumes
        .iter()
        .filter_map(|path| Volume::open(path).err());
    let toolchains = Toolchains::open(&paths.toolchains).err();
    let mut faults: Vec<_> = volumes
        .chain(toolchains)
        .map(|error| error.to_string())
        .collect();
    faults.extend(bad_tokens(&settings.http.token_file));
    if let Some(tls) = &settings.http.tls {
        let files = [&tls.certificate, &tls.key].into_iter();
        faults.extend(files.filter_map(|path| {
            let error = std::fs::File::open(path).err()?;
            Some(format!("cannot read {}: {error}", path.display()))
        }));
    }
    faults
}

/// No file means no tokens.
fn bad_tokens(path: &Path) -> Option<String> {
    let words = |error: &dyn std::error::Error| format!("cannot use {}: {error}", path.display());
    match std::fs::read_to_string(path) {
        Ok(text) => tokens::parse(&text).err().map(|error| words(&error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(words(&error)),
    }
}

/// Checks that a server could listen at `ADDRESS:PORT`.
pub(super) fn socket(address: &str, voice: &Voice) -> Result<(), Failure> {
    let refused = |words: String| Err(Failure::new(Ending::Failed, words));
    let Some((_, port)) = address.rsplit_once(':') else {
        return refused(format!("Invalid addr:port specified: {address}"));
    };
    if port.parse::<u16>().is_err() {
        return refused(format!("Invalid port specified: {port}"));
    }
    voice.print(&format!("Check if toaster can listen on {address}\n"))?;
    match TcpListener::bind(address) {
        Ok(_) => voice.print("OK\n"),
        Err(error) => refused(match error.kind() {
            io::ErrorKind::AddrInUse => format!("Port {port} is already in use"),
            io::ErrorKind::PermissionDenied => {
                format!("You don't have permission to access port {port}")
            }
            io::ErrorKind::AddrNotAvailable => {
                format!("IP address can't be assigned to: {address}")
            }
            _ => error.to_string(),
        }),
    }
}
