//! Streams of `btrfs send`, made by hand: also such as no `btrfs send` would write.

/// The UUID of the subvolume in the stream.
pub const UUID: [u8; 16] = [7; 16];

const UUID_ATTRIBUTE: u16 = 1;
const TRANSACTION: u16 = 2;
const SIZE: u16 = 4;
const MODE: u16 = 5;
const PATH: u16 = 15;
const PATH_TO: u16 = 16;
const PATH_LINK: u16 = 17;
const OFFSET: u16 = 18;
const DATA: u16 = 19;
const CLONE_UUID: u16 = 20;
const CLONE_TRANSACTION: u16 = 21;
const CLONE_PATH: u16 = 22;
const CLONE_OFFSET: u16 = 23;
const CLONE_LENGTH: u16 = 24;
const INODE: u16 = 3;

/// A full stream of version 1 under construction.
#[derive(Debug, Clone)]
pub struct SendStream(Vec<u8>);

impl SendStream {
    /// Starts a stream of a subvolume with this name.
    pub fn new(name: &str) -> Self {
        let mut stream = Self(b"btrfs-stream\0\x01\0\0\0".to_vec());
        stream.command(
            1,
            &[
                (PATH, name.as_bytes()),
                (UUID_ATTRIBUTE, &UUID),
                (TRANSACTION, &1_u64.to_le_bytes()),
            ],
        );
        stream
    }

    /// Creates a file with content.
    #[must_use]
    pub fn file(self, path: &str, content: &[u8]) -> Self {
        self.and(3, &[(PATH, path.as_bytes()), (INODE, &[0; 8])])
            .write(path, content)
    }

    /// Writes into an existing file.
    #[must_use]
    pub fn write(self, path: &str, content: &[u8]) -> Self {
        let attributes = [
            (PATH, path.as_bytes()),
            (OFFSET, &[0; 8][..]),
            (DATA, content),
        ];
        self.and(15, &attributes)
    }

    /// Writes behind the first bytes of an existing file.
    #[must_use]
    pub fn append(self, path: &str, offset: u64, content: &[u8]) -> Self {
        let attributes = [
            (PATH, path.as_bytes()),
            (OFFSET, &offset.to_le_bytes()[..]),
            (DATA, content),
        ];
        self.and(15, &attributes)
    }

    /// Sets the size of a file.
    #[must_use]
    pub fn resize(self, path: &str, size: u64) -> Self {
        let size = size.to_le_bytes();
        self.and(17, &[(PATH, path.as_bytes()), (SIZE, &size)])
    }

    /// Creates a named pipe.
    #[must_use]
    pub fn pipe(self, path: &str) -> Self {
        self.and(6, &[(PATH, path.as_bytes()), (INODE, &[0; 8])])
    }

    /// Changes the mode of a file.
    #[must_use]
    pub fn chmod(self, path: &str, mode: u64) -> Self {
        let mode = mode.to_le_bytes();
        self.and(18, &[(PATH, path.as_bytes()), (MODE, &mode)])
    }

    /// Creates a symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        let attributes = [
            (PATH, path.as_bytes()),
            (INODE, &[0; 8][..]),
            (PATH_LINK, target.as_bytes()),
        ];
        self.and(8, &attributes)
    }

    /// Creates a hard link.
    #[must_use]
    pub fn hard_link(self, path: &str, existing: &str) -> Self {
        let attributes = [(PATH, path.as_bytes()), (PATH_LINK, existing.as_bytes())];
        self.and(10, &attributes)
    }

    /// Renames an entry.
    #[must_use]
    pub fn rename(self, from: &str, to: &str) -> Self {
        self.and(9, &[(PATH, from.as_bytes()), (PATH_TO, to.as_bytes())])
    }

    /// Removes a file.
    #[must_use]
    pub fn unlink(self, path: &str) -> Self {
        self.and(11, &[(PATH, path.as_bytes())])
    }

    /// Copies the first 4096 bytes of a file of a subvolume.
    #[must_use]
    pub fn clone_range(self, path: &str, uuid: [u8; 16], from: &str) -> Self {
        let attributes = [
            (PATH, path.as_bytes()),
            (OFFSET, &[0; 8][..]),
            (CLONE_UUID, &uuid),
            (CLONE_TRANSACTION, &1_u64.to_le_bytes()),
            (CLONE_PATH, from.as_bytes()),
            (CLONE_OFFSET, &[0; 8]),
            (CLONE_LENGTH, &4096_u64.to_le_bytes()),
        ];
        self.and(16, &attributes)
    }

    /// Ends the stream and returns its bytes.
    pub fn end(self) -> Vec<u8> {
        self.and(21, &[]).0
    }

    fn and(mut self, kind: u16, attributes: &[(u16, &[u8])]) -> Self {
        self.command(kind, attributes);
        self
    }

    fn command(&mut self, kind: u16, attributes: &[(u16, &[u8])]) {
        let mut payload = Vec::new();
        for (attribute, value) in attributes {
            let length = u16::try_from(value.len()).unwrap();
            payload.extend(attribute.to_le_bytes());
            payload.extend(length.to_le_bytes());
            payload.extend(*value);
        }
        let length = u32::try_from(payload.len()).unwrap();
        let mut command = length.to_le_bytes().to_vec();
        command.extend(kind.to_le_bytes());
        command.extend([0; 4]);
        command.extend(payload);
        let checksum = crc32c(&command);
        command[6..10].copy_from_slice(&checksum.to_le_bytes());
        self.0.extend(command);
    }
}

/// Returns the CRC-32C without the final inversion, as btrfs uses it.
pub fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}
