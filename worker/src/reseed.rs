//! The state that restored copies of one checkpoint must not share: random numbers and the
//! time.

use std::fs::File;
use std::io;

use config::task::StartMessage;
use rustix::io::Errno;
use rustix::ioctl::{self, NoArg, Setter, opcode};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

/// The argument of `RNDADDENTROPY`: a `struct rand_pool_info` with 64 bytes.
#[repr(C)]
struct Entropy {
    bits: i32,
    bytes: i32,
    content: [u8; 64],
}

// The kernel's header computes the number from the size without the bytes.
const ADD_ENTROPY: ioctl::Opcode = opcode::write::<[i32; 2]>(b'R', 3);
const RESEED: ioctl::Opcode = opcode::none(b'R', 7);

/// Adds the host's random bytes to the kernel's entropy pool, reseeds its random number
/// generator, and sets the clock.
///
/// # Errors
/// The kernel does not allow it.
pub fn apply(message: &StartMessage) -> io::Result<()> {
    reseed(Some(Entropy {
        bits: 512,
        bytes: 64,
        content: message.random,
    }))?;
    let seconds = i64::try_from(message.time.as_secs()).map_err(io::Error::other)?;
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: message.time.subsec_nanos().into(),
    };
    Ok(clock_settime(ClockId::Realtime, time)?)
}

/// Checks that [`apply`] is allowed, without changing anything.
///
/// # Errors
/// The kernel does not allow it.
pub fn check() -> io::Result<()> {
    reseed(None)?;
    Ok(clock_settime(
        ClockId::Realtime,
        clock_gettime(ClockId::Realtime),
    )?)
}

/// Adds entropy and reseeds the random number generators of all processors.
#[expect(unsafe_code, reason = "rustix has no safe function for these requests")]
fn reseed(entropy: Option<Entropy>) -> io::Result<()> {
    let device = File::options().write(true).open("/dev/urandom")?;
    if let Some(entropy) = entropy {
        // SAFETY: the request takes a pointer to such a struct, and only reads it.
        unsafe { ioctl::ioctl(&device, Setter::<ADD_ENTROPY, Entropy>::new(entropy)) }?;
    }
    // SAFETY: the request takes no argument.
    match unsafe { ioctl::ioctl(&device, NoArg::<RESEED>::new()) } {
        // The generator is not seeded yet, so there is nothing to reseed.
        Err(Errno::NODATA) => Ok(()),
        reseeded => Ok(reseeded?),
    }
}
