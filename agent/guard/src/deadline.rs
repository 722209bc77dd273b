//! Deadlines, and their form in a file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::time::{ClockId, clock_gettime};

/// The length of the text.
const LENGTH: usize = 42;
/// The number of reads of a file that is being written at the same time.
const READS_MAX: u32 = 1_000;

/// A time on the clock of the host that counts from its boot, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub u64);

/// Returns the present time.
pub fn now() -> Deadline {
    let time = clock_gettime(ClockId::Boottime);
    let milliseconds = time.tv_sec * 1000 + time.tv_nsec / 1_000_000;
    Deadline(u64::try_from(milliseconds).unwrap_or_default())
}

impl Deadline {
    /// Writes the deadline. It is there twice, so that a read sees if it was half written.
    pub(crate) fn write(self, file: &File) -> io::Result<()> {
        file.write_all_at(self.print().as_bytes(), 0)
    }

    /// Reads the deadline.
    pub(crate) fn read(file: &File) -> io::Result<Self> {
        for _ in 0..READS_MAX {
            let mut text = [0; LENGTH];
            file.read_exact_at(&mut text, 0)?;
            if let Some(deadline) = Self::parse(&text) {
                return Ok(deadline);
            }
        }
        Err(io::Error::other("the file of the guard has no deadline"))
    }

    fn print(self) -> String {
        format!("{0:020} {0:020}\n", self.0)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (first, second) = text.strip_suffix('\n')?.split_once(' ')?;
        let is_number = first.bytes().all(|byte| byte.is_ascii_digit());
        (first == second && is_number).then(|| first.parse().ok().map(Self))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_that_is_half_written_is_not_read() {
        for deadline in [0, 7, u64::MAX].map(Deadline) {
            let text = deadline.print();
            assert_eq!(text.len(), LENGTH);
            assert_eq!(Deadline::parse(text.as_bytes()), Some(deadline));
        }
        let (old, new) = (Deadline(1999).print(), Deadline(2000).print());
        for cut in 18..41 {
            let torn = format!("{}{}", &new[..cut], &old[cut..]);
            assert_eq!(Deadline::parse(torn.as_bytes()), None, "{torn}");
        }
        assert_eq!(Deadline::parse(b"+1 +1\n"), None);
    }
}
