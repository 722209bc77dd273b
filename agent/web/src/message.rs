//! A page with one message: an error, or a result without a page of its own.

use askama::Template;

use crate::frame::Frame;
use crate::words::Prose;

/// A page with one message.
#[derive(Debug, Template)]
#[template(path = "message.html")]
pub struct Message {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The message and its remedy.
    pub detail: String,
}
