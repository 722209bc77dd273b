//! A build of a farm, as notifications tell of it.

use config::builds::Submitter;
use config::notify::ToldBuild;
use config::task::Outcome;
use config::{BuildId, MachineName, ProjectName, ToolchainName};
use jiff::Timestamp;

use super::BuildView;
use crate::messages::Message;

impl ToldBuild for BuildView {
    fn id(&self) -> BuildId {
        self.build
    }

    fn machine(&self) -> &MachineName {
        &self.requirements.machine
    }

    fn package(&self) -> String {
        self.title().to_owned()
    }

    fn project(&self) -> Option<&ProjectName> {
        self.subject.project.as_ref()
    }

    fn submitter(&self) -> &Submitter {
        &self.submitter
    }

    fn toolchain(&self) -> &ToolchainName {
        &self.requirements.toolchain
    }

    fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    fn message(&self) -> &str {
        self.message.as_ref().map_or("", Message::as_str)
    }

    fn ended(&self) -> Timestamp {
        self.finished.unwrap_or(self.submitted)
    }

    fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }
}
