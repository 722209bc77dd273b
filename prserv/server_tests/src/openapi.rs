//! An OpenAPI description, as a test compares it with the code and the answers of a server.

use std::collections::BTreeSet;

use serde_json::Value;

/// A description.
#[derive(Debug)]
pub struct Description(Value);

/// An operation of a description.
#[derive(Debug)]
pub struct Operation {
    /// The method, in capital letters.
    pub method: String,
    /// The path, with the names of its parameters.
    pub route: String,
    /// The definition.
    pub definition: Value,
}

impl Description {
    /// Parses a description.
    pub fn parse(text: &str) -> Self {
        Self(serde_json::from_str(text).unwrap())
    }

    /// Returns all operations.
    pub fn operations(&self) -> Vec<Operation> {
        let paths = self.0["paths"].as_object().unwrap();
        let operations = paths.iter().flat_map(|(route, methods)| {
            let methods = methods.as_object().unwrap().iter();
            methods.map(|(method, definition)| Operation {
                method: method.to_uppercase(),
                route: route.clone(),
                definition: definition.clone(),
            })
        });
        operations.collect()
    }

    /// Returns a schema by its name.
    pub fn schema(&self, name: &str) -> &Value {
        &self.0["components"]["schemas"][name]
    }

    /// Returns the names of all schemas.
    pub fn schemas(&self) -> BTreeSet<String> {
        let schemas = self.0["components"]["schemas"].as_object().unwrap();
        schemas.keys().cloned().collect()
    }

    /// Asserts that a value has a schema.
    pub fn assert_valid(&self, context: &str, schema: &Value, value: &Value) {
        let mut schema = schema.clone();
        schema["components"] = self.0["components"].clone();
        let options = jsonschema::draft202012::options().should_validate_formats(true);
        let validator = options.build(&schema).unwrap();
        let errors = validator.iter_errors(value).map(|it| it.to_string());
        let errors: Vec<_> = errors.collect();
        assert_eq!(errors, Vec::<String>::new(), "{context}: {value:#}");
    }

    /// Returns the description of a response. It may be that of another one in a place that all share.
    fn response(&self, method: &str, route: &str, status: u16) -> &Value {
        let operation = &self.0["paths"][route][method.to_lowercase()];
        let described = &operation["responses"][status.to_string()];
        let Some(name) = described["$ref"].as_str() else {
            return described;
        };
        &self.0["components"]["responses"][name.rsplit('/').next().unwrap()]
    }

    /// Returns true if a response has a body. Those that switch to another protocol must not be read.
    pub fn has_body(&self, method: &str, route: &str, status: u16) -> bool {
        self.response(method, route, status)["content"].is_object()
    }

    /// Asserts that a response is described, and returns its body.
    pub fn check(
        &self,
        method: &str,
        route: &str,
        status: u16,
        content_type: Option<&str>,
        body: &str,
    ) -> Value {
        let context = format!("{method} {route}: {status}");
        let described = self.response(method, route, status);
        assert!(described.is_object(), "{context} is not described: {body}");
        let Some(media_types) = described["content"].as_object() else {
            return Value::Null;
        };
        let content_type = content_type.unwrap_or_default();
        let described = media_types.get(content_type);
        let described = described.unwrap_or_else(|| panic!("{context}: {content_type}"));
        if !content_type.contains("json") {
            return body.into();
        }
        let body = serde_json::from_str(body).unwrap();
        self.assert_valid(&context, &described["schema"], &body);
        body
    }

    /// Asserts that every operation has a description, and one of the declared tags.
    pub fn assert_described(&self) {
        let tags = self.0["tags"].as_array().unwrap().iter();
        let declared: BTreeSet<_> = tags.map(|tag| tag["name"].as_str().unwrap()).collect();
        let mut used = BTreeSet::new();
        let operations = self.operations();
        for it in &operations {
            let (place, definition) = (format!("{} {}", it.method, it.route), &it.definition);
            let text = |name: &str| definition[name].as_str().unwrap_or_default();
            assert!(!text("description").is_empty(), "{place}");
            assert!(!text("summary").ends_with('.'), "{place}");
            let tags = definition["tags"].as_array().unwrap();
            assert_eq!(tags.len(), 1, "{place}");
            used.insert(tags[0].as_str().unwrap());
        }
        assert_eq!(used, declared);
    }

    /// Asserts that the operations are exactly the routes in the source of a router.
    pub fn assert_routes(&self, router: &str) {
        let mut known = BTreeSet::new();
        for route in router.split(".route(").skip(1) {
            let route = route.split(".route").next().unwrap();
            let path = route.split('"').nth(1).unwrap();
            for method in ["get", "post", "put", "delete"] {
                if route.contains(&format!("{method}(")) {
                    known.insert(format!("{} {path}", method.to_uppercase()));
                }
            }
        }
        let described = self.operations().into_iter();
        let described = described.map(|it| format!("{} {}", it.method, it.route));
        assert_eq!(described.collect::<BTreeSet<_>>(), known);
    }
}
