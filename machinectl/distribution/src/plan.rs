//! The plan of a machine: the environment of its recipe, its manifest, and its files.

use std::path::{Path, PathBuf};

use config::machine::Kind;
use config::manifest::{self, Manifest};

use crate::error::DistributionError;
use crate::mirrors::{self, AptSources};
use crate::request::{Recipe, Request};

/// The directory with the guest's files, as recipes see it.
pub(crate) const GUEST: &str = "/guest";
/// The writable directory, as recipes see it.
pub(crate) const WORK: &str = "/target";
/// The root file system below [`WORK`].
pub(crate) const ROOT: &str = "/target/root";
/// The directory with the results below [`WORK`].
pub(crate) const OUT: &str = "/target/out";
/// The archive with the root of a container.
pub(crate) const ARCHIVE: &str = "root.tar";
/// The initial RAM disk.
pub(crate) const INITRD: &str = "initrd";
/// The kernel's command line. A panic ends the guest, because QEMU runs with `-no-reboot`. The
/// name of the network card does not depend on its place. A guest is isolated as a whole and lives
/// for one build, so mitigations and self-tests only cost time.
const CMDLINE: &str = "root=/dev/vda rw console=ttyS0 panic=-1 net.ifnames=0 quiet loglevel=3 \
    mitigations=off cryptomgr.notests no_timer_check audit=0 apparmor=0";

/// The steps that make a machine. It is made of values only, so `--dry-run` can print it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The kind of machine.
    pub(crate) kind: Kind,
    /// The path of the recipe, as it is started.
    pub(crate) recipe: PathBuf,
    /// The directory of the host that recipes see besides programs, if it is not built in.
    pub(crate) recipe_directory: Option<PathBuf>,
    /// The environment of the recipe.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// The arguments of the program that packs the machine.
    pub(crate) assemble: Vec<String>,
    /// The files that it makes, and whether the machine needs each.
    pub(crate) files: &'static [(&'static str, bool)],
    /// The machine's manifest, without an initial RAM disk.
    manifest: Manifest,
    /// The recipe in words.
    subject: String,
}

impl Plan {
    /// Returns the recipe in words.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Returns the text of the manifest of a machine with or without an initial RAM disk.
    pub(crate) fn manifest(&self, has_initrd: bool) -> String {
        let manifest = self.manifest.clone();
        manifest::print_local(&[if has_initrd {
            manifest.with("initrd", &INITRD)
        } else {
            manifest
        }])
    }

    /// Returns the sources of packages, which the recipe is told.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        let mut variables = self.environment.iter();
        let mirrors = variables.find(|it| it.0 == "BUILDHOST_MIRRORS");
        mirrors.into_iter().flat_map(|it| it.1.lines())
    }
}

/// Returns the plan of a machine. `id` is the identifier in its manifest.
///
/// # Errors
/// A mirror cannot be used.
pub fn plan(request: &Request, host: &AptSources, id: &str) -> Result<Plan, DistributionError> {
    let unusable = |mirror: &&String| !mirror.starts_with("deb ") && !is_http(mirror);
    if let Some(mirror) = request.mirrors.iter().find(unusable) {
        return Err(DistributionError::UnusableMirror(mirror.clone()));
    }
    let (recipe, recipe_directory) = match &request.recipe {
        Recipe::Debian(_) => (Path::new(GUEST).join("debian"), None),
        Recipe::File(file) => (file.clone(), file.parent().map(Path::to_owned)),
    };
    let subject = match &request.recipe {
        Recipe::Debian(suite) => format!("the installation of Debian {suite} by mmdebstrap"),
        Recipe::File(file) => format!("the recipe `{}`", file.display()),
    };
    let size = request.disk_bytes.to_string();
    let assemble = [ROOT, GUEST, OUT, kind_name(request.kind), &size];
    Ok(Plan {
        kind: request.kind,
        recipe,
        recipe_directory,
        environment: environment(request, host),
        assemble: assemble.map(str::to_owned).to_vec(),
        files: files(request.kind),
        manifest: manifest_of(request, id),
        subject,
    })
}

fn is_http(mirror: &str) -> bool {
    let is_address = ["http://", "https://"]
        .iter()
        .any(|it| mirror.starts_with(it));
    is_address && !mirror.contains(char::is_whitespace)
}

fn files(kind: Kind) -> &'static [(&'static str, bool)] {
    match kind {
        Kind::Kvm => &[("disk.img", true), ("vmlinuz", true), (INITRD, false)],
        Kind::Nspawn => &[(ARCHIVE, true)],
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Kvm => "kvm",
        Kind::Nspawn => "nspawn",
    }
}

fn environment(request: &Request, host: &AptSources) -> Vec<(&'static str, String)> {
    let join = |list: Vec<String>, by: &str| list.join(by);
    let packages = request.include.iter().map(ToString::to_string).collect();
    let mut environment = vec![
        ("BUILDHOST_KIND", kind_name(request.kind).to_owned()),
        ("BUILDHOST_GUEST", GUEST.to_owned()),
        ("BUILDHOST_INCLUDE", join(packages, ",")),
        (
            "BUILDHOST_MINIMAL",
            if request.minimal { "1" } else { "" }.to_owned(),
        ),
    ];
    match &request.recipe {
        Recipe::Debian(suite) => {
            let lines = mirrors::lines(suite, &request.mirrors, host);
            environment.extend([
                ("BUILDHOST_SUITE", suite.to_string()),
                ("BUILDHOST_MIRRORS", join(lines, "\n")),
                ("BUILDHOST_APT_OPTIONS", join(mirrors::options(host), "\n")),
            ]);
        }
        Recipe::File(_) => {
            environment.push(("BUILDHOST_MIRRORS", join(request.mirrors.clone(), "\n")));
        }
    }
    environment
}

fn manifest_of(request: &Request, id: &str) -> Manifest {
    let summary = match &request.recipe {
        Recipe::Debian(suite) => format!("Debian {suite}"),
        Recipe::File(file) => {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            format!("Made by the recipe {}", config::text::printable(&name))
        }
    };
    let mut manifest = Manifest::new()
        .with("id", &id)
        .with("summary", &summary)
        .with("type", &kind_name(request.kind))
        .with("ram-minimum", &(request.memory_bytes / 1024))
        .with("cpus", &request.cpus);
    if request.kind == Kind::Kvm {
        manifest = manifest
            .with("disk", &"disk.img")
            .with("kernel", &"vmlinuz")
            .with("cmdline", &CMDLINE);
    } else {
        manifest = manifest.with("disk", &"root");
    }
    manifest
}

#[cfg(test)]
mod tests {
    use config::machine::Machine;

    use super::*;

    fn request(recipe: Recipe, kind: Kind) -> Request {
        Request {
            recipe,
            kind,
            include: vec!["cmake".parse().unwrap(), "libssl-dev".parse().unwrap()],
            minimal: false,
            mirrors: vec!["http://mirror.example.org/debian".to_owned()],
            disk_bytes: 8 << 30,
            memory_bytes: 1 << 30,
            cpus: 2,
        }
    }

    #[test]
    fn a_virtual_machine_of_debian() {
        let debian = Recipe::Debian("bookworm".parse().unwrap());
        let plan = plan(&request(debian, Kind::Kvm), &AptSources::default(), "b-1").unwrap();
        for has_initrd in [true, false] {
            let machine = Machine::parse(&plan.manifest(has_initrd)).unwrap();
            let boot = machine.boot.unwrap();
            assert_eq!(boot.initrd.is_some(), has_initrd);
            assert!(boot.cmdline.contains("panic=-1"));
        }
        insta::assert_debug_snapshot!(plan);
    }

    #[test]
    fn a_container_of_a_recipe_of_ones_own() {
        let recipe = Recipe::File("/srv/recipes/alpine".into());
        let plan = plan(
            &request(recipe, Kind::Nspawn),
            &AptSources::default(),
            "a-1",
        )
        .unwrap();
        let machine = Machine::parse(&plan.manifest(false)).unwrap();
        assert_eq!(machine.kind, Kind::Nspawn);
        assert_eq!(
            plan.recipe_directory.as_deref(),
            Some(Path::new("/srv/recipes"))
        );
        insta::assert_debug_snapshot!(plan);
    }

    #[test]
    fn a_mirror_that_recipes_cannot_reach_is_refused() {
        let mut request = request(Recipe::Debian("sid".parse().unwrap()), Kind::Kvm);
        for mirror in ["/srv/mirror", "file:///srv/mirror", "http://a b", "-x"] {
            request.mirrors = vec![mirror.to_owned()];
            plan(&request, &AptSources::default(), "x").unwrap_err();
        }
    }
}
