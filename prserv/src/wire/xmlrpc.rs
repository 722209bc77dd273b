//! XML-RPC, which BitBake spoke up to 1.50: calls to requests, results to the bytes of Python's
//! `xmlrpc` library.

mod call;

mod response;

pub use call::{Call, Method, Param};
pub use response::{Response, fault};

/// Every method but `quit`, for `system.listMethods`.
pub const METHODS: [&str; 8] = [
    "dump_db",
    "export",
    "getPR",
    "importone",
    "ping",
    "system.listMethods",
    "system.methodHelp",
    "system.methodSignature",
];

/// Why a call fails. The text is what the caller reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Not XML, or not a call.
    #[error("<class 'xml.parsers.expat.ExpatError'>:{0}")]
    Syntax(String),
    /// No such method.
    #[error("<class 'Exception'>:method \"{0}\" is not supported")]
    NoMethod(String),
    /// Too few or too many parameters, or one of an unusable type.
    #[error("<class 'TypeError'>:{0}")]
    Params(String),
}
