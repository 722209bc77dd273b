//! Projects at the API: releases, layers, projects, and their builds with the sources that a guest
//! gets. The repositories are on this host.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent::scheduler;
use agent::triggers::fs_watch::Watch;
use config::projects::ProjectDocument;
use jiff::Timestamp;
use serde_json::{Value, json};
use sys::command::{prepare, run};
use tests::api_host::ApiHost;
use tests::wait_until;

use super::openapi::check;

const LIMIT: Duration = Duration::from_mins(1);

/// A host with the tokens `admin`, `friend` and `foreign`, a toolchain `bitbake`, and the
/// repositories of BitBake, a core with its layer in `meta`, and a layer that needs it.
struct ProjectHost {
    host: ApiHost,
    repositories: tempfile::TempDir,
}

impl ProjectHost {
    fn new() -> Self {
        let repositories = tempfile::tempdir().unwrap();
        let root = repositories.path().canonicalize().unwrap();
        let settings = format!(
            "http.requests_per_second_max = 0\nlayers.directories = [\"{}\"]\n",
            root.display()
        );
        let host = ApiHost::new(&settings);
        host.allow(&[
            ("admin", "admin"),
            ("submit", "friend"),
            ("submit", "foreign"),
        ]);
        std::fs::create_dir(host.path("toolchains/bitbake")).unwrap();
        tests::write_file(&host.path("toolchains/bitbake/build"), "#!/bin/sh\n");
        let own = Self { host, repositories };
        own.commit("bitbake", "bin/bitbake", "#!/bin/sh\n");
        own.commit(
            "core",
            "meta/conf/layer.conf",
            "BBFILE_COLLECTIONS += \"core\"\nLAYERSERIES_CORENAMES = \"own\"\n",
        );
        own.commit(
            "meta-camera",
            "conf/layer.conf",
            &layer_conf("camera", "core", "own"),
        );
        own
    }

    fn path(&self, name: &str) -> String {
        let root = self.repositories.path().canonicalize().unwrap();
        root.join(name).display().to_string()
    }

    /// Commits a file to a repository, which is made if missing, and returns the commit.
    fn commit(&self, repository: &str, file: &str, text: &str) -> String {
        let directory = self.path(repository);
        let path = Path::new(&directory).join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        tests::write_file(&path, text);
        let git = |arguments: &[&str]| {
            let mut git = prepare("git");
            for role in ["AUTHOR", "COMMITTER"] {
                git.env(format!("GIT_{role}_NAME"), "t");
                git.env(format!("GIT_{role}_EMAIL"), "t@example.org");
            }
            git.env("GIT_CONFIG_GLOBAL", "/dev/null")
                .arg("-C")
                .arg(&directory)
                .args(arguments);
            String::from_utf8(run(git, LIMIT).unwrap())
                .unwrap()
                .trim()
                .to_owned()
        };
        git(&["init", "--quiet", "--initial-branch=own"]);
        git(&["add", "."]);
        git(&["commit", "--quiet", "-m", "change"]);
        git(&["rev-parse", "HEAD"])
    }

    /// Sends a request and checks the response against the description of its route.
    fn ask(&self, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let route = route_of(path);
        let request = self.host.remote(method, path).bearer_auth(token);
        let request = match body {
            Value::Null => request,
            body => request.json(body),
        };
        let response = request.send().unwrap();
        let status = response.status().as_u16();
        (status, check(method, &route, response))
    }

    fn detail(&self, token: &str, method: &str, path: &str, body: &Value) -> (u16, String) {
        let (status, body) = self.ask(token, method, path, body);
        (
            status,
            body["detail"].as_str().unwrap_or_default().to_owned(),
        )
    }

    /// Adds a release `own` with the layer `core`.
    fn add_release(&self) {
        let location = |name: &str, path: &str| json!({"url": self.path(name), "reference": "own", "path": path});
        let layer = json!({"name": "core", "location": location("core", "meta")});
        assert_eq!(
            self.ask("admin", "PUT", "/api/v1/layers/core", &layer).0,
            201
        );
        let camera = json!({"name": "meta-camera", "location": location("meta-camera", ""), "depends": ["core"]});
        assert_eq!(
            self.ask("admin", "PUT", "/api/v1/layers/meta-camera", &camera)
                .0,
            201
        );
        let release = json!({"name": "own", "branch": "own", "bitbake": location("bitbake", ""), "layers": ["core"]});
        assert_eq!(
            self.ask("admin", "PUT", "/api/v1/releases/own", &release).0,
            201
        );
    }

    fn add_project(&self, new: &Value) -> (u16, Value) {
        self.ask("friend", "PUT", "/api/v1/projects/camera", new)
    }

    fn build(&self, request: &Value) -> (u16, Value) {
        self.ask("friend", "POST", "/api/v1/projects/camera/builds", request)
    }

    /// Returns the content of a source of a build.
    fn source(&self, build: &Value, name: &str) -> Vec<u8> {
        let sources = build["sources"].as_array().unwrap();
        let source = sources.iter().find(|it| it["name"] == name).unwrap();
        let file = format!("state/sources/{}", source["sha256"].as_str().unwrap());
        std::fs::read(self.host.path(&file)).unwrap()
    }
}

fn layer_conf(collection: &str, depends: &str, series: &str) -> String {
    format!(
        "BBFILE_COLLECTIONS += \"{collection}\"\nLAYERDEPENDS_{collection} = \"{depends}\"\nLAYERSERIES_COMPAT_{collection} = \"{series}\"\n"
    )
}

/// Returns the route of a path: its third part is a name.
fn route_of(path: &str) -> String {
    let path = path.split('?').next().unwrap();
    let mut parts: Vec<_> = path.split('/').collect();
    if parts.len() > 4 && parts[3] != "layer-sources" {
        parts[4] = "{name}";
    }
    parts.join("/")
}

fn project() -> Value {
    json!({"release": "own", "host_machine": "linux", "defaults": true,
        "layers": [{"name": "meta-camera"}], "targets": ["core-image-minimal", "busybox:do_compile"],
        "variables": [{"name": "MACHINE", "value": "qemuarm64"}]})
}

#[test]
fn a_project_becomes_a_build_with_its_commits_as_sources() {
    let host = ProjectHost::new();
    host.add_release();
    let (status, stored) = host.add_project(&project());
    assert_eq!(status, 201, "{stored}");
    assert_eq!(stored["owner"], "token:submit-6");
    let (status, submitted) = host.build(&json!({}));
    assert_eq!(status, 201, "{submitted}");
    let build = &submitted["build"];
    assert_eq!(
        (&build["toolchain"], &build["submitter"]),
        (&json!("bitbake"), &json!("token:submit-6"))
    );
    let document = host.source(build, "project.json");
    let document: ProjectDocument = serde_json::from_slice(&document).unwrap();
    assert_eq!(
        serde_json::to_value(&document).unwrap(),
        submitted["document"]
    );
    let layers: Vec<_> = document
        .layers
        .iter()
        .map(|it| format!("{} {} {}", it.name, it.repository, it.path))
        .collect();
    assert_eq!(layers, ["core core meta", "meta-camera meta-camera "]);
    let targets: Vec<_> = document.targets.iter().map(ToString::to_string).collect();
    assert_eq!(targets, ["core-image-minimal", "busybox:do_compile"]);
    assert_eq!(document.repositories.len(), 3);
    for repository in &document.repositories {
        let archive = host.source(build, repository.archive.as_str());
        let text = String::from_utf8_lossy(&archive);
        let file = if repository.name == "core" {
            "core/meta/conf/layer.conf"
        } else {
            repository.name.as_str()
        };
        assert!(text.contains(file), "{}", repository.name);
    }
    // The same commits are the same build, and another commit is another one.
    let (status, again) = host.build(&json!({}));
    assert_eq!((status, &again["build"]["id"]), (200, &build["id"]));
    let commit = host.commit("meta-camera", "new", "new");
    let (status, other) = host.build(&json!({}));
    assert_eq!(status, 201);
    let commits = other["document"]["repositories"].as_array().unwrap();
    assert!(
        commits.iter().any(|it| it["commit"] == commit.as_str()),
        "{other}"
    );
    let old = &submitted["document"]["repositories"][2]["commit"];
    let (_, pinned) = host.build(&json!({"at": [{"layer": "meta-camera", "reference": old}]}));
    assert_eq!(pinned["build"]["id"], build["id"]);
    let range = json!({"layer": "meta-camera", "from": old});
    let path = "/api/v1/projects/camera/commits";
    assert_eq!(
        host.ask("friend", "POST", path, &range),
        (200, json!([commit]))
    );
    let backwards = json!({"layer": "meta-camera", "from": commit, "to": old});
    let (status, detail) = host.detail("friend", "POST", path, &backwards);
    assert_eq!(status, 422);
    assert!(detail.contains("is not an ancestor of"), "{detail}");
    // A dry run resolves, and submits nothing.
    let (status, planned) = host.build(&json!({"dry_run": true, "targets": ["x"]}));
    assert_eq!((status, planned.get("build")), (200, None));
}

/// Returns a schedule of the project, whose runs are not answered with builds of earlier ones.
fn nightly(build: &Value) -> Value {
    json!({"name": "nightly", "timing": {"every": "PT24H"}, "build": build,
        "project": {"name": "camera", "targets": ["busybox"]}})
}

#[test]
fn each_run_of_a_schedule_of_a_project_has_the_commits_of_its_time() {
    let host = ProjectHost::new();
    host.add_release();
    host.add_project(&project());
    let request =
        json!({"machine": "linux", "toolchain": "bitbake", "sources": [], "attach": false});
    let (status, added) = host.ask("friend", "POST", "/api/v1/schedules", &nightly(&request));
    assert_eq!(status, 201, "{added}");
    assert_eq!(added["project"]["name"], "camera");
    let run = || {
        host.ask(
            "friend",
            "POST",
            "/api/v1/schedules/nightly/run",
            &Value::Null,
        )
    };
    let commit_of = |build: &Value| {
        let document = host.source(build, "project.json");
        let document: Value = serde_json::from_slice(&document).unwrap();
        assert_eq!(document["targets"], json!(["busybox"]));
        document["repositories"][2]["commit"].clone()
    };
    let (status, first) = run();
    assert_eq!(status, 201, "{first}");
    assert_eq!(
        (&first["schedule"], &first["target"]),
        (&json!("nightly"), &json!("busybox"))
    );
    let commit = host.commit("meta-camera", "new", "new");
    let (_, second) = run();
    assert_eq!(commit_of(&second), commit.as_str());
    assert_ne!(commit_of(&first), commit_of(&second));
    // What cannot be resolved is told, and submits nothing.
    host.commit(
        "meta-camera",
        "conf/layer.conf",
        &layer_conf("camera", "core", "other"),
    );
    let (status, detail) = host.detail(
        "friend",
        "POST",
        "/api/v1/schedules/nightly/run",
        &Value::Null,
    );
    assert_eq!(status, 409);
    assert!(detail.contains("made for other"), "{detail}");
    let (_, builds) = host.ask("friend", "GET", "/api/v1/builds", &Value::Null);
    assert_eq!(builds.as_array().unwrap().len(), 2);
}

#[test]
fn a_schedule_of_a_project_is_resolved_when_it_is_due() {
    let host = ProjectHost::new();
    host.add_release();
    host.add_project(&project());
    let request = json!({"machine": "linux", "toolchain": "bitbake", "sources": []});
    let mut new = nightly(&request);
    let at = Timestamp::now() + Duration::from_secs(1);
    new["timing"] = json!({"at": at.to_string()});
    assert_eq!(host.ask("friend", "POST", "/api/v1/schedules", &new).0, 201);
    let agent = &host.host.host;
    let watch = Watch::new(agent).unwrap();
    let running = host
        .host
        .runtime
        .spawn(scheduler::run(Arc::clone(agent), watch));
    let last = || {
        let (_, schedule) = host.ask("friend", "GET", "/api/v1/schedules/nightly", &Value::Null);
        schedule["last"].clone()
    };
    wait_until("the schedule has run", || !last().is_null());
    let last = last();
    assert_eq!(last["result"], "submitted", "{last}");
    let path = format!("/api/v1/builds/{}", last["build"]);
    let build = host
        .host
        .remote("GET", &path)
        .bearer_auth("friend")
        .send()
        .unwrap();
    let build: Value = build.json().unwrap();
    assert_eq!(build["sources"].as_array().unwrap().len(), 4, "{build}");
    agent.stopping.cancel();
    host.host.block_on(running).unwrap();
}

#[test]
fn a_schedule_of_a_project_is_refused_with_sources_or_without_the_project() {
    let host = ProjectHost::new();
    host.add_release();
    let request = json!({"machine": "linux", "toolchain": "bitbake", "sources": []});
    let path = "/api/v1/schedules";
    let (status, detail) = host.detail("friend", "POST", path, &nightly(&request));
    assert_eq!(status, 404);
    assert!(detail.contains("there is no project camera"), "{detail}");
    host.add_project(&project());
    let source = json!([{"name": "a", "sha256": "0".repeat(64)}]);
    let request = json!({"machine": "linux", "toolchain": "bitbake", "sources": source});
    let (status, detail) = host.detail("friend", "POST", path, &nightly(&request));
    assert_eq!(status, 400);
    assert!(detail.contains("the project camera"), "{detail}");
}

#[test]
fn the_layers_of_a_build_have_their_dependencies() {
    let host = ProjectHost::new();
    host.add_release();
    let mut new = project();
    new["defaults"] = json!(false);
    host.add_project(&new);
    let path = "/api/v1/projects/camera/builds";
    let (status, detail) = host.detail("friend", "POST", path, &json!({}));
    assert_eq!(status, 422);
    assert!(
        detail.starts_with("layer meta-camera needs the layer with the collection `core`"),
        "{detail}"
    );
    new["defaults"] = json!(true);
    new["replace"] = json!(true);
    assert_eq!(host.add_project(&new).0, 200);
    host.commit(
        "meta-camera",
        "conf/layer.conf",
        &layer_conf("camera", "core", "other"),
    );
    let (status, detail) = host.detail("friend", "POST", path, &json!({}));
    assert_eq!(status, 422);
    assert!(
        detail.contains("made for other, and the core layer of the project is own"),
        "{detail}"
    );
    let builds = host.ask("friend", "GET", "/api/v1/builds", &Value::Null).1;
    assert_eq!(builds, json!([]), "nothing was submitted");
}

/// Returns projects with one fault each, the status of their refusal and a part of its reason.
fn bad_projects() -> [(Value, u16, &'static str); 8] {
    let with = |key: &str, value: Value| {
        let mut new = project();
        new[key] = value;
        new
    };
    [
        (
            with("release", json!("none")),
            404,
            "there is no release none",
        ),
        (
            with("layers", json!([{"name": "meta-none"}])),
            404,
            "there is no layer meta-none",
        ),
        (
            with(
                "layers",
                json!([{"name": "x", "url": "/etc", "reference": "HEAD"}]),
            ),
            403,
            "layers.directories",
        ),
        (
            with(
                "layers",
                json!([{"name": "x", "url": "https://git.example.org/x", "reference": "a"}]),
            ),
            403,
            "layers.git_hosts",
        ),
        (
            with(
                "variables",
                json!([{"name": "A", "value": "x\"; inherit y"}]),
            ),
            422,
            "is not allowed",
        ),
        (
            with("variables", json!([{"name": "A", "value": "x\ny"}])),
            422,
            "line ends",
        ),
        (
            with("variables", json!([{"name": "A B", "value": ""}])),
            422,
            "the name of a variable",
        ),
        (
            with("targets", json!(["-c cleanall"])),
            422,
            "cannot be a target",
        ),
    ]
}

#[test]
fn bad_projects_are_refused_at_the_earliest_place() {
    let host = ProjectHost::new();
    host.add_release();
    let path = "/api/v1/projects/camera";
    for (new, status, reason) in bad_projects() {
        let (found, detail) = host.detail("friend", "PUT", path, &new);
        assert_eq!(found, status, "{detail}");
        assert!(detail.contains(reason), "{detail}");
    }
    assert_eq!(host.ask("friend", "GET", path, &Value::Null).0, 404);
}

#[test]
fn bad_builds_of_projects_are_refused_before_anything_is_submitted() {
    let host = ProjectHost::new();
    host.add_release();
    let path = "/api/v1/projects/camera";
    let mut without_machine = project();
    without_machine["host_machine"] = Value::Null;
    host.add_project(&without_machine);
    let builds = format!("{path}/builds");
    for (request, status, reason) in [
        (json!({}), 400, "names no machine of this host"),
        (
            json!({"host_machine": "none"}),
            404,
            "there is no machine none",
        ),
        (
            json!({"host_machine": "linux", "toolchain": "none"}),
            404,
            "there is no toolchain none",
        ),
        (
            json!({"host_machine": "linux", "at": [{"layer": "core", "reference": "none"}]}),
            404,
            "has no branch, tag or commit none",
        ),
        (
            json!({"host_machine": "linux", "at": [{"layer": "x", "reference": "own"}]}),
            422,
            "has no layer x",
        ),
    ] {
        let (found, detail) = host.detail("friend", "POST", &builds, &request);
        assert_eq!(found, status, "{detail}");
        assert!(detail.contains(reason), "{detail}");
    }
    // A directory of the repository that is no layer.
    let wrong = json!({"name": "core", "location": {"url": host.path("core"), "reference": "own", "path": ""}});
    assert_eq!(
        host.ask("admin", "PUT", "/api/v1/layers/core", &wrong).0,
        200
    );
    let request = json!({"host_machine": "linux"});
    let (status, detail) = host.detail("friend", "POST", &builds, &request);
    assert_eq!(status, 422);
    assert!(
        detail.contains("has no file conf/layer.conf in ."),
        "{detail}"
    );
}

#[test]
fn a_project_belongs_to_its_owner() {
    let host = ProjectHost::new();
    host.add_release();
    host.add_project(&project());
    let path = "/api/v1/projects/camera";
    assert_eq!(host.add_project(&project()).0, 409);
    let mut new = project();
    new["replace"] = json!(true);
    let (status, detail) = host.detail("foreign", "PUT", path, &new);
    assert_eq!(status, 403);
    assert!(detail.contains("belongs to token:submit-6"), "{detail}");
    assert_eq!(host.ask("foreign", "DELETE", path, &Value::Null).0, 403);
    // Anybody may build it, and an administrator may change it, which leaves its owner.
    assert_eq!(
        host.ask("foreign", "POST", &format!("{path}/builds"), &json!({}))
            .0,
        201
    );
    let (status, stored) = host.ask("admin", "PUT", path, &new);
    assert_eq!((status, &stored["owner"]), (200, &json!("token:submit-6")));
    assert_eq!(host.ask("friend", "DELETE", path, &Value::Null).0, 204);
    assert_eq!(host.ask("friend", "GET", path, &Value::Null).0, 404);
}

#[test]
fn sources_of_layers_are_listed_with_their_faults() {
    let host = ProjectHost::new();
    let text = r#"<django-objects version="1.0"><object model="orm.toastersetting" pk="4">
<field name="name">DEFCONF_MACHINE</field><field name="value">own</field></object></django-objects>"#;
    let path = "/api/v1/layer-sources/fixtures";
    let fixture = |text: &str| json!({"name": "custom.xml", "text": text});
    let (status, loaded) = host.ask("admin", "POST", path, &fixture(text));
    assert_eq!((status, &loaded["objects"]), (200, &json!(1)));
    let (status, detail) = host.detail("admin", "POST", path, &fixture(&text[..120]));
    assert_eq!(status, 422);
    assert!(detail.starts_with("custom.xml:2: "), "{detail}");
    let (_, releases) = host.ask("friend", "GET", "/api/v1/releases", &Value::Null);
    assert_eq!(releases.as_array().unwrap().len(), 4);
    host.add_release();
    let mut new = project();
    new["variables"] = json!([]);
    let (_, stored) = host.add_project(&new);
    let variables = stored["variables"].as_array().unwrap();
    assert!(
        variables.contains(&json!({"name": "MACHINE", "value": "own"})),
        "{stored}"
    );
    // Nobody listens there.
    let request = json!({"url": "http://127.0.0.1:9/layerindex/branch/master/layers/"});
    let (status, updates) = host.ask("admin", "POST", "/api/v1/layer-sources/update", &request);
    assert_eq!(status, 200);
    let fault = updates[0]["fault"].as_str().unwrap();
    assert!(
        fault.starts_with("cannot get http://127.0.0.1:9/layerindex/api/"),
        "{fault}"
    );
    let (_, sources) = host.ask("friend", "GET", "/api/v1/layer-sources", &Value::Null);
    let own = sources
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["fault"] != "")
        .unwrap();
    assert_eq!(own["name"], "http://127.0.0.1:9/layerindex/api/");
    let (_, layers) = host.ask(
        "friend",
        "GET",
        "/api/v1/layers?search=camera",
        &Value::Null,
    );
    assert_eq!(layers.as_array().unwrap().len(), 1);
    let (_, content) = host.ask("friend", "GET", "/api/v1/layers/core", &Value::Null);
    assert_eq!(content[0]["source"], "added");
}
