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
fn a_machine_without_firmware_is_a_fault() {
    let seen = Inventory {
        without_firmware: vec![("win11".parse().unwrap(), "/OVMF.fd: not found".to_owned())],
        ..agent([])
    };
    let told = told(&seen);
    assert!(
        told.starts_with("no-firmware: machine win11: /OVMF.fd: not found"),
        "{told}"
    );
}

/// Every finding in a line, with what a repair does or a person is told.
fn told(seen: &Inventory) -> String {
    let line = |found: Found| {
        let Finding {
            id,
            subject,
            proof,
            advice,
            ..
        } = found.finding;
        let way_out = found
            .repair
            .map_or(advice, |repair| format!("repair: {repair}"));
        format!("{id}: {subject}: {proof}\n    {way_out}")
    };
    examine(seen)
        .into_iter()
        .map(line)
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn a_host_that_works_is_well() {
    let seen = Inventory {
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
    assert_eq!(told(&seen), "");
}

#[test]
fn what_dead_guests_left_is_taken_away() {
    let seen = Inventory {
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
    insta::assert_snapshot!(told(&seen));
}

#[test]
fn what_is_not_provably_ours_is_only_shown() {
    let unreadable = Guest {
        unreadable: true,
        ..guest("8", None, true)
    };
    let seen = Inventory {
        guests: vec![guest("lost+found", None, false), unreadable],
        networks: vec![network("host-lab", &[]), network("host-7", &[(9, "bash")])],
        directories: vec!["/builds/notes".into()],
        groups: vec![group("host-lab", false)],
        ..agent([])
    };
    insta::assert_snapshot!(told(&seen));
    assert!(examine(&seen).iter().all(|found| found.repair.is_none()));
}

#[test]
fn builds_that_nobody_runs_are_told_apart_by_what_is_left_of_them() {
    let seen = Inventory {
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
    insta::assert_snapshot!(told(&seen));
}

#[test]
fn damaged_records_prove_nothing_against_anything() {
    let seen = Inventory {
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
    insta::assert_snapshot!(told(&seen));
}

#[test]
fn a_copy_that_nobody_is_attached_to_is_a_leftover() {
    let mut seen = Inventory {
        copies: ["42-a1".parse().unwrap()].into(),
        guests: vec![guest("42-a1", Some(5), true)],
        networks: vec![network("host-42-a1", &[(5, "qemu-system-x86")])],
        groups: vec![group("host-42-a1", true)],
        ..agent([])
    };
    assert_eq!(told(&seen), "");
    seen.copies.clear();
    assert_eq!(
        told(&seen),
        "leftover-guest: guest 42-a1: its process 5 runs, and nobody is attached to a copy of build 42\n    repair: end process 5 and delete network host-42-a1"
    );
}
