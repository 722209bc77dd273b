//! Random bytes of the kernel, which are good enough for keys.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// Returns random bytes. The kernel never interrupts a read of up to 256.
///
/// # Errors
/// The kernel has no randomness.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let count = getrandom(&mut bytes[..], GetRandomFlags::empty())?;
    if count == N {
        Ok(bytes)
    } else {
        Err(io::Error::other("the kernel gave too few random bytes"))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_differ() {
        let [one, other] = [(); 2].map(|()| super::bytes::<32>().unwrap());
        assert_ne!(one, other);
    }
}
