//! Signed provenance of builds in real guests, verified by OpenSSL.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::builds::{Build, GuestKind, SIGNED_PROVENANCE, State};
use config::task::Outcome;
use serde_json::Value;
use sys::command::{self, CommandError};
use tempfile::TempDir;
use tests::agent::AgentHost;
use tests::attacks::refused;
use tests::wait_until;

const LIMIT: Duration = Duration::from_mins(1);
/// The media type of a statement.
const STATEMENT: &str = "application/vnd.in-toto+json";

/// The keys of a host, and its public key.
struct Keys {
    directory: TempDir,
}

impl Keys {
    fn new() -> Self {
        let keys = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let pem = keys.signer("init", &[]).unwrap();
        tests::write_file(&keys.path("first.pub"), &pem);
        keys
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the settings of a host with these keys.
    fn settings(&self) -> String {
        format!("provenance.keys = \"{}\"\n", self.path("keys").display())
    }

    /// Runs the signer with these keys and returns its output.
    fn signer(&self, verb: &str, arguments: &[&str]) -> Result<String, CommandError> {
        let mut signer = command::prepare(tests::program("buildhost-signer"));
        signer.arg(verb).args(arguments);
        if verb != "verify" {
            signer.arg("--keys").arg(self.path("keys"));
        }
        command::run(signer, LIMIT).map(|output| String::from_utf8(output).unwrap())
    }

    /// Verifies an envelope with OpenSSL and a public key, and returns the statement.
    fn openssl(&self, envelope: &str, public: &Path) -> Result<Value, CommandError> {
        let envelope: Value = serde_json::from_str(envelope).unwrap();
        assert_eq!(envelope["payloadType"], STATEMENT);
        let decode = |text: &Value, name: &str| {
            let path = self.path(name);
            tests::write_file(&path, text.as_str().unwrap());
            let mut base64 = command::prepare("base64");
            base64.arg("--decode").arg(path);
            command::run(base64, LIMIT).unwrap()
        };
        let payload = decode(&envelope["payload"], "payload");
        let signature = decode(&envelope["signatures"][0]["sig"], "sig");
        // The encoding of the specification, written again.
        let mut message = format!("DSSEv1 28 {STATEMENT} {} ", payload.len()).into_bytes();
        message.extend(&payload);
        let (message_path, signature_path) = (self.path("message"), self.path("signature"));
        sys::file::replace(&message_path, &message).unwrap();
        sys::file::replace(&signature_path, &signature).unwrap();
        let mut openssl = command::prepare("openssl");
        openssl
            .args(["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey"])
            .arg(public)
            .arg("-in")
            .arg(message_path)
            .arg("-sigfile")
            .arg(signature_path);
        command::run(openssl, LIMIT)?;
        Ok(serde_json::from_slice(&payload).unwrap())
    }
}

fn envelope(host: &AgentHost, id: u64) -> String {
    let id = id.to_string();
    host.machinectl(&["provenance", &id, "--signed"])
        .success()
        .stdout
}

/// Returns the identity of the builder of a build that nobody disturbed.
fn builder(host: &AgentHost, build: &Build) -> String {
    // QEMU promises no isolation where it emulates the processor.
    let level = if build.guest == Some(GuestKind::Kvm) {
        3
    } else {
        2
    };
    format!("buildhost:host/{}/slsa-build-l{level}", host.name())
}

fn succeeded(host: &AgentHost, id: u64) -> Build {
    let build = host.wait_for(id, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    println!("the guest of build {id}: {:?}", build.guest);
    build
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn openssl_verifies_the_provenance_of_a_build_before_and_after_a_rotation() {
    let keys = Keys::new();
    let host = AgentHost::ready(&keys.settings());
    let build = succeeded(&host, host.submit("demo", "one"));
    let signed = envelope(&host, 1);
    let first = keys.path("first.pub");
    let statement = keys.openssl(&signed, &first).unwrap();
    let predicate = &statement["predicate"];
    assert_eq!(
        predicate["runDetails"]["builder"]["id"],
        builder(&host, &build)
    );
    let finished = predicate["runDetails"]["metadata"]["finishedOn"].as_str();
    assert_eq!(finished.unwrap().parse().ok(), build.finished);
    let inputs = build.inputs.as_ref().unwrap();
    let image = inputs.image_sha256.as_ref().unwrap();
    let dependencies = &predicate["buildDefinition"]["resolvedDependencies"];
    let found = dependencies.as_array().unwrap().iter();
    let mut found = found.filter(|it| it["name"] == "image/demo-default/image.b3");
    let found = found.next().unwrap();
    assert_eq!(found["digest"]["sha256"], image.as_str());
    let policy = inputs.policy.as_ref().unwrap();
    assert_eq!(
        (policy.egress.as_str(), policy.total_seconds_max),
        ("none", 5400)
    );

    let requirements = host.machinectl(&["slsa", "check", "--json"]).stdout;
    let requirements: Vec<Value> = serde_json::from_str(&requirements).unwrap();
    let of = |text: &str| {
        let found = requirements.iter().find(|it| it["requirement"] == text);
        found.unwrap()["held"].as_bool().unwrap()
    };
    assert!(of("the provenance is signed"), "{requirements:#?}");
    assert!(of("no build step can reach the key"), "{requirements:#?}");
    assert!(
        of("the image of each guest is known by its hash"),
        "{requirements:#?}"
    );

    let fetched = host.state_directory().join("fetched");
    let directory = fetched.display().to_string();
    host.machinectl(&["artifacts", "1", "-o", &directory])
        .success();
    let file = fetched.join(build.artifacts[0].name.as_str());
    let path = fetched.join(SIGNED_PROVENANCE);
    assert_eq!(fs::read_to_string(&path).unwrap(), signed);
    let (file, path) = (file.display().to_string(), path.display().to_string());
    let key = first.display().to_string();
    let verified = keys.signer("verify", &[&path, &file, "--key", &key]);
    assert!(verified.unwrap().starts_with("verified: built by"));
    tests::write_file(Path::new(&file), "something else");
    let error = keys.signer("verify", &[&path, &file, "--key", &key]);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("does not name"), "{error}");

    let second = keys.signer("rotate", &[]).unwrap();
    tests::write_file(&keys.path("second.pub"), &second);
    succeeded(&host, host.submit("demo", "two"));
    let signed = envelope(&host, 2);
    keys.openssl(&signed, &first).unwrap_err();
    keys.openssl(&signed, &keys.path("second.pub")).unwrap();
    tests::write_file(&keys.path("two"), &signed);
    let two = keys.path("two").display().to_string();
    let log = keys.path("keys/keys.json").display().to_string();
    keys.signer("verify", &[&two, "--key", &key]).unwrap_err();
    let with_log = [&two, "--key", &key, "--log", &log];
    keys.signer("verify", &with_log).unwrap();
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn only_the_user_of_the_key_signs_and_only_artifacts_as_recorded() {
    let keys = Keys::new();
    let host = AgentHost::ready(&keys.settings());
    let build = succeeded(&host, host.submit("demo", "one"));
    let state = host.state_directory();
    let sign = |id: &str| {
        let (records, directory) = (state.join("records.sqlite3"), state.join("builds").join(id));
        let [records, directory] = [records, directory].map(|it| it.display().to_string());
        let arguments = [
            id,
            "--host",
            "x",
            "--records",
            &records,
            "--directory",
            &directory,
        ];
        keys.signer("sign", &arguments)
    };
    let again = sign("1").unwrap();
    keys.openssl(&again, &keys.path("first.pub")).unwrap();
    // Root would read the key: the signer has become another user before.
    let close = |mode| {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(keys.path("keys"), mode).unwrap();
    };
    close(0o700);
    let error = sign("1").unwrap_err().to_string();
    assert!(error.contains("Permission denied"), "{error}");
    close(0o755);
    let artifacts = state.join("builds/1/artifacts");
    let name = build.artifacts[0].name.as_str();
    tests::write_file(&artifacts.join(name), "something else");
    let error = sign("1").unwrap_err().to_string();
    assert!(error.contains("nothing was signed"), "{error}");
    refused(
        "files -> provenance",
        "an artifact that was changed",
        &error,
    );
    fs::remove_file(artifacts.join(name)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", artifacts.join(name)).unwrap();
    let error = sign("1").unwrap_err().to_string();
    assert!(error.contains("symbolic link"), "{error}");
    let error = sign("99").unwrap_err().to_string();
    assert!(error.contains("no build 99"), "{error}");
    host.wait_until_torn_down();
}

/// The start of a worker that is a shell script. The commands of a build follow.
const WORKER: &str = r"#!/bin/sh
host=169.254.111.222
cd /tmp
put() { tftp -p -l $1 -r ${2:-$1} $host; }
result() { printf ': 1\nstatus: success\n' >$1; put $1; }
if [ $1 = bootstrap ]; then result bootstrap.manifest; exit; fi
tftp -g -r task.manifest $host
echo hello >file; put file artifacts/file
";

/// Checks the level that the signed provenance of the first build states.
fn assert_of_level_2(keys: &Keys, host: &AgentHost) {
    let statement = keys.openssl(&envelope(host, 1), &keys.path("first.pub"));
    let id = &statement.unwrap()["predicate"]["runDetails"]["builder"]["id"];
    assert!(id.as_str().unwrap().ends_with("/slsa-build-l2"), "{id}");
}

fn host_with_worker(settings: &str, build: &str) -> AgentHost {
    AgentHost::with_worker(settings, &format!("{WORKER}{build}"))
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_build_on_whose_console_a_person_types_is_not_of_level_3() {
    let keys = Keys::new();
    let host = host_with_worker(
        &keys.settings(),
        r#"
exec </dev/console >/dev/console 2>&1
echo "the word?"; read -r word; echo "heard $word"
result result.manifest
"#,
    );
    let id = host.submit("demo", "hello").to_string();
    host.wait_for(1, State::Running);
    let watcher = host.terminal(&["console", &id, "--read-only"]);
    watcher.wait_for("the word?");
    assert_eq!(host.build(1).typists, []);
    let mut person = host.terminal(&["console", "demo"]);
    person.wait_for("connected");
    person.type_in("sesame\r");
    person.wait_for("heard sesame");
    // It was recorded before the guest received it.
    let typists = host.build(1).typists;
    assert_eq!(typists.len(), 1);
    assert_eq!(typists[0].submitter.as_str(), "root");
    let build = succeeded(&host, 1);
    assert_eq!(build.typists, typists);

    let statement = keys.openssl(&envelope(&host, 1), &keys.path("first.pub"));
    let predicate = &statement.unwrap()["predicate"];
    let id = &predicate["runDetails"]["builder"]["id"];
    let expected = format!("buildhost:host/{}/slsa-build-l2", host.name());
    assert_eq!(*id, expected);
    let external = &predicate["buildDefinition"]["externalParameters"];
    assert_eq!(external["console"][0]["submitter"], "root");
    let level = &predicate["buildDefinition"]["internalParameters"]["slsaBuildLevel"];
    let objections = level["objections"].to_string();
    assert!(
        objections.contains("a person typed on the console"),
        "{objections}"
    );
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_guest_changes_no_field_of_its_provenance() {
    let keys = Keys::new();
    let host = host_with_worker(
        &keys.settings(),
        r#"
for name in provenance.json provenance.intoto.jsonl packages.manifest; do
    echo '{"forged": true}' >forged; put forged artifacts/$name
done
put forged ../records.sqlite3; put forged concluded; put forged ../builds/1/provenance.json
printf ': 1\nstatus: success\nbuilder: forged\ninvocationId: forged\nsubmitter: forged\nguest: forged\nmachine: forged\ntoolchain: forged\ntarget: forged\nsources: forged\nfinishedOn: forged\nsha256: forged\nconsole: forged\npolicy: forged\nslsaBuildLevel: forged\n' >result.manifest
put result.manifest
"#,
    );
    let build = succeeded(&host, host.submit("demo", "hello"));
    let signed = envelope(&host, 1);
    let statement = keys.openssl(&signed, &keys.path("first.pub")).unwrap();
    let text = statement.to_string();
    assert!(!text.contains("forged"), "{text}");
    let details = &statement["predicate"]["runDetails"];
    assert_eq!(details["builder"]["id"], builder(&host, &build));
    let names: Vec<_> = statement["subject"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["file"]);
    let by = "only fields that the host knows are read";
    refused(
        "guest -> provenance",
        "fields of provenance in its result",
        by,
    );
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_image_is_not_known_by_its_hash_if_a_person_typed_while_it_was_made() {
    let keys = Keys::new();
    let mut host = AgentHost::new(&format!("guests.frozen = \"off\"\n{}", keys.settings()));
    host.add("demo", |_| {});
    let ask = "if [ $1 = bootstrap ]; then exec </dev/console >/dev/console 2>&1; echo \"the word?\"; read -r word; fi";
    let worker = format!("{WORKER}\nresult result.manifest\n");
    host.add_worker("default", &worker.replacen('\n', &format!("\n{ask}\n"), 1));
    host.start();
    let console = host
        .state_directory()
        .join("bootstraps/demo-default/console");
    wait_until("the guest of the bootstrap asks", || {
        fs::read_to_string(&console).is_ok_and(|text| text.contains("the word?"))
    });
    let mut person = host.terminal(&["console", "demo"]);
    person.wait_for("the word?");
    person.type_in("sesame\r");
    let build = succeeded(&host, host.submit("demo", "hello"));
    assert_eq!(build.inputs.unwrap().image_sha256, None);
    assert_of_level_2(&keys, &host);
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_container_is_signed_as_what_it_is() {
    let keys = Keys::new();
    let host = AgentHost::ready_with_container(&keys.settings());
    let build = succeeded(&host, host.submit("demo", "one"));
    assert!(build.inputs.unwrap().image_sha256.is_some());
    assert_of_level_2(&keys, &host);
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_build_without_a_usable_key_has_unsigned_provenance() {
    let host = AgentHost::ready("provenance.keys = \"/nonexistent\"\n");
    succeeded(&host, host.submit("demo", "one"));
    host.machinectl(&["provenance", "1"]).success();
    host.machinectl(&["provenance", "1", "--signed"])
        .refused(10, "has no signed provenance");
    assert!(host.log().contains("cannot sign the provenance of a build"));
    host.machinectl(&["slsa", "check"])
        .refused(3, "this host meets SLSA Build L1, not L3");
    host.wait_until_torn_down();
}
