//! Package feeds: the publication of builds, and the files as HTTP clients get them.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use config::builds::{Artifact, State};
use config::task::Outcome;
use jiff::Timestamp;
use reqwest::blocking::Response;
use serde_json::Value;
use tests::api_host::ApiHost;
use tests::feeds::{deb, new_key};

use super::openapi::check;

struct Feed {
    host: ApiHost,
    work: tempfile::TempDir,
}

impl Feed {
    fn new(more: &str) -> Self {
        Self::with_expiry(more, agent::triggers::feeds::EXPIRY)
    }

    fn with_expiry(more: &str, expiry: Duration) -> Self {
        let work = tempfile::tempdir().unwrap();
        let key = new_key(work.path(), "key");
        let host = ApiHost::new(&format!(
            "[[feeds]]\nname = \"main\"\nkeys = [\"{}\"]\npublishers = [\"root\"]\nserve = true\n{more}",
            key.display()
        ));
        host.allow(&[("admin", "a")]);
        let guard = host.runtime.enter();
        agent::triggers::feeds::run(&host.host, expiry);
        drop(guard);
        Self { host, work }
    }

    /// Ends a build with this package, and waits until nothing waits for its publication.
    fn build(&self, version: &str, content: &str, more: impl FnOnce(&mut config::builds::Build)) {
        let package = deb(self.work.path(), "hello", version, content);
        end_build(&self.host, &package, more);
        tests::wait_until("the build is published", || self.state()["waiting"] == 0);
    }

    fn state(&self) -> Value {
        let answer = self.host.remote("GET", "/api/v1/feeds").bearer_auth("a");
        check("GET", "/api/v1/feeds", answer.send().unwrap())[0].clone()
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        let path = format!("/feed/main/linux/{path}");
        let mut request = self.host.remote("GET", &path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().unwrap()
    }

    fn index(&self) -> String {
        self.get("dists/stable/main/binary-all/Packages", &[])
            .text()
            .unwrap()
    }
}

fn end_build(host: &ApiHost, package: &Path, more: impl FnOnce(&mut config::builds::Build)) {
    let records = &host.host.records;
    let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
    let (toolchain, root) = ("default".parse().unwrap(), "root".parse().unwrap());
    let now = Timestamp::now();
    let mut build = host
        .block_on(records.submit(request, toolchain, root, now))
        .unwrap();
    let directory = host
        .host
        .paths
        .build(build.id)
        .join(state::paths::ARTIFACTS);
    fs::create_dir_all(&directory).unwrap();
    let name = package.file_name().unwrap().to_str().unwrap();
    fs::copy(package, directory.join(name)).unwrap();
    build.enter(State::Starting, now).unwrap();
    build.enter(State::Finished, now).unwrap();
    build.artifacts = vec![Artifact {
        name: name.parse().unwrap(),
        bytes: package.metadata().unwrap().len(),
        sha256: sys::file::digest(fs::File::open(package).unwrap()).unwrap(),
    }];
    build.outcome = Some(Outcome::Success);
    build.finished = Some(now);
    more(&mut build);
    host.block_on(records.save(&mut build)).unwrap();
}

#[test]
fn successful_builds_of_publishers_are_published_once() {
    let feed = Feed::new("");
    assert_eq!(feed.state()["repositories"].as_array().unwrap().len(), 0);
    feed.build("1.0-r0", "one", |_| {});
    feed.build("1.0-r1", "two", |_| {});
    feed.build("1.0-r2", "x", |build| build.outcome = Some(Outcome::Error));
    let index = feed.index();
    assert!(
        index.contains("Version: 1.0-r0\n") && index.contains("Version: 1.0-r1\n"),
        "{index}"
    );
    assert!(!index.contains("1.0-r2"), "{index}");
    feed.build("1.0-r1", "changed", |_| {});
    let repository = feed.state()["repositories"][0].clone();
    assert_eq!(
        (&repository["debs"], &repository["refused"][0]["build"]),
        (&2.into(), &4.into())
    );
    assert_eq!(feed.index(), index);
    let metrics = feed
        .host
        .remote("GET", "/metrics")
        .send()
        .unwrap()
        .text()
        .unwrap();
    assert!(
        metrics.contains("buildhost_feed_packages{feed=\"main\"} 2"),
        "{metrics}"
    );
    assert!(
        metrics.contains("buildhost_feed_builds_waiting{feed=\"main\"} 0"),
        "{metrics}"
    );
}

#[test]
fn an_old_package_goes_although_no_other_is_published() {
    let feed = Feed::with_expiry("keep_days = 30\n", Duration::from_millis(50));
    feed.build("1.0-r0", "one", |_| {});
    feed.build("1.0-r1", "two", |_| {});
    assert!(feed.index().contains("Version: 1.0-r0\n"));
    // Two months pass: the times of publication in the state are moved back.
    let state = feed.host.path("state/feeds/main/linux/current/state.json");
    let mut old: Value = serde_json::from_str(&fs::read_to_string(&state).unwrap()).unwrap();
    for entry in old["entries"].as_array_mut().unwrap() {
        entry["added"] = "2020-01-01T00:00:00Z".into();
    }
    sys::file::replace(&state, old.to_string().as_bytes()).unwrap();
    tests::wait_until("the older version is gone", || {
        !feed.index().contains("Version: 1.0-r0\n")
    });
    assert!(
        feed.index().contains("Version: 1.0-r1\n"),
        "the greatest stays"
    );
}

#[test]
fn a_build_that_a_person_typed_into_is_not_published() {
    let feed = Feed::new("");
    // The record of the typist is newer than that which the end of the build is decided by.
    let package = deb(feed.work.path(), "hello", "1.0", "typed");
    let host = &feed.host.host;
    let records = host.records.clone();
    let typist = config::builds::Typist {
        submitter: "root".parse().unwrap(),
        at: Timestamp::now(),
    };
    end_build(&feed.host, &package, |build| {
        let id = build.id;
        feed.host.block_on(records.add_typist(id, typist)).unwrap();
    });
    tests::wait_until("the build is settled", || feed.state()["waiting"] == 0);
    assert_eq!(
        feed.get("key.asc", &[]).status(),
        404,
        "nothing was published"
    );
}

#[test]
fn builds_wait_until_the_key_is_there() {
    let feed = Feed::new("");
    let key = feed.work.path().join("key");
    let saved = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    let package = deb(feed.work.path(), "hello", "1.0", "x");
    end_build(&feed.host, &package, |_| {});
    tests::wait_until("the failure is recorded", || feed.state()["failure"] != "");
    let state = feed.state();
    assert!(
        state["key_fault"]
            .as_str()
            .unwrap()
            .starts_with("cannot read the key"),
        "{state}"
    );
    assert_eq!(state["waiting"], 1);
    sys::file::replace(&key, &saved).unwrap();
    tests::wait_until("the build is published", || feed.state()["waiting"] == 0);
    assert!(feed.index().contains("Version: 1.0\n"));
}

#[test]
fn clients_get_parts_and_ask_for_changes() {
    let feed = Feed::new("");
    feed.build("1.0", "one", |_| {});
    let path = "dists/stable/InRelease";
    let whole = feed.get(path, &[]);
    assert_eq!(whole.headers()["content-type"], "text/plain; charset=utf-8");
    let header = |name: &str| whole.headers()[name].to_str().unwrap().to_owned();
    let (tag, changed) = (header("etag"), header("last-modified"));
    let text = whole.text().unwrap();
    for (name, value) in [("if-none-match", &tag), ("if-modified-since", &changed)] {
        assert_eq!(feed.get(path, &[(name, value)]).status(), 304, "{name}");
    }
    let part = feed.get(path, &[("range", "bytes=5-"), ("if-range", &tag)]);
    assert_eq!(part.status(), 206);
    assert_eq!(part.text().unwrap(), text[5..]);
    // The next generation has a later second, however fast it follows.
    feed.build("1.1", "two", |_| {});
    for (name, value) in [("if-none-match", &tag), ("if-modified-since", &changed)] {
        assert_eq!(feed.get(path, &[(name, value)]).status(), 200, "{name}");
    }
    for value in [&tag, &changed] {
        let headers = [("range", "bytes=5-"), ("if-range", value.as_str())];
        assert_eq!(
            feed.get(path, &headers).status(),
            200,
            "a part of other content"
        );
    }
}

#[test]
fn only_the_files_for_clients_are_served() {
    let feed = Feed::new("");
    feed.build("1.0", "one", |_| {});
    for (path, kind) in [
        ("key.asc", "application/pgp-keys"),
        ("dists/stable/Release.gpg", "application/pgp-signature"),
        ("Packages.asc", "application/pgp-signature"),
        ("Packages.gz", "application/gzip"),
    ] {
        let answer = feed.get(path, &[]);
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-type"]),
            (200, &kind.parse().unwrap())
        );
    }
    for path in [
        "",
        "dists",
        "pool",
        "current/state.json",
        ".lock",
        "generations/1/state.json",
        "dists/../current/state.json",
        "dists/..%2F..%2Fcurrent/state.json",
        "dists//stable/Release",
        "pool/x",
    ] {
        assert_eq!(feed.get(path, &[]).status(), 404, "{path}");
    }
    let post = feed
        .host
        .remote("POST", "/feed/main/linux/key.asc")
        .send()
        .unwrap();
    assert_eq!(post.status(), 405);
    let other = feed
        .host
        .remote("GET", "/feed/other/linux/key.asc")
        .send()
        .unwrap();
    assert_eq!(other.status(), 404);
    let host = Arc::clone(&feed.host.host);
    let mut settings = (*host.settings()).clone();
    settings.feeds[0].serve = false;
    host.current_settings.set(settings);
    assert_eq!(
        feed.get("key.asc", &[]).status(),
        404,
        "the feed is not served"
    );
}

#[test]
fn a_rebuild_signs_again_and_tells_what_is_lost() {
    let feed = Feed::new("keep_versions = 9\n");
    feed.build("1.0", "one", |_| {});
    feed.build("1.1", "two", |_| {});
    let directory = feed.state()["path"].as_str().unwrap().to_owned();
    let pool = Path::new(&directory).join("linux/pool");
    let first = sys::file::entries(&pool).unwrap().remove(0);
    fs::remove_dir_all(first).unwrap();
    let repository = feed.state()["repositories"][0].clone();
    assert_eq!(repository["missing"].as_array().unwrap().len(), 1);
    let answer = feed
        .host
        .remote("POST", "/api/v1/feeds/main/rebuild")
        .bearer_auth("a");
    let answer = check(
        "POST",
        "/api/v1/feeds/{name}/rebuild",
        answer.send().unwrap(),
    );
    assert_eq!(answer[0]["generation"], 3);
    let lost = answer[0]["lost"][0].as_str().unwrap();
    assert!(lost.ends_with("the file is missing"), "{lost}");
    assert_eq!(feed.state()["repositories"][0]["debs"], 1);
}
