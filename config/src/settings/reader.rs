//! The reader of settings: takes the keys of a TOML file one by one and collects all
//! faults.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::MIB;
use crate::limits::SECONDS_MAX;
use crate::names::NameError;

/// A fault of a settings file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The line, counted from 1.
    pub line: usize,
    /// The key, and the value that is expected.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

/// The reader of one file, with the faults found so far.
pub(super) struct Reader<'a> {
    text: &'a str,
    table: DeTable<'a>,
    known: BTreeSet<&'static str>,
    /// The arrays of tables that have been read.
    arrays: BTreeSet<&'static str>,
    /// The table of an array that is being read.
    element: Option<Element>,
    /// The keys of earlier versions, which have no effect.
    retired: BTreeSet<&'static str>,
    /// Lines with a syntax error. Their values are not checked.
    broken: BTreeSet<usize>,
    faults: Vec<Fault>,
}

/// The table of an array that is being read: the name of the array, and the index.
#[derive(Debug, Clone, Copy)]
struct Element {
    array: &'static str,
    index: usize,
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
            known: BTreeSet::new(),
            arrays: BTreeSet::new(),
            element: None,
            retired: BTreeSet::new(),
            broken: faults.iter().map(|fault| fault.line).collect(),
            faults,
        }
    }

    /// Creates a reader of one section or array of a file, which leaves the others alone.
    pub(super) fn part(text: &'a str, name: &str) -> Self {
        let mut reader = Self::new(text);
        let entries = std::mem::take(&mut reader.table).into_iter();
        reader.table = entries.filter(|(key, _)| key.get_ref() == name).collect();
        reader
    }

    /// Returns all faults in the order of their lines, unknown keys included.
    pub(super) fn finish(mut self) -> Vec<Fault> {
        let accepted = &self.known | &self.retired;
        for (position, key) in unknown(&self.table, &accepted, &self.arrays) {
            self.push(position, format!("`{key}` is not a setting"));
        }
        self.faults.sort();
        self.faults
    }

    /// Returns the keys that have been read.
    #[cfg(test)]
    pub(super) fn known(&self) -> &BTreeSet<&'static str> {
        &self.known
    }

    /// Accepts a key of an earlier version, with any value and without effect.
    pub(super) fn retired(&mut self, key: &'static str) {
        self.retired.insert(key);
    }

    /// Records a fault of the value of `key`.
    pub(super) fn fault(&mut self, key: &'static str, text: &str) {
        let value = self.find(key).or_else(|| self.current_element());
        let position = value.map_or(0, |value| value.span().start);
        self.push(position, format!("`{key}`: {text}"));
    }

    /// Reads each table of an array such as `[[caches]]` with `read`, which reads keys as those of a
    /// section of this name.
    pub(super) fn tables<T>(
        &mut self,
        array: &'static str,
        mut read: impl FnMut(&mut Self) -> T,
    ) -> Vec<T> {
        self.arrays.insert(array);
        let Some((_, value)) = entry(&self.table, array) else {
            return Vec::new();
        };
        let tables = value.get_ref().as_array().map(|array| {
            let is_table = |item: &Spanned<DeValue<'_>>| item.get_ref().is_table();
            array.iter().all(is_table).then_some(array.len())
        });
        let Some(count) = tables.flatten() else {
            let fault = format!("`{array}`: tables such as `[[{array}]]` are expected");
            self.push(value.span().start, fault);
            return Vec::new();
        };
        let read = |index| {
            self.element = Some(Element { array, index });
            let table = read(self);
            self.element = None;
            table
        };
        (0..count).map(read).collect()
    }

    /// Reads the tables of the array of `key`, such as `caches.name`, whose names must differ. `read`
    /// finds the other faults of a table without a valid name. Tables with a fault may be left out,
    /// because the settings are refused.
    pub(super) fn named_tables<N, T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Self, Option<N>) -> Option<T>,
    ) -> Vec<T>
    where
        N: FromStr<Err = NameError> + Clone + Ord,
    {
        let array = key.split_once('.').map_or(key, |(array, _)| array);
        let mut names = BTreeSet::new();
        let tables = self.tables(array, |reader| {
            let name = reader.name(key);
            if let Some(name) = name.clone()
                && !names.insert(name)
            {
                let fault = format!("another table `[[{array}]]` has this name");
                reader.fault(key, &fault);
            }
            read(reader, name)
        });
        tables.into_iter().flatten().collect()
    }

    fn name<N: FromStr<Err = NameError>>(&mut self, key: &'static str) -> Option<N> {
        let Some(text) = self.optional_text(key, |_| Ok(())) else {
            self.fault(key, "a name is expected");
            return None;
        };
        let name = text.parse::<N>();
        if let Err(error) = &name {
            self.fault(key, &error.to_string());
        }
        name.ok()
    }

    /// Returns the value of `section.key`, or that of `array.key` in the current table.
    fn find(&self, key: &str) -> Option<&Spanned<DeValue<'a>>> {
        let (section, leaf) = key.split_once('.')?;
        let table = match self.element {
            Some(element) if element.array == section => self.current_element()?,
            _ => entry(&self.table, section)?.1,
        };
        let table = table.get_ref().as_table()?;
        entry(table, leaf).map(|(_, value)| value)
    }

    fn current_element(&self) -> Option<&Spanned<DeValue<'a>>> {
        let Element { array, index } = self.element?;
        entry(&self.table, array)?
            .1
            .get_ref()
            .as_array()?
            .get(index)
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

    /// Reads a text; an empty one means `None`.
    pub(super) fn optional_text(
        &mut self,
        key: &'static str,
        check: impl Fn(&str) -> Result<(), &'static str>,
    ) -> Option<String> {
        let text = self.text(key, "", |text| match text {
            "" => Ok(()),
            text => check(text),
        });
        (!text.is_empty()).then_some(text)
    }

    /// Reads `host:port`; an empty text means `None`.
    pub(super) fn optional_address(&mut self, key: &'static str) -> Option<String> {
        self.optional_text(key, |text| {
            is_address(text)
                .then_some(())
                .ok_or("`host:port` is expected")
        })
    }

    /// Reads an absolute path; an empty text means `None`.
    pub(super) fn optional_path(&mut self, key: &'static str) -> Option<PathBuf> {
        self.optional_text(key, absolute).map(PathBuf::from)
    }

    pub(super) fn path(&mut self, key: &'static str, default: &str) -> PathBuf {
        self.text(key, default, absolute).into()
    }

    pub(super) fn paths(&mut self, key: &'static str, default: &[&str]) -> Vec<PathBuf> {
        self.optional_list(key, "absolute paths", |text| {
            text.starts_with('/').then(|| PathBuf::from(text))
        })
        .unwrap_or_else(|| default.iter().map(PathBuf::from).collect())
    }

    /// Reads a list of texts and parses each; the default is an empty list.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        self.optional_list(key, expected, parse).unwrap_or_default()
    }

    /// Reads a list of texts that are valid, with a default.
    pub(super) fn texts(
        &mut self,
        key: &'static str,
        expected: &str,
        default: &[&str],
        is_valid: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let parse = |text: &str| is_valid(text).then(|| text.to_owned());
        let found = self.optional_list(key, expected, parse);
        found.unwrap_or_else(|| default.iter().map(|text| (*text).to_owned()).collect())
    }

    /// Reads a list of texts and parses each; `None` without one.
    pub(super) fn optional_list<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.value(key, &format!("a list of {expected}"), |value| {
            let texts = value.as_array()?.iter().map(|item| item.get_ref().as_str());
            texts.map(|text| parse(text?)).collect()
        })
    }

    pub(super) fn number(
        &mut self,
        key: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> u64 {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        self.value(key, &expected, |value| {
            let integer = value.as_integer()?;
            let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok()?;
            range.contains(&number).then_some(number)
        })
        .unwrap_or(default)
    }

    /// Reads a number that its range keeps within 32 bits.
    pub(super) fn small_number(
        &mut self,
        key: &'static str,
        default: u32,
        range: RangeInclusive<u32>,
    ) -> u32 {
        let range = (*range.start()).into()..=(*range.end()).into();
        u32::try_from(self.number(key, default.into(), range)).unwrap_or(u32::MAX)
    }

    /// Reads a count that its range keeps within 32 bits.
    pub(super) fn count(
        &mut self,
        key: &'static str,
        default: u32,
        range: RangeInclusive<u32>,
    ) -> usize {
        usize::try_from(self.small_number(key, default, range)).unwrap_or(usize::MAX)
    }

    /// Reads a limit on a count; 0 means `None`.
    pub(super) fn optional_count(
        &mut self,
        key: &'static str,
        default: u32,
        max: u32,
    ) -> Option<usize> {
        Some(self.count(key, default, 0..=max)).filter(|count| *count > 0)
    }

    /// Reads a number of mebibytes and returns bytes.
    pub(super) fn mebibytes(
        &mut self,
        key: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> u64 {
        MIB * self.number(key, default, range)
    }

    /// Reads a number of mebibytes and returns bytes; 0 means `None`.
    pub(super) fn optional_mebibytes(&mut self, key: &'static str) -> Option<u64> {
        Some(self.mebibytes(key, 0, 0..=1 << 30)).filter(|bytes| *bytes > 0)
    }

    pub(super) fn seconds(&mut self, key: &'static str, default: u64) -> Duration {
        Duration::from_secs(self.number(key, default, 1..=SECONDS_MAX))
    }

    pub(super) fn minutes(&mut self, key: &'static str, default: u64) -> Duration {
        Duration::from_mins(self.number(key, default, 0..=1_000_000))
    }

    /// Reads `true` or `false`, the default.
    pub(super) fn flag(&mut self, key: &'static str) -> bool {
        self.value(key, "true or false", DeValue::as_bool)
            .unwrap_or(false)
    }

    /// Reads one of a few words; the first one is the default.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> T {
        let expected: Vec<_> = choices
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect();
        self.value(key, &expected.join(" or "), |value| {
            let text = value.as_str()?;
            choices
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, choice)| *choice)
        })
        .unwrap_or(choices[0].1)
    }

    fn value<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&DeValue<'a>) -> Option<T>,
    ) -> Option<T> {
        self.known.insert(key);
        let read = read(self.find(key)?.get_ref());
        if read.is_none() {
            self.fault(key, &format!("{expected} is expected"));
        }
        read
    }

    /// Records a fault, unless its line has a syntax error.
    fn push(&mut self, position: usize, text: String) {
        let line = line(self.text, position);
        if !self.broken.contains(&line) {
            self.faults.push(Fault { line, text });
        }
    }
}

/// Returns true if a text has the form `host:port`.
pub(super) fn is_address(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

/// The description of a list of host names.
pub(super) const HOST_NAMES: &str = "host names such as `builds.example.org`";

/// Reads a host name without a port.
pub(super) fn host_name(text: &str) -> Option<String> {
    let is_valid = !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    is_valid.then(|| text.to_owned())
}

fn absolute(text: &str) -> Result<(), &'static str> {
    if text.starts_with('/') {
        Ok(())
    } else {
        Err("an absolute path is expected")
    }
}

/// Returns the line, counted from 1, of a position in a text.
pub(super) fn line(text: &str, position: usize) -> usize {
    1 + text
        .bytes()
        .take(position)
        .filter(|byte| *byte == b'\n')
        .count()
}

fn entry<'t, 'a>(
    table: &'t DeTable<'a>,
    key: &str,
) -> Option<(&'t Spanned<DeString<'a>>, &'t Spanned<DeValue<'a>>)> {
    table.iter().find(|(name, _)| name.get_ref() == key)
}

/// Returns the unknown keys with their positions.
fn unknown(
    table: &DeTable<'_>,
    known: &BTreeSet<&'static str>,
    arrays: &BTreeSet<&'static str>,
) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (section, value) in table {
        let name = section.get_ref();
        let is_known = known
            .iter()
            .any(|key| key.split_once('.').is_some_and(|(s, _)| s == name));
        match value.get_ref() {
            DeValue::Table(table) if is_known && !arrays.contains(&**name) => {
                found.extend(unknown_in(name, table, known));
            }
            DeValue::Array(tables) if arrays.contains(&**name) => {
                let tables = tables.iter().filter_map(|it| it.get_ref().as_table());
                found.extend(tables.flat_map(|table| unknown_in(name, table, known)));
            }
            // It is reported as an array of another form.
            _ if arrays.contains(&**name) => {}
            _ => found.push((section.span().start, name.to_string())),
        }
    }
    found
}

/// Returns the unknown keys of one table with their positions.
fn unknown_in(
    section: &str,
    table: &DeTable<'_>,
    known: &BTreeSet<&'static str>,
) -> Vec<(usize, String)> {
    let keys = table.keys();
    keys.map(|key| (key.span().start, format!("{section}.{}", key.get_ref())))
        .filter(|(_, key)| !known.contains(key.as_str()))
        .collect()
}
