//! Extended attributes of files. Linux stores capabilities and POSIX ACLs in them, too.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::io::Errno;

/// The maximum size that Linux allows for a list of names and for a value, in bytes.
const BYTES_MAX: usize = 64 << 10;

/// A reader of attributes, with buffers for many files.
#[derive(Debug)]
pub struct AttributeReader {
    names: Vec<u8>,
    value: Vec<u8>,
}

impl Default for AttributeReader {
    fn default() -> Self {
        Self {
            names: vec![0; BYTES_MAX],
            value: vec![0; BYTES_MAX],
        }
    }
}

impl AttributeReader {
    /// Passes the name and the value of each attribute of an open file to `found`, if `wanted`
    /// accepts its name. A file without attributes costs one system call.
    ///
    /// # Errors
    /// An attribute cannot be read.
    pub fn read_file(
        &mut self,
        file: impl AsFd,
        wanted: impl Fn(&[u8]) -> bool,
        found: impl FnMut(&[u8], &[u8]),
    ) -> io::Result<()> {
        let listed = rustix::fs::flistxattr(&file, &mut self.names[..]);
        let get = |name: &CStr, value: &mut [u8]| rustix::fs::fgetxattr(&file, name, value);
        self.read(listed, get, wanted, found)
    }

    /// Reads the attributes of a path as [`AttributeReader::read_file`] does. Does not follow a
    /// symbolic link.
    ///
    /// # Errors
    /// An attribute cannot be read.
    pub fn read_path(
        &mut self,
        path: &Path,
        wanted: impl Fn(&[u8]) -> bool,
        found: impl FnMut(&[u8], &[u8]),
    ) -> io::Result<()> {
        let listed = rustix::fs::llistxattr(path, &mut self.names[..]);
        let get = |name: &CStr, value: &mut [u8]| rustix::fs::lgetxattr(path, name, value);
        self.read(listed, get, wanted, found)
    }

    fn read(
        &mut self,
        listed: Result<usize, Errno>,
        get: impl Fn(&CStr, &mut [u8]) -> Result<usize, Errno>,
        wanted: impl Fn(&[u8]) -> bool,
        mut found: impl FnMut(&[u8], &[u8]),
    ) -> io::Result<()> {
        let length = match listed {
            // The file system has no attributes.
            Err(Errno::OPNOTSUPP) => 0,
            listed => listed?,
        };
        for name in self.names[..length].split_inclusive(|byte| *byte == 0) {
            let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
            if wanted(name.to_bytes()) {
                let length = get(name, &mut self.value)?;
                found(name.to_bytes(), &self.value[..length]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::fs::{XattrFlags, setxattr};

    use super::*;

    #[test]
    fn the_wanted_attributes_are_read_and_links_are_not_followed() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = directory.path().join("file");
        let link = directory.path().join("link");
        crate::file::replace(&path, b"").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        for (name, value) in [("user.a", "1"), ("user.b", ""), ("user.c", "3")] {
            setxattr(&path, name, value.as_bytes(), XattrFlags::empty()).unwrap();
        }
        let wanted = |name: &[u8]| name != b"user.c" && name.starts_with(b"user.");
        let (mut of_file, mut of_path, mut of_link) = (Vec::new(), Vec::new(), Vec::new());
        let mut reader = AttributeReader::default();
        reader
            .read_file(File::open(&path).unwrap(), wanted, |name, value| {
                of_file.push((name.to_owned(), value.to_owned()));
            })
            .unwrap();
        reader
            .read_path(&path, wanted, |name, value| {
                of_path.push((name.to_owned(), value.to_owned()));
            })
            .unwrap();
        reader
            .read_path(&link, wanted, |name, _| of_link.push(name.to_owned()))
            .unwrap();
        of_file.sort();
        of_path.sort();
        let expected = [
            (b"user.a".to_vec(), b"1".to_vec()),
            (b"user.b".to_vec(), Vec::new()),
        ];
        assert_eq!(of_file, expected);
        assert_eq!(of_path, expected);
        assert!(of_link.is_empty());
    }
}
