//! The tap of a guest, as an open descriptor.

use std::io;
use std::os::fd::OwnedFd;

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

/// `struct ifreq` with the flags of an interface.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
/// Packets carry the virtio header, which saves computing checksums.
const IFF_VNET_HDR: u16 = 0x4000;
const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);

/// Opens the tap with this name in the calling thread's namespace.
#[expect(unsafe_code, reason = "no crate has this ioctl as a safe function")]
pub(super) fn open(name: &str) -> io::Result<OwnedFd> {
    let device = sys::trusted::open_read_write("/dev/net/tun")?;
    let mut request = Request {
        name: [0; 16],
        flags: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR,
        rest: [0; 22],
    };
    // The last byte stays zero.
    let length = name.len().min(request.name.len() - 1);
    request.name[..length].copy_from_slice(&name.as_bytes()[..length]);
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, whose layout `Request` has.
    unsafe { ioctl(&device, Setter::<TUNSETIFF, Request>::new(request)) }?;
    Ok(device.into())
}
