//! The parts that the servers of web pages share: the cookie of a session, the origin of a request, and
//! answers with pages and their files.

pub mod answer;
pub mod cookie;
pub mod origin;
