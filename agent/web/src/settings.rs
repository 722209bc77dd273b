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

impl SettingsPage {
    /// Returns the sections with their rows, in their order.
    fn sections(&self) -> Vec<(&str, &[SettingRow])> {
        let section = |row: &SettingRow| row.key.find('.').unwrap_or(row.key.len());
        let chunks = self
            .rows
            .chunk_by(|a, b| a.key[..section(a)] == b.key[..section(b)]);
        chunks
            .map(|rows| (&rows[0].key[..section(&rows[0])], rows))
            .collect()
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
        let names: Vec<_> = page.sections().iter().map(|it| it.0).collect();
        assert_eq!(names[..3], ["host", "paths", "machines"]);
        let html = page.render().unwrap();
        assert!(html.contains("in effect after a restart"), "{html}");
        assert!(html.contains("in effect after a reload"), "{html}");
        assert!(html.contains("line 2"), "{html}");
    }
}
