//! The life of a build as its packager sees it, with the real worker: the names of files, the log,
//! the shells.

use std::fs;

use config::builds::State;
use config::task::Outcome;
use tests::agent::AgentHost;

/// A toolchain's `build` that returns its sources, and lists each as a package.
const COPY: &str = r#"#!/bin/sh
set -eu
cp "$BUILDHOST_SOURCES"/* "$BUILDHOST_OUT"
start=': 1'
for path in "$BUILDHOST_SOURCES"/*; do
    file=${path##*/}
    printf '%s\npackage: p\nversion: 1.0^2024\nrecipe-revision: r0\narchitecture: all\n' "$start"
    # A backslash at the end of a line continues it, unless it is doubled.
    case $file in *\\) file=$file\\ ;; esac
    printf 'checksum: %s\nfile: %s\n' "$(printf %s "$file" | sha256sum | cut -c1-12)" "$file"
    start=':'
done >"$BUILDHOST_OUT/packages.manifest"
"#;

/// Returns a host whose container `demo` builds with this program.
pub(crate) fn container_host(settings: &str, program: &str) -> AgentHost {
    let mut host = AgentHost::new(settings);
    host.add_container("demo", |_| {});
    host.add_build_program("default", program);
    host.start();
    host
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn names_of_all_package_formats_travel_through_a_build() {
    let host = container_host("", COPY);
    let longest = "\u{fc}".repeat(127);
    let names = [
        "foo-1.0^20240101git-1.fc40.x86_64.rpm",
        "My Setup, v2 (x86: 64 bit) 100%2F.exe",
        "\u{c4}pfel~rc1+b=2;&#?!'\"`$@.tar.gz",
        "-dash",
        "end\\",
        longest.as_str(),
    ];
    let from = tempfile::tempdir().unwrap();
    let paths = names.map(|name| from.path().join(name).display().to_string());
    for (name, path) in names.iter().zip(&paths) {
        tests::write_file(path.as_ref(), &format!("content of {name}"));
    }
    let mut line = vec!["build", "demo"];
    line.extend(paths.iter().map(String::as_str));
    host.machinectl(&line).success();
    let build = host.wait_for(1, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    assert_eq!(build.packages.len(), names.len());

    let into = tempfile::tempdir().unwrap();
    let directory = into.path().display().to_string();
    host.machinectl(&["artifacts", "1", "--output", &directory])
        .success();
    for name in names {
        let text = fs::read_to_string(into.path().join(name)).unwrap();
        assert_eq!(text, format!("content of {name}"));
    }
    let list = fs::read_to_string(into.path().join("packages.manifest")).unwrap();
    let packages = config::manifest::parse(&list).unwrap();
    let mut files: Vec<_> = packages.iter().filter_map(|it| it.get("file")).collect();
    files.sort_unstable();
    let mut expected = names.to_vec();
    expected.sort_unstable();
    assert_eq!(files, expected);
    let statement = fs::read_to_string(into.path().join("provenance.json")).unwrap();
    let statement: serde_json::Value = serde_json::from_str(&statement).unwrap();
    let subjects = statement["subject"].as_array().unwrap();
    for name in names {
        assert!(subjects.iter().any(|it| it["name"] == name), "{name}");
    }
    let table = host.machinectl(&["artifacts", "1"]).success().stdout;
    assert!(
        table.contains(names[0]) && table.contains(names[1]),
        "{table}"
    );
    host.wait_until_torn_down();
}
