//! Machines.

use config::MachineName;
use config::machines::{
    ChangeReport, DiffQuery, Machine, MachineSummary, PinRequest, RevisionDiff,
    RevisionPruneRequest, RollbackRequest, TrialRequest,
};

use crate::{Client, Result};

impl Client {
    /// Returns the machines.
    pub fn machines(&self) -> Result<Vec<MachineSummary>> {
        self.get("machines")
    }

    /// Returns a machine with its revisions and images.
    pub fn machine(&self, name: &MachineName) -> Result<Machine> {
        self.get(&format!("machines/{name}"))
    }

    /// Returns the differences between two revisions of a machine.
    pub fn revision_diff(&self, name: &MachineName, of: DiffQuery) -> Result<RevisionDiff> {
        let DiffQuery { from, to } = of;
        self.get(&format!("machines/{name}/diff?from={from}&to={to}"))
    }

    /// Makes a revision of a machine current.
    pub fn roll_back(&self, name: &MachineName, request: RollbackRequest) -> Result<ChangeReport> {
        self.post(&format!("machines/{name}/rollback"), &request)
    }

    /// Protects a revision from pruning.
    pub fn pin_revision(&self, name: &MachineName, request: PinRequest) -> Result<ChangeReport> {
        self.post(&format!("machines/{name}/pin"), &request)
    }

    /// Ends the protection of a revision from pruning.
    pub fn unpin_revision(&self, name: &MachineName, request: PinRequest) -> Result<ChangeReport> {
        self.post(&format!("machines/{name}/unpin"), &request)
    }

    /// Deletes the old revisions of a machine.
    pub fn prune_revisions(
        &self,
        name: &MachineName,
        request: RevisionPruneRequest,
    ) -> Result<ChangeReport> {
        self.post(&format!("machines/{name}/prune"), &request)
    }

    /// Makes the revision on trial current.
    pub fn promote(&self, name: &MachineName, request: TrialRequest) -> Result<ChangeReport> {
        self.post(&format!("machines/{name}/promote"), &request)
    }

    /// Ends the trial of a revision; the current revision stays.
    pub fn reject_trial(&self, name: &MachineName, request: TrialRequest) -> Result<ChangeReport> {
        self.post(&format!("machines/{name}/reject"), &request)
    }
}
