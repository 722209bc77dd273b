//! The requirements of the SLSA build track, and what holds each on this host. [`inspect`] reads
//! the host, [`examine`] decides.

use std::path::PathBuf;
use std::sync::Arc;

use config::layout::Entry;
use config::machine::{Kind, Machine};
use config::settings::UidRange;
use config::slsa::Requirement;
use config::{CacheName, MachineName};
use guest::{Accelerator, accelerator};
use signer::keys::KeyDirectory;
use store::{Located, StoreError, Volume, content_manifest};
use sys::blocking::blocking;

use super::doctor;
use jobs::build::signer_program;
use state::AgentState;

/// The facts that the requirements depend on.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The key that signs: its identity and its user, or the reason for its absence.
    pub key: Result<(String, u32), String>,
    /// The error of a missing signer.
    pub signer: Result<PathBuf, String>,
    /// The users of guests.
    pub uids: UidRange,
    /// True if KVM runs guests, or the error.
    pub kvm: Result<bool, String>,
    /// The machines in service.
    pub machines: Vec<MachineFacts>,
    /// The caches between builds.
    pub caches: Vec<CacheName>,
    /// True if builds may reach a hash equivalence service.
    pub hashserv: bool,
    /// The directories that other users may enter.
    pub open: Vec<PathBuf>,
}

/// The facts about a machine.
#[derive(Debug, Clone)]
pub struct MachineFacts {
    /// Its name.
    pub name: MachineName,
    /// True if its guests are virtual machines without options of their own.
    pub isolated: bool,
    /// True if all its images have content manifests.
    pub hashed: bool,
}

/// Reads the facts.
///
/// # Errors
/// A volume cannot be listed.
pub async fn inspect(agent: &Arc<AgentState>) -> Result<Facts, StoreError> {
    let agent = Arc::clone(agent);
    blocking(move || {
        let settings = &agent.settings();
        let key = match &settings.provenance.keys {
            None => Err("no key: `buildhost-signer init` makes one, and the setting provenance.keys names its directory".to_owned()),
            Some(directory) => match KeyDirectory::new(directory).active() {
                Ok(key) => Ok((key.public.id(), key.user)),
                Err(error) => Err(sys::error_report::chain(&error)),
            },
        };
        let kvm = accelerator(settings.guests.acceleration);
        let machines = agent.volumes.inventory()?.machines;
        Ok(Facts {
            key,
            signer: signer_program().map_err(|error| error.to_string()),
            uids: settings.guests.uids,
            kvm: match kvm {
                Ok(Accelerator::Kvm(_)) => Ok(true),
                Ok(Accelerator::Tcg) => Ok(false),
                Err(error) => Err(sys::error_report::chain(&error)),
            },
            machines: machines
                .into_iter()
                .filter(|(_, located)| located.view.is_live())
                .filter_map(|(name, located)| machine(&agent, name, &located))
                .collect(),
            caches: caches(&agent),
            hashserv: settings.hashserv.enabled,
            open: open(&agent),
        })
    })
    .await
}

fn caches(agent: &AgentState) -> Vec<CacheName> {
    let settings = agent.settings();
    settings
        .caches
        .iter()
        .map(|rules| rules.name.clone())
        .collect()
}

fn machine(agent: &AgentState, name: MachineName, located: &Located) -> Option<MachineFacts> {
    let volume = agent.volumes.get(located.volume)?;
    let revision = Entry::Revision(located.view.current?);
    let manifest = store::machine_manifest(&volume.entry(&name, &revision)).ok();
    let mut images = located.view.images.iter();
    let has_manifest = |image: &store::ImageView| {
        let image = volume.entry(&name, &Entry::Image(image.toolchain.clone()));
        image.join(content_manifest::IMAGE_FILE).exists()
    };
    Some(MachineFacts {
        isolated: manifest.is_some_and(|manifest| is_isolated(&manifest)),
        hashed: images.all(has_manifest),
        name,
    })
}

fn is_isolated(machine: &Machine) -> bool {
    machine.kind == Kind::Kvm && machine.options.is_empty()
}

/// Returns the volumes, and the directories of the agent, that other users may enter.
fn open(agent: &AgentState) -> Vec<PathBuf> {
    let volumes = agent.volumes.iter().map(Volume::path);
    let is_open = |path: &std::path::Path| {
        let metadata = path.metadata();
        metadata.is_ok_and(|it| !sys::file::is_closed(&it))
    };
    let open = volumes.filter(|path| is_open(path));
    let own = doctor::open_directories(agent).into_iter();
    open.map(std::path::Path::to_owned)
        .chain(own.map(|(path, _)| path))
        .collect()
}

/// Returns the requirements of the build track, with what holds each.
pub fn examine(facts: &Facts) -> Vec<Requirement> {
    let mut requirements = by_construction();
    requirements.extend([
        Requirement::found(2, "the provenance is signed", signed(facts)),
        Requirement::found(3, "no build step can reach the key", key_is_separate(facts)),
        Requirement::found(3, "builds cannot influence one another", isolated(facts)),
        Requirement::found(
            3,
            "nobody but root changes records, artifacts and images",
            closed(facts),
        ),
        Requirement::found(
            3,
            "the image of each guest is known by its hash",
            hashed(facts),
        ),
    ]);
    requirements.sort_by_key(|it| it.level);
    requirements
}

fn by_construction() -> Vec<Requirement> {
    [
        (
            1,
            "the provenance names the artifacts by their hashes, and the builder",
            "the agent writes it with every successful build",
            "packages_are_built_and_their_revisions_never_decrease",
        ),
        (
            1,
            "the provenance is distributed",
            "the API and `buildhost artifacts --output` hand it out",
            "packages_are_built_and_their_revisions_never_decrease",
        ),
        (
            2,
            "the control plane generates or verifies every field",
            "the signer reads the record and the files itself; no guest names a field",
            "a_guest_changes_no_field_of_its_provenance",
        ),
        (
            3,
            "the external parameters are complete",
            "the request is taken apart field by field, so that a new one does not compile",
            "a_statement_names_products_and_inputs",
        ),
        (
            3,
            "nobody influences a build unless the provenance says so",
            "who types is recorded before the guest receives it, and the level is 2 then",
            "a_build_on_whose_console_a_person_types_is_not_of_level_3",
        ),
        (
            3,
            "no build persists into the next one",
            "each has a snapshot that is deleted, and a user and a network of its own",
            "packages_are_built_and_their_revisions_never_decrease",
        ),
    ]
    .map(|(level, requirement, mechanism, test)| {
        Requirement::by_construction(level, requirement, mechanism, test)
    })
    .to_vec()
}

fn signed(facts: &Facts) -> Result<String, String> {
    let (id, _) = facts.key.as_ref().map_err(Clone::clone)?;
    let signer = facts.signer.as_ref();
    let signer = signer.map_err(|error| format!("the signer is missing: {error}"))?;
    Ok(format!("{} with the key {id}", signer.display()))
}

fn key_is_separate(facts: &Facts) -> Result<String, String> {
    let (_, user) = facts.key.as_ref().map_err(Clone::clone)?;
    if (facts.uids.first..=facts.uids.last).contains(user) {
        return Err(format!(
            "the key belongs to user {user}, as a guest may run: guests.uids contains it"
        ));
    }
    Ok(format!(
        "only user {user} can read it, as which only the signer runs"
    ))
}

fn isolated(facts: &Facts) -> Result<String, String> {
    match &facts.kvm {
        Ok(true) => {}
        Ok(false) => {
            return Err("QEMU emulates the processor, for which it promises no isolation; KVM is missing or disabled".to_owned());
        }
        Err(error) => return Err(error.clone()),
    }
    let (isolated, other): (Vec<_>, Vec<_>) = facts.machines.iter().partition(|it| it.isolated);
    if isolated.is_empty() {
        return Err("no machine has the type `kvm` without options of its own".to_owned());
    }
    let mut held = format!("KVM, for {}", names(&isolated));
    if !other.is_empty() {
        held = format!("{held}; builds on {} are of level 2", names(&other));
    }
    if !facts.caches.is_empty() {
        let caches: Vec<_> = facts.caches.iter().map(ToString::to_string).collect();
        let caches = config::join_and(&caches);
        held = format!("{held}; builds that reach the cache {caches} are of level 2");
    }
    if facts.hashserv {
        held = format!("{held}; builds that reach the hash equivalence service are of level 2");
    }
    Ok(held)
}

fn closed(facts: &Facts) -> Result<String, String> {
    if facts.open.is_empty() {
        return Ok("only root can enter the volumes and the agent's directories".to_owned());
    }
    let paths: Vec<_> = facts
        .open
        .iter()
        .map(|it| it.display().to_string())
        .collect();
    Err(format!(
        "local users may enter {}; `buildhost doctor` says how to close it",
        config::join_and(&paths)
    ))
}

fn hashed(facts: &Facts) -> Result<String, String> {
    let without: Vec<_> = facts.machines.iter().filter(|it| !it.hashed).collect();
    if without.is_empty() {
        return Ok("every bootstrapped image has a content manifest".to_owned());
    }
    Err(format!(
        "an image of {} has no content manifest; a new bootstrap makes one",
        names(&without)
    ))
}

fn names(machines: &[&MachineFacts]) -> String {
    let names: Vec<_> = machines.iter().map(|it| it.name.to_string()).collect();
    config::join_and(&names)
}

#[cfg(test)]
mod tests {
    use config::slsa::level;

    use super::*;

    fn facts() -> Facts {
        let machine = |name: &str, isolated| MachineFacts {
            name: name.parse().unwrap(),
            isolated,
            hashed: true,
        };
        Facts {
            key: Ok(("abc".into(), 1_899_999_999)),
            signer: Ok("/usr/local/bin/buildhost-signer".into()),
            uids: UidRange {
                first: 1_900_000_000,
                last: 1_900_065_535,
            },
            kvm: Ok(true),
            machines: vec![machine("box", false), machine("linux", true)],
            caches: vec!["yocto".parse().unwrap()],
            hashserv: true,
            open: Vec::new(),
        }
    }

    #[test]
    fn each_requirement_is_shown_with_what_holds_it() {
        let requirements = examine(&facts());
        assert_eq!(level(&requirements), 3, "{requirements:#?}");
        let lines = requirements
            .iter()
            .map(|it| format!("L{} {}: {}", it.level, it.requirement, it.by));
        insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn the_named_tests_exist() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let directories = ["tests/device", "agent/signer/src"].map(|it| root.join(it));
        let files = directories
            .iter()
            .flat_map(|it| sys::file::entries(it).unwrap());
        let texts: Vec<_> = files
            .filter_map(|file| std::fs::read_to_string(file).ok())
            .collect();
        for requirement in by_construction() {
            let (_, test) = requirement.by.split_once("(test ").unwrap();
            let function = format!("fn {}()", test.trim_end_matches(')'));
            assert!(texts.iter().any(|it| it.contains(&function)), "{function}");
        }
    }

    #[test]
    fn a_missing_part_limits_the_level() {
        type Change = fn(&mut Facts);
        let changes: [(u8, &str, Change); 8] = [
            (1, "no key", |it| it.key = Err("no key".into())),
            (1, "is missing", |it| it.signer = Err("not found".into())),
            (2, "guests.uids", |it| {
                it.key = Ok(("abc".into(), 1_900_000_001));
            }),
            (2, "emulates", |it| it.kvm = Ok(false)),
            (2, "no machine", |it| it.machines.truncate(1)),
            (2, "no machine", |it| it.machines.clear()),
            (2, "/srv", |it| it.open.push("/srv".into())),
            (2, "image of linux", |it| it.machines[1].hashed = false),
        ];
        for (expected, text, change) in changes {
            let mut facts = facts();
            change(&mut facts);
            let requirements = examine(&facts);
            assert_eq!(level(&requirements), expected, "{text}");
            let missing = requirements.iter().find(|it| !it.held).unwrap();
            assert!(missing.by.contains(text), "{missing:?}");
        }
    }
}
