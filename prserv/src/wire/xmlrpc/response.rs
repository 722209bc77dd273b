//! The writer of responses, byte for byte as Python's `xmlrpc.client.dumps` does.

use std::fmt::Write;

use quick_xml::escape::partial_escape;

use super::{CallError, METHODS};
use crate::session::Answer;
use crate::store::Row;

/// The result of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// The result of `getPR` and `importone`: a value or nil.
    Answer(Option<Answer>),
    /// The result of `ping`.
    Boolean(bool),
    /// A text.
    Text(String),
    /// The result of `system.listMethods`.
    Methods,
    /// The result of `export`.
    Export {
        /// The rows.
        rows: Vec<Row>,
        /// True if the result describes the table.
        with_columns: bool,
    },
}

impl Response {
    /// Returns the complete document.
    pub fn to_xml(&self) -> String {
        let mut out = String::from("<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n");
        match self {
            Self::Answer(None) => nil(&mut out),
            Self::Answer(Some(answer)) => number(&mut out, answer.as_str()),
            Self::Boolean(boolean) => {
                element(&mut out, "boolean", &u8::from(*boolean).to_string());
            }
            Self::Text(text) => element(&mut out, "string", text),
            Self::Methods => array(&mut out, &METHODS, |out, name| element(out, "string", name)),
            Self::Export { rows, with_columns } => export(&mut out, rows, *with_columns),
        }
        out.push_str("</param>\n</params>\n</methodResponse>\n");
        out
    }
}

/// Returns the document of a failed call.
pub fn fault(error: &CallError) -> String {
    let mut out = String::from("<?xml version='1.0'?>\n<methodResponse>\n<fault>\n");
    structure(&mut out, |out| {
        member(out, "faultCode", |out| element(out, "int", "1"));
        member(out, "faultString", |out| {
            element(out, "string", &error.to_string());
        });
    });
    out.push_str("</fault>\n</methodResponse>\n");
    out
}

fn export(out: &mut String, rows: &[Row], with_columns: bool) {
    out.push_str("<value><array><data>\n");
    structure(out, |out| {
        if with_columns {
            table(out);
        }
    });
    array(out, rows, |out, Row { tuple, value }| {
        structure(out, |out| {
            member(out, "version", |out| {
                element(out, "string", &tuple.package.version);
            });
            member(out, "pkgarch", |out| {
                element(out, "string", &tuple.package.pkgarch);
            });
            member(out, "checksum", |out| {
                element(out, "string", &tuple.checksum);
            });
            member(out, "value", |out| number(out, value.as_str()));
        });
    });
    out.push_str("</data></array></value>\n");
}

/// Writes the description of the table as BitBake 1.50's server does.
fn table(out: &mut String) {
    let columns = [
        ("version", "TEXT", "1"),
        ("pkgarch", "TEXT", "1"),
        ("checksum", "TEXT", "1"),
        ("value", "INTEGER", "0"),
    ];
    member(out, "tbl_name", |out| {
        element(out, "string", "PRMAIN_nohist");
    });
    member(out, "core_ver", |out| element(out, "string", "1.0.0"));
    member(out, "col_info", |out| {
        array(out, &columns, |out, (name, kind, not_null)| {
            structure(out, |out| {
                member(out, "name", |out| element(out, "string", name));
                member(out, "type", |out| element(out, "string", kind));
                member(out, "notnull", |out| element(out, "int", not_null));
                member(out, "dflt_value", nil);
                member(out, "pk", |out| element(out, "int", "0"));
            });
        });
    });
}

/// Writes an integer if it fits the 32 bits of XML-RPC, else a text. Clients convert both by
/// `str()`.
fn number(out: &mut String, text: &str) {
    let kind = if text.parse::<i32>().is_ok() {
        "int"
    } else {
        "string"
    };
    element(out, kind, text);
}

fn element(out: &mut String, kind: &str, text: &str) {
    let _ = writeln!(
        out,
        "<value><{kind}>{}</{kind}></value>",
        partial_escape(text)
    );
}

fn nil(out: &mut String) {
    out.push_str("<value><nil/></value>\n");
}

fn array<T>(out: &mut String, items: &[T], mut write: impl FnMut(&mut String, &T)) {
    out.push_str("<value><array><data>\n");
    for item in items {
        write(out, item);
    }
    out.push_str("</data></array></value>\n");
}

fn structure(out: &mut String, write: impl FnOnce(&mut String)) {
    out.push_str("<value><struct>\n");
    write(out);
    out.push_str("</struct></value>\n");
}

fn member(out: &mut String, name: &str, write: impl FnOnce(&mut String)) {
    let _ = writeln!(out, "<member>\n<name>{name}</name>");
    write(out);
    out.push_str("</member>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    #[test]
    fn a_number_beyond_32_bits_is_sent_as_text() {
        let response = |text: &str| {
            let value: Value = text.parse().unwrap();
            Response::Answer(Some(Answer::Value(value))).to_xml()
        };
        assert!(response("0").contains("<param>\n<value><int>0</int></value>\n</param>"));
        assert!(response("2147483648").contains("<value><string>2147483648</string></value>"));
        assert!(response("1.1").contains("<value><string>1.1</string></value>"));
        assert!(
            Response::Answer(None)
                .to_xml()
                .contains("<value><nil/></value>")
        );
    }

    #[test]
    fn the_text_of_a_fault_is_escaped() {
        let text = fault(&CallError::NoMethod("<&>".into()));
        assert!(
            text.contains("&lt;class 'Exception'&gt;:method \"&lt;&amp;&gt;\" is not supported")
        );
    }
}
