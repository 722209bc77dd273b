//! The content of a file of kas as a project; pure.

use std::path::Path;

use config::projects::{BitbakeTarget, ConfLine, NewProject, Variable};
use serde_json::{Map, Value};

use crate::Imported;
use crate::places::{Repository, add_layer, bitbake, repository};

/// The keys that are read.
const KNOWN: [&str; 12] = [
    "header",
    "machine",
    "distro",
    "target",
    "task",
    "repos",
    "defaults",
    "overrides",
    "local_conf_header",
    "env",
    "build_system",
    "bblayers_conf_header",
];
/// The keys that builds do not depend on.
const IGNORED: [&str; 6] = [
    "menu_configuration",
    "artifacts",
    "signers",
    "buildtools",
    "proxy_config",
    "$schema",
];

/// Returns the project of a merged content. `root` is the repository of its file.
///
/// # Errors
/// The content cannot be carried over.
pub(super) fn project(content: &Value, root: &Path) -> Result<Imported, String> {
    let empty = Map::new();
    let content = content.as_object().unwrap_or(&empty);
    let mut notes = notes(content)?;
    if content
        .get("build_system")
        .is_some_and(|system| system == "isar")
    {
        return Err(
            "`build_system: isar` does not use BitBake's layers of OpenEmbedded".to_owned(),
        );
    }
    let (repositories, layers) = repositories(content, root)?;
    let (variables, without_value) = variables(content)?;
    if !without_value.is_empty() {
        let names = without_value.join(" ");
        notes.push(format!(
            "`env` has variables of the caller's environment: {names} are left out"
        ));
    }
    let project = NewProject {
        bitbake: Some(bitbake(&repositories)?),
        layers,
        variables,
        local_conf: local_conf(content)?,
        targets: targets(content)?,
        ..NewProject::default()
    };
    Ok(Imported { project, notes })
}

fn notes(content: &Map<String, Value>) -> Result<Vec<String>, String> {
    let mut notes = Vec::new();
    for key in content.keys() {
        if IGNORED.contains(&key.as_str()) || key == "bblayers_conf_header" {
            notes.push(format!("`{key}` is left out"));
        } else if !KNOWN.contains(&key.as_str()) && !key.starts_with('_') {
            return Err(format!("`{key}` is not a key of kas that is known here"));
        }
    }
    Ok(notes)
}

/// Returns the text of a key; numbers and truth values as YAML has them.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

type Layers = Vec<config::projects::ProjectLayer>;

/// Returns the repositories and the layers in them, in the order of the names of kas.
fn repositories(
    content: &Map<String, Value>,
    root: &Path,
) -> Result<(Vec<Repository>, Layers), String> {
    let repos = content.get("repos").and_then(Value::as_object);
    let repos = repos.ok_or("`repos` is missing")?;
    let (mut repositories, mut layers) = (Vec::new(), Vec::new());
    for (name, value) in repos {
        let empty = Map::new();
        let repo = match value {
            Value::Null => &empty,
            Value::Object(repo) => repo,
            _ => return Err(format!("the repository {name} is not a mapping")),
        };
        let repository = repository_of(name, repo, content, root)?;
        match repo.get("layers") {
            None | Some(Value::Null) => add_layer(&mut layers, &repository, "")?,
            Some(Value::Object(directories)) => {
                for (directory, value) in directories {
                    if is_included(value) {
                        add_layer(&mut layers, &repository, directory)?;
                    }
                }
            }
            Some(_) => {
                return Err(format!(
                    "`layers` of the repository {name} is not a mapping"
                ));
            }
        }
        repositories.push(repository);
    }
    // A repository of BitBake alone is no layer, although kas takes every repository for one.
    layers.retain(|layer| {
        let is_bitbake = layer
            .url
            .as_ref()
            .is_some_and(|url| url.base_name() == "bitbake");
        !is_bitbake
    });
    Ok((repositories, layers))
}

/// Returns false for a layer that is switched off.
fn is_included(value: &Value) -> bool {
    let words = ["disabled", "excluded", "n", "no", "0", "false"];
    !text(value).is_some_and(|text| words.contains(&text.as_str()))
}

fn repository_of(
    name: &str,
    repo: &Map<String, Value>,
    content: &Map<String, Value>,
    root: &Path,
) -> Result<Repository, String> {
    for (key, remedy) in [
        ("patches", "commit them to a branch of your own"),
        ("signed", "its signatures are not verified here"),
    ] {
        let has_value = |value: &Value| !value.is_null() && *value != Value::Bool(false);
        if repo.get(key).is_some_and(has_value) {
            return Err(format!("the repository {name} has `{key}`: {remedy}"));
        }
    }
    if repo.get("type").is_some_and(|kind| kind != "git") {
        return Err(format!("the repository {name} is not one of git"));
    }
    let Some(url) = repo.get("url").and_then(text) else {
        let path = repo.get("path").and_then(text).unwrap_or_default();
        let directory = root.join(path);
        return repository(name, &directory.display().to_string(), "HEAD");
    };
    let section = |section: &str| {
        let section = content.get(section)?.get("repos")?;
        // The defaults are for all, the overrides for one.
        section.get(name).unwrap_or(section).as_object()
    };
    let layers = [section("overrides"), Some(repo), section("defaults")];
    let reference = layers.into_iter().flatten().find_map(|it| {
        let keys = ["commit", "tag", "branch", "refspec"];
        keys.iter()
            .find_map(|key| it.get(*key).filter(|value| !value.is_null()))
    });
    match reference {
        Some(Value::String(reference)) => repository(name, &url, reference),
        // YAML takes 2.10 for a number, of which 2.1 is left.
        Some(other) => Err(format!(
            "the repository {name} has the reference {other}, which is not a text: put it in quotes"
        )),
        None => Err(format!(
            "the repository {name} has neither `commit` nor `branch` nor `tag`"
        )),
    }
}

/// Returns the variables, and the names of those without a value.
fn variables(content: &Map<String, Value>) -> Result<(Vec<Variable>, Vec<String>), String> {
    let variable = |name: &str, value: String| {
        let fault = |error: &dyn std::fmt::Display| format!("the variable {name}: {error}");
        Ok::<_, String>(Variable {
            name: name.parse().map_err(|error| fault(&error))?,
            value: value.parse().map_err(|error| fault(&error))?,
        })
    };
    let plain = |key: &str, default: &str| {
        content
            .get(key)
            .and_then(text)
            .unwrap_or_else(|| default.to_owned())
    };
    let mut variables = vec![
        variable("MACHINE", plain("machine", "qemux86-64"))?,
        variable("DISTRO", plain("distro", "nodistro"))?,
    ];
    let mut without_value = Vec::new();
    let env = content.get("env").and_then(Value::as_object);
    for (name, value) in env.into_iter().flatten() {
        match text(value) {
            Some(value) => variables.push(variable(name, value)?),
            None => without_value.push(name.clone()),
        }
    }
    Ok((variables, without_value))
}

/// Returns the targets, each with the task if the file names one.
fn targets(content: &Map<String, Value>) -> Result<Vec<BitbakeTarget>, String> {
    let names = match content.get("target") {
        None | Some(Value::Null) => vec!["core-image-minimal".to_owned()],
        Some(Value::Array(names)) => names.iter().filter_map(text).collect(),
        Some(name) => text(name).into_iter().collect(),
    };
    let task = content
        .get("task")
        .and_then(text)
        .filter(|task| task != "build");
    let target = |name: &String| {
        let full = match &task {
            Some(task) if !name.contains(':') => format!("{name}:{task}"),
            _ => name.clone(),
        };
        full.parse()
            .map_err(|error: config::projects::ProjectError| error.to_string())
    };
    names.iter().map(target).collect()
}

/// Returns the lines of `local_conf_header`, in the order of the names of its parts.
fn local_conf(content: &Map<String, Value>) -> Result<Vec<ConfLine>, String> {
    let Some(parts) = content.get("local_conf_header").and_then(Value::as_object) else {
        return Ok(Vec::new());
    };
    let mut named: Vec<_> = parts.iter().collect();
    named.sort_by_key(|(name, _)| *name);
    let texts = named.into_iter().filter_map(|(_, value)| text(value));
    let texts: Vec<String> = texts.collect();
    let lines = texts.iter().flat_map(|text| text.lines());
    lines
        .map(|line| {
            line.trim_end()
                .parse()
                .map_err(|error: config::projects::ProjectError| error.to_string())
        })
        .collect()
}
