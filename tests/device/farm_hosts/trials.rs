//! Trials over all hosts of a farm: a candidate travels to each host, builds run on it where the farm says
//! so, and it is rolled back or promoted everywhere.

use config::Revision;
use config::canary::{FarmTrial, Trial, TrialResult, TrialVerdict};
use store::MachineView;
use store::subvolumes::{BtrfsBackend, SubvolumeBackend};
use tests::agent::AgentHost;
use tests::{wait_until, write_file};

use super::farm::{Farm, host};
use crate::controllers::builds;

/// A script that prints the content that only the candidate has.
const SCRIPT: &str = "cat /candidate 2>/dev/null || echo the current revision";
const CANDIDATE: Revision = Revision(2);

fn view(host: &AgentHost) -> MachineView {
    host.host.volume.view(&"demo".parse().unwrap()).unwrap()
}

fn trial(host: &AgentHost) -> Option<Trial> {
    view(host).trials.remove(&CANDIDATE)
}

fn farm_trial(host: &AgentHost) -> Option<FarmTrial> {
    view(host).candidate()?.1.farm.clone()
}

/// Upgrades `demo` to a copy of its first revision with another file, on trial on this host alone.
fn upgrade(host: &AgentHost) {
    let revision = host.host.mount.path().join("demo-2");
    let first = host.host.volume.path().join("demo/demo-1");
    BtrfsBackend.snapshot(&first, &revision).unwrap();
    write_file(&revision.join("root/candidate"), "the candidate\n");
    BtrfsBackend.make_read_only(&revision).unwrap();
    let from = revision.display().to_string();
    let upgrade = ["upgrade", "demo", "--from", &from, "--canary", "2/2"];
    host.host.machinectl(&upgrade, b"").success();
    host.machinectl(&["record", "demo", "2"]).success();
}

/// Returns two hosts with the published revision, of which the first has the candidate.
fn hosts(farm: &Farm) -> [AgentHost; 2] {
    let one = host(farm, "one");
    one.machinectl(&["record", "demo"]).success();
    wait_until("the revision is published", || {
        farm.publish("demo", 1).is_ok()
    });
    let mut two = AgentHost::new(&farm.settings());
    two.add_toolchain("1");
    two.start();
    farm.enrol(&two, "two");
    wait_until("the other host has the machine", || {
        let view = two.host.volume.view(&"demo".parse().unwrap());
        view.is_ok_and(|it| it.current == Some(Revision(1)) && !it.images.is_empty())
    });
    upgrade(&one);
    [one, two]
}

/// Puts the candidate on trial in the farm, and waits until each host has its image.
fn try_on(farm: &Farm, hosts: &[AgentHost]) {
    wait_until("the farm begins the trial", || {
        farm.try_revision("demo", 2, "2 of 2").is_ok()
    });
    for host in hosts {
        wait_until("the farm decides on the trial of a host", || {
            farm_trial(host).is_some()
        });
        wait_until("the image of the candidate is made", || {
            view(host).trial_images.iter().any(|(_, it)| it.complete)
        });
    }
}

/// Submits builds until one has run on the candidate, and returns its host and its number there.
fn tried<'h>(farm: &Farm, hosts: &'h [AgentHost], name: &str) -> (&'h AgentHost, u64) {
    let mut found = None;
    let mut number = 0;
    wait_until("a build runs on the candidate", || {
        number += 1;
        let build = farm.submit(&format!("{name}-{number}"), SCRIPT);
        farm.wait_for_outcome(build, "success");
        let all = hosts
            .iter()
            .flat_map(|host| builds(host).into_iter().map(move |it| (host, it)));
        let is_of_build = |it: &config::builds::Build| {
            it.target.to_string() == format!("{name}-{number}") && it.trial.is_some()
        };
        found = all
            .filter(|(_, it)| is_of_build(it))
            .map(|(host, it)| (host, it.id.0))
            .next();
        found.is_some()
    });
    found.unwrap()
}

fn bootstraps(host: &AgentHost) -> usize {
    host.log().matches("starting the bootstrap").count()
}

#[test]
#[ignore = "needs root: real btrfs, containers and PostgreSQL"]
fn a_candidate_is_rolled_back_and_later_promoted_on_all_hosts() {
    let farm = Farm::start(1);
    let mut hosts = hosts(&farm);
    try_on(&farm, &hosts);
    for host in &hosts {
        assert_eq!(view(host).current, Some(Revision(1)));
        let shown = host.machinectl(&["status", "demo"]).success().stdout;
        let expected = "revision 2 is on trial (farm farm decides)";
        assert!(shown.contains(expected), "{shown}");
    }
    let first = farm_trial(&hosts[1]);
    // A trial goes on after a restart.
    hosts[1].stop(rustix::process::Signal::KILL);
    hosts[1].start();

    let (host, id) = tried(&farm, &hosts, "first");
    assert!(host.log_of(id).contains("the candidate"));
    let build = host.build(id);
    assert_eq!(build.revision, Some(CANDIDATE));
    assert_eq!(build.trial.unwrap().result, Some(TrialResult::Succeeded));
    let shown = host.machinectl(&["builds", &id.to_string()]).success();
    assert!(shown.stdout.contains("on trial then"), "{shown:?}");
    assert_eq!(farm_trial(&hosts[1]), first);

    farm.decide("demo", "rollback");
    for host in &hosts {
        wait_until("the trial ends on each host", || {
            trial(host).is_some_and(|it| it.end.is_some()) && view(host).trial_images.is_empty()
        });
        let end = trial(host).unwrap().end.unwrap();
        assert_eq!(end.verdict, TrialVerdict::RolledBack, "{end:?}");
        assert_eq!(view(host).current, Some(Revision(1)));
    }

    try_on(&farm, &hosts);
    assert!(farm_trial(&hosts[1]).unwrap().number > first.unwrap().number);
    let made: Vec<_> = hosts.iter().map(bootstraps).collect();
    tried(&farm, &hosts, "second");
    farm.decide("demo", "promote");
    for host in &hosts {
        wait_until("the candidate is current on each host", || {
            view(host).current == Some(CANDIDATE) && trial(host).is_some_and(|it| it.end.is_some())
        });
        let end = trial(host).unwrap().end.unwrap();
        assert_eq!(end.verdict, TrialVerdict::Promoted, "{end:?}");
        assert_eq!(
            (view(host).images.len(), view(host).trial_images.len()),
            (1, 0)
        );
    }
    let last = farm.submit("last", SCRIPT);
    farm.wait_for_outcome(last, "success");
    assert_eq!(hosts.iter().map(bootstraps).collect::<Vec<_>>(), made);
    let mut local = hosts.iter().flat_map(builds);
    let last = local.rfind(|it| it.target.to_string() == "last");
    let last = last.unwrap();
    assert_eq!((last.revision, last.trial), (Some(CANDIDATE), None));
}

#[test]
#[ignore = "needs root: real btrfs, containers and PostgreSQL"]
fn a_revision_that_was_rolled_back_can_be_published() {
    let farm = Farm::start(1);
    let hosts = hosts(&farm);
    try_on(&farm, &hosts);
    farm.decide("demo", "rollback");
    for host in &hosts {
        wait_until("the trial ends on each host", || {
            trial(host).is_some_and(|it| it.end.is_some())
        });
    }
    farm.publish("demo", 2).unwrap();
    for host in &hosts {
        // The verdict is written last.
        wait_until("the revision is current on each host", || {
            let end = trial(host).and_then(|it| it.end);
            view(host).current == Some(CANDIDATE)
                && end.is_some_and(|it| it.verdict == TrialVerdict::Promoted)
        });
    }
}
