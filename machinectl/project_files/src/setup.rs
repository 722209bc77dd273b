//! Configurations of bitbake-setup: `setup-schema/` of BitBake; pure.

use config::join_and;
use config::projects::{NewProject, Variable};
use serde_json::{Map, Value};

use crate::places::{Repository, add_layer, bitbake, repository};
use crate::{Choices, Imported};

/// The lists and choices that a configuration has together with those around it.
#[derive(Debug, Clone, Default)]
struct Configuration {
    name: String,
    layers: Vec<String>,
    fragments: Vec<String>,
    /// The choices: a fragment of each list.
    one_of: Vec<(String, Vec<String>)>,
}

/// Returns the project of a configuration.
///
/// # Errors
/// A choice is open, or the file cannot be carried over.
pub(crate) fn project(content: &Value, choices: &Choices) -> Result<Imported, String> {
    let repositories = repositories(content)?;
    let mut all = Vec::new();
    let configurations = content.pointer("/bitbake-setup/configurations");
    collect(configurations, &Configuration::default(), &mut all);
    let chosen = choose(&all, choices.configuration.as_deref())?;
    let fragments = fragments(chosen, &choices.fragments)?;
    let mut layers = Vec::new();
    for place in &chosen.layers {
        let (name, directory) = place.split_once('/').unwrap_or((place, ""));
        let found = repositories.iter().find(|it| it.name == name);
        let found = found.ok_or_else(|| {
            format!("the layer {place} is in {name}, which is not one of `sources`")
        })?;
        add_layer(&mut layers, found, directory)?;
    }
    let project = NewProject {
        bitbake: Some(bitbake(&repositories)?),
        layers,
        variables: variables(&fragments)?,
        ..NewProject::default()
    };
    let notes = Vec::new();
    Ok(Imported { project, notes })
}

fn repositories(content: &Value) -> Result<Vec<Repository>, String> {
    let sources = content.get("sources").and_then(Value::as_object);
    let sources = sources.ok_or("`sources` is missing")?;
    let repository = |(name, source): (&String, &Value)| {
        let text = |pointer: &str| source.pointer(pointer).and_then(Value::as_str);
        if let Some(path) = text("/local/path") {
            return repository(name, path, "HEAD");
        }
        let url = text("/git-remote/uri").or(text("/git-remote/remotes/origin/uri"));
        let reference = text("/git-remote/rev").or(text("/git-remote/branch"));
        match (url, reference) {
            (Some(url), Some(reference)) => repository(name, url, reference),
            _ => Err(format!(
                "the source {name} has neither `git-remote` with `uri` and `rev`, nor `local` with `path`"
            )),
        }
    };
    sources.iter().map(repository).collect()
}

/// Returns the texts of a list.
fn texts(map: &Map<String, Value>, key: &str) -> Vec<String> {
    let list = map.get(key).and_then(Value::as_array);
    let texts = list.into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// Adds the configurations without others in them. Each has what those around it have.
fn collect(list: Option<&Value>, around: &Configuration, all: &mut Vec<Configuration>) {
    for value in list.and_then(Value::as_array).into_iter().flatten() {
        let Some(map) = value.as_object() else {
            continue;
        };
        let mut own = around.clone();
        if let Some(name) = map.get("name").and_then(Value::as_str) {
            name.clone_into(&mut own.name);
        }
        own.layers.extend(texts(map, "bb-layers"));
        own.fragments.extend(texts(map, "oe-fragments"));
        let one_of = map.get("oe-fragments-one-of").and_then(Value::as_object);
        for (key, choice) in one_of.into_iter().flatten() {
            own.one_of.push((key.clone(), options(choice)));
        }
        match map.get("configurations") {
            Some(inner) => collect(Some(inner), &own, all),
            None => all.push(own),
        }
    }
}

/// Returns the names of the options of a choice, each of which is a text or has a name.
fn options(choice: &Value) -> Vec<String> {
    let list = choice.get("options").and_then(Value::as_array);
    let name = |value: &Value| {
        value
            .as_str()
            .or_else(|| value.get("name")?.as_str())
            .map(str::to_owned)
    };
    list.into_iter().flatten().filter_map(name).collect()
}

fn choose<'a>(all: &'a [Configuration], wanted: Option<&str>) -> Result<&'a Configuration, String> {
    let names: Vec<_> = all.iter().map(|it| it.name.as_str()).collect();
    let found = match wanted {
        Some(wanted) => all.iter().find(|it| it.name == wanted),
        None if all.len() == 1 => all.first(),
        None => None,
    };
    found.ok_or_else(|| match (wanted, names.is_empty()) {
        (_, true) => "it has no configurations".to_owned(),
        (Some(wanted), _) => {
            format!("it has no configuration {wanted}, but {}", join_and(&names))
        }
        (None, _) => {
            format!(
                "it has the configurations {}; choose one with `--configuration`",
                join_and(&names)
            )
        }
    })
}

/// Returns the fragments of a configuration with those that were chosen.
fn fragments(chosen: &Configuration, choices: &[String]) -> Result<Vec<String>, String> {
    let mut fragments = chosen.fragments.clone();
    let mut left: Vec<_> = choices.iter().collect();
    for (key, options) in &chosen.one_of {
        let choice = left.iter().position(|choice| options.contains(choice));
        match (choice, options.as_slice()) {
            (Some(at), _) => fragments.push(left.remove(at).clone()),
            (None, [only]) => fragments.push(only.clone()),
            (None, options) => {
                return Err(format!(
                    "it leaves the {key} open; choose {} with `--choose`",
                    options.join(" or ")
                ));
            }
        }
    }
    match left.first() {
        Some(unknown) => Err(format!("it has no choice {unknown}")),
        None => Ok(fragments),
    }
}

/// Returns the variables that fragments stand for. Those of a machine and of a distribution are
/// built into BitBake's metadata and set one variable.
fn variables(fragments: &[String]) -> Result<Vec<Variable>, String> {
    let mut variables = Vec::new();
    let mut others = Vec::new();
    for fragment in fragments {
        match fragment.split_once('/') {
            Some(("machine", name)) => variables.push(variable("MACHINE", name)?),
            Some(("distro", name)) => variables.push(variable("DISTRO", name)?),
            _ => others.push(fragment.as_str()),
        }
    }
    if !others.is_empty() {
        variables.push(variable("OE_FRAGMENTS", &others.join(" "))?);
    }
    Ok(variables)
}

fn variable(name: &str, value: &str) -> Result<Variable, String> {
    let shown = |error: config::projects::ProjectError| error.to_string();
    Ok(Variable {
        name: name.parse().map_err(shown)?,
        value: value.parse().map_err(shown)?,
    })
}
