//! The manifest format of build2: lists of manifests made of `name: value` lines. Guests,
//! toolchains, machines and controllers use it.
//!
//! The format is read and written as build2's `libbutl` does:
//!
//! - The text is UTF-8. A line ends with LF, CR LF or CR; repeated CR count once. Control
//!   characters other than TAB are refused everywhere, also in comments, and so are format
//!   characters, private-use characters, noncharacters and large unassigned ranges of Unicode 12.
//! - Blank lines are ignored, and lines whose first character after blanks is `#`, except inside
//!   values. A blank is a space or a TAB.
//! - The first pair has no name and the value `1`, the version of the format: `: 1`. Each pair
//!   without a name starts a manifest; the value of a later one may be empty.
//! - A name ends at a blank or a colon. Blanks around it and around a single-line value are
//!   dropped.
//! - A line of a value that ends with one backslash continues in the next line, without anything
//!   between them. Of several backslashes at the end, one is dropped, and the line ends.
//! - In a single-line value, a line with only a backslash that follows a continued line is a
//!   newline, and the value continues in the next line.
//! - A value has several lines if its first line is a lone backslash, either behind the colon (the
//!   old form) or in the line below an empty value. It extends to the next lone backslash or to the
//!   end of the text.
//!
//! [`print()`] writes the newer form of values with several lines and continues lines so that each
//! has at most 78 characters, its end included. [`print_local`] and [`parse_local`] are for files
//! that do not leave the host and its guests: lines are as long as they are, for people who search
//! them and for secrets that are masked in them, and all characters are accepted.

mod characters;
mod lines;
mod pairs;
mod reader;
mod writer;

pub use pairs::Manifest;
pub use reader::{ManifestError, bodies, parse, parse_bytes, parse_local};
pub use writer::{append, print, print_local};

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod property_tests;
