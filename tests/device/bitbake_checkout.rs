//! Builds with BitBake: a project, the toolchain `bitbake`, and machines of stock Debian.

use std::fs;
use std::path::Path;
use std::time::Duration;

use config::builds::{Build, PreloadUse, State};
use config::task::Outcome;
use tests::agent::AgentHost;
use tests::bitbake::BitBakeProject;
use tests::guest_files::StaticWorker;
use tests::wait_until;

/// The packages of the machine: what BitBake and the demo's layer need.
const PACKAGES: &str = "python3,git,wget,zstd,locales,gcc,libc6-dev,make";

/// The longest time of a build, with the bootstrap that it waits for. Without KVM, a virtual machine
/// that shares its processors boots in minutes.
const BUILD_MAX: Duration = Duration::from_mins(10);

/// The source of the package, in the layer.
const SOURCE: &str = "recipes/greeting/files/greeting.c";

/// A line in the log of a build for which the checkpoint has parsed the recipes.
const HAS_PARSED: &str = "build: BitBake has parsed the recipes in the checkpoint";

/// Makes a machine named `bb`, and starts the agent with the toolchain, which contains a project
/// or none.
fn host(kind: &[&str], project: Option<&BitBakeProject>) -> AgentHost {
    host_with(PACKAGES, kind, project)
}

fn host_with(packages: &str, kind: &[&str], project: Option<&BitBakeProject>) -> AgentHost {
    let worker = StaticWorker::extract();
    let mut host = AgentHost::with_volume(8192, "");
    let worker_path = worker.path();
    let line = ["image", "make", "bb", "--debian", "bookworm", "--minimal"];
    let options = ["--include", packages, "--worker", &worker_path];
    host.host
        .machinectl(&[&line[..], &options, kind].concat(), b"")
        .success();
    match project {
        None => worker.add_toolchain(&host, "bitbake", &[]),
        Some(project) => {
            let directory = project.write().display().to_string();
            worker.add_toolchain(&host, "bitbake", &["--project", &directory]);
        }
    }
    host.start();
    host
}

/// Submits a project, and returns the number of the build.
fn submit(host: &AgentHost, project: &BitBakeProject, options: &[&str]) -> u64 {
    let sources = project.sources();
    let sources: Vec<_> = sources.iter().map(String::as_str).collect();
    let answer = host.machinectl(&[&["build", "bb"], &sources[..], options].concat());
    answer.success().stdout.trim().parse().unwrap()
}

fn build(host: &AgentHost, project: &BitBakeProject, options: &[&str]) -> Build {
    let id = submit(host, project, options);
    host.wait_for_within(BUILD_MAX, id, State::Finished)
}

fn succeeded(host: &AgentHost, build: &Build) {
    let log = host.log_of(build.id.0);
    assert_eq!(build.outcome, Some(Outcome::Success), "{log}");
}

fn artifacts(build: &Build) -> Vec<&str> {
    build.artifacts.iter().map(|it| it.name.as_str()).collect()
}

fn revisions(build: &Build) -> Vec<(&str, &str)> {
    let packages = build.packages.iter();
    packages
        .map(|it| (it.package.name.as_str(), it.revision.as_str()))
        .collect()
}

/// Returns the states of a build as Toaster's monitoring API shows them, each once.
fn watch(host: &AgentHost, id: u64) -> Vec<String> {
    let mut states = Vec::new();
    wait_until("the build ends", || {
        let recent = host.toaster("/toastergui/mostrecentbuilds");
        let build = recent.as_array().unwrap().iter().find(|it| it["id"] == id);
        let state = build.unwrap()["state"].as_str().unwrap().to_owned();
        let ended = ["Succeeded", "Failed", "Cancelled"].contains(&state.as_str());
        if states.last() != Some(&state) {
            states.push(state);
        }
        ended
    });
    states
}

/// Builds a project whose source cannot be compiled, and one whose recipe cannot be parsed.
fn check_failures(host: &AgentHost, project: &BitBakeProject) {
    project.edit(SOURCE, "return 0;", "return ;;x");
    let failed = build(host, project, &[]);
    assert_eq!(failed.outcome, Some(Outcome::Error));
    assert!(
        failed
            .message
            .starts_with("greeting-1.0-r0 do_compile failed:\n"),
        "{}",
        failed.message
    );
    assert!(failed.message.contains("greeting.c:"), "{}", failed.message);
    assert!(artifacts(&failed).contains(&"greeting-1.0-r0.do_compile.log"));
    assert_eq!(failed.progress.errors, 1, "{}", host.log_of(failed.id.0));

    project.edit(
        "recipes/greeting/greeting_1.0.bb",
        "SUMMARY",
        "SUMMARY SUMMARY",
    );
    let unparsed = build(host, project, &[]);
    assert_eq!(unparsed.outcome, Some(Outcome::Error));
    assert!(
        unparsed.message.contains("greeting_1.0.bb:1"),
        "{}",
        unparsed.message
    );
}

#[test]
#[ignore = "needs root, btrfs, and a checkout of BitBake in $BITBAKE"]
fn a_container_builds_projects_of_bitbake() {
    let mut project = BitBakeProject::new(&["greeting"]);
    let host = host(&["--kind", "nspawn"], None);
    let first = submit(&host, &project, &["--target", "greeting"]);
    let states = watch(&host, first);
    let order = [
        "Queued",
        "Cloning",
        "Parsing",
        "Starting",
        "In Progress",
        "Succeeded",
    ];
    let place = |state: &String| order.iter().position(|it| it == state);
    let places: Option<Vec<_>> = states.iter().map(place).collect();
    assert!(
        places.is_some_and(|places| places.is_sorted()),
        "{states:?}"
    );
    let first = host.build(first);
    succeeded(&host, &first);
    assert_eq!(revisions(&first), [("greeting", "r0.0")]);
    assert!(artifacts(&first).contains(&"greeting_1.0-r0.0_amd64.deb"));
    assert!(artifacts(&first).contains(&"events.json"));
    assert_eq!(first.progress.errors, 0);
    assert!(first.progress.task.total > 5, "{:?}", first.progress);
    assert_eq!(first.progress.task.done, first.progress.task.total);

    // A changed source gets a new revision, and so does the old one: a feed never goes down.
    project.edit(SOURCE, "Hello from", "Good morning from");
    let second = build(&host, &project, &[]);
    assert_eq!(
        revisions(&second),
        [("greeting", "r0.1")],
        "{}",
        host.log_of(second.id.0)
    );
    project.edit(SOURCE, "Good morning from", "Hello from");
    let third = build(&host, &project, &[]);
    assert_eq!(revisions(&third), [("greeting", "r0.2")]);

    // Several targets: the image contains the package.
    project.set_targets(&["demo-image", "greeting:do_package"]);
    let fourth = build(
        &host,
        &project,
        &["--target", "demo-image greeting:do_package"],
    );
    succeeded(&host, &fourth);
    assert!(artifacts(&fourth).contains(&"demo-image-demo.tar.gz"));
    let recent = host.toaster("/toastergui/mostrecentbuilds");
    let shown = &recent.as_array().unwrap()[0];
    assert_eq!(shown["targets_abbreviated"], "demo-image +1");

    check_failures(&host, &project);
}

#[test]
#[ignore = "needs root, btrfs, QEMU, and a checkout of BitBake in $BITBAKE"]
fn a_virtual_machine_builds_a_project_whose_recipes_the_bootstrap_has_parsed() {
    let project = BitBakeProject::new(&["greeting"]);
    let host = host(
        &["--kind", "kvm", "--size", "3G", "--memory", "1G"],
        Some(&project),
    );
    let first = build(&host, &project, &[]);
    succeeded(&host, &first);
    assert_eq!(revisions(&first), [("greeting", "r0.0")]);
    assert!(first.restored, "{first:?}");
    let log = host.log_of(first.id.0);
    assert!(
        log.contains("build: 0 files of the repositories differ"),
        "{log}"
    );
    assert!(log.contains(HAS_PARSED), "{log}");
    assert!(!log.contains("Parsing recipes"), "{log}");
    assert_eq!(first.progress.preload, Some(PreloadUse::Used));

    project.edit(SOURCE, "Hello", "Good morning");
    let second = build(&host, &project, &[]);
    assert_eq!(
        revisions(&second),
        [("greeting", "r0.1")],
        "{}",
        host.log_of(second.id.0)
    );
    let log = host.log_of(second.id.0);
    assert!(
        log.contains("build: 1 files of the repositories differ"),
        "{log}"
    );
    assert!(log.contains(HAS_PARSED), "{log}");
    check_packages(&host);

    project.edit("conf/bitbake.conf", "-O2", "-O1");
    let third = build(&host, &project, &[]);
    succeeded(&host, &third);
    let log = host.log_of(third.id.0);
    let reason = "build: BitBake starts cold, because demo-layer/conf/bitbake.conf differs";
    assert!(log.contains(reason), "{log}");
    assert_eq!(third.progress.preload, Some(PreloadUse::Outdated));
}

/// Checks the list of packages of build 2.
fn check_packages(host: &AgentHost) {
    let kept = tempfile::tempdir().unwrap();
    let kept_path = kept.path().display().to_string();
    host.machinectl(&["artifacts", "2", "--output", &kept_path])
        .success();
    let manifest = fs::read_to_string(Path::new(&kept_path).join("packages.manifest")).unwrap();
    assert_eq!(
        manifest.matches("\nrevision: r0.1\n").count(),
        1,
        "{manifest}"
    );
}

/// The layer `core` of OpenEmbedded, of a checkout that the variable OE_CORE names.
mod oe_core_checkout {
    use super::*;

    /// The programs that the layer looks for when it is parsed.
    const MORE_PACKAGES: &str = "g++,patch,chrpath,cpio,diffstat,file,gawk,lz4,xz-utils,bzip2,\
        hostname,rpcsvc-proto";

    #[test]
    #[ignore = "needs root, btrfs, and checkouts of BitBake in $BITBAKE and of the layer core in $OE_CORE"]
    fn a_container_parses_the_layer_core_in_its_bootstrap() {
        let project = BitBakeProject::of_oe_core(&["quilt-native:do_listtasks"]);
        let packages = format!("{PACKAGES},{MORE_PACKAGES}");
        let host = host_with(&packages, &["--kind", "nspawn"], Some(&project));
        let build = build(&host, &project, &[]);
        succeeded(&host, &build);
        let log = host.log_of(build.id.0);
        assert!(!log.contains("Parsing recipes"), "{log}");
        let loaded = log.split_once("Loaded ").expect(&log).1;
        let entries: u32 = loaded.split(' ').next().unwrap().parse().unwrap();
        assert!(entries > 900, "{log}");
        assert!(log.contains("do_fetch"), "{log}");
    }
}
