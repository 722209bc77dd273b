//! Tables of verdicts.

use std::time::Duration;

use config::machine::Kind;
use guest::{Exit, GuestEnd};
use session::ConsoleTail;

use super::*;
use crate::build::CollectError;

const RESERVED: &str = "artifacts/provenance.json";

fn collected(outcome: Outcome) -> Facts {
    Facts::of_end(Ok(Collected {
        outcome,
        message: "said".into(),
        packages: Vec::new(),
        artifacts: vec![artifact("good.deb")],
    }))
}

fn failed(error: impl Into<JobError>) -> Facts {
    Facts {
        artifacts: vec![artifact("good.deb")],
        ..Facts::of_end(Err(error.into()))
    }
}

fn ended() -> Facts {
    exited(Kind::Kvm, false)
}

fn exited(kind: Kind, out_of_memory: bool) -> Facts {
    exited_by(kind, 9, out_of_memory)
}

fn exited_by(kind: Kind, signal: i32, out_of_memory: bool) -> Facts {
    let end = GuestEnd {
        kind,
        exit: Exit::Signal(signal),
        shutdown: None,
        out_of_memory,
    };
    failed(GuestFailure::Exited {
        end,
        stderr: String::new(),
        console: ConsoleTail::of_output(b"one\ntwo\n"),
    })
}

fn artifact(name: &str) -> Artifact {
    Artifact {
        name: name.parse().unwrap(),
        bytes: 1,
        sha256: "0".repeat(64).parse().unwrap(),
    }
}

fn refused(facts: Facts, name: &str, cause: RefusalCause) -> Facts {
    let name = name.to_owned();
    Facts {
        refused: vec![RefusedPut { name, cause }],
        ..facts
    }
}

fn disk(written: u64, available: Option<u64>) -> DiskUse {
    DiskUse {
        directory: "/build/machines/default".into(),
        written: written * MIB,
        available: available.map(|mebibytes| mebibytes * MIB),
    }
}

fn short(facts: Facts, written: u64, available: Option<u64>) -> Facts {
    let short = Some(disk(written, available));
    Facts { short, ..facts }
}

fn evicted(written: u64, available: Option<u64>) -> Facts {
    Facts {
        evicted: Some(disk(written, available)),
        ..failed(GuestFailure::Cancelled)
    }
}

fn host_fault() -> JobError {
    JobError::Collect(CollectError::File {
        path: "/state".into(),
        source: std::io::ErrorKind::StorageFull.into(),
    })
}

/// Returns a verdict as text: its class, its message and the artifacts that are kept.
fn shown(facts: Facts) -> String {
    match Verdict::of(facts) {
        Verdict::Final(it) => {
            let kept: Vec<_> = it.artifacts.iter().map(|file| file.name.as_str()).collect();
            format!("{}, {}: {}", it.outcome, kept.join(" "), it.message)
        }
        Verdict::Canceled => "canceled".to_owned(),
        Verdict::LeaseEnded(end) => format!("lease ended: {end}"),
        Verdict::Late(message) => format!("late: {message}"),
        Verdict::HostFailed(message) => format!("retry: {message}"),
        Verdict::Interrupted(message) => format!("interrupted: {message}"),
        Verdict::Lost(message) => format!("lost: {message}"),
    }
}

/// Returns a table of verdicts as text.
fn table<const N: usize>(table: [(&str, Facts); N]) -> String {
    let lines = table.map(|(name, facts)| format!("{name} -> {}", shown(facts)));
    lines.join("\n")
}

#[test]
fn the_power_off_of_machinectl_cancels() {
    for kind in [Kind::Kvm, Kind::Nspawn] {
        assert_eq!(shown(exited_by(kind, 38, false)), "canceled");
    }
}

#[test]
fn the_host_knows_which_of_its_limits_refused_a_file_whatever_the_guest_says() {
    use Outcome::{Abnormal, Error, Success};
    use RefusalCause::{
        Host, InvalidName, QuotaExhausted, ReservedName, TooLarge, TooManyFiles, UnknownName,
    };
    let bytes_max = 2048 * MIB;
    let large = TooLarge { bytes_max };
    insta::assert_snapshot!(table([
        (
            "too large",
            refused(collected(Abnormal), "artifacts/a", large),
        ),
        (
            "upload too large",
            refused(collected(Error), "upload.tar", large),
        ),
        ("log too large", refused(collected(Abnormal), "log", large)),
        (
            "result too large",
            refused(ended(), "result.manifest", large),
        ),
        (
            "all together too large",
            refused(
                collected(Abnormal),
                "artifacts/b",
                QuotaExhausted { bytes_max },
            ),
        ),
        (
            "too many files",
            refused(
                collected(Abnormal),
                "artifacts/c",
                TooManyFiles { files_max: 10_000 },
            ),
        ),
        (
            "odd name",
            refused(collected(Abnormal), "artifacts/a\u{1b}b", InvalidName),
        ),
        (
            "reserved name",
            refused(collected(Abnormal), RESERVED, ReservedName),
        ),
        ("unknown name", refused(ended(), "diary", UnknownName)),
        (
            "success without a file",
            refused(collected(Success), "artifacts/a", large),
        ),
        (
            "success with a reserved name",
            refused(collected(Success), RESERVED, ReservedName),
        ),
        (
            "success that the host cannot store",
            refused(collected(Success), "artifacts/a", Host),
        ),
        (
            "the host cannot store",
            refused(collected(Error), "artifacts/a", Host),
        ),
        ("ended after that", refused(ended(), "artifacts/a", Host)),
    ]));
}

#[test]
fn only_a_guest_that_filled_the_disk_by_itself_is_at_fault() {
    use Outcome::{Error, Success};
    insta::assert_snapshot!(table([
        (
            "filled by itself, failed",
            short(collected(Error), 900, Some(800)),
        ),
        (
            "filled by others, failed",
            short(collected(Error), 10, Some(800)),
        ),
        (
            "filled, unknown by whom",
            short(collected(Error), 900, None),
        ),
        ("filled by itself, evicted", evicted(900, Some(800))),
        ("filled with others, evicted", evicted(700, Some(800))),
        ("filled, unknown, evicted", evicted(900, None)),
        (
            "failed while it was evicted",
            Facts {
                evicted: Some(disk(700, Some(800))),
                ..short(collected(Error), 700, Some(800))
            },
        ),
        (
            "succeeded on a full disk",
            short(collected(Success), 900, Some(800)),
        ),
    ]));
}

#[test]
fn ends_without_a_result_are_the_hosts_fault_or_interruptions_unless_the_host_knows_better() {
    use Outcome::{Abnormal, Error, Success};
    insta::assert_snapshot!(table([
        ("success", collected(Success)),
        ("error", collected(Error)),
        ("abnormal", collected(Abnormal)),
        ("ended", ended()),
        ("QEMU out of memory", exited(Kind::Kvm, true)),
        ("container out of memory", exited(Kind::Nspawn, true)),
        (
            "ended while the agent stops",
            Facts {
                stopping: true,
                ..ended()
            },
        ),
        (
            "never answered",
            failed(GuestFailure::StartTimeout {
                limit: Duration::from_secs(2),
                console: ConsoleTail::of_output(b"no disk"),
            }),
        ),
        (
            "idle",
            failed(GuestFailure::IdleTimeout(Duration::from_secs(2))),
        ),
        (
            "too long",
            failed(GuestFailure::TotalTimeout(Duration::from_secs(2))),
        ),
        (
            "an auxiliary guest ended",
            failed(GuestFailure::AuxiliaryExited {
                name: "x86_64-pg (pgsql)".into(),
                end: GuestEnd {
                    kind: Kind::Kvm,
                    exit: Exit::Code(0),
                    shutdown: None,
                    out_of_memory: false,
                },
                stderr: String::new(),
                console: ConsoleTail::of_output(b"reboot: Power down"),
            }),
        ),
        (
            "an auxiliary guest is late",
            failed(GuestFailure::AuxiliaryTimeout {
                name: "x86_64-pg (pgsql)".into(),
                limit: Duration::from_secs(2),
                console: ConsoleTail::default(),
            }),
        ),
        (
            "an auxiliary guest's environment",
            failed(GuestFailure::Environment {
                name: "x86_64-pg (pgsql)".into(),
                fault: "line 1 of `environment`: `NAME=VALUE` is expected".into(),
            }),
        ),
        ("the agent died", failed(GuestFailure::AgentGone)),
        ("the agent stops", failed(GuestFailure::Cancelled)),
        ("the agent panicked", failed(JobError::Panicked)),
        ("the host's disk", failed(host_fault())),
        ("forbidden options", failed(SessionError::Options)),
        ("manifest", failed(JobError::Manifest("no id".into()))),
    ]));
}

#[test]
fn an_accepted_cancellation_is_kept() {
    let (canceled, success) = (true, Outcome::Success);
    insta::assert_snapshot!(table([
        (
            "canceled",
            Facts {
                canceled,
                ..failed(GuestFailure::Cancelled)
            },
        ),
        (
            "canceled before a success",
            Facts {
                canceled,
                ..collected(success)
            },
        ),
        (
            "canceled before its end",
            Facts {
                canceled,
                ..ended()
            },
        ),
        (
            "canceled, then stopped",
            Facts {
                canceled,
                stopping: true,
                ..ended()
            },
        ),
        (
            "canceled and evicted",
            Facts {
                canceled,
                ..evicted(9, None)
            },
        ),
    ]));
}

#[test]
fn only_a_build_that_nobody_ended_is_held() {
    let held = |facts| Verdict::of(facts).may_be_held();
    assert!(held(collected(Outcome::Error)));
    assert!(held(failed(GuestFailure::IdleTimeout(Duration::ZERO))));
    let canceled = true;
    for facts in [
        collected(Outcome::Success),
        collected(Outcome::Abnormal),
        ended(),
        Facts {
            canceled,
            ..collected(Outcome::Error)
        },
    ] {
        assert!(!held(facts));
    }
}

#[test]
fn an_abnormal_result_of_a_controllers_task_is_final() {
    let given = |facts| Facts {
        is_given: true,
        ..facts
    };
    let Verdict::Final(result) = Verdict::of(given(collected(Outcome::Abnormal))) else {
        panic!("it is not repeated");
    };
    assert_eq!(result.outcome, Outcome::Abnormal);
    // All other failures of the host are repeated as for other builds.
    assert!(matches!(
        Verdict::of(given(ended())),
        Verdict::HostFailed(_)
    ));
    let full = refused(
        collected(Outcome::Abnormal),
        "upload.tar",
        RefusalCause::Host,
    );
    assert!(matches!(Verdict::of(given(full)), Verdict::HostFailed(_)));
}

#[test]
fn the_end_of_a_lease_counts_only_without_a_result() {
    let end = state::LeaseEnd::Interrupted("urgent".parse().unwrap());
    let ended = || JobError::Guest(GuestFailure::Cancelled);
    let facts = |ended| Facts {
        lease_end: Some(end.clone()),
        ..Facts::of_end(ended)
    };
    let verdict = Verdict::of(facts(Err(ended())));
    assert_eq!(verdict, Verdict::LeaseEnded(end.clone()));
    assert!(!verdict.may_be_held() && !verdict.is_good());
    let result = Collected {
        outcome: Outcome::Success,
        message: String::new(),
        packages: Vec::new(),
        artifacts: Vec::new(),
    };
    assert!(Verdict::of(facts(Ok(result))).is_good());
    let canceled = Facts {
        canceled: true,
        ..facts(Err(ended()))
    };
    assert_eq!(Verdict::of(canceled), Verdict::Canceled);
}
