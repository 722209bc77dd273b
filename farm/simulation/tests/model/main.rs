//! A model of leases for `stateright`: every order of events of three hosts, two builds and two
//! coordinators, to the last state.
//!
//! Polls, answers and reports get lost, come late and are repeated; agents crash while their guests go on;
//! coordinators look and rescue whenever they like. The model is exhaustive without bounds on steps,
//! epochs or beats, because it leaves out what no actor can see:
//!
//! - One unit of time is a quarter of a lease, and passes everywhere at once. Hosts use two of them, and
//!   coordinators take a lease after three, because their clocks may be faster by a quarter.
//! - A number that is only compared is a comparison. A coordinator has seen the present beat of a host, or
//!   not; a result has the present epoch of its build, or an older one. Nothing has a newer one.
//! - A poll that was sent may reach a coordinator at any later time and again. So polls that were not served
//!   are no state: a host's beat may always rise, and a host may always get builds that it does not know of.
//! - An answer that changes nothing on its host is left out, and so is one that comes too late.
//! - The time since a coordinator has seen a beat is left out for a host without a lease.
//! - States that differ only in the numbers of hosts, builds or coordinators are one.
//!
//! Each property fails under a fault that is planted into the model.

mod farm;
mod state;

use std::time::Instant;

use farm::{Farm, Fault, PROPERTIES};
use state::{BUILDS_MAX, COORDINATORS_MAX, HOSTS_MAX};
use stateright::{Checker, Model};

#[test]
fn no_order_of_events_breaks_a_lease() {
    let [hosts, builds, coordinators] = [HOSTS_MAX, BUILDS_MAX, COORDINATORS_MAX];
    let started = Instant::now();
    let farm = Farm::new(hosts, builds, coordinators, None);
    let checker = farm.checker().threads(2).spawn_bfs().join();
    for name in PROPERTIES {
        assert_eq!(checker.discovery(name), None, "{name}");
    }
    for name in ["a lease is taken back", "all builds have results"] {
        checker.assert_any_discovery(name);
    }
    println!(
        "{hosts} hosts, {builds} builds, {coordinators} coordinators: {} states, which are all, in {:.0} s",
        checker.unique_state_count(),
        started.elapsed().as_secs_f64()
    );
}

#[test]
fn each_property_fails_under_a_planted_fault() {
    for (fault, name) in [
        (Fault::CoordinatorIsImpatient, "no guest without a lease"),
        (Fault::RescueIgnoresBeat, "no guest without a lease"),
        (Fault::NoGuard, "no guest without a lease"),
        (
            Fault::AnswersCountFromTheirArrival,
            "no guest without a lease",
        ),
        (Fault::ClaimIgnoresState, "one guest per build"),
        (Fault::FinishIgnoresEpoch, "a result has the newest lease"),
        (Fault::FinishIsRepeated, "one result per build"),
        (Fault::LeaseStartsAgain, "one guest per lease"),
    ] {
        let checker = Farm::new(2, 1, 1, Some(fault)).checker().spawn_bfs().join();
        assert!(checker.discovery(name).is_some(), "{fault:?}: {name}");
    }
}
