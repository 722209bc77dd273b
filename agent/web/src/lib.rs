//! The web pages of the agent: HTML from the messages of the API.
//!
//! Every page is a value that is rendered by a template, without files, clocks or requests. The
//! agent gathers what a page shows, and answers with [`askama::Template::render`].

mod assets;
mod build;
mod builds;
mod confirm;
mod console;
mod farm;
mod filter;
mod frame;
mod host;
mod log;
mod log_view;
mod login;
mod machines;
mod marks;
mod message;
mod overview;
mod services;
mod settings;
mod tokens;
mod words;

pub use askama::Template;

pub use assets::{Asset, asset};
pub use build::BuildPage;
pub use builds::Builds;
pub use confirm::Confirm;
pub use console::ConsolePage;
pub use farm::{
    FarmArtifacts, FarmBuild, FarmBuilds, FarmHost, FarmHosts, FarmMachines, FarmOverview,
    FarmSchedules,
};
pub use filter::Filter;
pub use frame::{FarmSection, Frame, Section, Viewer};
pub use host::{DoctorPage, HostPage, ProjectRow, finding_field};
pub use log::{LineIndex, LogLine, LogWindow, Matches, Needle, WindowOptions};
pub use log_view::{Found, LogPage, LogView, WINDOW_LINES};
pub use login::{Login, LoginLink};
pub use machines::{DiffPage, MachinePage, Machines};
pub use message::Message;
pub use overview::{Overview, RunningBuild};
pub use services::{PackageRevision, ServicesPage};
pub use settings::SettingsPage;
pub use tokens::TokensPage;
