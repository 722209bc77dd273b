//! Properties of files beyond names and content: devices, extended attributes, capabilities, ACLs.

use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, makedev, mknodat};

/// The attribute with the capabilities of a program.
pub const CAPABILITY: &str = "security.capability";
/// The attribute with an ACL.
pub const ACL: &str = "system.posix_acl_access";
/// The attribute with the ACL that new files of a directory get.
pub const DEFAULT_ACL: &str = "system.posix_acl_default";

/// Sets an extended attribute. Does not follow a symbolic link.
pub fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).expect("an attribute");
}

/// Returns the value of [`CAPABILITY`] for these permitted and effective capabilities.
pub fn capability(permitted: u32) -> Vec<u8> {
    const VERSION_2_EFFECTIVE: u32 = 0x0200_0001;
    [VERSION_2_EFFECTIVE, permitted, 0, 0, 0]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

/// Returns the value of [`ACL`] or [`DEFAULT_ACL`] for mode 0640 and this access of a user.
pub fn acl(user: u32, access: u16) -> Vec<u8> {
    const NO_ID: u32 = u32::MAX;
    let (owner, named, group, mask, other) = (1, 2, 4, 0x10, 0x20);
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, access, id) in [
        (owner, 6, NO_ID),
        (named, access, user),
        (group, 4, NO_ID),
        (mask, 4, NO_ID),
        (other, 0_u16, NO_ID),
    ] {
        let tag: u16 = tag;
        value.extend(tag.to_le_bytes());
        value.extend(access.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// Creates a device, or with another file type a pipe.
pub fn make_node(path: &Path, kind: FileType, (major, minor): (u32, u32)) {
    let mode = Mode::from_raw_mode(0o600);
    mknodat(CWD, path, kind, mode, makedev(major, minor)).expect("a node");
}
