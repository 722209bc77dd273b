//! The parser of calls. It is not recursive, so deeply nested documents do no harm.

use quick_xml::Reader;
use quick_xml::events::Event;

use super::CallError;
use crate::store::Filter;
use crate::tuple::Tuple;
use crate::value::Value;

const PARAMS_MAX: usize = 16;

/// A call with unchecked parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The method's name.
    pub name: String,
    /// Its parameters.
    pub params: Vec<Param>,
}

/// A parameter. Arrays and structs are not supported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Param {
    /// A text, with or without an explicit type.
    Text(String),
    /// An integer of any length.
    Integer(String),
    /// A boolean.
    Boolean(bool),
    /// Nothing.
    Nil,
}

/// A supported method with checked parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// Returns the value of a tuple. `None`, a call with a nil parameter, returns nil.
    GetPr(Option<Tuple>),
    /// Returns the matching rows with the greatest value of their package.
    Export {
        /// The filter for rows.
        filter: Filter,
        /// True if the result describes the table.
        with_columns: bool,
    },
    /// Records a value unless a greater one is recorded.
    ImportOne(Tuple, Value),
    /// Returns the database as SQL.
    DumpDb,
    /// Checks that the server responds.
    Ping,
    /// Returns the names of all methods.
    ListMethods,
    /// Returns the documentation of a method, which is empty.
    MethodHelp,
    /// Returns the signature of a method, which is not supported.
    MethodSignature,
    /// Ends the server.
    Quit,
}

impl Call {
    /// Parses a call.
    pub fn parse(text: &str) -> Result<Self, CallError> {
        let mut parser = CallParser::default();
        let mut reader = Reader::from_str(text);
        loop {
            match reader
                .read_event()
                .map_err(|error| CallError::Syntax(error.to_string()))?
            {
                Event::Start(tag) => parser.open(tag.name().as_ref())?,
                Event::Empty(tag) => {
                    parser.open(tag.name().as_ref())?;
                    parser.close(tag.name().as_ref())?;
                }
                Event::End(tag) => parser.close(tag.name().as_ref())?,
                Event::Text(text) => parser.text.push_str(&text),
                Event::CData(text) => parser.text.push_str(&text),
                Event::GeneralRef(name) => parser.reference(&name)?,
                Event::Eof => break,
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
            }
        }
        let name = parser
            .name
            .ok_or_else(|| syntax(&"no element found: line 1, column 0"))?;
        Ok(Self {
            name,
            params: parser.params,
        })
    }

    /// Returns the method after checking its parameters.
    pub fn method(&self) -> Result<Method, CallError> {
        match (self.name.as_str(), self.params.as_slice()) {
            ("ping", []) => Ok(Method::Ping),
            ("quit", []) => Ok(Method::Quit),
            ("dump_db", []) => Ok(Method::DumpDb),
            ("getPR", [version, pkgarch, checksum]) => {
                Ok(Method::GetPr(tuple(version, pkgarch, checksum)))
            }
            ("importone", [version, pkgarch, checksum, value]) => {
                let tuple = tuple(version, pkgarch, checksum).ok_or_else(|| unusable("nil"))?;
                let value = value.text().ok_or_else(|| unusable("nil"))?;
                let tuple_text = tuple.to_string();
                Ok(Method::ImportOne(
                    tuple,
                    value.parse().map_err(|error| {
                        CallError::Params(format!("the value of {tuple_text}: {error}"))
                    })?,
                ))
            }
            ("export", params @ ([] | [_] | [_, _] | [_, _, _] | [_, _, _, _])) => {
                let filter_text =
                    |index: usize| params.get(index)?.text().filter(|text| !text.is_empty());
                Ok(Method::Export {
                    filter: Filter {
                        version: filter_text(0),
                        pkgarch: filter_text(1),
                        checksum: filter_text(2),
                    },
                    with_columns: params.get(3).is_none_or(Param::is_true),
                })
            }
            ("system.listMethods", []) => Ok(Method::ListMethods),
            ("system.methodHelp", [_]) => Ok(Method::MethodHelp),
            ("system.methodSignature", [_]) => Ok(Method::MethodSignature),
            (name, params) if super::METHODS.contains(&name) => Err(CallError::Params(format!(
                "{name}() does not take {} parameters",
                params.len()
            ))),
            (name, _) => Err(CallError::NoMethod(name.to_owned())),
        }
    }
}

impl Param {
    fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) | Self::Integer(text) => Some(text.clone()),
            Self::Boolean(boolean) => Some(u8::from(*boolean).to_string()),
            Self::Nil => None,
        }
    }

    fn is_true(&self) -> bool {
        match self {
            Self::Text(text) => !text.is_empty(),
            Self::Integer(digits) => digits.bytes().any(|digit| matches!(digit, b'1'..=b'9')),
            Self::Boolean(boolean) => *boolean,
            Self::Nil => false,
        }
    }
}

fn tuple(version: &Param, pkgarch: &Param, checksum: &Param) -> Option<Tuple> {
    Some(Tuple::new(
        version.text()?,
        pkgarch.text()?,
        checksum.text()?,
    ))
}

fn unusable(param: &str) -> CallError {
    CallError::Params(format!("{param} cannot be used"))
}

fn syntax(error: &impl ToString) -> CallError {
    CallError::Syntax(error.to_string())
}

/// The state of the parser.
#[derive(Debug, Default)]
struct CallParser {
    name: Option<String>,
    params: Vec<Param>,
    /// The text since the last tag.
    text: String,
    /// True within a `<value>` that had no element with a type yet.
    is_untyped: bool,
}

impl CallParser {
    fn open(&mut self, tag: &str) -> Result<(), CallError> {
        self.text.clear();
        match tag {
            "value" => self.is_untyped = true,
            "array" | "struct" | "base64" | "double" | "dateTime.iso8601" => {
                return Err(unusable(tag));
            }
            _ => {}
        }
        Ok(())
    }

    fn close(&mut self, tag: &str) -> Result<(), CallError> {
        let text = std::mem::take(&mut self.text);
        let param = match tag {
            "methodName" => {
                self.name = Some(text.trim().to_owned());
                return Ok(());
            }
            "value" if self.is_untyped => Param::Text(text),
            "string" => Param::Text(text),
            "int" | "i4" | "i8" => Param::Integer(integer(text.trim())?),
            "boolean" => Param::Boolean(text.trim() == "1"),
            "nil" => Param::Nil,
            _ => return Ok(()),
        };
        self.is_untyped = false;
        if self.params.len() == PARAMS_MAX {
            return Err(CallError::Params(format!(
                "more than {PARAMS_MAX} parameters"
            )));
        }
        self.params.push(param);
        Ok(())
    }

    /// Resolves an entity such as `&lt;`.
    fn reference(&mut self, name: &str) -> Result<(), CallError> {
        let text = quick_xml::escape::unescape(&format!("&{name};"))
            .map_err(|error| syntax(&error))?
            .into_owned();
        self.text.push_str(&text);
        Ok(())
    }
}

fn integer(text: &str) -> Result<String, CallError> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(unusable("an integer"));
    }
    Ok(text.trim_start_matches('+').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn call(method: &str, params: &str) -> Result<Method, CallError> {
        let text = format!(
            "<?xml version='1.0'?>\n<methodCall>\n<methodName>{method}</methodName>\n<params>\n{params}</params>\n</methodCall>\n"
        );
        Call::parse(&text)?.method()
    }

    const VAC: &str = "<param>\n<value><string>v&amp;1</string></value>\n</param>\n\
        <param><value>a</value></param><param><value><string></string></value></param>";

    #[test]
    fn calls_are_parsed_as_python_writes_them() {
        let tuple = Tuple::new("v&1", "a", "");
        assert_eq!(call("getPR", VAC), Ok(Method::GetPr(Some(tuple.clone()))));
        let import = format!("{VAC}<param><value><int>7</int></value></param>");
        assert_eq!(
            call("importone", &import),
            Ok(Method::ImportOne(tuple, Value::from(7)))
        );
        assert_eq!(call("ping", ""), Ok(Method::Ping));
        let nil = "<param><value><nil/></value></param>".repeat(3);
        assert_eq!(call("getPR", &nil), Ok(Method::GetPr(None)));
        let all = Method::Export {
            filter: Filter::default(),
            with_columns: true,
        };
        assert_eq!(call("export", ""), Ok(all.clone()));
        assert_eq!(call("export", &nil), Ok(all));
    }

    #[test]
    fn faults_have_the_texts_of_python() {
        assert_eq!(
            call("nosuch", "").unwrap_err().to_string(),
            "<class 'Exception'>:method \"nosuch\" is not supported"
        );
        assert!(call("shutdown", "").is_err());
        assert!(matches!(call("getPR", ""), Err(CallError::Params(_))));
        assert!(matches!(Call::parse("nonsense"), Err(CallError::Syntax(_))));
        assert!(matches!(
            Call::parse("<a><b></a>"),
            Err(CallError::Syntax(_))
        ));
        let deep = "<value><array><data>".repeat(100_000);
        assert!(matches!(call("getPR", &deep), Err(CallError::Params(_))));
        let deep = "<x>".repeat(100_000);
        assert!(call("getPR", &deep).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_text_does_not_panic(text in "(<[a-z/?!]{0,9}>?|value|int|nil|&[a-z#0-9]{0,4};?|[0-9]|\\PC){0,20}") {
            if let Ok(call) = Call::parse(&text) { let _ = call.method(); }
        }
    }
}
