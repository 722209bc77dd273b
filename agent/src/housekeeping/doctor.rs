//! What is not as it should be on the host, as only the agent can know it: guests,
//! their networks and control groups, the records of builds. Thinks only; [`look`]
//! looks and [`repair`] acts.

mod seen;

mod look;

mod repair;

use std::fmt;
use std::path::PathBuf;

use config::BuildId;
use config::builds::State;
use config::doctor::{Finding, Id, Subject};

use crate::state::GuestTag;

pub use look::{cleaning, look};
pub use repair::repair;
pub use seen::{Group, Guest, Inventory, Network, Recorded, Records};

/// Something that a repair does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// Ends the guest of a run directory, and what it has.
    EndGuest(Leftover),
    /// Removes a run directory.
    RemoveDirectory(PathBuf),
    /// Deletes a network, with the guests in it.
    DeleteNetwork(String, String),
    /// Removes a control group that is empty.
    RemoveGroup(PathBuf),
    /// Puts a build back into the queue.
    Requeue(BuildId),
    /// Deletes sources.
    DeleteSources(Vec<PathBuf>),
}

/// A guest as its run directory and its network name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// The run directory.
    pub run: PathBuf,
    /// The network.
    pub network: String,
    /// The process.
    pub pid: u32,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndGuest(guest) => {
                write!(
                    f,
                    "end process {} and delete network {}",
                    guest.pid, guest.network
                )
            }
            Self::RemoveDirectory(path) | Self::RemoveGroup(path) => {
                write!(f, "remove {}", path.display())
            }
            Self::DeleteNetwork(name, inside) if inside.is_empty() => {
                write!(f, "delete network {name}")
            }
            Self::DeleteNetwork(name, inside) => {
                write!(f, "end {inside} and delete network {name}")
            }
            Self::Requeue(id) => write!(f, "put build {id} back into the queue"),
            Self::DeleteSources(paths) => write!(
                f,
                "delete {} unused {}",
                paths.len(),
                if paths.len() == 1 { "file" } else { "files" }
            ),
        }
    }
}

/// A finding and what repairs it.
#[derive(Debug, Clone)]
pub struct Found {
    /// The finding.
    pub finding: Finding,
    /// What a repair does; nothing when a person must decide.
    pub repair: Option<Repair>,
}

/// Examines the host.
pub fn examine(seen: &Inventory) -> Vec<Found> {
    let mut doctor = Doctor {
        seen,
        found: Vec::new(),
    };
    doctor.space();
    doctor.firmware();
    doctor.records();
    doctor.guests();
    doctor.networks();
    doctor.groups();
    doctor.sources();
    doctor.found
}

/// Whose a guest, a network or a control group is.
enum Owner {
    /// Something runs that it belongs to, or may.
    Busy,
    /// Nobody's; why.
    Nobody(String),
    /// It has no name of ours.
    Stranger,
}

struct Doctor<'a> {
    seen: &'a Inventory,
    found: Vec<Found>,
}

impl Doctor<'_> {
    fn decide(
        &mut self,
        id: Id,
        subject: Subject,
        proof: impl Into<String>,
        advice: impl Into<String>,
    ) {
        let finding = Finding::new(id, subject, proof, advice);
        self.found.push(Found {
            finding,
            repair: None,
        });
    }

    fn repair(&mut self, id: Id, subject: Subject, proof: impl Into<String>, repair: Repair) {
        let mut finding = Finding::new(id, subject, proof, "buildhost doctor --repair");
        finding.repair = vec![repair.to_string()];
        self.found.push(Found {
            finding,
            repair: Some(repair),
        });
    }

    fn recorded(&self, id: BuildId) -> Option<&Recorded> {
        self.seen.records.builds.get(&id)
    }

    fn owner(&self, tag: &str) -> Owner {
        match tag.parse() {
            Ok(GuestTag::Build(id)) => match self.recorded(id) {
                _ if self.seen.running.contains(&id) => Owner::Busy,
                // Its build may have to be taken up.
                _ if !self.seen.records.faults.is_empty() => Owner::Busy,
                Some(build) if build.state == State::Finished => {
                    Owner::Nobody(format!("build {id} is finished"))
                }
                Some(build) => {
                    Owner::Nobody(format!("build {id} is {} and nobody runs it", build.state))
                }
                None => Owner::Nobody(format!("nobody runs a build {id}")),
            },
            Ok(GuestTag::Copy(tag)) if self.seen.copies.contains(&tag) => Owner::Busy,
            Ok(GuestTag::Copy(tag)) => Owner::Nobody(format!(
                "nobody is attached to a copy of build {}",
                tag.build
            )),
            Ok(GuestTag::Bootstrap(_)) if self.seen.bootstraps => Owner::Busy,
            Ok(GuestTag::Bootstrap(_)) => Owner::Nobody("no bootstrap runs".to_owned()),
            Err(_) => Owner::Stranger,
        }
    }

    /// The guest of a build that is not finished: the next agent takes it up.
    fn can_be_taken_up(&self, guest: &Guest) -> bool {
        let build = guest.tag.parse().ok().and_then(|id| self.recorded(id));
        guest.network && build.is_some_and(|build| is_under_way(build.state))
    }

    fn guests(&mut self) {
        for guest in &self.seen.guests {
            let subject = Subject::Guest(guest.tag.clone());
            let network = format!("{}{}", self.seen.prefix, guest.tag);
            match (self.owner(&guest.tag), guest.pid) {
                (Owner::Busy, Some(pid)) if !guest.network => self.decide(
                    Id::GuestWithoutNetwork,
                    subject,
                    format!("its process {pid} runs, and there is no network {network}"),
                    "cancel its build: nothing can come out of it",
                ),
                (Owner::Nobody(_), Some(_)) if self.can_be_taken_up(guest) => {}
                (Owner::Busy, _) => {}
                (Owner::Nobody(why), Some(pid)) => {
                    let run = guest.run.clone();
                    let proof = format!("its process {pid} runs, and {why}");
                    let left = Leftover { run, network, pid };
                    self.repair(Id::LeftoverGuest, subject, proof, Repair::EndGuest(left));
                }
                (Owner::Nobody(why), None) if guest.unreadable => self.decide(
                    Id::LeftoverDirectory,
                    subject,
                    format!("{why}, and its record cannot be read: it may run"),
                    "`systemctl restart buildhost-agent`: it ends what may run",
                ),
                (Owner::Nobody(why), None) => {
                    let proof =
                        format!("{} is there, no process is, and {why}", guest.run.display());
                    let repair = Repair::RemoveDirectory(guest.run.clone());
                    self.repair(Id::LeftoverDirectory, subject, proof, repair);
                }
                (Owner::Stranger, _) => self.decide(
                    Id::Unmanaged,
                    Subject::Path(guest.run.clone()),
                    "no guest has such a run directory",
                    "none: it is never touched",
                ),
            }
        }
    }

    /// Whether a guest that we know runs: what is said of it goes for all it has.
    fn has_guest(&self, tag: &str) -> bool {
        self.seen
            .guests
            .iter()
            .any(|guest| guest.tag == tag && guest.pid.is_some())
    }

    fn networks(&mut self) {
        for network in &self.seen.networks {
            let tag = network
                .name
                .strip_prefix(&self.seen.prefix)
                .unwrap_or_default();
            if self.has_guest(tag) {
                continue;
            }
            let subject = Subject::Network(network.name.clone());
            let inside: Vec<_> = network.processes.iter().map(ToString::to_string).collect();
            let inside = inside.join(", ");
            let strange = network
                .processes
                .iter()
                .any(|it| !it.name.starts_with("qemu"));
            match self.owner(tag) {
                Owner::Busy => {}
                Owner::Nobody(why) if strange => self.decide(
                    Id::LeftoverNetwork,
                    subject,
                    format!("{why}, but {inside} runs in it"),
                    "end that, if it is yours; the next agent that starts deletes the network with it",
                ),
                Owner::Nobody(why) => {
                    let proof = if inside.is_empty() {
                        why
                    } else {
                        format!("{why}, but {inside} runs in it")
                    };
                    let repair = Repair::DeleteNetwork(network.name.clone(), inside);
                    self.repair(Id::LeftoverNetwork, subject, proof, repair);
                }
                Owner::Stranger => self.decide(
                    Id::Unmanaged,
                    subject,
                    "no guest has such a network",
                    "none: it is never touched",
                ),
            }
        }
    }

    fn groups(&mut self) {
        for group in &self.seen.groups {
            let tag = group
                .name
                .strip_prefix(&self.seen.prefix)
                .unwrap_or_default();
            let Owner::Nobody(why) = self.owner(tag) else {
                continue;
            };
            let subject = Subject::Group(group.path.clone());
            if !group.busy {
                let repair = Repair::RemoveGroup(group.path.clone());
                self.repair(Id::LeftoverGroup, subject, why, repair);
            } else if !self.has_guest(tag) {
                let proof = format!("{why}, but processes are in it");
                let advice = format!("echo 1 > {}/cgroup.kill", group.path.display());
                self.decide(Id::LeftoverGroup, subject, proof, advice);
            }
        }
    }

    fn records(&mut self) {
        let records = &self.seen.records;
        if !records.faults.is_empty() {
            let subject = Subject::Path(records.path.clone());
            let advice = "stop the agent, restore the file from a copy, start the agent";
            return self.decide(
                Id::RecordsDamaged,
                subject,
                records.faults.join("; "),
                advice,
            );
        }
        for (id, build) in &records.builds {
            self.build(*id, build);
        }
        for path in &self.seen.directories {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let subject = Subject::Path(path.clone());
            match name.parse::<BuildId>() {
                Ok(id) if records.builds.contains_key(&id) => {}
                Ok(id) => self.decide(
                    Id::DirectoryWithoutRecord,
                    subject,
                    format!("there is no record of a build {id}"),
                    "move it away if you want its files: a build that gets this number replaces it",
                ),
                Err(_) => self.decide(
                    Id::Unmanaged,
                    subject,
                    "no build has such a directory",
                    "none: it is never touched",
                ),
            }
        }
    }

    fn build(&mut self, id: BuildId, build: &Recorded) {
        let subject = Subject::Build(id);
        let state = build.state;
        if let Some(path) = build
            .lost
            .as_ref()
            .filter(|_| state == State::Finished && build.attempts > 0)
        {
            let proof = format!("it is finished, and {} is not there", path.display());
            let advice = "restore it from a copy; the record itself is whole";
            return self.decide(Id::BuildWithoutDirectory, subject, proof, advice);
        }
        if !is_under_way(state) || self.seen.running.contains(&id) {
            return;
        }
        let tag = id.to_string();
        let guest = self
            .seen
            .guests
            .iter()
            .find(|guest| guest.tag == tag && guest.pid.is_some());
        let proof = format!("it is recorded as {state}, and nobody runs it");
        let restart = "`systemctl restart buildhost-agent`: builds run on";
        if build.result {
            let proof = format!("{proof}; its result is there");
            let advice = format!("{restart}, and it stores the result");
            self.decide(Id::BuildWithoutGuest, subject, proof, advice);
        } else if guest.is_some_and(|guest| self.can_be_taken_up(guest)) {
            let proof = format!("{proof}, but its guest runs");
            let advice = format!("{restart}, and it takes the guest up");
            self.decide(Id::BuildWithoutGuest, subject, proof, advice);
        } else {
            self.repair(Id::BuildWithoutGuest, subject, proof, Repair::Requeue(id));
        }
    }

    fn sources(&mut self) {
        let bytes: u64 = self.seen.unused.iter().map(|(_, bytes)| bytes).sum();
        let paths: Vec<_> = self
            .seen
            .unused
            .iter()
            .map(|(path, _)| path.clone())
            .collect();
        if paths.is_empty() {
            return;
        }
        let subject = Subject::Path(self.seen.sources.clone());
        let proof = format!(
            "{} of its files, {} MiB, were handed in a day ago or earlier, and no build has them",
            paths.len(),
            bytes >> 20
        );
        self.repair(
            Id::UnusedSources,
            subject,
            proof,
            Repair::DeleteSources(paths),
        );
    }

    fn firmware(&mut self) {
        for (machine, proof) in &self.seen.without_firmware {
            let subject = Subject::Machine(machine.clone());
            let advice = "install the package ovmf, or set guests.uefi_code and \
                          guests.uefi_variables to the files of another firmware";
            self.decide(Id::NoFirmware, subject, proof, advice);
        }
    }

    fn space(&mut self) {
        for (path, free) in &self.seen.short {
            let proof = format!(
                "{} MiB are free, less than the reserve: no guest starts",
                free >> 20
            );
            let advice = "delete or prune what is not needed; paths.reserve_mib is the reserve";
            self.decide(Id::LowSpace, Subject::Path(path.clone()), proof, advice);
        }
    }
}

/// Whether somebody should be running a build.
fn is_under_way(state: State) -> bool {
    match state {
        State::Starting | State::Running | State::Storing => true,
        State::Queued | State::Finished => false,
    }
}

#[cfg(test)]
mod tests;
