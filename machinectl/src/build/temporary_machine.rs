//! Temporary machines: snapshots of an older revision, on which a build can run again.
//!
//! Such a machine takes no time and no space to create. The agent bootstraps it like any other
//! machine, and it is deleted like any other.

use std::thread::sleep;
use std::time::{Duration, Instant};

use client::Client;
use config::builds::Build;
use config::layout::Entry;
use config::{MachineName, Revision};
use store::{Intent, MachineRefusal, MachineView, Source, StoreError, Volume};

use super::follow::POLL_INTERVAL;
use crate::exit_code::{ExitStatus, Failure};
use crate::options::GlobalOptions;
use crate::reach;

/// The time limit for the agent to notice a new machine.
const NOTICE_LIMIT: Duration = Duration::from_mins(1);
/// The time limit for builds that delay the deletion of a temporary machine.
const DELETE_LIMIT: Duration = Duration::from_mins(1);

/// The machine of a build, from whose revisions temporary machines are made.
pub(super) struct Origin {
    volume: Volume,
    view: MachineView,
}

impl Origin {
    /// Looks at the machine of a build.
    pub(super) fn of(build: &Build, options: &GlobalOptions) -> Result<Self, Failure> {
        let command = format!("rebuild {} --on-revision", build.id);
        reach::require_local("`rebuild --on-revision`", &command, &options.endpoint()?)?;
        let volume = Volume::open(&options.volume)?;
        let view = volume.view(&build.machine)?;
        Ok(Self { volume, view })
    }

    /// Returns the complete revisions of the machine, the oldest first.
    pub(super) fn complete_revisions(&self) -> impl Iterator<Item = Revision> {
        self.view
            .revisions
            .iter()
            .filter(|view| view.complete)
            .map(|view| view.revision)
    }

    /// Fails unless a revision is complete.
    pub(super) fn require(&self, revision: Revision) -> Result<(), Failure> {
        if self.complete_revisions().any(|it| it == revision) {
            return Ok(());
        }
        let machine = self.view.name.clone();
        Err(StoreError::from(MachineRefusal::NoRevision(machine, revision)).into())
    }

    /// Returns the name of the temporary machine for a revision.
    pub(super) fn temporary_name(&self, revision: Revision) -> Result<MachineName, Failure> {
        format!("{}-at-{revision}", self.view.name)
            .parse()
            .map_err(|error| Failure::new(ExitStatus::Refused, error))
    }

    /// Creates the temporary machine for a revision and waits until the agent knows it.
    pub(super) fn create(
        &self,
        client: &Client,
        revision: Revision,
    ) -> Result<MachineName, Failure> {
        self.require(revision)?;
        let name = self.temporary_name(revision)?;
        let path = self
            .volume
            .entry(&self.view.name, &Entry::Revision(revision));
        self.volume
            .ingest(Intent::Add, &name, Source::Subvolume(path))?;
        let deadline = Instant::now() + NOTICE_LIMIT;
        loop {
            let status = client.status()?;
            if status.machines.iter().any(|ready| ready.machine == name) {
                return Ok(name);
            }
            if Instant::now() > deadline {
                let text = format!(
                    "the agent does not see machine {name}; is {} one of its volumes?",
                    self.volume.path().display()
                );
                return Err(Failure::new(ExitStatus::Failure, text));
            }
            sleep(POLL_INTERVAL);
        }
    }

    /// Deletes a temporary machine.
    pub(super) fn delete(&self, name: &MachineName) -> Result<(), Failure> {
        self.volume.delete(name, DELETE_LIMIT, false)?;
        Ok(())
    }
}
