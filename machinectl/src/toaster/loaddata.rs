//! The command that loads fixtures.

use std::path::{Path, PathBuf};

use client::Client;
use config::FileName;
use config::layers::NewFixture;

use crate::exit_code::{ExitStatus, Failure};
use crate::options::DryRun;
use crate::output::Output;

/// Loads files, one after the other, and prints Toaster's line about each.
pub(super) fn run(
    client: &Client,
    files: &[PathBuf],
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    // A missing file is found before the first one is loaded.
    let fixtures = files
        .iter()
        .map(|path| read(path))
        .collect::<Result<Vec<_>, _>>()?;
    for fixture in fixtures {
        if dry_run.enabled {
            output.plan(format_args!("load the fixture {}", fixture.name))?;
            continue;
        }
        let loaded = client.load_fixture(&fixture)?;
        if output.is_json() {
            output.print_json(&loaded)?;
        } else {
            let objects = loaded.objects;
            output.print(&format!(
                "Installed {objects} object(s) from 1 fixture(s)\n"
            ))?;
        }
        for note in loaded.notes {
            output.status(note);
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<NewFixture, Failure> {
    let shown = path.display();
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let name: FileName = name.parse().map_err(|error| {
        let text = format!("{shown} cannot be a fixture: {error}");
        Failure::new(ExitStatus::Usage, text)
    })?;
    let text = std::fs::read_to_string(path).map_err(|error| {
        let text = format!("cannot read the fixture {shown}: {error}");
        Failure::new(ExitStatus::Failure, text)
    })?;
    Ok(NewFixture { name, text })
}
