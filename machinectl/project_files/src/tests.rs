use tempfile::TempDir;

use super::*;

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        write(&directory.path().join(name), text);
    }
    directory
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests write files that they have made"
)]
fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn import(files: &[(&str, &str)], choices: &Choices) -> Result<Imported, String> {
    let directory = directory(files);
    let path = directory.path().join(files[0].0);
    let place = directory
        .path()
        .canonicalize()
        .unwrap()
        .display()
        .to_string();
    let found = read(&path, choices).map_err(|error| error.to_string().replace(&place, "DIR"));
    let json = serde_json::to_string(&found.as_ref().map(|it| &it.project).ok()).unwrap();
    let project: Option<NewProject> = serde_json::from_str(&json.replace(&place, "/DIR")).unwrap();
    found.map(|it| Imported {
        project: project.unwrap(),
        ..it
    })
}

/// Returns a project as lines.
fn shown(imported: &Imported) -> String {
    let project = &imported.project;
    let mut lines = Vec::new();
    let bitbake = project.bitbake.as_ref().unwrap();
    lines.push(format!(
        "bitbake {} {} {}",
        bitbake.url, bitbake.reference, bitbake.path
    ));
    for layer in &project.layers {
        let (url, reference) = (
            layer.url.as_ref().unwrap(),
            layer.reference.as_ref().unwrap(),
        );
        lines.push(format!(
            "layer {} {url} {reference} {}",
            layer.name,
            layer.path.as_ref().unwrap()
        ));
    }
    lines.extend(
        project
            .variables
            .iter()
            .map(|it| format!("{}={}", it.name, it.value)),
    );
    lines.extend(project.local_conf.iter().map(|line| format!("| {line}")));
    lines.extend(
        project
            .targets
            .iter()
            .map(|target| format!("target {target}")),
    );
    lines.extend(imported.notes.iter().map(|note| format!("note {note}")));
    lines.join("\n")
}

const KAS: &str = r#"
header:
  version: 18
  includes:
    - kas/common.yml
machine: qemuarm64
repos:
  meta-own:
  poky:
    url: https://git.example.org/poky.git
    layers:
      meta:
      meta-poky:
      meta-yocto-bsp: disabled
  meta-openembedded:
    url: https://git.example.org/meta-openembedded
    commit: 111111111111111111111111111111111111111a
    layers:
      meta-oe:
      meta-python:
local_conf_header:
  z-last: |
    LAST = "1"
  a-first: |
    FIRST = "1"

    SECOND = "2"
env:
  BB_NUMBER_THREADS: 4
  HOME_TOKEN:
target:
  - core-image-minimal
  - busybox:do_compile
"#;

const COMMON: &str = r#"
header: {version: 18}
distro: poky
machine: qemux86-64
task: compile
defaults:
  repos:
    branch: scarthgap
bblayers_conf_header:
  x: "BBPATH = \"${TOPDIR}\"\n"
"#;

const LOCK: &str = r#"
header: {version: 18}
overrides:
  repos:
    poky:
      commit: "2222222222222222222222222222222222222222"
"#;

#[test]
fn a_file_of_kas_becomes_a_project_with_its_includes_and_its_lock() {
    let files = [
        ("own.yml", KAS),
        ("kas/common.yml", COMMON),
        ("own.lock.yml", LOCK),
    ];
    let imported = import(&files, &Choices::default()).unwrap();
    insta::assert_snapshot!(shown(&imported));
}

#[test]
fn a_file_of_kas_that_cannot_be_carried_over_is_refused() {
    let with = |text: &str| {
        let base = "header: {version: 18}\nrepos:\n  bitbake: {url: https://git.example.org/bitbake, branch: a}\n";
        import(
            &[("own.yml", &format!("{base}{text}"))],
            &Choices::default(),
        )
        .unwrap_err()
    };
    for (text, reason) in [
        (
            "  x: {url: https://git.example.org/x}",
            "has neither `commit` nor `branch` nor `tag`",
        ),
        (
            "  x: {url: https://git.example.org/x, branch: a, patches: {p: {path: y}}}",
            "has `patches`: commit them",
        ),
        (
            "  x: {url: https://git.example.org/x, branch: a, type: hg}",
            "is not one of git",
        ),
        ("  x: {url: 'ext::sh', branch: a}", "cannot be a repository"),
        (
            "  x: {url: https://git.example.org/x, branch: 2.10}",
            "put it in quotes",
        ),
        ("build_system: isar", "isar"),
        ("colour: red", "`colour` is not a key of kas"),
        ("env: {A: 'x\"y'}", "the variable A"),
        ("target: '-c x'", "cannot be a target"),
    ] {
        let error = with(text);
        assert!(error.contains(reason), "{error}");
    }
    let one = |text: &str| import(&[("own.yml", text)], &Choices::default()).unwrap_err();
    for (text, reason) in [
        (
            "header: {version: 18, includes: [{repo: x, file: y.yml}]}",
            "kas dump",
        ),
        ("header: {version: 18, includes: [own.yml]}", "in a circle"),
        (
            "header: {version: 18, includes: [none.yml]}",
            "cannot read DIR/none.yml",
        ),
        ("header: {version: 18}\n  x: [", "cannot be read"),
        ("header: {version: 18}", "`repos` is missing"),
        (
            "header: {version: 18}\nrepos: {x: {url: https://git.example.org/x, branch: a}}",
            "`bitbake` or `poky`",
        ),
        ("a: b", "it is neither a file of kas"),
        ("- a", "a mapping is expected"),
    ] {
        let error = one(text);
        assert!(error.contains(reason), "{text}: {error}");
    }
}

const SETUP: &str = r#"{
 "description": "x", "version": "1.0",
 "sources": {
  "bitbake": {"git-remote": {"uri": "https://git.example.org/bitbake", "branch": "2.18", "rev": "2.18"}},
  "openembedded-core": {"git-remote": {"remotes": {"origin": {"uri": "https://git.example.org/oe"}}, "branch": "wrynose", "rev": "wrynose"}},
  "meta-own": {"local": {"path": "/srv/meta-own"}}},
 "bitbake-setup": {"configurations": [{
  "bb-layers": ["openembedded-core/meta", "meta-own"],
  "oe-fragments-one-of": {
   "machine": {"description": "m", "options": [{"name": "machine/qemux86-64", "description": "d"}, "machine/qemuarm64"]},
   "distro": {"description": "d", "options": ["distro/poky"]}},
  "configurations": [{"name": "plain"}, {"name": "sstate", "oe-fragments": ["core/yocto/sstate-mirror-cdn"]}]}]}}"#;

#[test]
fn a_configuration_of_bitbake_setup_becomes_a_project() {
    let choices = |configuration: Option<&str>, fragments: &[&str]| Choices {
        configuration: configuration.map(str::to_owned),
        fragments: fragments.iter().map(|it| (*it).to_owned()).collect(),
    };
    let files = [("x.conf.json", SETUP)];
    let chosen = choices(Some("sstate"), &["machine/qemuarm64"]);
    insta::assert_snapshot!(shown(&import(&files, &chosen).unwrap()));
    for (choices, reason) in [
        (
            choices(None, &[]),
            "has the configurations plain and sstate; choose one",
        ),
        (
            choices(Some("x"), &[]),
            "has no configuration x, but plain and sstate",
        ),
        (
            choices(Some("plain"), &[]),
            "leaves the machine open; choose machine/qemux86-64 or machine/qemuarm64",
        ),
        (
            choices(Some("plain"), &["machine/qemuarm64", "x"]),
            "has no choice x",
        ),
    ] {
        let error = import(&files, &choices).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
    let wrong = SETUP.replace("\"meta-own\"]", "\"none/x\"]");
    let error = import(
        &[("x.conf.json", &wrong)],
        &choices(Some("plain"), &["machine/qemuarm64"]),
    );
    assert!(
        error
            .unwrap_err()
            .contains("is in none, which is not one of `sources`")
    );
}

/// The configurations in a checkout of BitBake.
mod bitbake_checkout {
    use super::*;

    #[test]
    #[ignore = "needs the checkout of BitBake that BITBAKE names"]
    fn the_registry_of_bitbake_is_read() {
        let registry =
            Path::new(&std::env::var("BITBAKE").unwrap()).join("default-registry/configurations");
        let mut count = 0;
        for entry in std::fs::read_dir(registry).unwrap() {
            let path = entry.unwrap().path();
            let is_poky = path.display().to_string().contains("poky-");
            let mut fragments = vec!["machine/qemux86-64".to_owned()];
            fragments.extend(is_poky.then(|| "distro/poky".to_owned()));
            let configuration = is_poky.then(|| "poky".to_owned());
            let imported = read(
                &path,
                &Choices {
                    configuration,
                    fragments,
                },
            )
            .unwrap();
            assert!(!imported.project.layers.is_empty(), "{}", path.display());
            count += 1;
        }
        assert!(count > 0);
    }
}
