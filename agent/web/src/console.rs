//! The page with the console of a build's guest.

use askama::Template;
use config::BuildId;

use crate::frame::Frame;

/// The page with the console of a build's guest.
#[derive(Debug, Template)]
#[template(path = "console.html")]
pub struct ConsolePage {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The build.
    pub build: BuildId,
    /// The machine of its guest.
    pub machine: String,
}
