//! The files in the directory of a machine's revision, an image or a snapshot: the manifest of the
//! machine, manifests of the content, archives, and imports of disk images, directories and
//! archives. Nothing here knows a volume.

#![cfg_attr(
    test,
    expect(
        clippy::disallowed_methods,
        reason = "tests read files that they have made"
    )
)]

pub mod archive;
pub mod content_manifest;
pub mod content_record;
pub mod import;
pub mod machine_manifest;
