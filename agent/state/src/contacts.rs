//! The contacts with controllers since the start of the agent.

use std::collections::BTreeMap;

use config::ControllerName;
use config::controllers::{Contact, Coordinator};
use jiff::Timestamp;
use parking_lot::Mutex;

/// The contacts with controllers, by their names.
#[derive(Debug, Default)]
pub struct Contacts {
    contacts: Mutex<BTreeMap<ControllerName, Contact>>,
    coordinators: Mutex<BTreeMap<ControllerName, Vec<Coordinator>>>,
}

impl Contacts {
    /// Returns the contact with a controller.
    pub fn get(&self, name: &ControllerName) -> Contact {
        self.contacts.lock().get(name).cloned().unwrap_or_default()
    }

    /// Notes that a controller has answered. Returns true if it had failed before.
    pub fn answered(&self, name: &ControllerName, now: Timestamp) -> bool {
        let mut contacts = self.contacts.lock();
        let contact = contacts.entry(name.clone()).or_default();
        contact.answered = Some(now);
        contact.failure.clear();
        contact.failing_since.take().is_some()
    }

    /// Notes that a request to a controller has failed. Returns true if that is new.
    pub fn failed(&self, name: &ControllerName, failure: &str, now: Timestamp) -> bool {
        let mut contacts = self.contacts.lock();
        let contact = contacts.entry(name.clone()).or_default();
        contact.failing_since.get_or_insert(now);
        let is_new = contact.failure != failure;
        failure.clone_into(&mut contact.failure);
        is_new
    }

    /// Returns the coordinators of a farm; none before the first request to it.
    pub fn coordinators(&self, name: &ControllerName) -> Vec<Coordinator> {
        self.coordinators
            .lock()
            .get(name)
            .cloned()
            .unwrap_or_default()
    }

    /// Notes the state of the coordinators of a farm.
    pub fn note_coordinators(&self, name: &ControllerName, coordinators: Vec<Coordinator>) {
        self.coordinators.lock().insert(name.clone(), coordinators);
    }

    /// Notes the reason for which a controller is not asked; an empty one if it is.
    pub fn not_asked(&self, name: &ControllerName, reason: &str) {
        let mut contacts = self.contacts.lock();
        let contact = contacts.entry(name.clone()).or_default();
        reason.clone_into(&mut contact.not_asked);
    }

    /// Notes the sentences about machines that are not as a farm has published them. Returns those that
    /// are new.
    pub fn unlike(&self, name: &ControllerName, unlike: Vec<String>) -> Vec<String> {
        let mut contacts = self.contacts.lock();
        let contact = contacts.entry(name.clone()).or_default();
        let last = std::mem::replace(&mut contact.unlike, unlike.clone());
        let is_new = |it: &String| !last.contains(it);
        unlike.into_iter().filter(is_new).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_dated_from_the_first_until_an_answer() {
        let (contacts, name) = (Contacts::default(), "ci".parse().unwrap());
        let second = |second| Timestamp::from_second(second).unwrap();
        assert!(contacts.failed(&name, "no route", second(1)));
        assert!(!contacts.failed(&name, "no route", second(2)));
        assert!(contacts.failed(&name, "refused", second(3)));
        let contact = contacts.get(&name);
        assert_eq!(contact.failing_since, Some(second(1)));
        assert_eq!(contact.failure, "refused");
        assert!(contacts.answered(&name, second(4)));
        assert!(!contacts.answered(&name, second(5)));
        let contact = contacts.get(&name);
        assert_eq!((contact.failing_since, &*contact.failure), (None, ""));
        assert_eq!(contact.answered, Some(second(5)));
    }
}
