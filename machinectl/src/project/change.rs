//! Changes of projects: the whole project is read, changed and stored.

use client::Client;
use config::projects::{NewProject, Project, ProjectLayer};
use config::{LayerName, ReleaseName};

use super::{LayerChange, Set, store};
use crate::exit_code::{ExitStatus, Failure};
use crate::output::Output;

/// Returns a project as a request that replaces it.
fn replacing(project: Project) -> NewProject {
    NewProject {
        release: project.release,
        bitbake: project.bitbake,
        host_machine: project.host_machine,
        layers: project.layers,
        variables: project.variables,
        local_conf: project.local_conf,
        targets: project.targets,
        defaults: false,
        replace: true,
    }
}

/// Sets variables, targets, the machine and the release of a project.
pub(super) fn set(client: &Client, arguments: &Set, output: &Output) -> Result<(), Failure> {
    let mut new = replacing(client.project(&arguments.name)?);
    for name in &arguments.unset {
        let before = new.variables.len();
        new.variables.retain(|it| it.name != *name);
        if new.variables.len() == before {
            let text = format!("the project {} does not set {name}", arguments.name);
            return Err(Failure::new(ExitStatus::NotFound, text));
        }
    }
    for variable in &arguments.variables {
        match new.variables.iter_mut().find(|it| it.name == variable.name) {
            Some(known) => *known = variable.clone(),
            None => new.variables.push(variable.clone()),
        }
    }
    if !arguments.targets.is_empty() {
        new.targets.clone_from(&arguments.targets);
    }
    if arguments.host_machine.is_some() {
        new.host_machine.clone_from(&arguments.host_machine);
    }
    if arguments.release.is_some() {
        new.release.clone_from(&arguments.release);
    }
    store(client, &arguments.name, &new, arguments.dry_run, output)
}

/// Adds layers, with those that they need, and removes layers.
pub(super) fn layers(
    client: &Client,
    arguments: &LayerChange,
    output: &Output,
) -> Result<(), Failure> {
    let name = &arguments.name;
    if arguments.add.is_empty() && arguments.remove.is_empty() {
        let text = "name a layer with --add or --remove";
        return Err(Failure::new(ExitStatus::Usage, text));
    }
    let mut new = replacing(client.project(name)?);
    for layer in &arguments.remove {
        let before = new.layers.len();
        new.layers.retain(|it| it.name != *layer);
        if new.layers.len() == before {
            let text = format!("the project {name} has no layer {layer}");
            return Err(Failure::new(ExitStatus::NotFound, text));
        }
    }
    for layer in &arguments.add {
        for needed in needed(client, layer, new.release.as_ref(), &new.layers)? {
            output.status(format_args!(
                "{} needs {needed}, which is added as well",
                layer.name
            ));
            new.layers.push(of_release(needed));
        }
        match new.layers.iter_mut().find(|it| it.name == layer.name) {
            Some(known) => *known = layer.clone(),
            None => new.layers.push(layer.clone()),
        }
    }
    store(client, name, &new, arguments.dry_run, output)
}

fn of_release(name: LayerName) -> ProjectLayer {
    ProjectLayer {
        name,
        url: None,
        reference: None,
        path: None,
    }
}

/// Returns the layers that a layer needs and that are not there, the deepest first, as far as the
/// catalog knows it.
fn needed(
    client: &Client,
    layer: &ProjectLayer,
    release: Option<&ReleaseName>,
    there: &[ProjectLayer],
) -> Result<Vec<LayerName>, Failure> {
    if layer.url.is_some() {
        return Ok(Vec::new());
    }
    let mut found: Vec<LayerName> = Vec::new();
    let mut open = vec![layer.name.clone()];
    while let Some(next) = open.pop() {
        let contents = client.layer(&next, release)?;
        let Some(content) = contents.first() else {
            continue;
        };
        for needed in &content.layer.depends {
            let is_there = there.iter().any(|it| it.name == *needed);
            if !is_there && *needed != layer.name && !found.contains(needed) {
                found.push(needed.clone());
                open.push(needed.clone());
            }
        }
    }
    found.reverse();
    Ok(found)
}
