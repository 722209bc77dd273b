//! The objects of a layer index as the content of a source; pure.

use std::collections::{BTreeMap, BTreeSet};

use config::LayerName;
use config::layers::{Described, Layer, LayerContent, Location, Recipe, Release};

use super::Objects;
use super::objects::{LayerBranch, LayerItem};
use crate::Content;

/// Returns the layers of releases, and remarks about objects that were left out. A branch belongs
/// to every release that names it.
pub(super) fn content(objects: &Objects, releases: &[Release]) -> (Content, Vec<String>) {
    let layers: BTreeMap<u64, &LayerItem> = objects.layers.iter().map(|it| (it.id, it)).collect();
    let branches: BTreeMap<u64, &str> = objects
        .branches
        .iter()
        .map(|it| (it.id, it.name.as_str()))
        .collect();
    let details = Details::of(objects);
    let mut omitted = Omitted::default();
    let mut seen = BTreeSet::new();
    let mut content = Content::default();
    for it in &objects.layer_branches {
        let (Some(item), Some(branch)) = (layers.get(&it.layer), branches.get(&it.branch)) else {
            omitted.add("layers without a name", &format!("number {}", it.id));
            continue;
        };
        let Some(layer) = layer(it, item, branch, &layers, &details) else {
            omitted.add("layers whose name or place cannot be used", &item.name);
            continue;
        };
        for release in releases
            .iter()
            .filter(|release| release.branch.as_str() == *branch)
        {
            if !seen.insert((layer.name.clone(), release.name.clone())) {
                omitted.add("layers that are there twice", &item.name);
                continue;
            }
            content.layers.push(LayerContent {
                layer: Layer {
                    release: Some(release.name.clone()),
                    ..layer.clone()
                },
                machines: details.machines.get(&it.id).cloned().unwrap_or_default(),
                distros: details.distros.get(&it.id).cloned().unwrap_or_default(),
                recipes: details.recipes.get(&it.id).cloned().unwrap_or_default(),
            });
        }
    }
    let found = branches.values().copied().collect::<BTreeSet<_>>();
    for release in releases
        .iter()
        .filter(|it| !found.contains(it.branch.as_str()))
    {
        omitted.notes.push(format!(
            "the index has no branch {}, which is that of release {}",
            release.branch, release.name
        ));
    }
    (content, omitted.into_notes())
}

/// Returns a layer, without its release; `None` if its name or its place cannot be used.
fn layer(
    on_branch: &LayerBranch,
    item: &LayerItem,
    branch: &str,
    layers: &BTreeMap<u64, &LayerItem>,
    details: &Details,
) -> Option<Layer> {
    let reference = match on_branch.actual_branch.trim() {
        "" => branch,
        actual => actual,
    };
    let needed = details.depends.get(&on_branch.id).into_iter().flatten();
    let depends: BTreeSet<LayerName> = needed
        .filter_map(|id| layers.get(id)?.name.parse().ok())
        .collect();
    Some(Layer {
        name: item.name.parse().ok()?,
        release: None,
        location: Location {
            url: item.vcs_url.trim().parse().ok()?,
            reference: reference.parse().ok()?,
            path: on_branch.vcs_subdir.trim().trim_matches('/').parse().ok()?,
        },
        summary: item.summary.clone(),
        web_url: item.vcs_web_url.clone(),
        depends: depends.into_iter().collect(),
        source: String::new(),
        gone: false,
    })
}

/// The content of layers on branches, by their numbers.
#[derive(Debug, Default)]
struct Details {
    depends: BTreeMap<u64, Vec<u64>>,
    machines: BTreeMap<u64, Vec<Described>>,
    distros: BTreeMap<u64, Vec<Described>>,
    recipes: BTreeMap<u64, Vec<Recipe>>,
}

impl Details {
    fn of(objects: &Objects) -> Self {
        let mut details = Self::default();
        for it in objects.dependencies.iter().filter(|it| it.required) {
            details
                .depends
                .entry(it.layerbranch)
                .or_default()
                .push(it.dependency);
        }
        let described = |name: &str, description: &str| Described {
            name: name.to_owned(),
            description: description.to_owned(),
        };
        for it in &objects.machines {
            let all = details.machines.entry(it.layerbranch).or_default();
            all.push(described(&it.name, &it.description));
        }
        for it in &objects.distros {
            let all = details.distros.entry(it.layerbranch).or_default();
            all.push(described(&it.name, &it.description));
        }
        for it in &objects.recipes {
            let path = it.filepath.trim_matches('/');
            details
                .recipes
                .entry(it.layerbranch)
                .or_default()
                .push(Recipe {
                    name: it.pn.clone(),
                    version: it.pv.clone(),
                    summary: it.summary.clone(),
                    file: format!("{path}/{}", it.filename)
                        .trim_matches('/')
                        .to_owned(),
                    image: it.inherits.split_whitespace().any(|class| class == "image"),
                });
        }
        details
    }
}

/// The objects that were left out, by the reason.
#[derive(Debug, Default)]
struct Omitted {
    reasons: BTreeMap<&'static str, (usize, String)>,
    notes: Vec<String>,
}

impl Omitted {
    fn add(&mut self, reason: &'static str, example: &str) {
        let (count, _) = self
            .reasons
            .entry(reason)
            .or_insert_with(|| (0, example.to_owned()));
        *count += 1;
    }

    fn into_notes(self) -> Vec<String> {
        let reasons = self.reasons.into_iter().map(|(reason, (count, example))| {
            let example = config::printable(&example).to_string();
            format!("{count} {reason} were left out, such as {example}")
        });
        reasons.chain(self.notes).collect()
    }
}
