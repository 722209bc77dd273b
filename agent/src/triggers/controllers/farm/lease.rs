//! Leases of a farm as the records have them; pure.

use config::BuildId;
use config::builds::Build;
use config::task::Outcome;
use farm_core::host::OnDisk;
use farm_core::{Epoch, Lease};

/// The part of a report that marks a build which the farm has canceled.
pub(super) const CANCELED: &str = "canceled";

/// Returns the session of a lease in the records.
pub(super) fn session(lease: Lease) -> String {
    lease.to_string()
}

/// Returns the lease of a session.
pub(super) fn of_session(session: &str) -> Option<Lease> {
    let (build, epoch) = session.split_once('@')?;
    Some(Lease {
        build: BuildId(build.parse().ok()?),
        epoch: Epoch(epoch.parse().ok()?),
    })
}

/// The end of a local build, for its farm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It has a result.
    Result(Outcome),
    /// The host has lost or ended its guest: nothing is known of the package.
    Lost,
    /// It was ended in the queue of this host. No guest has started.
    Unused,
}

/// Returns the end of a build; `None` while it has none.
pub(super) fn end(build: &Build) -> Option<End> {
    build.outcome.map(|outcome| match outcome {
        Outcome::Interrupt | Outcome::Abnormal if build.started.is_none() => End::Unused,
        Outcome::Interrupt | Outcome::Abnormal => End::Lost,
        outcome => End::Result(outcome),
    })
}

/// Returns the state of an open lease on disk. `sent` are the parts of its report.
pub(super) fn on_disk(build: &Build, sent: &[String]) -> OnDisk {
    if sent.iter().any(|it| it == CANCELED) {
        return OnDisk::Result(Outcome::Abort);
    }
    match end(build) {
        Some(End::Result(outcome)) => OnDisk::Result(outcome),
        Some(End::Unused) => OnDisk::Unused,
        Some(End::Lost) | None => OnDisk::Lease,
    }
}

#[cfg(test)]
mod tests {
    use config::builds::{Request, Submitter};
    use jiff::Timestamp;

    use super::*;

    fn build(outcome: Option<Outcome>) -> Build {
        let request: Request =
            serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
        let mut build = Build::new(
            BuildId(1),
            request,
            "default".parse().unwrap(),
            "0".repeat(64).parse().unwrap(),
            Submitter::root(),
            Timestamp::UNIX_EPOCH,
        );
        build.outcome = outcome;
        build.started = Some(Timestamp::UNIX_EPOCH);
        build
    }

    #[test]
    fn a_session_names_its_lease() {
        let lease = Lease {
            build: BuildId(12),
            epoch: Epoch(3),
        };
        assert_eq!(of_session(&session(lease)), Some(lease));
        for text in ["", "12", "12@", "@3", "12@x"] {
            assert_eq!(of_session(text), None, "{text}");
        }
    }

    #[test]
    fn a_failure_of_the_host_is_no_result() {
        for (outcome, expected) in [
            (None, None),
            (Some(Outcome::Success), Some(End::Result(Outcome::Success))),
            (Some(Outcome::Error), Some(End::Result(Outcome::Error))),
            (Some(Outcome::Abort), Some(End::Result(Outcome::Abort))),
            (Some(Outcome::Abnormal), Some(End::Lost)),
            (Some(Outcome::Interrupt), Some(End::Lost)),
        ] {
            assert_eq!(end(&build(outcome)), expected);
        }
        let lost = build(Some(Outcome::Interrupt));
        assert_eq!(on_disk(&lost, &[]), OnDisk::Lease);
        let unused = Build {
            started: None,
            ..lost.clone()
        };
        assert_eq!(end(&unused), Some(End::Unused));
        assert_eq!(on_disk(&unused, &[]), OnDisk::Unused);
        let canceled = on_disk(&lost, &[CANCELED.to_owned()]);
        assert_eq!(canceled, OnDisk::Result(Outcome::Abort));
    }
}
