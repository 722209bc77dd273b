//! The settings as an administrator reads them: each with its value as it is written, the line that it
//! comes from, and the time at which a change takes effect.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::reader::line;
use super::{EXAMPLE, Settings};

/// The text in place of what only the file should have.
const MASK: &str = "***";

/// A setting of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingRow {
    /// The key, such as `paths.state`, or `caches[1].name`.
    pub key: String,
    /// The value in TOML, without passwords.
    pub value: String,
    /// The line of the file; `None` for a default.
    pub line: Option<usize>,
    /// True if a change needs a restart of the agent, and not only a reload.
    pub needs_restart: bool,
    /// True if the file was changed and the agent still uses the earlier value.
    pub is_pending: bool,
}

/// A key of a file with its value and its line.
struct Entry {
    key: String,
    value: String,
    line: usize,
}

impl Settings {
    /// Returns the settings of an agent that runs with these, in the order of the example. `text` is
    /// the text of the file now, and `written` are the settings in it.
    pub fn rows(&self, text: &str, written: &Self) -> Vec<SettingRow> {
        let file = entries(text);
        let defaults = entries(EXAMPLE);
        let effects = self.effects();
        let reloaded = self.reload(written.clone());
        let pending = [reloaded.applied, reloaded.kept].concat();
        let row = |key: &str, value: &str, line| SettingRow {
            key: key.to_owned(),
            value: self.value(key, line).unwrap_or_else(|| masked(key, value)),
            line,
            needs_restart: longest(&effects, |it| it.0, key).is_some_and(|it| it.1),
            is_pending: longest(&pending, |it| it, key).is_some(),
        };
        let of_example = defaults.iter().map(|default| {
            let written = file.iter().find(|it| it.key == default.key);
            let line = written.map(|it| it.line);
            row(&default.key, &written.unwrap_or(default).value, line)
        });
        let is_known = |it: &&Entry| defaults.iter().any(|known| known.key == it.key);
        let further = file.iter().filter(|it| !is_known(it));
        let further = further.map(|it| row(&it.key, &it.value, Some(it.line)));
        of_example.chain(further).collect()
    }

    /// Returns the value of a setting whose default depends on the host.
    fn value(&self, key: &str, line: Option<usize>) -> Option<String> {
        let paths = match key {
            _ if line.is_some() => return None,
            "paths.volumes" => &self.paths.volumes[..],
            "paths.toolchains" => return Some(format!("\"{}\"", self.paths.toolchains.display())),
            _ => return None,
        };
        let quoted = paths.iter().map(|path| format!("\"{}\"", path.display()));
        Some(format!("[{}]", quoted.collect::<Vec<_>>().join(", ")))
    }
}

/// Returns the element with the longest name that is a key or contains it.
fn longest<'t, T>(all: &'t [T], name: impl Fn(&'t T) -> &'static str, key: &str) -> Option<&'t T> {
    let contains = |name: &str| {
        let rest = key.strip_prefix(name);
        rest.is_some_and(|it| it.is_empty() || it.starts_with(['.', '[']))
    };
    let matching = all.iter().filter(|it| contains(name(it)));
    matching.max_by_key(|it| name(it).len())
}

/// Returns the keys of a file in the order of their lines.
fn entries(text: &str) -> Vec<Entry> {
    let (table, _) = DeTable::parse_recoverable(text);
    let mut found: Vec<(Range<usize>, String)> = Vec::new();
    for (section, value) in table.get_ref() {
        let section = section.get_ref();
        match value.get_ref() {
            DeValue::Table(table) => found.extend(keys(section, table)),
            DeValue::Array(tables) => {
                for (table, number) in tables.iter().zip(1..) {
                    if let Some(table) = table.get_ref().as_table() {
                        found.extend(keys(&format!("{section}[{number}]"), table));
                    }
                }
            }
            _ => {}
        }
    }
    found.sort_by_key(|(span, _)| span.start);
    let entry = |(span, key): (Range<usize>, String)| Entry {
        key,
        line: line(text, span.start),
        value: text.get(span).unwrap_or_default().to_owned(),
    };
    found.into_iter().map(entry).collect()
}

/// Returns the keys of a table, and the places of their values.
fn keys<'t>(
    section: &'t str,
    table: &'t DeTable<'_>,
) -> impl Iterator<Item = (Range<usize>, String)> + 't {
    let keys = table.iter();
    keys.map(move |(key, value)| (value.span(), format!("{section}.{}", key.get_ref())))
}

/// Returns a value without the passwords in its addresses. The address of a webhook is a secret from
/// its path on.
fn masked(key: &str, value: &str) -> String {
    let Some((scheme, rest)) = value.split_once("://") else {
        return value.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find(['/', '"', '\'', '?']).unwrap_or(rest.len()));
    let authority = match authority.rsplit_once('@') {
        Some((_, host)) => format!("{MASK}@{host}"),
        None => authority.to_owned(),
    };
    if key.ends_with(".webhook") && path.len() > 1 {
        return format!("{scheme}://{authority}/{MASK}\"");
    }
    format!("{scheme}://{authority}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(effective: &str, text: &str) -> Vec<SettingRow> {
        let parse = |text| Settings::parse(text).unwrap();
        parse(effective).rows(text, &parse(text))
    }

    fn find<'r>(rows: &'r [SettingRow], key: &str) -> &'r SettingRow {
        rows.iter().find(|row| row.key == key).unwrap()
    }

    #[test]
    fn every_setting_has_its_default_and_none_of_the_example_has_a_line() {
        let rows = rows("", "");
        assert!(rows.len() > 80, "{}", rows.len());
        assert!(rows.iter().all(|row| row.line.is_none() && !row.is_pending));
        assert_eq!(find(&rows, "paths.reserve_mib").value, "512");
        assert_eq!(
            find(&rows, "paths.volumes").value,
            "[\"/var/lib/buildhost/machines\"]"
        );
    }

    #[test]
    fn a_written_setting_has_its_line_and_a_changed_one_is_pending() {
        let before = "[builds]\nretries_max = 1\n";
        let after = "[host]\nname = \"a\"\n\n[builds]\nretries_max = 2\n";
        let rows = rows(before, after);
        let name = find(&rows, "host.name");
        assert_eq!((name.line, name.value.as_str()), (Some(2), "\"a\""));
        assert!(name.needs_restart && name.is_pending);
        let retries = find(&rows, "builds.retries_max");
        assert_eq!(retries.line, Some(5));
        assert!(!retries.needs_restart && retries.is_pending);
        assert!(find(&rows, "guests.uids").needs_restart);
        assert!(!find(&rows, "guests.ready_max").needs_restart);
        assert!(!find(&rows, "log.filter").is_pending);
    }

    #[test]
    fn tables_of_arrays_are_numbered_and_follow_the_example() {
        let text = "[[caches]]\nname = \"a\"\nmachines = [\"*\"]\n[[caches]]\nname = \"b\"\n";
        let parsed = Settings::parse("").unwrap();
        let rows = parsed.rows(text, &parsed);
        let keys: Vec<_> = rows
            .iter()
            .rev()
            .take(3)
            .map(|it| it.key.as_str())
            .collect();
        assert_eq!(
            keys,
            ["caches[2].name", "caches[1].machines", "caches[1].name"]
        );
        assert!(rows.last().unwrap().needs_restart);
    }

    #[test]
    fn passwords_in_addresses_are_masked() {
        for (key, value, expected) in [
            ("a.b", "\"text\"", "\"text\""),
            ("a.b", "[\"a\"]", "[\"a\"]"),
            ("a.url", "\"https://h/x?y\"", "\"https://h/x?y\""),
            ("a.url", "\"https://u:p@h/x\"", "\"https://***@h/x\""),
            ("a.url", "\"https://u:p@x@h:7\"", "\"https://***@h:7\""),
            (
                "pr.database",
                "\"postgres://u:p@h/db\"",
                "\"postgres://***@h/db\"",
            ),
            (
                "notify[1].webhook",
                "\"https://hooks.example.org/T0/secret\"",
                "\"https://hooks.example.org/***\"",
            ),
        ] {
            assert_eq!(masked(key, value), expected, "{key} {value}");
        }
    }
}
