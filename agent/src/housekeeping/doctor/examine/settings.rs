//! The findings about the settings, and about files that they name.

use config::doctor::{Id, Subject};
use config::join_and;

use super::Examination;

/// The directory in which machined has the machines that are registered.
const MACHINES: &str = "/run/systemd/machines";

impl Examination<'_> {
    pub(super) fn hashserv(&mut self) {
        let unmatched = &self.inventory.hashserv_unmatched;
        if !unmatched.is_empty() {
            let subject = Subject::Setting("[hashserv]".to_owned());
            let proof = format!("nothing matches its {}", join_and(unmatched));
            self.advise(
                Id::HashservUnmatched,
                subject,
                proof,
                "correct it in the settings",
            );
        }
    }

    pub(super) fn machined(&mut self) {
        if let Some(fault) = &self.inventory.machined_fault {
            let subject = Subject::Path(MACHINES.into());
            let advice = "`journalctl -u systemd-machined` tells more; builds do not depend on it";
            self.advise(Id::GuestsUnregistered, subject, fault.clone(), advice);
        }
    }

    pub(super) fn settings(&mut self) {
        for (path, mode) in &self.inventory.open_secrets {
            let proof = format!("its mode is {mode:04o}, so users other than root can read it");
            let advice = format!(
                "`chmod 0600 {}`, and replace the secret, which others may know",
                path.display()
            );
            self.advise(Id::OpenSecret, Subject::Path(path.clone()), proof, advice);
        }
        for (machine, resource, wanted, total) in &self.inventory.undeclared {
            let proof = format!(
                "its guests need {wanted} of resource {resource}, and the host has {total}, so its \
                 builds are refused"
            );
            let advice = format!(
                "declare `{resource} = {wanted}` in the setting guests.resources, or change \
                 `resources` in the manifest of the machine"
            );
            let subject = Subject::Machine(machine.clone());
            self.advise(Id::UndeclaredResource, subject, proof, advice);
        }
    }
}
