//! Files that build2's `libbutl` (commit `de32e5b`, 0.19.0-a) wrote, and texts with what it read.
//!
//! `golden/values.json` and the texts in `golden/readings.json` are ours. A small program around
//! `manifest_serializer` wrote `golden/continued.manifest` and, with `long_lines`,
//! `golden/long-lines.manifest` from the former. The same program read the latter with
//! `manifest_parser`, and its answers are beside the texts: the pairs, or the place of the fault.

use super::*;

type Pairs = Vec<(String, String)>;

/// A text and libbutl's reading of it.
#[derive(serde::Deserialize)]
struct Reading {
    text: String,
    manifests: Option<Vec<Pairs>>,
    /// The line and the column of the fault.
    fault: Option<(usize, usize)>,
}

fn values() -> Vec<Manifest> {
    let list: Vec<Pairs> = serde_json::from_str(include_str!("golden/values.json")).unwrap();
    let add = |manifest: Manifest, (name, value): &(String, String)| manifest.with(name, value);
    let manifest = |pairs: &Pairs| pairs.iter().fold(Manifest::new(), add);
    list.iter().map(manifest).collect()
}

#[test]
fn printed_lists_have_the_bytes_of_libbutl() {
    assert_eq!(print(&values()), include_str!("golden/continued.manifest"));
    assert_eq!(
        print_local(&values()),
        include_str!("golden/long-lines.manifest")
    );
}

#[test]
fn lists_of_libbutl_are_read() {
    for text in [
        include_str!("golden/continued.manifest"),
        include_str!("golden/long-lines.manifest"),
    ] {
        assert_eq!(parse(text).unwrap(), values());
        let windows = text.replace('\n', "\r\n");
        assert_eq!(parse(&windows).unwrap(), values());
    }
}

#[test]
fn texts_are_read_as_libbutl_reads_them() {
    let readings: Vec<Reading> =
        serde_json::from_str(include_str!("golden/readings.json")).unwrap();
    assert!(readings.iter().any(|it| it.manifests.is_some()));
    for Reading {
        text,
        manifests,
        fault,
    } in readings
    {
        let read = parse(&text);
        let pairs = read.clone().ok();
        let pairs = pairs.map(|list| {
            list.iter()
                .map(|it| it.pairs().to_vec())
                .collect::<Vec<_>>()
        });
        assert_eq!(pairs, manifests, "{text:?}");
        let place = read.err().map(|error| (error.line, error.column));
        assert_eq!(place, fault, "{text:?}");
    }
}
