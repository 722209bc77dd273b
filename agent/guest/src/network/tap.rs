//! The tap of a guest, as an open descriptor.

use std::fs::File;
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
/// Packets carry virtio's header, so that checksums need not be computed.
const IFF_VNET_HDR: u16 = 0x4000;
const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);

/// Opens the tap of the namespace that the calling thread is in.
#[expect(unsafe_code, reason = "no crate has this ioctl as a safe function")]
pub(super) fn open() -> io::Result<OwnedFd> {
    let device = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    let mut request = Request {
        name: [0; 16],
        flags: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR,
        rest: [0; 22],
    };
    request.name[..super::PORT.len()].copy_from_slice(super::PORT.as_bytes());
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, whose layout `Request` has.
    unsafe { ioctl(&device, Setter::<TUNSETIFF, Request>::new(request)) }?;
    Ok(device.into())
}
