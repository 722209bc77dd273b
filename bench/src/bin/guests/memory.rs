//! The memory of an agent with running guests, and the memory and the wake-ups of an idle agent
//! with a hundred machines.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use bench::agent_process::{AgentProcess, Installation};
use bench::guest_fixture::toolchain;
use bench::table::{print_at_most, print_title};
use config::Tag;
use config::task::{BOOTSTRAP_VERSION, Provenance};
use store::toolchains::Toolchains;
use store::{SnapshotSource, Volume};

const GUESTS: u32 = 8;
const MACHINES: u32 = 100;

/// The duration during which wake-ups are counted.
const OBSERVATION: Duration = Duration::from_secs(10);
/// The time after which tokio ends idle blocking threads, and a margin.
const SETTLE: Duration = Duration::from_secs(12);
/// The agent checks the free space of its disks every 2 s, at most six times during the
/// observation. Each check wakes its main thread, a thread of tokio and a blocking thread, twice.
const WAKE_UPS_MAX: f64 = 36.0;

/// Measures the memory of an agent with guests that all stop at a breakpoint.
pub(crate) fn agent_with_guests(agent: &AgentProcess) {
    let before = agent.status("VmRSS");
    let submit = |_| agent.submit("frozen", &["--interactive", "start"]);
    let builds: Vec<_> = (0..GUESTS).map(submit).collect();
    agent.wait("the guests stop at their breakpoints", || {
        builds
            .iter()
            .all(|id| agent.record(id).interactive.held.is_some())
    });
    let after = agent.status("VmRSS");
    for id in &builds {
        agent.machinectl(&["--quiet", "cancel", id]);
    }
    agent.wait("the guests have ended", || {
        builds.iter().all(|id| agent.record(id).finished.is_some())
    });
    print_title("memory of the agent");
    println!("{before:>7} KiB  after some builds, without guests");
    println!("{after:>7} KiB  with {GUESTS} guests");
    let each = after.saturating_sub(before) / u64::from(GUESTS);
    println!("{each:>7} KiB  per guest");
}

/// Measures an agent with machines that are ready and not used.
pub(crate) fn idle_agent(work: &Path) {
    publish_images(&work.join("host/crowd"), &work.join("host/toolchains"));
    let agent = AgentProcess::start(Installation::new(work, "crowd"));
    let names: Vec<_> = (1..=MACHINES).map(|n| format!("machine{n:03}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    agent.wait_until_ready(&names);
    sleep(SETTLE);
    let before = agent.wake_ups();
    sleep(OBSERVATION);
    let wake_ups = agent.wake_ups() - before;
    let kib = u32::try_from(agent.status("VmRSS")).unwrap();
    print_title(&format!("an idle agent with {MACHINES} machines"));
    print_at_most("memory", f64::from(kib) / 1024.0, 20.0, " MiB");
    let wake_ups = f64::from(u32::try_from(wake_ups).unwrap());
    print_at_most("wake-ups in 10 s", wake_ups, WAKE_UPS_MAX, "");
}

/// Publishes an image of every machine, as a bootstrap does.
fn publish_images(volume: &Path, toolchains: &Path) {
    let volume = Volume::open(volume).unwrap();
    let toolchains = Toolchains::open(toolchains).unwrap();
    let toolchain_id = toolchains.load(&toolchain()).unwrap().id;
    for machine in volume.machines().unwrap() {
        let (origin, tag) = (SnapshotSource::Current, Tag::bootstrap());
        let snapshot = volume.snapshot(&machine, &origin, &toolchain(), &tag);
        let snapshot = snapshot.unwrap();
        let provenance = Provenance {
            revision_uuid: snapshot.source_revision().unwrap().uuid.to_string(),
            toolchain_id: toolchain_id.clone(),
            bootstrap_version: BOOTSTRAP_VERSION,
        };
        volume.publish_image(snapshot, &provenance).unwrap();
    }
}
