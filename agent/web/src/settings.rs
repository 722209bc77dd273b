//! The page of the settings.

use askama::Template;
use config::settings::SettingRow;

use crate::frame::Frame;

/// The page of the settings, which shows and changes nothing.
#[derive(Debug, Template)]
#[template(path = "settings.html")]
pub struct SettingsPage {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The path of the file; empty if the agent has none.
    pub file: String,
    /// The faults of the file as it is now, one a line; empty if it can be used.
    pub faults: String,
    /// The settings.
    pub rows: Vec<SettingRow>,
}

/// The settings of a section.
#[derive(Debug)]
struct SettingSection<'r> {
    name: &'r str,
    rows: &'r [SettingRow],
    /// True if a change of each needs a restart.
    needs_restart: bool,
    /// True if the section was changed in the file, and the agent does not tell which setting.
    is_pending: bool,
}

impl<'r> SettingSection<'r> {
    fn of(rows: &'r [SettingRow]) -> Self {
        Self {
            name: rows.first().map_or("", section),
            rows,
            needs_restart: rows.iter().all(|row| row.needs_restart),
            is_pending: rows.iter().all(|row| row.is_pending),
        }
    }
}

/// Returns the name of the section of a setting.
fn section(row: &SettingRow) -> &str {
    row.key.split_once('.').map_or(&row.key, |(name, _)| name)
}

impl SettingsPage {
    /// Returns the sections in their order.
    fn sections(&self) -> Vec<SettingSection<'_>> {
        let chunks = self.rows.chunk_by(|a, b| section(a) == section(b));
        chunks.map(SettingSection::of).collect()
    }

    /// Returns the number of settings that differ from the defaults.
    fn written(&self) -> usize {
        self.rows.iter().filter(|row| row.line.is_some()).count()
    }

    /// Returns the name of a setting within its section.
    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn leaf<'r>(&self, row: &'r SettingRow) -> &'r str {
        row.key.split_once('.').map_or(&row.key, |(_, leaf)| leaf)
    }
}

#[cfg(test)]
mod tests {
    use config::settings::Settings;

    use super::*;

    #[test]
    fn written_settings_have_their_line_and_changed_ones_say_what_they_wait_for() {
        let text = "[host]\nname = \"a\"\n[builds]\nretries_max = 7\n";
        let (old, new) = (Settings::parse(""), Settings::parse(text));
        let page = SettingsPage {
            frame: Frame::plain("Settings"),
            file: "/etc/buildhost/agent.toml".to_owned(),
            faults: String::new(),
            rows: old.unwrap().rows(text, &new.unwrap()),
        };
        assert_eq!(page.written(), 2);
        let names: Vec<_> = page.sections().iter().map(|it| it.name).collect();
        assert_eq!(names[..3], ["host", "paths", "machines"]);
        let html = page.render().unwrap();
        assert!(html.contains("in effect after a restart"), "{html}");
        assert!(html.contains("in effect after a reload"), "{html}");
        assert!(html.contains("line 2"), "{html}");
    }
}
