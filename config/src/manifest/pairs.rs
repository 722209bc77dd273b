//! A manifest as names and values.

/// A manifest: names and values in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    pairs: Vec<(String, String)>,
}

impl Manifest {
    /// Creates a manifest without values.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value, in which CR LF and CR become LF.
    #[must_use]
    pub fn with(mut self, name: &str, value: &(impl ToString + ?Sized)) -> Self {
        self.push(name.to_owned(), representable(value.to_string()));
        self
    }

    /// Adds a value as it is.
    pub(super) fn push(&mut self, name: String, value: String) {
        self.pairs.push((name, value));
    }

    /// Returns the first value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// Returns all values of `name`, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs
            .iter()
            .filter(move |(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// Returns all names and values, in order.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }
}

/// Replaces the line ends that the format does not distinguish from LF.
fn representable(text: String) -> String {
    if text.contains('\r') {
        return text.replace("\r\n", "\n").replace('\r', "\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_line_ends_become_lf() {
        let manifest = Manifest::new().with("a", "a\r\nb\rc\r\r\nd\n\r");
        assert_eq!(manifest.get("a"), Some("a\nb\nc\n\nd\n\n"));
    }
}
