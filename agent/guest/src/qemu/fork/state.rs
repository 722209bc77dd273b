//! The state of a fork point, composed of two streams of QEMU. Pure.
//!
//! A stream begins with a magic number, a version and the configuration: the machine type, and
//! the capabilities of migration that change the stream. The state of the devices lacks the
//! configuration. It is taken from the checkpoint that the source was restored from, so that a
//! fork point is restored exactly like a checkpoint.

/// The magic number `QEVM` and the version.
const START: [u8; 8] = *b"QEVM\0\0\0\x03";
/// The type of the section with the configuration.
const CONFIGURATION: u8 = 7;
/// The mark of a subsection.
const SUBSECTION: u8 = 5;
/// The only subsection of the configuration whose format is known.
const CAPABILITIES: &[u8] = b"configuration/capabilities";
/// The types of the section that may follow the configuration: its start, or a whole one.
const SECTIONS: [u8; 2] = [1, 4];
/// The number of bytes in which the configuration ends.
pub(super) const HEAD_MAX: u64 = 4096;

/// A reader of a stream's head.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Option<u32> {
        let bytes = self.take(4)?.try_into().ok()?;
        Some(u32::from_be_bytes(bytes))
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }
}

/// Returns the length of a stream's head, configuration included.
pub(super) fn configuration_end(stream: &[u8]) -> Result<usize, &'static str> {
    const SHORT: &str = "the checkpoint's configuration has no end";
    let mut reader = Reader {
        bytes: stream,
        at: 0,
    };
    if reader.take(START.len()) != Some(&START) {
        return Err("the checkpoint's state has another version");
    }
    if reader.byte() != Some(CONFIGURATION) {
        return Err("the checkpoint's state has no configuration");
    }
    let length = reader.number().ok_or(SHORT)?;
    let machine_type = usize::try_from(length).ok().and_then(|it| reader.take(it));
    machine_type.ok_or(SHORT)?;
    if reader.peek() == Some(SUBSECTION) {
        skip_capabilities(&mut reader)
            .ok_or("the checkpoint's configuration has an unknown part")?;
    }
    match reader.peek() {
        Some(next) if SECTIONS.contains(&next) => Ok(reader.at),
        _ => Err("the checkpoint's configuration has an unknown part"),
    }
}

/// Skips the subsection with the capabilities. Returns `None` if it is another one.
fn skip_capabilities(reader: &mut Reader<'_>) -> Option<()> {
    reader.byte()?;
    let length = reader.byte()?;
    let name = reader.take(length.into())?;
    let version = reader.number()?;
    if name != CAPABILITIES || version != 1 {
        return None;
    }
    for _ in 0..reader.number()? {
        let length = reader.byte()?;
        reader.take(length.into())?;
    }
    Some(())
}

/// Returns the state of a fork point: the head of a checkpoint's state, and the state of the
/// devices behind its own head.
pub(super) fn compose(head: &[u8], devices: &[u8]) -> Result<Vec<u8>, &'static str> {
    let sections = devices
        .strip_prefix(&START)
        .ok_or("the state of the devices has another version")?;
    match sections.first() {
        // Memory would be in the section that starts.
        Some(4) => Ok([head, sections].concat()),
        Some(&CONFIGURATION) => Err("the state of the devices has a configuration of its own"),
        _ => Err("the state of the devices has unknown sections"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a stream with a configuration that says which capabilities are set.
    fn checkpoint(capabilities: &[&str]) -> Vec<u8> {
        let mut stream = START.to_vec();
        stream.extend([CONFIGURATION, 0, 0, 0, 10]);
        stream.extend(b"pc-q35-7.2");
        if !capabilities.is_empty() {
            stream.extend([SUBSECTION, u8::try_from(CAPABILITIES.len()).unwrap()]);
            stream.extend(CAPABILITIES);
            stream.extend([0, 0, 0, 1, 0, 0, 0]);
            stream.push(u8::try_from(capabilities.len()).unwrap());
            for capability in capabilities {
                stream.push(u8::try_from(capability.len()).unwrap());
                stream.extend(capability.as_bytes());
            }
        }
        stream
    }

    #[test]
    fn a_fork_point_has_the_configuration_of_the_checkpoint_and_the_devices() {
        for capabilities in [&[][..], &["x-ignore-shared"], &["a", "b"]] {
            let head = checkpoint(capabilities);
            let stream = [&head[..], b"\x01ram"].concat();
            assert_eq!(configuration_end(&stream), Ok(head.len()));
            let devices = [&START[..], b"\x04timer"].concat();
            let whole = compose(&head, &devices).unwrap();
            assert_eq!(whole, [&head[..], b"\x04timer"].concat());
            // A fork of a fork.
            assert_eq!(configuration_end(&whole), Ok(head.len()));
        }
    }

    #[test]
    fn streams_of_another_format_are_refused() {
        let good = [&checkpoint(&["x-ignore-shared"])[..], b"\x01ram"].concat();
        let changed = |at: usize, to: u8| {
            let mut stream = good.clone();
            stream[at] = to;
            configuration_end(&stream)
        };
        for (at, to) in [(0, b'X'), (7, 4), (8, 1), (9, 0xff), (23, 6), (25, b'C')] {
            assert!(changed(at, to).is_err(), "byte {at}");
        }
        for length in 0..good.len() - 3 {
            assert!(configuration_end(&good[..length]).is_err(), "{length}");
        }
        let with_memory = [&START[..], b"\x01ram"].concat();
        let with_configuration = checkpoint(&[]);
        for devices in [&with_memory[..], &with_configuration, &START, b"QEVM", b""] {
            assert!(compose(b"", devices).is_err(), "{devices:?}");
        }
    }
}
