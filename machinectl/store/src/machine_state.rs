//! The words for the states of a machine, its revisions and its images.

use config::Revision;

use crate::{ImageView, MachineView, RevisionView};

impl MachineView {
    /// Returns the state of the machine in a few words. `manifest_fault` is the reason for which the
    /// manifest of the current revision cannot be used.
    pub fn state(&self, manifest_fault: Option<&str>) -> String {
        match (self.current, &self.link_fault) {
            (Some(_), _) => match manifest_fault {
                Some(fault) => format!("unusable: {fault}"),
                None => self.state_in_service(),
            },
            (None, Some(fault)) => format!("broken: {fault}"),
            (None, None) if self.deleting => "being deleted".to_owned(),
            (None, None) => "not in service: no current link".to_owned(),
        }
    }

    fn state_in_service(&self) -> String {
        match self.candidate() {
            Some((candidate, trial)) => {
                let (revision, decider) = (candidate.revision, trial.decider());
                format!("in service; revision {revision} is on trial ({decider})")
            }
            None => "in service".to_owned(),
        }
    }

    /// Returns the state of a revision in a word or two.
    pub fn revision_state(&self, revision: &RevisionView) -> &'static str {
        let candidate = self.candidate().map(|(view, _)| view.revision);
        match revision {
            _ if Some(revision.revision) == self.current => "current",
            _ if candidate == Some(revision.revision) => "on trial",
            RevisionView { complete: true, .. } => "complete",
            _ if self.is_arriving(revision.revision) => "arriving",
            _ if self.is_interrupted(revision.revision) => "incomplete",
            _ => "writable",
        }
    }

    /// Returns the revision from which an image was made, if that revision exists.
    pub fn made_from(&self, image: &ImageView) -> Option<Revision> {
        let uuid = &image.provenance.as_ref()?.revision_uuid;
        let mut revisions = self.revisions.iter();
        let revision = revisions.find(|it| it.uuid.to_string() == *uuid)?;
        Some(revision.revision)
    }

    /// Returns true if an image was made from the current revision.
    pub fn is_of_current(&self, image: &ImageView) -> bool {
        self.current.is_some() && self.made_from(image) == self.current
    }

    /// Returns the state of an image in a word.
    pub fn image_state(&self, image: &ImageView) -> &'static str {
        match image {
            ImageView {
                complete: false, ..
            } => "incomplete",
            _ if self.is_of_current(image) => "ready",
            _ => "outdated",
        }
    }
}
