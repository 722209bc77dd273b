//! The identity and the rank of a source.

/// The rank of the first layer index.
const INDEX_RANK: u32 = 100;

/// The identity of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKey {
    /// The releases and layers that an administrator added.
    Added,
    /// The fixtures.
    Fixtures,
    /// A layer index: its address without a password, and its place in the settings.
    Index(String, u32),
    /// The built-in releases.
    BuiltIn,
}

impl SourceKey {
    /// Returns the name for messages.
    pub fn name(&self) -> &str {
        match self {
            Self::Added => "added",
            Self::Fixtures => "fixtures",
            Self::Index(url, _) => url,
            Self::BuiltIn => "built-in",
        }
    }

    /// Returns the place of the source among all.
    pub(super) fn rank(&self) -> u32 {
        match self {
            Self::Added => 0,
            Self::Fixtures => 10,
            Self::Index(_, place) => INDEX_RANK.saturating_add(*place),
            Self::BuiltIn => u32::MAX,
        }
    }
}
