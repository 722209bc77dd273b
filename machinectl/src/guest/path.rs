//! The two paths of `guest cp`.

use std::path::PathBuf;
use std::str::FromStr;

use config::BuildId;

/// A path on this host or in a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CopyPath {
    /// On this host.
    Local(PathBuf),
    /// In the guest with this number.
    Guest(BuildId, String),
}

impl FromStr for CopyPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let guest = text.split_once(':').and_then(|(number, path)| {
            let id = number.parse::<BuildId>().ok()?;
            Some((id, path))
        });
        match guest {
            Some((_, "")) => Err(format!("`{text}` names no path; an example is `7:/root`")),
            Some((id, path)) => Ok(Self::Guest(id, path.to_owned())),
            None if text.is_empty() => Err("a path is expected".to_owned()),
            None => Ok(Self::Local(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_colon_mean_a_guest() {
        let path = |text: &str| text.parse::<CopyPath>();
        let guest = |path: &str| CopyPath::Guest(BuildId(7), path.into());
        assert_eq!(path("7:/root"), Ok(guest("/root")));
        assert_eq!(path("7:a:b"), Ok(guest("a:b")));
        for local in ["a", "./7:x", "/x", "x:7"] {
            assert_eq!(path(local), Ok(CopyPath::Local(local.into())));
        }
        assert!(path("7:").is_err() && path("").is_err());
    }
}
