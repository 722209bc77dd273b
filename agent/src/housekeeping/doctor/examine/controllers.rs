//! The findings about controllers, and about notifications.

use config::doctor::{Id, Subject};

use super::Examination;

/// The time after which a controller that fails is reported, in seconds.
const FAILING_SECONDS_MAX: u64 = 3600;

impl Examination<'_> {
    pub(super) fn controllers(&mut self) {
        for controller in &self.inventory.controllers {
            let subject = || Subject::Controller(controller.name.clone());
            if let Some((failure, seconds)) = &controller.failing
                && *seconds >= FAILING_SECONDS_MAX
            {
                let proof = format!("for {} minutes: {failure}", seconds / 60);
                let advice =
                    "correct its section [[controllers]] in the settings, or ask who runs it";
                self.advise(Id::ControllerUnreachable, subject(), proof, advice);
            }
            if let Some(fault) = &controller.key_fault {
                let advice = "correct the file; its tasks are built, and no result is accepted";
                self.advise(Id::ControllerKey, subject(), fault.clone(), advice);
            }
            if controller.machines == 0 {
                let proof = "no bootstrapped machine matches its `machines` and its toolchain";
                let advice = "add a machine, or correct [[controllers]] in the settings";
                self.advise(Id::ControllerWithoutMachine, subject(), proof, advice);
            }
            for sentence in &controller.unlike {
                let proof = format!("this host {sentence}");
                let advice = "no builds of that machine come from this farm until then";
                self.advise(Id::FarmContent, subject(), proof, advice);
            }
        }
        for (rule, count, failure) in &self.inventory.lost_notifications {
            let subject = Subject::Setting(format!("notify.{rule}"));
            let proof = format!("{count} were given up; the last failure: {failure}");
            let advice =
                format!("correct its section [[notify]]; `buildhost notify test {rule}` tries it");
            self.advise(Id::NotificationsLost, subject, proof, advice);
        }
        for (name, open) in &self.inventory.unnamed_controllers {
            let proof = format!("the number of its open leases is {open}");
            let advice = format!(
                "name it in [[controllers]] again until its results are reported, or give them up \
                 with `buildhost controllers forget {name}`"
            );
            let subject = Subject::Controller(name.clone());
            self.advise(Id::ControllerUnnamed, subject, proof, advice);
        }
    }
}
