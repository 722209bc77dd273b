//! The accelerator that runs a guest's processors.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Once;

use config::settings::Acceleration;

use crate::error::GuestError;

/// The accelerator that runs a guest's processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The host's processors.
    Kvm(KvmAccess),
    /// Emulation.
    Tcg,
}

/// The right by which QEMU, which is not root, opens `/dev/kvm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvmAccess {
    /// Everybody may open it.
    Everybody,
    /// The members of this group may. It is never root's.
    Group(u32),
}

impl Accelerator {
    /// Returns the group that QEMU needs.
    pub(super) fn group(self) -> Option<u32> {
        match self {
            Self::Kvm(KvmAccess::Group(group)) => Some(group),
            Self::Kvm(KvmAccess::Everybody) | Self::Tcg => None,
        }
    }
}

/// Returns the accelerator to use on this host.
///
/// # Errors
/// When the settings demand KVM and it does not work.
pub fn accelerator(wanted: Acceleration) -> Result<Accelerator, GuestError> {
    choose(wanted, usable_kvm())
}

fn choose(wanted: Acceleration, kvm: Option<KvmAccess>) -> Result<Accelerator, GuestError> {
    match (wanted, kvm) {
        (Acceleration::Tcg, _) | (Acceleration::Auto, None) => Ok(Accelerator::Tcg),
        (Acceleration::Kvm | Acceleration::Auto, Some(access)) => Ok(Accelerator::Kvm(access)),
        (Acceleration::Kvm, None) => Err(GuestError::NoKvm),
    }
}

/// Returns the right by which QEMU may use KVM, if KVM runs guests on this host.
fn usable_kvm() -> Option<KvmAccess> {
    static WARNING: Once = Once::new();

    if !kvm_works() {
        return None;
    }
    let device = fs::metadata("/dev/kvm").ok()?;
    let access = access(device.mode(), device.gid());
    if access.is_none() {
        WARNING.call_once(|| {
            tracing::warn!(
                "only root may open /dev/kvm, so guests are emulated; give the device a group \
                 of its own"
            );
        });
    }
    access
}

/// Returns the right by which a user other than root may read and write a file with this mode
/// and group. The group of root is no right: QEMU would get the files of root's group with it.
fn access(mode: u32, group: u32) -> Option<KvmAccess> {
    if mode & 0o006 == 0o006 {
        Some(KvmAccess::Everybody)
    } else if mode & 0o060 == 0o060 && group != 0 {
        Some(KvmAccess::Group(group))
    } else {
        None
    }
}

/// Returns true if KVM runs guests on this host. A device that opens is not enough: with
/// other modules than the vendors' a kernel hangs while it boots.
fn kvm_works() -> bool {
    let is_loaded = |name: &str| Path::new("/sys/module").join(name).exists();
    (is_loaded("kvm_intel") || is_loaded("kvm_amd"))
        && sys::trusted::open_read_write("/dev/kvm").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_is_used_where_it_works_and_is_allowed() {
        let tcg = |wanted, kvm| matches!(choose(wanted, kvm), Ok(Accelerator::Tcg));
        let kvm = |wanted, kvm| matches!(choose(wanted, kvm), Ok(Accelerator::Kvm(_)));
        let works = Some(KvmAccess::Everybody);
        assert!(tcg(Acceleration::Auto, None) && kvm(Acceleration::Auto, works));
        assert!(tcg(Acceleration::Tcg, works) && kvm(Acceleration::Kvm, works));
        assert!(choose(Acceleration::Kvm, None).is_err());
    }

    #[test]
    fn the_group_of_root_is_never_given_to_qemu() {
        let group = |mode: u32, group| {
            access(0o020_000 | mode, group).map(|access| Accelerator::Kvm(access).group())
        };
        assert_eq!(group(0o660, 104), Some(Some(104)));
        assert_eq!(group(0o666, 104), Some(None));
        assert_eq!(group(0o666, 0), Some(None));
        assert_eq!(group(0o660, 0), None);
        assert_eq!(group(0o600, 0), None);
        assert_eq!(group(0o600, 104), None);
        assert_eq!(group(0o640, 104), None);
    }
}
