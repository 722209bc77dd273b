//! The accelerator that runs a guest's processors.

use std::fs::File;
use std::path::Path;

use config::settings::Acceleration;

use crate::error::GuestError;

/// The accelerator that runs a guest's processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The host's processors.
    Kvm,
    /// Emulation.
    Tcg,
}

/// Returns the accelerator to use on this host.
///
/// # Errors
/// When the settings demand KVM and it does not work.
pub fn accelerator(wanted: Acceleration) -> Result<Accelerator, GuestError> {
    choose(wanted, kvm_works())
}

fn choose(wanted: Acceleration, kvm_works: bool) -> Result<Accelerator, GuestError> {
    match (wanted, kvm_works) {
        (Acceleration::Tcg, _) | (Acceleration::Auto, false) => Ok(Accelerator::Tcg),
        (Acceleration::Kvm | Acceleration::Auto, true) => Ok(Accelerator::Kvm),
        (Acceleration::Kvm, false) => Err(GuestError::NoKvm),
    }
}

/// Returns true if KVM runs guests on this host. A device that opens is not enough: with
/// other modules than the vendors' a kernel hangs while it boots.
fn kvm_works() -> bool {
    let is_loaded = |name: &str| Path::new("/sys/module").join(name).exists();
    (is_loaded("kvm_intel") || is_loaded("kvm_amd"))
        && File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_is_used_where_it_works_and_is_allowed() {
        let tcg = |wanted, kvm| matches!(choose(wanted, kvm), Ok(Accelerator::Tcg));
        let kvm = |wanted, kvm| matches!(choose(wanted, kvm), Ok(Accelerator::Kvm));
        assert!(tcg(Acceleration::Auto, false) && kvm(Acceleration::Auto, true));
        assert!(tcg(Acceleration::Tcg, true) && kvm(Acceleration::Kvm, true));
        assert!(choose(Acceleration::Kvm, false).is_err());
    }
}
