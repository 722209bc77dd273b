//! XML-RPC, the protocol of BitBake up to 1.50: parses calls and writes results as Python's
//! `xmlrpc` library does.

mod call;

mod response;

pub use call::{Call, Method, Param};
pub use response::{Response, fault};

/// Every method except `quit`, for `system.listMethods`.
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

/// The error of a call. The caller receives its text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The document is not XML or not a call.
    #[error("<class 'xml.parsers.expat.ExpatError'>:{0}")]
    Syntax(String),
    /// There is no such method.
    #[error("<class 'Exception'>:method \"{0}\" is not supported")]
    NoMethod(String),
    /// The server refuses the call.
    #[error("<class 'PermissionError'>:{0}")]
    Refused(String),
    /// The number of parameters or the type of one is wrong.
    #[error("<class 'TypeError'>:{0}")]
    Params(String),
}
