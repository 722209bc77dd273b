//! The provenance of a build's artifacts: an in-toto Statement (v1) with the SLSA provenance
//! predicate (v1); pure. `docs/provenance.md` describes its fields.

use config::builds::{Artifact, Build, Request, SourceOrigin, StartKind};
use config::task::{self, Digest, Outcome};
use serde_json::{Map, Value, json};

use crate::level::{self, Level};

/// The media type of a statement.
pub const TYPE: &str = "application/vnd.in-toto+json";
/// The type of the statement's predicate.
pub const PREDICATE: &str = "https://slsa.dev/provenance/v1";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const BUILD_TYPE: &str = "buildhost:build/v1";

/// The builder that a statement names. Each level has an identity of its own, because those who
/// verify a statement trust an identity for a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builder {
    /// The host, whose statement anybody on it may have changed.
    Unsigned,
    /// The host at the level of the build, for a statement that is signed.
    Signed,
}

impl Builder {
    /// Returns the identity of the builder on a host for a build.
    pub fn id(self, host: &str, build: &Build) -> String {
        match self {
            Self::Unsigned => format!("buildhost:host/{host}"),
            Self::Signed => {
                let level = u8::from(Level::of(build));
                format!("buildhost:host/{host}/slsa-build-l{level}")
            }
        }
    }
}

/// Returns true if a build has provenance: it has succeeded, and has artifacts.
pub fn has_subject(build: &Build) -> bool {
    build.outcome.is_some_and(Outcome::is_good) && !build.artifacts.is_empty()
}

/// Returns the statement about a build; `None` if it has not succeeded or has no artifacts.
/// `log` is the hash of its log.
pub fn statement(
    build: &Build,
    host: &str,
    log: Option<&Digest>,
    builder: Builder,
) -> Option<Value> {
    if !has_subject(build) {
        return None;
    }
    let subjects: Vec<_> = build
        .artifacts
        .iter()
        .map(|it| subject(build, it))
        .collect();
    let log = log.map(|digest| json!({ "name": "log", "digest": { "sha256": digest } }));
    Some(json!({
        "_type": STATEMENT,
        "subject": subjects,
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": external_parameters(build),
                "internalParameters": internal_parameters(build),
                "resolvedDependencies": dependencies(build),
            },
            "runDetails": {
                "builder": {
                    "id": builder.id(host, build),
                    "version": { "buildhost-agent": env!("CARGO_PKG_VERSION") },
                },
                "metadata": {
                    "invocationId": format!("buildhost:host/{host}/build/{}", build.id),
                    "startedOn": build.started,
                    "finishedOn": build.finished,
                },
                "byproducts": log.into_iter().collect::<Vec<_>>(),
            },
        },
    }))
}

/// The values that others than the host chose, and the people who influenced the guest.
fn external_parameters(build: &Build) -> Value {
    // Without `..`: a new field of requests must be stated here, or be named as one that has no
    // influence on artifacts.
    let Request {
        machine,
        toolchain,
        sources,
        interactive,
        hold,
        commands,
        target,
        priority,
        resources,
        after,
        secrets,
        // An internal parameter: the host knows it, whatever the request says.
        submitter: _,
        // Decides whether a build is made, not which.
        coalesce: _,
        // A label: the sources are what is built.
        project: _,
        // A repetition has none; the record of the build says it.
        controller: _,
    } = build.request();
    let mut parameters = json!({
        "machine": machine,
        "toolchain": toolchain,
        "target": target,
        "sources": sources.iter().map(|it| &it.name).collect::<Vec<_>>(),
        "interactive": interactive,
        "hold": hold,
        "priority": priority,
        "resources": resources,
        "after": after,
        "secrets": secrets,
        "console": build.typists,
    });
    if let Some(limits) = commands {
        parameters["commands"] = json!(limits);
    }
    if let Some(task) = &build.controller {
        parameters["controller"] = json!(task);
    }
    parameters
}

/// The values that the host chose.
fn internal_parameters(build: &Build) -> Value {
    let level = Level::of(build);
    let mut parameters = json!({
        "submitter": build.submitter,
        "schedule": build.schedule,
        "task": build.task,
        "guest": build.guest,
        "start": if build.restored { StartKind::Restored } else { StartKind::Cold },
        "attempts": build.attempts,
        "outcome": build.outcome,
        "policy": build.inputs.as_ref().and_then(|it| it.policy.as_ref()),
        "slsaBuildLevel": { "signed": level, "objections": level::objections(build) },
    });
    if let Some(origin) = build.forked_from {
        parameters["forkedFrom"] = json!(origin);
    }
    parameters
}

/// A file that came out, and which package it is.
fn subject(build: &Build, artifact: &Artifact) -> Value {
    let mut subject = Map::new();
    subject.insert("name".into(), json!(artifact.name));
    subject.insert("digest".into(), json!({ "sha256": artifact.sha256 }));
    let mut packages = build.packages.iter();
    if let Some(built) = packages.find(|built| built.package.file == artifact.name) {
        let annotations = json!({
            "package": built.package.name,
            "version": built.package.version,
            "revision": built.revision,
            "architecture": built.package.architecture,
        });
        subject.insert("annotations".into(), annotations);
    }
    subject.into()
}

/// The sources, and what the guest was made from as far as it is known.
fn dependencies(build: &Build) -> Vec<Value> {
    let origins = build.inputs.as_ref().map(|it| it.repositories.as_slice());
    let source = |it: &task::Source| {
        let name = format!("source/{}", it.name);
        let mut source = json!({ "name": name, "digest": { "sha256": it.sha256 } });
        let mut origins = origins.unwrap_or_default().iter();
        if let Some(origin) = origins.find(|origin| origin.source == it.name) {
            source["uri"] = json!(repository_uri(origin));
            source["digest"]["gitCommit"] = json!(origin.commit);
        }
        source
    };
    let mut dependencies: Vec<_> = build.sources.iter().map(source).collect();
    let Some(made) = &build.inputs else {
        return dependencies;
    };
    let number = build.revision.map(|it| format!("-{it}"));
    let mut image = json!({
        "name": format!("machine/{}{}", build.machine, number.unwrap_or_default()),
        "uri": format!("urn:uuid:{}", made.revision_uuid),
    });
    if let Some(contents) = &made.contents_sha256 {
        // Of the record of all its files: an image has no hash of its own.
        image["annotations"] = json!({ "contents.b3": { "sha256": contents } });
    }
    dependencies.push(image);
    dependencies.push(json!({
        "name": format!("toolchain/{}", build.toolchain),
        "digest": { "sha256": made.toolchain_sha256 },
    }));
    if let Some(contents) = &made.image_sha256 {
        // The hash of the list of all its files with their hashes.
        let file = format!("image/{}-{}/image.b3", build.machine, build.toolchain);
        dependencies.push(json!({ "name": file, "digest": { "sha256": contents } }));
    }
    dependencies
}

/// Returns the address of a commit, in the form of SPDX: `git+https://HOST/PATH@COMMIT`.
fn repository_uri(origin: &SourceOrigin) -> String {
    let url = match origin.url.local_path() {
        Some(path) => format!("file://{path}"),
        None if origin.url.as_str().contains("://") => origin.url.to_string(),
        // The short form of ssh: `user@host:path`.
        None => format!("ssh://{}", origin.url.as_str().replacen(':', "/", 1)),
    };
    format!("git+{url}@{}", origin.commit)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::num::{NonZeroU32, NonZeroU64};

    use config::builds::{
        BuildInputs, BuiltPackage, ForkOrigin, GuestKind, HostPolicy, Request, State, Submitter,
    };
    use config::task::Package;
    use config::{BuildId, Revision};
    use jiff::Timestamp;

    use super::*;

    fn digest(digit: &str) -> Digest {
        digit.repeat(64).parse().unwrap()
    }

    pub(crate) fn build() -> Build {
        let text = format!(
            r#"{{"machine": "linux", "resources": {{"cpus": 2}}, "sources": [{{"name": "hello-1.0.tar.gz", "sha256": "{}"}}]}}"#,
            digest("1")
        );
        let request: Request = serde_json::from_str(&text).unwrap();
        let second = |second| Timestamp::from_second(second).unwrap();
        let (toolchain, root) = ("default".parse().unwrap(), Submitter::root());
        let mut build = Build::new(
            BuildId(42),
            request,
            toolchain,
            digest("2"),
            root,
            second(1),
        );
        build.enter(State::Starting, second(2)).unwrap();
        build.enter(State::Finished, second(3)).unwrap();
        build.outcome = Some(Outcome::Success);
        build.attempts = 1;
        build.guest = Some(GuestKind::Kvm);
        build.revision = Some(Revision(7));
        build.inputs = Some(BuildInputs {
            revision_uuid: "6ba7b810-9dad-11d1-80b4-00c04fd430c8".into(),
            contents_sha256: Some(digest("3")),
            toolchain_sha256: digest("4"),
            image_sha256: Some(digest("8")),
            policy: Some(HostPolicy {
                egress: "none".into(),
                egress_private: Vec::new(),
                start_seconds_max: 240,
                silence_seconds_max: 1800,
                total_seconds_max: 5400,
                cpus: NonZeroU32::new(2),
                memory_kib: NonZeroU64::new(524_288),
                cache: None,
                hashserv: None,
                cold_reason: String::new(),
                options: Vec::new(),
            }),
            repositories: Vec::new(),
        });
        build.packages = vec![BuiltPackage {
            package: Package {
                file: "hello_1.0-r0.2_x86_64.ipk".parse().unwrap(),
                name: "hello".into(),
                version: "1.0".into(),
                recipe_revision: "r0".into(),
                architecture: "x86_64".into(),
                checksum: "c0ffee".into(),
                told_revision: None,
            },
            revision: "r0.2".into(),
        }];
        let file = |name: &str, digit: &str| Artifact {
            name: name.parse().unwrap(),
            bytes: 1,
            sha256: digest(digit),
        };
        build.artifacts = vec![
            file("hello_1.0-r0.2_x86_64.ipk", "5"),
            file("packages.manifest", "6"),
        ];
        build
    }

    #[test]
    fn a_statement_names_products_and_inputs() {
        let log = digest("7");
        let statement = statement(&build(), "farm1", Some(&log), Builder::Signed).unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&statement).unwrap());
    }

    #[test]
    fn the_statement_about_a_copy_names_the_build_that_was_forked() {
        let mut copy = build();
        copy.forked_from = Some(ForkOrigin {
            build: BuildId(7),
            number: 3,
            copies: 8,
            seconds: 60,
        });
        let statement = statement(&copy, "farm1", None, Builder::Unsigned).unwrap();
        let internal = &statement["predicate"]["buildDefinition"]["internalParameters"];
        assert_eq!(internal["forkedFrom"]["build"], 7);
        assert_eq!(internal["forkedFrom"]["seconds"], 60);
    }

    #[test]
    fn a_source_that_the_host_made_of_a_repository_names_its_commit() {
        let mut build = build();
        let commit = "c".repeat(40);
        let mut uri = |url: &str| {
            build.inputs.as_mut().unwrap().repositories = vec![SourceOrigin {
                source: "hello-1.0.tar.gz".parse().unwrap(),
                url: url.parse().unwrap(),
                commit: commit.parse().unwrap(),
            }];
            let statement = statement(&build, "farm1", None, Builder::Signed).unwrap();
            let definition = &statement["predicate"]["buildDefinition"];
            definition["resolvedDependencies"][0].clone()
        };
        let source = uri("https://git.example.org/oe");
        assert_eq!(source["digest"]["gitCommit"], commit);
        for (url, prefix) in [
            (
                "https://git.example.org/oe",
                "git+https://git.example.org/oe",
            ),
            ("git://git.example.org/oe", "git+git://git.example.org/oe"),
            ("/srv/oe", "git+file:///srv/oe"),
            (
                "git@git.example.org:a/b",
                "git+ssh://git@git.example.org/a/b",
            ),
        ] {
            assert_eq!(uri(url)["uri"], format!("{prefix}@{commit}"));
        }
    }

    #[test]
    fn each_level_has_a_builder_of_its_own() {
        let mut build = build();
        assert_eq!(
            Builder::Unsigned.id("farm1", &build),
            "buildhost:host/farm1"
        );
        let signed = |build: &Build| Builder::Signed.id("farm1", build);
        assert_eq!(signed(&build), "buildhost:host/farm1/slsa-build-l3");
        build.guest = Some(GuestKind::Nspawn);
        assert_eq!(signed(&build), "buildhost:host/farm1/slsa-build-l2");
    }

    #[test]
    fn a_build_without_products_has_no_statement() {
        let mut failed = build();
        failed.outcome = Some(Outcome::Error);
        assert_eq!(statement(&failed, "farm1", None, Builder::Signed), None);
        let mut empty = build();
        empty.artifacts.clear();
        assert_eq!(statement(&empty, "farm1", None, Builder::Signed), None);
    }

    #[test]
    fn unknown_inputs_are_omitted() {
        let mut old = build();
        old.inputs = None;
        let statement = statement(&old, "farm1", None, Builder::Signed).unwrap();
        let definition = &statement["predicate"]["buildDefinition"];
        let known = definition["resolvedDependencies"].as_array().unwrap();
        assert_eq!(known.len(), 1);
        assert_eq!(
            statement["predicate"]["runDetails"]["byproducts"],
            json!([])
        );
    }
}
