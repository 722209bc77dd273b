//! The examination of an inventory. Pure.

mod caches;
mod controllers;
mod feeds;
mod settings;

use config::builds::State;
use config::doctor::{Finding, Id, Subject};
use config::{BuildId, GuestTag};

use super::inventory::{build_of, network_tag};
use super::{Found, Guest, Inventory, Leftover, Recorded, Repair};

/// The advice about something that the agent does not manage.
const NOT_MANAGED: &str = "none: the agent does not manage it and never deletes it";

/// Returns the findings about a host.
pub fn examine(inventory: &Inventory) -> Vec<Found> {
    let mut examination = Examination {
        inventory,
        found: Vec::new(),
    };
    examination.space();
    examination.pressure();
    examination.access();
    examination.firmware();
    examination.bootstraps();
    examination.records();
    examination.guests();
    examination.networks();
    examination.groups();
    examination.schedules();
    examination.sources();
    examination.caches();
    examination.controllers();
    examination.feeds();
    examination.hashserv();
    examination.machined();
    examination.settings();
    examination.found
}

/// Returns the findings about the resources of a host, its controllers and feeds, and the leftovers of
/// guests. They do not depend on the records of builds.
pub(super) fn examine_running(inventory: &Inventory) -> Vec<Found> {
    let mut examination = Examination {
        inventory,
        found: Vec::new(),
    };
    examination.space();
    examination.pressure();
    examination.guests();
    examination.networks();
    examination.groups();
    examination.controllers();
    examination.feeds();
    examination.found
}

/// The owner of a guest, a network or a control group.
enum Owner {
    /// A job that runs, or may run.
    Job,
    /// None, for this reason.
    None(String),
    /// Unknown: the agent does not manage it.
    Unmanaged,
}

struct Examination<'a> {
    inventory: &'a Inventory,
    found: Vec<Found>,
}

impl Examination<'_> {
    /// Adds a finding that a person must decide about.
    fn advise(
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

    /// Adds a finding with a repair.
    fn repair(&mut self, id: Id, subject: Subject, proof: impl Into<String>, repair: Repair) {
        let mut finding = Finding::new(id, subject, proof, "buildhost doctor --repair");
        finding.repair = vec![repair.to_string()];
        self.found.push(Found {
            finding,
            repair: Some(repair),
        });
    }

    fn recorded(&self, id: BuildId) -> Option<&Recorded> {
        self.inventory.records.builds.get(&id)
    }

    fn owner(&self, tag: &str) -> Owner {
        match tag.parse() {
            Ok(GuestTag::Build(id)) => match self.recorded(id) {
                _ if self.inventory.running.contains(&id) => Owner::Job,
                // The guest may belong to a build whose record cannot be read.
                _ if !self.inventory.records.faults.is_empty() => Owner::Job,
                Some(build) if build.state == State::Finished => {
                    Owner::None(format!("build {id} is finished"))
                }
                Some(build) => {
                    Owner::None(format!("build {id} is {} but does not run", build.state))
                }
                None => Owner::None(format!("there is no build {id}")),
            },
            Ok(GuestTag::Copy(tag)) if self.inventory.copies.contains(&tag) => Owner::Job,
            Ok(GuestTag::Copy(tag)) => {
                Owner::None(format!("no debug session of build {} is open", tag.build))
            }
            Ok(GuestTag::Auxiliary(tag)) if self.inventory.running.contains(&tag.build) => {
                Owner::Job
            }
            Ok(GuestTag::Auxiliary(tag)) => {
                Owner::None(format!("build {} does not run", tag.build))
            }
            Ok(GuestTag::Fork(id)) => {
                Owner::None(format!("the fork point of build {id} has no guest"))
            }
            Ok(GuestTag::Bootstrap(_)) if self.inventory.bootstraps => Owner::Job,
            Ok(GuestTag::Bootstrap(_)) => Owner::None("no bootstrap runs".to_owned()),
            Ok(tag @ GuestTag::Ready(_)) if self.inventory.ready.contains(&tag) => Owner::Job,
            Ok(GuestTag::Ready(_)) => Owner::None("no agent has it ready".to_owned()),
            Err(_) => Owner::Unmanaged,
        }
    }

    /// Returns true if the next agent will adopt a guest, because its build is not finished.
    fn is_adoptable(&self, guest: &Guest) -> bool {
        let build = build_of(&guest.tag).and_then(|id| self.recorded(id));
        guest.network && build.is_some_and(|build| has_job(build.state))
    }

    fn guests(&mut self) {
        for guest in &self.inventory.guests {
            let subject = Subject::Guest(guest.tag.clone());
            let network = network_tag(&guest.tag);
            let network = format!("{}{network}", self.inventory.prefix);
            match (self.owner(&guest.tag), guest.pid) {
                (Owner::Job, Some(pid)) if !guest.network => self.advise(
                    Id::GuestWithoutNetwork,
                    subject,
                    format!("its process {pid} runs, but network {network} is missing"),
                    "cancel its build, which cannot succeed",
                ),
                (Owner::None(_), Some(_)) if self.is_adoptable(guest) => {}
                (Owner::Job, _) => {}
                (Owner::None(reason), Some(pid)) => {
                    let run = guest.run.clone();
                    let proof = format!("its process {pid} runs, but {reason}");
                    let left = Leftover { run, network, pid };
                    self.repair(Id::LeftoverGuest, subject, proof, Repair::EndGuest(left));
                }
                (Owner::None(reason), None) if guest.unreadable => self.advise(
                    Id::LeftoverDirectory,
                    subject,
                    format!("{reason}, and its process record cannot be read: it may run"),
                    "`systemctl restart buildhost-agent` ends it",
                ),
                (Owner::None(reason), None) => {
                    let proof = format!(
                        "{} exists without a process, and {reason}",
                        guest.run.display()
                    );
                    let repair = Repair::RemoveDirectory(guest.run.clone());
                    self.repair(Id::LeftoverDirectory, subject, proof, repair);
                }
                (Owner::Unmanaged, _) => self.advise(
                    Id::Unmanaged,
                    Subject::Path(guest.run.clone()),
                    "its name is not that of a run directory",
                    NOT_MANAGED,
                ),
            }
        }
    }

    /// Returns true if a guest runs. A finding about it covers its network and control group.
    fn has_guest(&self, tag: &str) -> bool {
        self.inventory
            .guests
            .iter()
            .any(|guest| guest.tag == tag && guest.pid.is_some())
    }

    fn networks(&mut self) {
        for network in &self.inventory.networks {
            let tag = network
                .name
                .strip_prefix(&self.inventory.prefix)
                .unwrap_or_default();
            if self.has_guest(tag) {
                continue;
            }
            let subject = Subject::Network(network.name.clone());
            let inside: Vec<_> = network.processes.iter().map(ToString::to_string).collect();
            let inside = inside.join(", ");
            let has_others = network
                .processes
                .iter()
                .any(|it| !it.name.starts_with("qemu"));
            match self.owner(tag) {
                Owner::Job => {}
                Owner::None(reason) if has_others => self.advise(
                    Id::LeftoverNetwork,
                    subject,
                    format!("{reason}, but {inside} runs in it"),
                    "end it if it is yours; the next start of the agent deletes the network and ends it",
                ),
                Owner::None(reason) => {
                    let proof = if inside.is_empty() {
                        reason
                    } else {
                        format!("{reason}, but {inside} runs in it")
                    };
                    let repair = Repair::DeleteNetwork(network.name.clone(), inside);
                    self.repair(Id::LeftoverNetwork, subject, proof, repair);
                }
                Owner::Unmanaged => self.advise(
                    Id::Unmanaged,
                    subject,
                    "its name is not that of a network of a guest",
                    NOT_MANAGED,
                ),
            }
        }
    }

    fn groups(&mut self) {
        for group in &self.inventory.groups {
            let tag = group
                .name
                .strip_prefix(&self.inventory.prefix)
                .unwrap_or_default();
            let Owner::None(reason) = self.owner(tag) else {
                continue;
            };
            let subject = Subject::Group(group.path.clone());
            if !group.busy {
                let repair = Repair::RemoveGroup(group.path.clone());
                self.repair(Id::LeftoverGroup, subject, reason, repair);
            } else if !self.has_guest(tag) {
                let proof = format!("{reason}, but processes are in it");
                let advice = format!("echo 1 > {}/cgroup.kill", group.path.display());
                self.advise(Id::LeftoverGroup, subject, proof, advice);
            }
        }
    }

    fn records(&mut self) {
        let records = &self.inventory.records;
        if !records.faults.is_empty() {
            let subject = Subject::Path(records.path.clone());
            let advice = "stop the agent, restore the file from a backup, start the agent";
            return self.advise(
                Id::RecordsDamaged,
                subject,
                records.faults.join("; "),
                advice,
            );
        }
        for (id, build) in &records.builds {
            self.build(*id, build);
        }
        for (id, fault) in &records.unreadable {
            let advice = "if a newer agent wrote it, use that one; or else delete the row, with \
                          the agent stopped";
            self.advise(
                Id::UnreadableRecord,
                Subject::Build(*id),
                fault.clone(),
                advice,
            );
        }
        for (name, fault) in &records.unreadable_schedules {
            let subject = Subject::Path(records.path.clone());
            let advice = "if a newer agent wrote it, use that one; or else `buildhost schedule remove` \
                          and add it again";
            self.advise(
                Id::UnreadableRecord,
                subject,
                format!("schedule {name}: {fault}"),
                advice,
            );
        }
        for (row, fault) in &self.inventory.unreadable_catalog {
            let subject = Subject::Path(self.inventory.catalog.clone());
            let advice =
                "if a newer agent wrote it, use that one; or else remove it and add it again";
            self.advise(
                Id::UnreadableRecord,
                subject,
                format!("{row}: {fault}"),
                advice,
            );
        }
        for path in &self.inventory.directories {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let subject = Subject::Path(path.clone());
            match name.parse::<BuildId>() {
                Ok(id) if records.builds.contains_key(&id) => {}
                Ok(id) if records.unreadable.contains_key(&id) => {}
                Ok(id) => self.advise(
                    Id::DirectoryWithoutRecord,
                    subject,
                    format!("there is no record of build {id}"),
                    "move it away to keep its files; the next build with this number replaces it",
                ),
                Err(_) => self.advise(
                    Id::Unmanaged,
                    subject,
                    "its name is not that of a directory of a build",
                    NOT_MANAGED,
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
            let proof = format!("it is finished, but {} is missing", path.display());
            let advice = "restore it from a backup; the record is intact";
            return self.advise(Id::BuildWithoutDirectory, subject, proof, advice);
        }
        if !has_job(state) || self.inventory.running.contains(&id) {
            return;
        }
        let tag = id.to_string();
        let guest = self
            .inventory
            .guests
            .iter()
            .find(|guest| guest.tag == tag && guest.pid.is_some());
        let proof = format!("it is recorded as {state}, but does not run");
        let restart = "`systemctl restart buildhost-agent`; running builds continue";
        if build.result {
            let proof = format!("{proof}; its result exists");
            let advice = format!("{restart}, and the result is stored");
            self.advise(Id::BuildWithoutGuest, subject, proof, advice);
        } else if guest.is_some_and(|guest| self.is_adoptable(guest)) {
            let proof = format!("{proof}, although its guest runs");
            let advice = format!("{restart}, and the guest is adopted");
            self.advise(Id::BuildWithoutGuest, subject, proof, advice);
        } else {
            self.repair(Id::BuildWithoutGuest, subject, proof, Repair::Requeue(id));
        }
    }

    fn sources(&mut self) {
        let bytes: u64 = self.inventory.unused.iter().map(|(_, bytes)| bytes).sum();
        let paths: Vec<_> = self
            .inventory
            .unused
            .iter()
            .map(|(path, _)| path.clone())
            .collect();
        if paths.is_empty() {
            return;
        }
        let subject = Subject::Path(self.inventory.sources.clone());
        let proof = format!(
            "{} of its files, {} MiB, were uploaded more than a day ago, and no build uses them",
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

    fn access(&mut self) {
        for (path, mode) in &self.inventory.open {
            let proof = format!(
                "its mode is {mode:04o}: local users may read sources, logs and artifacts, or \
                 reach the sockets of guests"
            );
            let advice = "`systemctl restart buildhost-agent` closes it; running builds continue";
            self.advise(Id::OpenState, Subject::Path(path.clone()), proof, advice);
        }
    }

    fn firmware(&mut self) {
        for (machine, proof) in &self.inventory.without_firmware {
            let subject = Subject::Machine(machine.clone());
            let advice = "install the package ovmf, or set guests.uefi_code and \
                          guests.uefi_variables to the files of another firmware";
            self.advise(Id::NoFirmware, subject, proof, advice);
        }
    }

    fn bootstraps(&mut self) {
        for (machine, toolchain, error) in &self.inventory.failed_bootstraps {
            let subject = Subject::Machine(machine.clone());
            let proof = format!("the bootstrap with toolchain {toolchain} failed: {error}");
            let advice = "mend the machine or the toolchain; a new revision or toolchain is \
                          bootstrapped at once";
            self.advise(Id::BootstrapFailed, subject, proof, advice);
        }
        for (machine, toolchain, reason) in &self.inventory.waiting_bootstraps {
            let subject = Subject::Machine(machine.clone());
            let proof = format!("the image with toolchain {toolchain} is not made yet: {reason}");
            let advice =
                "it starts by itself; a build for the machine and the toolchain hastens it";
            self.advise(Id::BootstrapWaiting, subject, proof, advice);
        }
    }

    fn schedules(&mut self) {
        for (schedule, machine) in &self.inventory.schedules {
            let subject = Subject::Schedule(schedule.clone());
            let proof = format!("each run fails, because there is no machine {machine}");
            let advice = format!("add the machine, or `buildhost schedule remove {schedule}`");
            self.advise(Id::ScheduleWithoutMachine, subject, proof, advice);
        }
    }

    fn pressure(&mut self) {
        let inventory = self.inventory;
        for it in &inventory.high_pressure {
            let (kind, percent) = (it.resource, it.percent);
            let limit = it.percent_max.unwrap_or_default();
            let since = it.high_since.unwrap_or_default();
            let proof = format!(
                "since {} the {kind} pressure is above {limit} % or has not fallen below one half \
                 of that; it was {percent} % when the scheduler last looked",
                since.strftime("%Y-%m-%d %H:%M:%SZ")
            );
            let advice = format!(
                "`systemd-cgtop` shows what uses the host; the setting {} is the limit",
                kind.setting()
            );
            let path = inventory.pressure_directory.join(kind.file());
            self.advise(Id::HostPressure, Subject::Path(path), proof, advice);
        }
        for file in &inventory.unreported_pressure {
            let path = inventory.pressure_directory.join(file);
            let proof = "the file does not exist or states nothing";
            let advice = "boot the kernel with psi=1, or set the limit on this pressure to 0";
            self.advise(Id::UnknownPressure, Subject::Path(path), proof, advice);
        }
    }

    fn space(&mut self) {
        for (path, free) in &self.inventory.short {
            let proof = format!(
                "{} MiB are free, less than the reserve: no guest can start",
                free >> 20
            );
            let advice = "delete or prune machines and builds, or lower paths.reserve_mib";
            self.advise(Id::LowSpace, Subject::Path(path.clone()), proof, advice);
        }
    }
}

/// Returns true if a job runs builds in this state.
fn has_job(state: State) -> bool {
    match state {
        State::Starting | State::Running | State::Storing => true,
        State::Queued | State::Finished => false,
    }
}
