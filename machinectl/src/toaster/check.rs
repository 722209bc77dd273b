//! `checksettings` and `checksocket`: checks before a server is started.

use std::error::Error;
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::path::Path;

use config::settings::{Fault, Settings};
use config::tokens;
use store::Volume;
use store::toolchains::Toolchains;

use crate::exit_code::{ExitStatus, Failure};
use crate::output::Output;

/// Checks the agent's settings and the paths in them, as the start of the agent would.
pub(super) fn settings(path: &Path, output: &Output) -> Result<(), Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let text = format!("cannot read the settings {}: {error}", path.display());
        Failure::new(ExitStatus::Failure, text)
    })?;
    let faults = match Settings::parse(&text) {
        Ok(settings) => path_faults(&settings),
        Err(faults) => faults.iter().map(Fault::to_string).collect(),
    };
    for fault in &faults {
        output.print(&format!("\n -- Validation: {fault}\n"))?;
    }
    if faults.is_empty() {
        return Ok(());
    }
    let text = format!("{} is not valid", path.display());
    Err(Failure::new(ExitStatus::Failure, text))
}

/// Returns the faults of the volumes and files that the settings name.
fn path_faults(settings: &Settings) -> Vec<String> {
    let paths = &settings.paths;
    let mut faults = Vec::new();
    for volume in &paths.volumes {
        faults.extend(Volume::open(volume).err().map(|error| error.to_string()));
    }
    let toolchains = Toolchains::open(&paths.toolchains);
    faults.extend(toolchains.err().map(|error| error.to_string()));
    faults.extend(token_fault(&settings.http.token_file));
    if let Some(tls) = &settings.http.tls {
        for path in [&tls.certificate, &tls.key] {
            let error = File::open(path).err();
            faults.extend(error.map(|error| format!("cannot read {}: {error}", path.display())));
        }
    }
    faults
}

/// Returns the fault of the file of tokens. A missing file has no tokens.
fn token_fault(path: &Path) -> Option<String> {
    let fault = |error: &dyn Error| Some(format!("cannot use {}: {error}", path.display()));
    match std::fs::read_to_string(path) {
        Ok(text) => tokens::parse(&text).err().and_then(|error| fault(&error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => fault(&error),
    }
}

/// Checks that a server could listen on `ADDRESS:PORT`. The messages are Toaster's.
pub(super) fn socket(address: &str, output: &Output) -> Result<(), Failure> {
    let refused = |text: String| Err(Failure::new(ExitStatus::Failure, text));
    let Some((_, port)) = address.rsplit_once(':') else {
        return refused(format!("Invalid addr:port specified: {address}"));
    };
    if port.parse::<u16>().is_err() {
        return refused(format!("Invalid port specified: {port}"));
    }
    output.print(&format!("Check if toaster can listen on {address}\n"))?;
    match TcpListener::bind(address) {
        Ok(_) => output.print("OK\n"),
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
