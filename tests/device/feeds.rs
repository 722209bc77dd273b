//! Package feeds with the real apt: a build in a guest makes a package that a client installs, upgrades
//! follow, and a client that reads beside publications never sees a mismatch.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use config::builds::State;
use config::task::Outcome;
use feeds::package::PackageKind;
use feeds::repository::{Addition, Repository};
use feeds::retention::Retention;
use feeds::signature::{FeedKey, public_keys};
use jiff::Timestamp;
use tests::feeds::{AptClient, deb, new_key};

use crate::packagers::container_host;

/// The number of publications beside a client.
const PUBLICATIONS: u32 = 300;

/// A toolchain's `build` that makes a package, with a revision of the PR service in its version. It has
/// no `dpkg-deb`, so that it writes the archive itself.
const BUILD: &str = r#"#!/bin/sh
set -eu
source=$BUILDHOST_SOURCES/script
checksum=$(sha256sum <"$source" | cut -c1-12)
request='{"get-pr": {"version": "hello-1.0-r0", "pkgarch": "all", "checksum": "'$checksum'"}}'
revision=$( (printf 'PRSERVICE 1.0\n\n%s\n' "$request"; sleep 2) | nc 169.254.111.222 8585 |
    sed -n 's/.*"value": *"\{0,1\}\([0-9.]*\).*/\1/p')
test -n "$revision"
mkdir -p work/control work/data/usr/share
cd work
printf 'Package: hello\nVersion: 1.0-r0.%s\nArchitecture: all\n' "$revision" >control/control
printf 'Maintainer: a <a@example.org>\nDescription: greets\n' >>control/control
cp "$source" data/usr/share/hello
tar -czf control.tar.gz -C control ./control
tar -czf data.tar.gz -C data .
printf '2.0\n' >debian-binary
deb=$BUILDHOST_OUT/hello.deb
printf '!<arch>\n' >"$deb"
for member in debian-binary control.tar.gz data.tar.gz; do
    size=$(wc -c <$member)
    printf '%-16s%-12s%-6s%-6s%-8s%-10s`\n' $member 0 0 0 100644 $size >>"$deb"
    cat $member >>"$deb"
    [ $((size % 2)) = 0 ] || echo >>"$deb"
done
printf ': 1\npackage: hello\nversion: 1.0\nrecipe-revision: r0\narchitecture: all\nchecksum: %s\nfile: hello.deb\n' \
    $checksum >"$BUILDHOST_OUT/packages.manifest"
"#;

/// Writes the public part of keys.
fn public(keys: &[&Path], into: &Path) {
    let keys: Vec<_> = keys.iter().map(|key| FeedKey::read(key).unwrap()).collect();
    sys::file::replace(into, &public_keys(&keys).unwrap()).unwrap();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_client_installs_and_upgrades_packages_of_builds_in_guests() {
    let work = tempfile::tempdir().unwrap();
    let key = new_key(work.path(), "key");
    let feed = work.path().join("feed");
    let settings = format!(
        "[[feeds]]\nname = \"main\"\nkeys = [{key:?}]\npublishers = [\"root\"]\npath = {feed:?}\nkeep_versions = 2\n"
    );
    let host = container_host(&settings, BUILD);
    let trusted = work.path().join("trusted.asc");
    public(&[&key], &trusted);
    // Any web server can serve the directory; apt can also read it itself.
    let client = AptClient::new(&format!("file:{}/demo", feed.display()), &trusted);
    for (text, version) in [
        ("one", "1.0-r0.0"),
        ("two", "1.0-r0.1"),
        ("three", "1.0-r0.2"),
    ] {
        let id = host.submit_script(text, &[]);
        let build = host.wait_for(id, State::Finished);
        assert_eq!(build.outcome, Some(Outcome::Success), "{}", host.log_of(id));
        tests::wait_until("the package is published", || {
            let shown = host
                .machinectl(&["feed", "show", "main", "--json"])
                .success();
            let feed: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
            feed["waiting"] == 0 && !feed["repositories"].as_array().unwrap().is_empty()
        });
        client.apt_get(&["update"]).unwrap();
        assert_eq!(client.versions("hello")[0], version);
        let verb = if text == "one" { "install" } else { "upgrade" };
        let line = if text == "one" {
            vec![verb, "hello"]
        } else {
            vec![verb]
        };
        client.apt_get(&line).unwrap();
        assert_eq!(client.installed("hello").as_deref(), Some(text));
    }
    assert_eq!(
        client.versions("hello"),
        ["1.0-r0.2", "1.0-r0.1"],
        "two are kept"
    );
    let listed = host.machinectl(&["feed", "list"]).success().stdout;
    assert!(listed.contains("main  demo     2    0"), "{listed}");
    // A change of the keys signs the indexes again at the next start, for clients with either key.
    let rebuilt = host.machinectl(&["feed", "rebuild", "main"]).success();
    assert!(
        rebuilt.stderr.contains("generation 4"),
        "{}",
        rebuilt.stderr
    );
    client.apt_get(&["update"]).unwrap();
}

/// A repository that a test publishes by itself.
fn repository(directory: &Path) -> Repository {
    let retention = Retention {
        versions_max: NonZeroUsize::new(3).unwrap(),
        age_max: None,
    };
    Repository::new(directory, "test".to_owned(), retention)
}

fn publish(directory: &Path, keys: &[FeedKey], package: &Path) {
    let file = fs::File::open(package).unwrap();
    let sha256 = sys::file::digest(&file).unwrap();
    let name = package.file_name().unwrap().to_str().unwrap().to_owned();
    let addition = Addition {
        file,
        name,
        kind: PackageKind::Deb,
        sha256,
        build: None,
    };
    let published = repository(directory)
        .publish(vec![addition], keys, Timestamp::now())
        .unwrap();
    assert_eq!(published.refused, []);
}

#[test]
#[ignore = "needs root: apt and dpkg with a root directory of their own"]
fn a_client_beside_hundreds_of_publications_never_sees_a_mismatch() {
    let work = tempfile::tempdir().unwrap();
    let feed = work.path().join("state/feeds/main/linux");
    let key = new_key(work.path(), "key");
    let keys = [FeedKey::read(&key).unwrap()];
    let trusted = work.path().join("trusted.asc");
    public(&[&key], &trusted);
    publish(&feed, &keys, &deb(work.path(), "hello", "1.0", "0"));
    let server = tests::api_host::ApiHost::new(&format!(
        "[[feeds]]\nname = \"main\"\nkeys = [{key:?}]\nserve = true\npath = {:?}\n",
        feed.parent().unwrap()
    ));
    let uri = format!("http://{}/feed/main/linux", server.address);
    let client = AptClient::new(&uri, &trusted);
    let is_over = AtomicBool::new(false);
    let updates = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut updates = 0;
            while !is_over.load(Ordering::Relaxed) {
                client.apt_get(&["update"]).unwrap();
                client.apt_get(&["install", "hello"]).unwrap();
                updates += 1;
            }
            updates
        });
        for number in 1..=PUBLICATIONS {
            let package = deb(
                work.path(),
                "hello",
                &format!("1.{number}"),
                &number.to_string(),
            );
            publish(&feed, &keys, &package);
            fs::remove_file(package).unwrap();
            if reader.is_finished() {
                break;
            }
        }
        is_over.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    println!("{updates} updates and installations beside {PUBLICATIONS} publications");
    assert!(updates > 0);
    client.apt_get(&["update"]).unwrap();
    client.apt_get(&["install", "hello"]).unwrap();
    assert_eq!(client.installed("hello"), Some(PUBLICATIONS.to_string()));
}

#[test]
#[ignore = "needs root: apt and dpkg with a root directory of their own"]
fn keys_are_rotated_and_other_signatures_refused() {
    let work = tempfile::tempdir().unwrap();
    let feed = work.path().join("feed");
    let [old, new, other] = ["old", "new", "other"].map(|name| new_key(work.path(), name));
    let read = |keys: &[&Path]| -> Vec<FeedKey> {
        keys.iter().map(|key| FeedKey::read(key).unwrap()).collect()
    };
    let trust = work.path().join("trusted.asc");
    let update = |signers: &[&Path], trusted: &[&Path]| {
        repository(&feed)
            .rebuild(&read(signers), Timestamp::now())
            .unwrap();
        public(trusted, &trust);
        let client = AptClient::new(&format!("file:{}", feed.display()), &trust);
        client.apt_get(&["update"])
    };
    publish(
        &feed,
        &read(&[&old]),
        &deb(work.path(), "hello", "1.0", "0"),
    );
    update(&[&old], &[&old]).unwrap();
    // Clients with the old key, the new one, and both, while both sign.
    update(&[&old, &new], &[&old]).unwrap();
    update(&[&old, &new], &[&new]).unwrap();
    update(&[&new], &[&old, &new]).unwrap();
    let refused = update(&[&new], &[&old]).unwrap_err().to_string();
    assert!(refused.contains("NO_PUBKEY"), "{refused}");
    update(&[&other], &[&old, &new]).unwrap_err();
    // Changed indexes and packages are found by their hashes.
    public(&[&other], &trust);
    let client = AptClient::new(&format!("file:{}", feed.display()), &trust);
    client.apt_get(&["update"]).unwrap();
    let pool = sys::file::entries(&feed.join("pool")).unwrap().remove(0);
    let package = sys::file::entries(&pool).unwrap().remove(0);
    let mut content = fs::read(&package).unwrap();
    *content.last_mut().unwrap() ^= 1;
    sys::file::replace(&package, &content).unwrap();
    let refused = client
        .apt_get(&["install", "hello"])
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("Hash Sum mismatch") || refused.contains("Failed"),
        "{refused}"
    );
    assert_eq!(client.installed("hello"), None);
}
