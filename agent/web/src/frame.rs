//! The parts that all pages share: head, navigation and the viewer.

use config::tokens::Scope;

use crate::assets;

/// The sections of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// The overview.
    Overview,
    /// Builds.
    Builds,
    /// Machines.
    Machines,
    /// The host.
    Host,
    /// A page outside of the navigation.
    None,
    /// A section of a farm.
    Farm(FarmSection),
}

/// The sections of the pages of a farm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FarmSection {
    /// The overview.
    Overview,
    /// Builds.
    Builds,
    /// Hosts.
    Hosts,
    /// Machines.
    Machines,
    /// Schedules and projects.
    Schedules,
    /// A page outside of the navigation.
    None,
}

impl Section {
    /// The entries of the navigation: the section, its path and its name.
    const ENTRIES: [(Self, &'static str, &'static str); 4] = [
        (Self::Overview, "/", "Overview"),
        (Self::Builds, "/builds", "Builds"),
        (Self::Machines, "/machines", "Machines"),
        (Self::Host, "/host", "Host"),
    ];

    /// The entries of the navigation of a farm.
    const FARM_ENTRIES: [(Self, &'static str, &'static str); 5] = [
        (Self::Farm(FarmSection::Overview), "/", "Overview"),
        (Self::Farm(FarmSection::Builds), "/builds", "Builds"),
        (Self::Farm(FarmSection::Hosts), "/hosts", "Hosts"),
        (Self::Farm(FarmSection::Machines), "/machines", "Machines"),
        (
            Self::Farm(FarmSection::Schedules),
            "/schedules",
            "Schedules",
        ),
    ];
}

/// A page of the host.
struct HostTab {
    path: &'static str,
    name: &'static str,
    needs_admin: bool,
}

/// The pages of the host.
const HOST_TABS: [HostTab; 5] = [
    HostTab::new("/host", "Host", false),
    HostTab::new("/host/doctor", "Doctor", false),
    HostTab::new("/host/services", "Services", false),
    HostTab::new("/host/tokens", "Tokens", true),
    HostTab::new("/host/settings", "Settings", true),
];

impl HostTab {
    const fn new(path: &'static str, name: &'static str, needs_admin: bool) -> Self {
        Self {
            path,
            name,
            needs_admin,
        }
    }
}

/// The person who reads a page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Viewer {
    /// The name under which the viewer submits; `None` without a session.
    pub name: Option<String>,
    /// The rights; `None` if the pages have no actions for the viewer.
    pub scope: Option<Scope>,
}

impl Viewer {
    /// Returns true if the viewer may submit and cancel builds.
    pub fn may_submit(&self) -> bool {
        self.scope >= Some(Scope::Submit)
    }

    /// Returns true if the viewer may administer the host.
    pub fn may_administer(&self) -> bool {
        self.scope >= Some(Scope::Admin)
    }
}

/// The parts that all pages share.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The title, without the name of the host.
    pub title: String,
    /// The section that the navigation marks.
    pub section: Section,
    /// The name of the host.
    pub host: String,
    /// The reader.
    pub viewer: Viewer,
    /// The interval in seconds at which a browser without scripts reads the page again.
    pub refresh_seconds: Option<u32>,
}

impl Frame {
    /// Returns the parts of a page for a reader without a session.
    #[cfg(test)]
    pub(crate) fn plain(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            section: Section::None,
            host: "build1".to_owned(),
            viewer: Viewer::default(),
            refresh_seconds: None,
        }
    }

    /// Returns the entries of the navigation, and whether each is the section of the page.
    pub(crate) fn navigation(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        let entries = if self.is_farm() {
            &Section::FARM_ENTRIES[..]
        } else {
            &Section::ENTRIES[..]
        };
        let entries = entries.iter();
        entries.map(|(section, path, name)| (*path, *name, *section == self.section))
    }

    /// Returns the pages of the host that the viewer may see: the path and the name, and whether each
    /// is this one. The names are the titles of the pages.
    pub(crate) fn host_tabs(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        let is_admin = self.viewer.may_administer();
        let tabs = HOST_TABS
            .iter()
            .filter(move |it| is_admin || !it.needs_admin);
        tabs.map(|it| (it.path, it.name, it.name == self.title))
    }

    /// Returns true if the page is that of a farm.
    pub(crate) fn is_farm(&self) -> bool {
        matches!(self.section, Section::Farm(_))
    }

    /// Returns the path of a file that pages refer to.
    #[expect(clippy::unused_self, reason = "templates have only the frame in scope")]
    pub(crate) fn asset(&self, name: &str) -> String {
        assets::path(name)
    }

    /// Returns the version of the agent.
    #[expect(clippy::unused_self, reason = "templates have only the frame in scope")]
    pub(crate) fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_viewer_without_a_session_has_no_actions() {
        let viewer = |scope| Viewer { name: None, scope };
        let rights = [
            None,
            Some(Scope::Read),
            Some(Scope::Submit),
            Some(Scope::Admin),
        ]
        .map(|scope| (viewer(scope).may_submit(), viewer(scope).may_administer()));
        assert_eq!(
            rights,
            [(false, false), (false, false), (true, false), (true, true)]
        );
    }
}
