//! The releases that Buildhost knows by itself, generated from the table `releases.toml`.

use std::collections::BTreeMap;

use config::layers::{Layer, LayerContent, LayerPath, Location, Reference, Release, RepositoryUrl};
use config::{LayerName, ReleaseName};
use serde::Deserialize;

use crate::{Content, Setting, fixtures};

/// The prefix of settings that are variables of new projects.
pub const VARIABLE: &str = "DEFCONF_";

const TABLE: &str = include_str!("releases.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    default_release: ReleaseName,
    releases: Vec<TableRelease>,
    bitbake: Bitbake,
    layers: Vec<TableLayer>,
    variables: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TableRelease {
    name: ReleaseName,
    description: String,
    bitbake: Reference,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bitbake {
    url: RepositoryUrl,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TableLayer {
    name: LayerName,
    summary: String,
    url: RepositoryUrl,
    path: LayerPath,
    depends: Vec<LayerName>,
    default: bool,
}

/// Returns the built-in releases, their layers, and the default variables.
///
/// # Errors
/// The table is invalid, which a test excludes.
pub fn built_in() -> Result<Content, toml::de::Error> {
    let table: Table = toml::from_str(TABLE)?;
    let mut content = Content::default();
    for release in &table.releases {
        // Branches of layers have the names of releases.
        let Ok(branch) = release.name.as_str().parse::<Reference>() else {
            continue;
        };
        let default = table.layers.iter().filter(|layer| layer.default);
        content.releases.push(Release {
            name: release.name.clone(),
            description: release.description.clone(),
            branch: branch.clone(),
            bitbake: Location {
                url: table.bitbake.url.clone(),
                reference: release.bitbake.clone(),
                path: LayerPath::default(),
            },
            layers: default.map(|layer| layer.name.clone()).collect(),
            source: String::new(),
        });
        let of_release = table.layers.iter();
        let of_release = of_release.map(|layer| layer_of(layer, &release.name, &branch));
        content.layers.extend(of_release);
    }
    let settings = table.variables.into_iter().map(|(name, value)| Setting {
        name: format!("{VARIABLE}{name}"),
        value,
    });
    content.settings.extend(settings);
    content.settings.push(Setting {
        name: fixtures::DEFAULT_RELEASE.to_owned(),
        value: table.default_release.to_string(),
    });
    Ok(content)
}

fn layer_of(layer: &TableLayer, release: &ReleaseName, branch: &Reference) -> LayerContent {
    LayerContent {
        layer: Layer {
            name: layer.name.clone(),
            release: Some(release.clone()),
            location: Location {
                url: layer.url.clone(),
                reference: branch.clone(),
                path: layer.path.clone(),
            },
            summary: layer.summary.clone(),
            web_url: String::new(),
            depends: layer.depends.clone(),
            source: String::new(),
            gone: false,
        },
        machines: Vec::new(),
        distros: Vec::new(),
        recipes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_release_has_all_its_layers() {
        let content = built_in().unwrap();
        let names: Vec<_> = content.releases.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["master", "wrynose", "whinlatter", "scarthgap"]);
        for release in &content.releases {
            for name in &release.layers {
                let has = |it: &LayerContent| {
                    it.layer.name == *name && it.layer.release.as_ref() == Some(&release.name)
                };
                assert!(content.layers.iter().any(has), "{name} of {}", release.name);
            }
        }
        for setting in &content.settings {
            let Some(name) = setting.name.strip_prefix(VARIABLE) else {
                assert!(names.contains(&setting.value.as_str()), "{setting:?}");
                continue;
            };
            name.parse::<config::projects::VariableName>().unwrap();
            setting
                .value
                .parse::<config::projects::VariableValue>()
                .unwrap();
        }
    }
}
