//! The room that guests take of their host, and the words for what there is none of.

use std::collections::BTreeMap;
use std::fmt;

use config::{BuildId, MachineName};

use super::super::plan::ImageKey;
use crate::state::guest_tag::CopyTag;

/// How many of those that hold something are named.
const NAMED_MAX: usize = 4;

/// What a guest takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResourceRequest {
    /// Processors.
    pub cpus: u64,
    /// Memory, in MiB.
    pub memory: u64,
    /// What its snapshot may grow by, in MiB.
    pub disk: u64,
    /// How many guests its machine may have at once, when that is limited.
    pub machine_max: Option<usize>,
}

/// Who takes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobId {
    /// A build.
    Build(BuildId),
    /// The bootstrap of an image.
    Bootstrap(ImageKey),
    /// A copy of what is held of a build, for a person.
    Copy(CopyTag),
}

/// What somebody takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// Who.
    pub holder: JobId,
    /// The machine.
    pub machine: MachineName,
    /// Where its snapshot is.
    pub volume: usize,
    /// How much.
    pub demand: ResourceRequest,
}

/// What a host can give.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capacity {
    /// How many guests may run at once; as many as there is room for if `None`.
    pub guests: Option<usize>,
    /// Processors, as often as they may be given away.
    pub cpus: u64,
    /// Memory for all guests together, in MiB.
    pub memory: u64,
    /// Memory that is available now beyond the host's reserve, in MiB.
    pub available: u64,
    /// What is free in each volume beyond its reserve, in MiB.
    pub disk: BTreeMap<usize, u64>,
}

/// What there is too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Guests.
    Guests,
    /// Processors.
    Cpus,
    /// Memory.
    Memory,
    /// Space in a volume.
    Disk(usize),
}

/// Why a guest does not start now. It shows as what is waited for: `memory: …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// As many run as may.
    Guests(usize),
    /// As many of its machine run as may.
    Machine(MachineName, usize, Vec<JobId>),
    /// There is too little of something.
    Short {
        /// Of what.
        what: Kept,
        /// How much it wants.
        wanted: u64,
        /// How much of it is free.
        free: u64,
        /// How much there is.
        total: u64,
        /// Who holds the rest.
        holders: Vec<JobId>,
    },
    /// It wants more than the host has.
    Never {
        /// How much memory it wants, in MiB.
        wanted: u64,
        /// How much there is for guests.
        total: u64,
    },
    /// Others than guests have taken the memory.
    Taken {
        /// How much it wants, in MiB.
        wanted: u64,
        /// How much is available.
        available: u64,
    },
    /// Room is kept for a build that has waited for it too long.
    After(BuildId, Kept),
}

/// A host's room, and who has taken how much of it.
#[derive(Debug, Clone, Default)]
pub struct Room {
    capacity: Capacity,
    holdings: Vec<Allocation>,
    kept: Vec<(BuildId, Kept)>,
    /// Memory of those that start now: it does not show yet in what is available.
    fresh: u64,
}

impl Room {
    /// The room of a host on which these run.
    pub fn new(capacity: Capacity, holdings: Vec<Allocation>) -> Self {
        Self {
            capacity,
            holdings,
            ..Self::default()
        }
    }

    /// What there is in all.
    pub fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// Who has taken how much.
    pub fn holdings(&self) -> &[Allocation] {
        &self.holdings
    }

    /// Takes room for one more.
    pub fn hold(&mut self, holding: Allocation) {
        self.fresh += holding.demand.memory;
        self.holdings.push(holding);
    }

    /// Keeps what a build waits for from those that come after it.
    pub fn keep(&mut self, id: BuildId, refusal: &Refusal) {
        let what = match refusal {
            Refusal::Guests(_) => Kept::Guests,
            Refusal::Short { what, .. } => *what,
            Refusal::Taken { .. } => Kept::Memory,
            // Another one of its machine, or of its size, has nothing to gain either.
            Refusal::Machine(..) | Refusal::Never { .. } | Refusal::After(..) => return,
        };
        self.kept.push((id, what));
    }

    /// The part of the host that a guest takes, by what it takes most of.
    pub fn weight(&self, demand: &ResourceRequest) -> f64 {
        let part = |wanted: u64, total: u64| number(wanted) / number(total.max(1));
        let cpus = part(demand.cpus, self.capacity.cpus);
        cpus.max(part(demand.memory, self.capacity.memory))
            .clamp(0.001, 1.0)
    }

    /// Why a guest cannot start now, if it cannot.
    pub fn refuse(
        &self,
        machine: &MachineName,
        volume: usize,
        demand: &ResourceRequest,
    ) -> Option<Refusal> {
        if demand.memory > self.capacity.memory {
            return Some(Refusal::Never {
                wanted: demand.memory,
                total: self.capacity.memory,
            });
        }
        self.refuse_count(machine, demand)
            .or_else(|| self.refuse_kept(volume))
            .or_else(|| self.refuse_short(volume, demand))
    }

    fn refuse_count(&self, machine: &MachineName, demand: &ResourceRequest) -> Option<Refusal> {
        let run = self.holdings.len();
        if self.capacity.guests.is_some_and(|most| run >= most) {
            return Some(Refusal::Guests(run));
        }
        let most = demand.machine_max?;
        let same = self.holdings.iter().filter(|it| it.machine == *machine);
        let holders: Vec<_> = same.map(|it| it.holder.clone()).collect();
        (holders.len() >= most).then(|| Refusal::Machine(machine.clone(), most, holders))
    }

    fn refuse_kept(&self, volume: usize) -> Option<Refusal> {
        let touches = |kept: &&(BuildId, Kept)| match kept.1 {
            Kept::Disk(other) => other == volume,
            Kept::Guests | Kept::Cpus | Kept::Memory => true,
        };
        let (id, what) = self.kept.iter().find(touches)?;
        Some(Refusal::After(*id, *what))
    }

    fn refuse_short(&self, volume: usize, demand: &ResourceRequest) -> Option<Refusal> {
        let wanted = [
            (Kept::Cpus, demand.cpus, self.capacity.cpus),
            (Kept::Memory, demand.memory, self.capacity.memory),
        ];
        for (what, wanted, total) in wanted {
            let free = total.saturating_sub(self.taken(what));
            // A machine with more processors than its host runs alone.
            let alone = what == Kept::Cpus && self.holdings.is_empty();
            if wanted > free && !alone {
                return Some(self.short(what, wanted, free, total));
            }
        }
        let available = self.capacity.available.saturating_sub(self.fresh);
        if demand.memory > available {
            let wanted = demand.memory;
            return Some(Refusal::Taken { wanted, available });
        }
        let what = Kept::Disk(volume);
        let total = *self.capacity.disk.get(&volume)?;
        let free = total.saturating_sub(self.taken(what));
        (demand.disk > free).then(|| self.short(what, demand.disk, free, total))
    }

    fn short(&self, what: Kept, wanted: u64, free: u64, total: u64) -> Refusal {
        let holders = self.holdings.iter().filter(|it| amount(it, what) > 0);
        Refusal::Short {
            what,
            wanted,
            free,
            total,
            holders: holders.map(|it| it.holder.clone()).collect(),
        }
    }

    /// How much of something is taken.
    pub fn taken(&self, what: Kept) -> u64 {
        self.holdings.iter().map(|it| amount(it, what)).sum()
    }
}

fn amount(holding: &Allocation, what: Kept) -> u64 {
    match what {
        Kept::Guests => 1,
        Kept::Cpus => holding.demand.cpus,
        Kept::Memory => holding.demand.memory,
        Kept::Disk(volume) if volume == holding.volume => holding.demand.disk,
        Kept::Disk(_) => 0,
    }
}

/// A number of processors or MiB; far below what a fraction can hold.
fn number(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guests => "a guest",
            Self::Cpus => "processors",
            Self::Memory => "memory",
            Self::Disk(_) => "space on its volume",
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guests(run) => write!(f, "a guest: {run} of {run} run"),
            Self::Machine(machine, most, holders) => {
                let (hold, verb) = (listed(holders), if *most == 1 { "runs" } else { "run" });
                write!(
                    f,
                    "a guest of machine {machine}, which may have {most} at once: {hold} {verb} on it"
                )
            }
            Self::Short {
                what,
                wanted,
                free,
                total,
                holders,
            } => {
                let unit = if *what == Kept::Cpus { "" } else { " MiB" };
                write!(f, "{what}: {wanted}{unit} wanted, {free} of {total} free")?;
                match holders.as_slice() {
                    [] => Ok(()),
                    [one] => write!(f, "; {} holds the rest", listed(std::slice::from_ref(one))),
                    all => write!(f, "; {} hold the rest", listed(all)),
                }
            }
            Self::Never { wanted, total } => write!(
                f,
                "more memory than this host gives to guests: {wanted} MiB wanted, {total} in all; lower the machine's `ram-minimum`, or raise the setting guests.memory_mib"
            ),
            Self::Taken { wanted, available } => write!(
                f,
                "memory: {wanted} MiB wanted, {available} available beyond the host's reserve; other programs hold the rest"
            ),
            Self::After(id, what) => write!(
                f,
                "build {id}, which has waited long for {what} that is kept for it"
            ),
        }
    }
}

/// Holders, as one speaks of them: `builds 9 and 10`, `build 9 and the bootstrap of x`.
pub fn listed(holders: &[JobId]) -> String {
    let mut builds = Vec::new();
    let mut others = Vec::new();
    for holder in holders {
        match holder {
            JobId::Build(id) => builds.push(id.to_string()),
            JobId::Bootstrap(pair) => others.push(format!("the bootstrap of {}", pair.machine)),
            JobId::Copy(copy) => others.push(format!("a copy of build {}", copy.build)),
        }
    }
    if builds.len() > NAMED_MAX {
        let more = builds.len() - NAMED_MAX;
        builds.truncate(NAMED_MAX);
        builds.push(format!("{more} more"));
    }
    if !builds.is_empty() {
        let word = if builds.len() == 1 { "build" } else { "builds" };
        others.insert(0, format!("{word} {}", joined(&builds)));
    }
    joined(&others)
}

fn joined(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}
