//! Reads keys of a TOML file one by one and collects what is wrong with them.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::Fault;
use crate::limits::SECONDS_MAX;

/// A file that is being read, and its faults so far.
pub(super) struct Reader<'a> {
    text: &'a str,
    table: DeTable<'a>,
    asked: BTreeSet<&'static str>,
    broken: BTreeSet<usize>,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        let fault = |error: &toml::de::Error| Fault {
            line: line(text, error.span().map_or(0, |span| span.start)),
            text: error.message().to_owned(),
        };
        let faults: Vec<_> = errors.iter().map(fault).collect();
        Self {
            text,
            table: table.into_inner(),
            asked: BTreeSet::new(),
            broken: faults.iter().map(|fault| fault.line).collect(),
            faults,
        }
    }

    /// All faults in the order of their lines, with those of unknown keys.
    pub(super) fn finish(mut self) -> Vec<Fault> {
        for (at, key) in unknown(&self.table, &self.asked) {
            self.fault_at(at, format!("`{key}` is not a setting"));
        }
        self.faults.sort();
        self.faults
    }

    /// Notes that the value of `key` cannot be used.
    pub(super) fn fault(&mut self, key: &'static str, text: &str) {
        let at = find(&self.table, key).map_or(0, |value| value.span().start);
        self.fault_at(at, format!("`{key}`: {text}"));
    }

    pub(super) fn text(
        &mut self,
        key: &'static str,
        default: &str,
        check: impl Fn(&str) -> Result<(), &'static str>,
    ) -> String {
        let found = self.value(key, "a string", |value| value.as_str().map(str::to_owned));
        let Some(text) = found else {
            return default.to_owned();
        };
        if let Err(fault) = check(&text) {
            self.fault(key, fault);
        }
        text
    }

    pub(super) fn path(&mut self, key: &'static str, default: &str) -> PathBuf {
        let check = |text: &str| {
            let fine = text.starts_with('/') || (text.is_empty() && default.is_empty());
            if fine {
                Ok(())
            } else {
                Err("an absolute path is expected")
            }
        };
        self.text(key, default, check).into()
    }

    pub(super) fn paths(&mut self, key: &'static str, default: &[&str]) -> Vec<PathBuf> {
        let absolute = |text: &str| text.starts_with('/').then(|| PathBuf::from(text));
        let found = self.maybe_list(key, "absolute paths", absolute);
        found.unwrap_or_else(|| default.iter().map(PathBuf::from).collect())
    }

    /// A list of texts, each of which means something; empty when left out.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        self.maybe_list(key, expected, read).unwrap_or_default()
    }

    fn maybe_list<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.value(key, &format!("a list of {expected}"), |value| {
            let texts = value.as_array()?.iter().map(|item| item.get_ref().as_str());
            texts.map(|text| read(text?)).collect()
        })
    }

    pub(super) fn number(
        &mut self,
        key: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> u64 {
        let words = format!("a number from {} to {}", range.start(), range.end());
        let found = self.value(key, &words, |value| {
            let integer = value.as_integer()?;
            let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok()?;
            range.contains(&number).then_some(number)
        });
        found.unwrap_or(default)
    }

    pub(super) fn seconds(&mut self, key: &'static str, default: u64) -> Duration {
        Duration::from_secs(self.number(key, default, 1..=SECONDS_MAX))
    }

    /// One of a few words; the first one is the default.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> T {
        let list: Vec<_> = words
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect();
        let found = self.value(key, &list.join(" or "), |value| {
            let text = value.as_str()?;
            words
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, choice)| *choice)
        });
        found.unwrap_or(words[0].1)
    }

    fn value<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&DeValue<'a>) -> Option<T>,
    ) -> Option<T> {
        self.asked.insert(key);
        let value = find(&self.table, key)?;
        let read = read(value.get_ref());
        if read.is_none() {
            self.fault(key, &format!("{expected} is expected"));
        }
        read
    }

    /// Notes a fault, unless the line is broken: its value means nothing then.
    fn fault_at(&mut self, at: usize, text: String) {
        let line = line(self.text, at);
        if !self.broken.contains(&line) {
            self.faults.push(Fault { line, text });
        }
    }
}

/// The line, counted from 1, of a place in a text.
fn line(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// The value of `section.key`.
fn find<'t, 'a>(table: &'t DeTable<'a>, key: &str) -> Option<&'t Spanned<DeValue<'a>>> {
    let (section, leaf) = key.split_once('.')?;
    let section = entry(table, section)?.1.get_ref().as_table()?;
    entry(section, leaf).map(|(_, value)| value)
}

fn entry<'t, 'a>(
    table: &'t DeTable<'a>,
    key: &str,
) -> Option<(&'t Spanned<DeString<'a>>, &'t Spanned<DeValue<'a>>)> {
    table.iter().find(|(name, _)| name.get_ref() == key)
}

/// The keys that nobody asked for, and where they stand.
fn unknown(table: &DeTable<'_>, asked: &BTreeSet<&'static str>) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (section, value) in table {
        let name = section.get_ref();
        let known = asked
            .iter()
            .any(|key| key.split_once('.').is_some_and(|(s, _)| s == name));
        match value.get_ref().as_table() {
            Some(keys) if known => {
                let strange = keys
                    .keys()
                    .map(|key| (key.span().start, format!("{name}.{}", key.get_ref())));
                found.extend(strange.filter(|(_, key)| !asked.contains(key.as_str())));
            }
            _ => found.push((section.span().start, name.to_string())),
        }
    }
    found
}

/// Every key that a settings file may hold.
#[cfg(test)]
pub(super) fn known_keys() -> BTreeSet<&'static str> {
    let mut reader = Reader::new("");
    super::name(&mut reader);
    super::paths(&mut reader);
    super::machines(&mut reader);
    super::guests::guests(&mut reader);
    super::builds::bootstrap(&mut reader);
    super::builds::builds(&mut reader);
    super::builds::records(&mut reader);
    super::pr::pr(&mut reader);
    super::http::http(&mut reader);
    super::log(&mut reader);
    reader.asked
}
