//! What a machine must not share with others that were woken where it was: random
//! bytes and the time.

use std::fs::File;
use std::io;

use config::task::StartMessage;
use rustix::io::Errno;
use rustix::ioctl::{self, NoArg, Setter, opcode};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

/// What `RNDADDENTROPY` takes: `struct rand_pool_info` with room for our bytes.
#[repr(C)]
struct Pool {
    bits: i32,
    bytes: i32,
    content: [u8; 64],
}

// The kernel's header has the size of what stands before the bytes in it.
const ADD: ioctl::Opcode = opcode::write::<[i32; 2]>(b'R', 3);
const RESEED: ioctl::Opcode = opcode::none(b'R', 7);

/// Gives the kernel fresh random bytes, which all that it hands out from now on
/// depends on, and sets the clock.
///
/// # Errors
/// The kernel does not let us.
pub fn take_over(go: &StartMessage) -> io::Result<()> {
    let pool = Pool {
        bits: 512,
        bytes: 64,
        content: go.random,
    };
    reseed(Some(pool))?;
    let seconds = i64::try_from(go.time.as_secs()).map_err(io::Error::other)?;
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: go.time.subsec_nanos().into(),
    };
    Ok(clock_settime(ClockId::Realtime, time)?)
}

/// Tries what [`take_over`] will do, with nothing new.
///
/// # Errors
/// The kernel does not let us.
pub fn rehearse() -> io::Result<()> {
    reseed(None)?;
    Ok(clock_settime(
        ClockId::Realtime,
        clock_gettime(ClockId::Realtime),
    )?)
}

/// Adds bytes to what the kernel makes random numbers from, and lets it begin anew
/// with that on all processors.
#[expect(unsafe_code, reason = "these requests have no safe door in rustix")]
fn reseed(pool: Option<Pool>) -> io::Result<()> {
    let device = File::options().write(true).open("/dev/urandom")?;
    if let Some(pool) = pool {
        // SAFETY: the request takes a pointer to such a struct, and only reads it.
        unsafe { ioctl::ioctl(&device, Setter::<ADD, Pool>::new(pool)) }?;
    }
    // SAFETY: the request takes no argument.
    match unsafe { ioctl::ioctl(&device, NoArg::<RESEED>::new()) } {
        // It has not begun yet, so it cannot begin anew.
        Err(Errno::NODATA) => Ok(()),
        reseeded => Ok(reseeded?),
    }
}
