use config::builds::State;
use config::doctor::Severity;
use config::pressure::{Pressure, PressureKind};
use jiff::Timestamp;
use store::Holder;

use super::*;

fn guest(tag: &str, pid: Option<u32>, network: bool) -> Guest {
    Guest {
        run: format!("/run/guests/{tag}").into(),
        tag: tag.to_owned(),
        pid,
        unreadable: false,
        network,
    }
}

fn network(name: &str, processes: &[(u32, &str)]) -> Network {
    let holder = |(pid, name): &(u32, &str)| Holder {
        pid: *pid,
        name: (*name).to_owned(),
    };
    Network {
        name: name.to_owned(),
        processes: processes.iter().map(holder).collect(),
    }
}

fn group(name: &str, busy: bool) -> Group {
    let path = format!("/cgroup/{name}").into();
    let name = name.to_owned();
    Group { path, name, busy }
}

fn build(state: State, result: bool, lost: Option<&str>) -> Recorded {
    Recorded {
        state,
        attempts: 1,
        result,
        lost: lost.map(PathBuf::from),
    }
}

fn agent(builds: impl IntoIterator<Item = (u64, Recorded)>) -> Inventory {
    let builds = builds.into_iter().map(|(id, build)| (BuildId(id), build));
    Inventory {
        prefix: "host-".to_owned(),
        records: Records {
            builds: builds.collect(),
            ..Records::default()
        },
        ..Inventory::default()
    }
}

#[test]
fn a_machine_without_firmware_is_reported() {
    let inventory = Inventory {
        without_firmware: vec![("win11".parse().unwrap(), "/OVMF.fd: not found".to_owned())],
        ..agent([])
    };
    let report = report(&inventory);
    assert!(
        report.starts_with("no-firmware: machine win11: /OVMF.fd: not found"),
        "{report}"
    );
}

#[test]
fn a_failed_bootstrap_is_reported_with_its_error() {
    let error = "the guest ended before it had put its result: it reset";
    let failed = (
        "demo".parse().unwrap(),
        "default".parse().unwrap(),
        error.to_owned(),
    );
    let inventory = Inventory {
        failed_bootstraps: vec![failed],
        ..agent([])
    };
    let report = report(&inventory);
    let expected = format!(
        "bootstrap-failed: machine demo: the bootstrap with toolchain default failed: {error}"
    );
    assert!(report.starts_with(&expected), "{report}");
}

#[test]
fn a_bootstrap_that_waits_is_a_note_with_its_reason() {
    let reason = "its bootstrap waits for the start of build 7: no build needs this image yet";
    let waiting = (
        "demo".parse().unwrap(),
        "default".parse().unwrap(),
        reason.to_owned(),
    );
    let inventory = Inventory {
        waiting_bootstraps: vec![waiting],
        ..agent([])
    };
    let found = examine(&inventory);
    assert_eq!(found[0].finding.id.kind().severity, Severity::Note);
    let expected = format!(
        "bootstrap-waiting: machine demo: the image with toolchain default is not made yet: {reason}"
    );
    let report = report(&inventory);
    assert!(report.starts_with(&expected), "{report}");
}

#[test]
fn a_schedule_without_its_machine_is_reported() {
    let inventory = Inventory {
        schedules: vec![("nightly".parse().unwrap(), "gone".parse().unwrap())],
        ..agent([])
    };
    let report = report(&inventory);
    let expected = "schedule-without-machine: schedule nightly: each run fails, because there is no machine gone\n    add the machine, or `buildhost schedule remove nightly`";
    assert!(report.starts_with(expected), "{report}");
}

#[test]
fn caches_that_are_too_large_or_match_nothing_are_reported() {
    let cache = |name: &str, bytes, unmatched: &[&str]| CacheFacts {
        name: name.parse().unwrap(),
        bytes,
        bytes_max: 10 << 20,
        unmatched: unmatched.iter().map(ToString::to_string).collect(),
    };
    let inventory = Inventory {
        caches: vec![
            cache("good", 10 << 20, &[]),
            cache("large", 11 << 20, &[]),
            cache("odd", 0, &["machine `x*`", "writer `token:gone`"]),
        ],
        unnamed_caches: vec!["/state/caches/old".into()],
        ..agent([])
    };
    assert!(examine(&inventory)[0].finding.automatic);
    insta::assert_snapshot!(report(&inventory), @r"
    cache-too-large: cache large: it has 11 MiB, and its `mib_max` is 10
        the agent prunes it in its next round, or `buildhost cache prune`
    cache-unmatched: cache odd: nothing matches its machine `x*` and writer `token:gone`
        correct it in the settings, [[caches]]
    cache-unnamed: /state/caches/old: no [[caches]] in the settings has its name
        name it in the settings again, or delete the directory
    ");
}

#[test]
fn settings_that_match_nothing_and_files_of_secrets_that_are_open_are_reported() {
    let inventory = Inventory {
        hashserv_unmatched: vec!["reporter `token:gone`".into()],
        open_secrets: vec![("/state/secrets/key".into(), 0o644)],
        catalog: "/state/layers.sqlite3".into(),
        unreadable_catalog: vec![("project camera".into(), "no JSON".into())],
        undeclared: vec![("linux".parse().unwrap(), "license".parse().unwrap(), 2, 1)],
        ..agent([])
    };
    insta::assert_snapshot!(report(&inventory), @r"
    unreadable-record: /state/layers.sqlite3: project camera: no JSON
        if a newer agent wrote it, use that one; or else remove it and add it again
    hashserv-unmatched: setting [hashserv]: nothing matches its reporter `token:gone`
        correct it in the settings
    open-secret: /state/secrets/key: its mode is 0644, so users other than root can read it
        `chmod 0600 /state/secrets/key`, and replace the secret, which others may know
    undeclared-resource: machine linux: its guests need 2 of resource license, and the host has 1, so its builds are refused
        declare `license = 2` in the setting guests.resources, or change `resources` in the manifest of the machine
    ");
}

/// Returns each finding in a line, with its repair or advice.
fn report(inventory: &Inventory) -> String {
    let line = |found: Found| {
        let Finding {
            id,
            subject,
            proof,
            advice,
            ..
        } = found.finding;
        let remedy = found
            .repair
            .map_or(advice, |repair| format!("repair: {repair}"));
        format!("{id}: {subject}: {proof}\n    {remedy}")
    };
    examine(inventory)
        .into_iter()
        .map(line)
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn a_healthy_host_has_no_findings() {
    let inventory = Inventory {
        running: [BuildId(1)].into(),
        bootstraps: true,
        guests: vec![guest("1", Some(5), true), guest("b3", None, false)],
        networks: vec![
            network("host-1", &[(5, "qemu-system-x86")]),
            network("host-b3", &[]),
        ],
        groups: vec![group("host-1", true), group("host-b3", false)],
        directories: vec!["/builds/1".into(), "/builds/2".into()],
        ..agent([
            (1, build(State::Running, false, None)),
            (2, build(State::Finished, true, None)),
            (3, build(State::Queued, false, Some("/builds/3"))),
        ])
    };
    assert_eq!(report(&inventory), "");
}

#[test]
fn leftovers_of_dead_guests_are_repaired() {
    let inventory = Inventory {
        guests: vec![
            guest("1", Some(5), true),
            guest("2", None, false),
            guest("b3", Some(6), true),
        ],
        networks: vec![
            network("host-1", &[(5, "qemu-system-x86")]),
            network("host-2", &[]),
            network("host-4", &[(7, "qemu-system-x86")]),
            network("host-b9", &[]),
        ],
        groups: vec![group("host-2", false), group("host-8", true)],
        ..agent([(2, build(State::Finished, true, None))])
    };
    insta::assert_snapshot!(report(&inventory));
}

#[test]
fn unmanaged_things_are_reported_but_never_repaired() {
    let unreadable = Guest {
        unreadable: true,
        ..guest("8", None, true)
    };
    let inventory = Inventory {
        guests: vec![guest("lost+found", None, false), unreadable],
        networks: vec![network("host-lab", &[]), network("host-7", &[(9, "bash")])],
        directories: vec!["/builds/notes".into()],
        groups: vec![group("host-lab", false)],
        ..agent([])
    };
    insta::assert_snapshot!(report(&inventory));
    assert!(
        examine(&inventory)
            .iter()
            .all(|found| found.repair.is_none())
    );
}

#[test]
fn builds_without_a_job_are_diagnosed_by_their_remains() {
    let inventory = Inventory {
        guests: vec![guest("2", Some(5), true), guest("4", Some(6), false)],
        networks: vec![network("host-2", &[(5, "qemu-system-x86")])],
        running: [BuildId(4)].into(),
        directories: vec!["/builds/9".into()],
        ..agent([
            (1, build(State::Running, false, None)),
            (2, build(State::Running, false, None)),
            (3, build(State::Storing, true, None)),
            (4, build(State::Running, false, None)),
            (5, build(State::Finished, false, Some("/builds/5"))),
        ])
    };
    insta::assert_snapshot!(report(&inventory));
}

#[test]
fn a_record_that_cannot_be_read_is_a_finding_and_its_directory_is_not() {
    let mut inventory = agent([(1, build(State::Finished, false, None))]);
    inventory.directories = vec!["/builds/1".into(), "/builds/2".into()];
    let fault = "column target: \"a  b\" cannot be a target".to_owned();
    inventory.records.unreadable.insert(BuildId(2), fault);
    insta::assert_snapshot!(report(&inventory));
}

#[test]
fn damaged_records_are_the_only_finding_about_builds() {
    let inventory = Inventory {
        records: Records {
            path: "/state/records.sqlite3".into(),
            faults: vec!["row 7 missing from index".to_owned()],
            ..Records::default()
        },
        guests: vec![guest("1", Some(5), true)],
        directories: vec!["/builds/1".into()],
        short: vec![("/state".into(), 3 << 20)],
        unused: vec![("/state/sources/a".into(), 2 << 20)],
        sources: "/state/sources".into(),
        ..agent([])
    };
    insta::assert_snapshot!(report(&inventory));
}

#[test]
fn a_guest_without_its_debug_session_is_a_leftover() {
    let mut inventory = Inventory {
        copies: ["42-a1".parse().unwrap()].into(),
        guests: vec![guest("42-a1", Some(5), true)],
        networks: vec![network("host-42-a1", &[(5, "qemu-system-x86")])],
        groups: vec![group("host-42-a1", true)],
        ..agent([])
    };
    assert_eq!(report(&inventory), "");
    inventory.copies.clear();
    assert_eq!(
        report(&inventory),
        "leftover-guest: guest 42-a1: its process 5 runs, but no debug session of build 42 is open\n    repair: end process 5 and delete network host-42-a1"
    );
}

#[test]
fn a_directory_that_others_may_enter_is_reported() {
    let inventory = Inventory {
        open: vec![("/var/lib/buildhost".into(), 0o755)],
        ..agent([])
    };
    let report = report(&inventory);
    let expected = "open-state: /var/lib/buildhost: its mode is 0755: ";
    assert!(report.starts_with(expected), "{report}");
}

#[test]
fn high_and_unreported_pressure_are_reported() {
    let high = Pressure {
        resource: PressureKind::Memory,
        percent: 43,
        percent_max: Some(20),
        high_since: Some(Timestamp::UNIX_EPOCH),
    };
    let inventory = Inventory {
        pressure_directory: "/proc/pressure".into(),
        high_pressure: vec![high],
        unreported_pressure: vec!["io"],
        ..agent([])
    };
    assert_eq!(
        report(&inventory),
        "host-pressure: /proc/pressure/memory: since 1970-01-01 00:00:00Z the memory pressure is above 20 % or has not fallen below one half of that; it was 43 % when the scheduler last looked\n    `systemd-cgtop` shows what uses the host; the setting guests.memory_pressure_percent_max is the limit\nunknown-pressure: /proc/pressure/io: the file does not exist or states nothing\n    boot the kernel with psi=1, or set the limit on this pressure to 0"
    );
}

#[test]
fn controllers_that_fail_or_lack_something_are_reported() {
    let facts = |name: &str, seconds| ControllerFacts {
        name: name.parse().unwrap(),
        failing: Some(("no route".to_owned(), seconds)),
        key_fault: None,
        machines: 1,
        unlike: Vec::new(),
    };
    let inventory = Inventory {
        controllers: vec![
            facts("new", 3599),
            facts("old", 7200),
            ControllerFacts {
                failing: None,
                unlike: vec!["has revision 2 of linux with other content".to_owned()],
                ..facts("farm", 0)
            },
            ControllerFacts {
                failing: None,
                key_fault: Some("cannot read the key /k".to_owned()),
                machines: 0,
                ..facts("bad", 0)
            },
        ],
        unnamed_controllers: vec![("gone".parse().unwrap(), 2)],
        ..Inventory::default()
    };
    let found: Vec<_> = examine(&inventory)
        .into_iter()
        .map(|it| {
            format!(
                "{}: {}: {}",
                it.finding.id, it.finding.subject, it.finding.proof
            )
        })
        .collect();
    insta::assert_snapshot!(found.join("\n"), @r"
    controller-unreachable: controller old: for 120 minutes: no route
    farm-content: controller farm: this host has revision 2 of linux with other content
    controller-key: controller bad: cannot read the key /k
    controller-without-machine: controller bad: no bootstrapped machine matches its `machines` and its toolchain
    controller-unnamed: controller gone: the number of its open leases is 2
    ");
}

#[test]
fn guests_that_machined_refuses_are_a_note() {
    let inventory = Inventory {
        machined_fault: Some("guest 7: the name is taken".to_owned()),
        ..Inventory::default()
    };
    let found = examine(&inventory);
    let [found] = &found[..] else {
        panic!("{found:?}");
    };
    let finding = &found.finding;
    assert_eq!(finding.id.kind().name, "guests-unregistered");
    assert_eq!(finding.proof, "guest 7: the name is taken");
    assert!(found.repair.is_none());
}

#[test]
fn an_auxiliary_guest_belongs_to_its_build() {
    let mut inventory = Inventory {
        running: [BuildId(42)].into(),
        guests: vec![guest("42", Some(5), true), guest("42-x1", Some(6), true)],
        networks: vec![network("host-42", &[(5, "qemu-system-x86")])],
        groups: vec![group("host-42", true), group("host-42-x1", true)],
        ..agent([(42, build(State::Running, false, None))])
    };
    assert_eq!(report(&inventory), "");
    // The next agent adopts both.
    inventory.running.clear();
    assert!(!report(&inventory).contains("leftover-guest"));
    inventory.records.builds.clear();
    assert!(report(&inventory).contains(
        "leftover-guest: guest 42-x1: its process 6 runs, but build 42 does not run\n    repair: end process 6 and delete network host-42"
    ));
}
