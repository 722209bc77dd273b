//! Many of them: what each guest that runs costs the agent, and what an agent costs
//! that has a hundred machines and nothing to do.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use config::Tag;
use config::task::{BOOTSTRAP_VERSION, Provenance};
use store::toolchains::Toolchains;
use store::{Origin, Volume};

use crate::ground::toolchain;
use crate::host::Agent;
use crate::table::{at_most, title};

const GUESTS: u32 = 8;
const MACHINES: u32 = 100;

/// How long an agent is looked at.
const TIME: Duration = Duration::from_secs(10);
/// Threads that may block end when they had nothing to do for so long.
const SETTLE: Duration = Duration::from_secs(12);
/// It looks at the room on its disks every 2 s: six times at the most while we look.
/// Each time its main thread, one of tokio's and one that may block go on, and wait
/// again.
const WAKE_UPS_MAX: f64 = 36.0;

/// The memory of an agent with guests that all wait for a person.
pub(crate) fn guests(agent: &Agent) {
    let before = agent.status("VmRSS");
    let submit = |_| agent.submit("frozen", &["--interactive", "start"]);
    let builds: Vec<_> = (0..GUESTS).map(submit).collect();
    agent.wait("the guests do not come to their breakpoints", || {
        builds
            .iter()
            .all(|id| agent.look(id).interactive.held.is_some())
    });
    let after = agent.status("VmRSS");
    for id in &builds {
        agent.machinectl(&["--quiet", "cancel", id]);
    }
    agent.wait("the guests do not end", || {
        builds.iter().all(|id| agent.look(id).finished.is_some())
    });
    title("memory of the agent");
    println!("{before:>7} KiB  after some builds, without a guest");
    println!("{after:>7} KiB  with {GUESTS} guests");
    let each = after.saturating_sub(before) / u64::from(GUESTS);
    println!("{each:>7} KiB  for each guest");
}

/// An agent with machines that are ready and not used.
pub(crate) fn at_rest(work: &Path) {
    images(&work.join("host/crowd"), &work.join("host/toolchains"));
    let agent = Agent::start(work, "crowd");
    let names: Vec<_> = (1..=MACHINES).map(|n| format!("machine{n:03}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    agent.wait_until_ready(&names);
    sleep(SETTLE);
    let before = agent.wake_ups();
    sleep(TIME);
    let wake_ups = agent.wake_ups() - before;
    let kib = u32::try_from(agent.status("VmRSS")).unwrap();
    title(&format!("an agent at rest, {MACHINES} machines"));
    at_most("memory", f64::from(kib) / 1024.0, 20.0, " MiB");
    let wake_ups = f64::from(u32::try_from(wake_ups).unwrap());
    at_most("wake-ups in 10 s", wake_ups, WAKE_UPS_MAX, "");
}

/// Gives every machine an image, as a bootstrap leaves one.
fn images(volume: &Path, toolchains: &Path) {
    let volume = Volume::open(volume).unwrap();
    let toolchains = Toolchains::open(toolchains).unwrap();
    let toolchain_id = toolchains.load(&toolchain()).unwrap().id;
    for machine in volume.machines().unwrap() {
        let (origin, tag) = (Origin::Current, Tag::bootstrap());
        let snapshot = volume.snapshot(&machine, &origin, &toolchain(), &tag);
        let snapshot = snapshot.unwrap();
        let provenance = Provenance {
            revision_uuid: snapshot.taken().unwrap().uuid.to_string(),
            toolchain_id: toolchain_id.clone(),
            bootstrap_version: BOOTSTRAP_VERSION,
        };
        volume.publish_image(snapshot, &provenance).unwrap();
    }
}
