//! What runs a guest's processors.

use std::fs::File;
use std::path::Path;

use super::Acceleration;
use crate::error::GuestError;

/// What runs a guest's processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The host's own.
    Kvm,
    /// Emulation.
    Tcg,
}

/// Chooses what a wish comes to on this host.
///
/// # Errors
/// When KVM is demanded and does not work.
pub fn accelerator(wish: Acceleration) -> Result<Accelerator, GuestError> {
    choose(wish, kvm_works())
}

fn choose(wish: Acceleration, kvm: bool) -> Result<Accelerator, GuestError> {
    match (wish, kvm) {
        (Acceleration::Tcg, _) | (Acceleration::Auto, false) => Ok(Accelerator::Tcg),
        (Acceleration::Kvm | Acceleration::Auto, true) => Ok(Accelerator::Kvm),
        (Acceleration::Kvm, false) => Err(GuestError::NoKvm),
    }
}

/// Whether KVM runs guests here. A device that opens is not enough: there are
/// modules behind which a kernel hangs while it boots.
fn kvm_works() -> bool {
    let module = |name: &str| Path::new("/sys/module").join(name).exists();
    let real = module("kvm_intel") || module("kvm_amd");
    real && File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_comes_to_what_the_host_can_do() {
        let tcg = |wish, kvm| matches!(choose(wish, kvm), Ok(Accelerator::Tcg));
        let kvm = |wish, kvm| matches!(choose(wish, kvm), Ok(Accelerator::Kvm));
        assert!(tcg(Acceleration::Auto, false) && kvm(Acceleration::Auto, true));
        assert!(tcg(Acceleration::Tcg, true) && kvm(Acceleration::Kvm, true));
        assert!(choose(Acceleration::Kvm, false).is_err());
    }
}
