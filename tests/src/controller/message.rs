//! The requests and answers of a test controller.

/// A request.
#[derive(Debug)]
pub(super) struct Request {
    /// The parameters in its address.
    pub(super) query: Vec<(String, String)>,
    /// The type of its body.
    pub(super) content_type: String,
    /// Its body.
    pub(super) body: Vec<u8>,
}

/// An answer: the status and the body.
pub(super) type Answer = (u16, String);
