//! Fixtures of Toaster: files with releases, layers and settings, as `loaddata` of Django reads
//! them in XML and JSON; pure.
//!
//! Objects of all files are merged by their model and key, and a later file replaces whole objects
//! of an earlier one. A file with a fault is refused as a whole.

mod json;
mod resolve;
mod schema;
mod xml;

use std::collections::BTreeMap;
use std::fmt;

use crate::Content;
use schema::Model;

/// The setting with which the releases of `poky.xml`, `oe-core.xml` and Buildhost are left out.
pub const CUSTOM_ONLY: &str = "CUSTOM_XML_ONLY";
/// The setting that names the layer index.
pub const INDEX: &str = "CUSTOM_LAYERINDEX_SERVER";
/// The setting that names the release of new projects.
pub const DEFAULT_RELEASE: &str = "DEFAULT_RELEASE";

/// The fixtures that Toaster ships and that [`CUSTOM_ONLY`] leaves out.
const SHIPPED: [&str; 2] = ["poky", "oe-core"];
/// The largest number of faults that are reported.
const FAULTS_MAX: usize = 50;

/// A fixture: the name of its file and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixture {
    /// The name, whose ending does not matter.
    pub name: String,
    /// The text: XML, or JSON.
    pub text: String,
}

/// A fault of a fixture.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The name of the file.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The fault and the remedy.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.text)
    }
}

/// The faults of fixtures, at least one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Faults(pub Vec<Fault>);

/// The common content of fixtures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fixtures {
    /// The releases, layers and settings.
    pub content: Content,
    /// True if the built-in releases are left out.
    pub custom_only: bool,
    /// The number of objects of each file.
    pub objects: BTreeMap<String, u64>,
    /// Remarks about what is allowed and probably not meant.
    pub notes: Vec<String>,
}

/// An object of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Object {
    model: Model,
    key: u64,
    fields: BTreeMap<&'static str, Field>,
    file: String,
    line: usize,
}

/// A field of an object. Its text is `None` for null.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    text: Option<String>,
    line: usize,
}

/// An object before its model and its fields were checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Parsed {
    model: String,
    key: Option<String>,
    fields: Vec<(String, Field)>,
    line: usize,
}

/// Reads fixtures in the order in which they are loaded.
///
/// # Errors
/// The faults of all files, at most 50.
pub fn read(files: &[Fixture]) -> Result<Fixtures, Faults> {
    let mut faults = Vec::new();
    let mut parsed = Vec::new();
    let mut objects = BTreeMap::new();
    for file in files {
        match objects_of(file) {
            Ok(found) => {
                objects.insert(file.name.clone(), found.len() as u64);
                parsed.push((file, found));
            }
            Err(found) => faults.extend(found),
        }
    }
    if !faults.is_empty() {
        return Err(limited(faults));
    }
    let custom_only = parsed
        .iter()
        .flat_map(|(_, objects)| objects)
        .any(|object| object.model == Model::Setting && object.text("name") == Some(CUSTOM_ONLY));
    let mut merged: BTreeMap<(Model, u64), Object> = BTreeMap::new();
    for (file, found) in parsed {
        if custom_only && SHIPPED.contains(&stem(&file.name)) {
            continue;
        }
        merged.extend(found.into_iter().map(|it| ((it.model, it.key), it)));
    }
    let (content, notes) = resolve::resolve(&merged).map_err(limited)?;
    Ok(Fixtures {
        content,
        custom_only,
        objects,
        notes,
    })
}

fn limited(mut faults: Vec<Fault>) -> Faults {
    faults.sort();
    faults.truncate(FAULTS_MAX);
    Faults(faults)
}

/// Returns the name of a file without its ending.
pub fn stem(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// Returns the place of a file in the order of loading: Toaster loads the settings first, and what
/// a user customized last.
pub fn position(name: &str) -> u8 {
    match stem(name) {
        "settings" => 0,
        "poky" | "oe-core" => 1,
        "custom" => 3,
        _ => 2,
    }
}

/// Parses and checks the objects of a file.
fn objects_of(file: &Fixture) -> Result<Vec<Object>, Vec<Fault>> {
    let fault = |(line, text)| Fault {
        file: file.name.clone(),
        line,
        text,
    };
    let text = file.text.trim_start_matches('\u{feff}');
    let parsed = if text.trim_start().starts_with('[') {
        json::parse(text)
    } else {
        xml::parse(text)
    };
    let parsed = parsed.map_err(|found| vec![fault(found)])?;
    let mut objects = Vec::new();
    let mut faults = Vec::new();
    for object in parsed {
        match schema::check(object, &file.name) {
            Ok(object) => objects.push(object),
            Err(found) => faults.extend(found.into_iter().map(fault)),
        }
    }
    if faults.is_empty() {
        Ok(objects)
    } else {
        Err(faults)
    }
}

impl Object {
    /// Returns the text of a field; `None` for a missing, null or empty one.
    fn text(&self, name: &str) -> Option<&str> {
        let text = self.fields.get(name)?.text.as_deref()?.trim();
        (!text.is_empty()).then_some(text)
    }

    /// Returns the key that a field refers to.
    fn key_in(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// Returns a fault of a field, at the line of the object if it has none.
    fn fault(&self, name: &str, text: impl Into<String>) -> Fault {
        Fault {
            file: self.file.clone(),
            line: self.fields.get(name).map_or(self.line, |field| field.line),
            text: text.into(),
        }
    }
}

/// Returns the line of an offset in a text, counted from 1.
fn line_at(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    before.filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests;
