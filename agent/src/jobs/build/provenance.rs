//! The provenance of a build's artifacts: an in-toto Statement (v1) with the SLSA provenance
//! predicate (v1). `docs/provenance.md` describes its fields.

use std::fs::File;
use std::io;

use config::builds::{Artifact, Build, StartKind};
use config::task::{self, Digest, Outcome};
use serde_json::{Map, Value, json};
use sys::blocking::blocking;

use crate::state::AgentState;

pub use config::builds::PROVENANCE;

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://slsa.dev/provenance/v1";
const BUILD_TYPE: &str = "buildhost:build/v1";

/// Writes the provenance beside the artifacts, if there are any.
pub(super) async fn write(agent: &AgentState, build: &Build) -> io::Result<()> {
    let directory = agent.paths.build(build.id);
    let (name, build) = (agent.settings.name.clone(), build.clone());
    blocking(move || {
        let log = File::open(directory.join(task::LOG)).ok();
        let log = log.map(sys::file::digest).transpose()?;
        let Some(statement) = statement(&build, &name, log.as_ref()) else {
            return Ok(());
        };
        let text = format!("{statement:#}\n");
        sys::file::replace(&directory.join(PROVENANCE), text.as_bytes())
    })
    .await
}

/// Returns the statement about a successful build; `None` without artifacts.
fn statement(build: &Build, host: &str, log: Option<&Digest>) -> Option<Value> {
    let good = build.outcome.is_some_and(Outcome::is_good);
    if !good || build.artifacts.is_empty() {
        return None;
    }
    let subjects: Vec<_> = build
        .artifacts
        .iter()
        .map(|it| subject(build, it))
        .collect();
    let builder = format!("buildhost:host/{host}");
    let log = log.map(|digest| json!({ "name": "log", "digest": { "sha256": digest } }));
    Some(json!({
        "_type": STATEMENT,
        "subject": subjects,
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "machine": build.machine,
                    "toolchain": build.toolchain,
                    "target": build.target,
                    "sources": build.sources.iter().map(|it| &it.name).collect::<Vec<_>>(),
                },
                "internalParameters": {
                    "submitter": build.submitter,
                    "schedule": build.schedule,
                    "task": build.task,
                    "guest": build.guest,
                    "start": if build.restored { StartKind::Restored } else { StartKind::Cold },
                    "attempts": build.attempts,
                    "outcome": build.outcome,
                },
                "resolvedDependencies": dependencies(build),
            },
            "runDetails": {
                "builder": {
                    "id": builder,
                    "version": { "buildhost-agent": env!("CARGO_PKG_VERSION") },
                },
                "metadata": {
                    "invocationId": format!("{builder}/build/{}", build.id),
                    "startedOn": build.started,
                    "finishedOn": build.finished,
                },
                "byproducts": log.into_iter().collect::<Vec<_>>(),
            },
        },
    }))
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
    let source = |it: &task::Source| {
        let name = format!("source/{}", it.name);
        json!({ "name": name, "digest": { "sha256": it.sha256 } })
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
    dependencies
}

#[cfg(test)]
mod tests {
    use config::builds::{BuildInputs, BuiltPackage, GuestKind, Request, State, Submitter};
    use config::task::Package;
    use config::{BuildId, Revision};
    use jiff::Timestamp;

    use super::*;

    fn digest(digit: &str) -> Digest {
        digit.repeat(64).parse().unwrap()
    }

    fn build() -> Build {
        let text = format!(
            r#"{{"machine": "linux", "sources": [{{"name": "hello-1.0.tar.gz", "sha256": "{}"}}]}}"#,
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
        build.guest = Some(GuestKind::Tcg);
        build.revision = Some(Revision(7));
        build.inputs = Some(BuildInputs {
            revision_uuid: "6ba7b810-9dad-11d1-80b4-00c04fd430c8".into(),
            contents_sha256: Some(digest("3")),
            toolchain_sha256: digest("4"),
        });
        build.packages = vec![BuiltPackage {
            package: Package {
                file: "hello_1.0-r0.2_x86_64.ipk".parse().unwrap(),
                name: "hello".into(),
                version: "1.0".into(),
                recipe_revision: "r0".into(),
                architecture: "x86_64".into(),
                checksum: "c0ffee".into(),
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
        let statement = statement(&build(), "farm1", Some(&digest("7"))).unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&statement).unwrap());
    }

    #[test]
    fn a_build_without_products_has_no_statement() {
        let mut failed = build();
        failed.outcome = Some(Outcome::Error);
        assert_eq!(statement(&failed, "farm1", None), None);
        let mut empty = build();
        empty.artifacts.clear();
        assert_eq!(statement(&empty, "farm1", None), None);
    }

    #[test]
    fn unknown_inputs_are_omitted() {
        let mut old = build();
        old.inputs = None;
        let statement = statement(&old, "farm1", None).unwrap();
        let definition = &statement["predicate"]["buildDefinition"];
        let known = definition["resolvedDependencies"].as_array().unwrap();
        assert_eq!(known.len(), 1);
        assert_eq!(
            statement["predicate"]["runDetails"]["byproducts"],
            json!([])
        );
    }
}
