//! The replies of the PR service.

use serde::Serialize;

pub use linerpc::encoder::{InvokeError, text, write, write_line};

use crate::store::Row;

/// The version of the table in the reply to `export`, as BitBake 2.19's server sends it.
const CORE_VERSION: &str = "2.19.0";

/// The reply to most requests: one value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ValueReply<T> {
    /// The value, or null.
    pub value: T,
}

/// The reply to `ping`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PingReply {
    /// Always true.
    pub alive: bool,
}

/// The reply to `is-readonly`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReadonlyReply {
    /// True if this client cannot get new values.
    pub readonly: bool,
}

/// The reply to `export`.
#[derive(Debug, Serialize)]
pub struct ExportReply<'a> {
    metainfo: Table,
    datainfo: Vec<Datum<'a>>,
}

#[derive(Debug, Serialize)]
struct Datum<'a> {
    version: &'a str,
    pkgarch: &'a str,
    checksum: &'a str,
    value: &'a str,
}

#[derive(Debug, Default, Serialize)]
struct Table {
    #[serde(skip_serializing_if = "Option::is_none")]
    tbl_name: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    core_ver: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    col_info: Vec<Column>,
}

#[derive(Debug, Serialize)]
struct Column {
    name: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    notnull: u8,
    dflt_value: (),
    pk: u8,
}

impl<'a> ExportReply<'a> {
    /// Creates the reply with these rows and optionally a description of the table.
    pub fn new(rows: &'a [Row], with_columns: bool) -> Self {
        let datainfo = rows.iter().map(|Row { tuple, value }| Datum {
            version: &tuple.package.version,
            pkgarch: &tuple.package.pkgarch,
            checksum: &tuple.checksum,
            value: value.as_str(),
        });
        let metainfo = if with_columns {
            Table::prmain()
        } else {
            Table::default()
        };
        Self {
            metainfo,
            datainfo: datainfo.collect(),
        }
    }
}

impl Table {
    fn prmain() -> Self {
        let column = |name, notnull, pk| Column {
            name,
            kind: "TEXT",
            notnull,
            dflt_value: (),
            pk,
        };
        Self {
            tbl_name: Some("PRMAIN"),
            core_ver: Some(CORE_VERSION),
            col_info: vec![
                column("version", 1, 1),
                column("pkgarch", 1, 2),
                column("checksum", 1, 3),
                column("value", 0, 4),
            ],
        }
    }
}
