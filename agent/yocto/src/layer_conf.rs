//! The facts in a layer's `conf/layer.conf` that decide about its place in a project; pure.
//!
//! BitBake executes the file. Only plain assignments are read here: a value with an expansion is
//! unknown, and BitBake has the last word about it.

use std::collections::BTreeMap;

use config::{LayerName, join_and};

/// The path of the file in a layer.
pub const FILE: &str = "conf/layer.conf";

/// The facts of one layer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerConf {
    /// The names by which other layers depend on it (`BBFILE_COLLECTIONS`).
    pub collections: Vec<String>,
    /// The collections that it needs (`LAYERDEPENDS_…`).
    pub depends: Vec<String>,
    /// The release series that it is made for (`LAYERSERIES_COMPAT_…`); empty if unknown.
    pub series: Vec<String>,
    /// The series that the layer defines, if it is the core (`LAYERSERIES_CORENAMES`).
    pub core_series: Vec<String>,
}

/// A reason for which layers cannot be built together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayerConflict {
    /// A layer needs another one.
    #[error(
        "layer {layer} needs the layer with the collection `{collection}`, which the project does not have; add it with `buildhost project layer PROJECT --add LAYER`"
    )]
    Missing {
        /// The layer.
        layer: LayerName,
        /// The collection that it needs.
        collection: String,
    },
    /// A layer is for other series.
    #[error(
        "layer {layer} is made for {}, and the core layer of the project is {}: choose another branch of the layer, or another release",
        join_and(series),
        join_and(core)
    )]
    Series {
        /// The layer.
        layer: LayerName,
        /// Its series.
        series: Vec<String>,
        /// The series of the core.
        core: Vec<String>,
    },
    /// Two layers have the same collection.
    #[error("the layers {one} and {other} both have the collection `{collection}`; remove one")]
    Duplicate {
        /// A layer.
        one: LayerName,
        /// The other one.
        other: LayerName,
        /// The collection.
        collection: String,
    },
    /// Layers need each other.
    #[error("the layers {} need each other in a circle; remove one", join_and(.0))]
    Circle(Vec<LayerName>),
}

/// Parses the text of a `conf/layer.conf`.
pub fn parse(text: &str) -> LayerConf {
    let mut conf = LayerConf::default();
    let joined = text.replace("\\\n", " ");
    for line in joined.lines() {
        let Some((name, value)) = assignment(line) else {
            continue;
        };
        let words = || value.split_whitespace().map(str::to_owned);
        let is_known = !value.contains("${");
        if name == "BBFILE_COLLECTIONS" {
            conf.collections
                .extend(words().filter(|word| !word.contains('$')));
        } else if name == "LAYERSERIES_CORENAMES" && is_known {
            conf.core_series = words().collect();
        } else if is_known && name.starts_with("LAYERSERIES_COMPAT_") {
            conf.series.extend(words());
        } else if is_known && name.starts_with("LAYERDEPENDS_") {
            conf.depends.extend(collections(value));
        }
    }
    conf
}

/// Returns the name without its override, and the value, of an assignment.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let (left, right) = line.split_once('=')?;
    let left = left
        .trim_end_matches(['?', ':', '+', '.', ' ', '\t'])
        .trim();
    let name = left.split(':').next()?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.+/".contains(c);
    if name.is_empty() || !name.chars().all(is_name) {
        return None;
    }
    let right = right.trim_start_matches(['+', '.']).trim();
    let quote = right.chars().next().filter(|c| *c == '"' || *c == '\'')?;
    Some((name, right.strip_prefix(quote)?.strip_suffix(quote)?))
}

/// Returns the collections of a dependency list: `core perl-layer:2 (>= 3)`.
fn collections(value: &str) -> Vec<String> {
    let mut depth = 0usize;
    let mut names = Vec::new();
    for word in value.split_whitespace() {
        let opened = word.matches('(').count();
        if depth == 0 && opened == 0 {
            names.extend(word.split(':').next().map(str::to_owned));
        }
        depth = (depth + opened).saturating_sub(word.matches(')').count());
    }
    names
}

/// Returns the order of layers, each after those that it needs and otherwise as they are.
///
/// # Errors
/// A layer needs one that is not there, is for other series, or has the collection of another one,
/// or layers need each other.
pub fn order(layers: &[(LayerName, LayerConf)]) -> Result<Vec<usize>, LayerConflict> {
    let owners = owners(layers)?;
    check_series(layers)?;
    let mut needs = Vec::new();
    for (layer, conf) in layers {
        let needed = conf.depends.iter().map(|collection| {
            let owner = owners.get(collection.as_str()).copied();
            owner.ok_or_else(|| LayerConflict::Missing {
                layer: layer.clone(),
                collection: collection.clone(),
            })
        });
        needs.push(needed.collect::<Result<Vec<_>, _>>()?);
    }
    let mut ordered = Vec::new();
    while ordered.len() < layers.len() {
        let is_ready = |at: &usize| {
            let mut own = needs[*at].iter().filter(|needed| **needed != *at);
            !ordered.contains(at) && own.all(|needed| ordered.contains(needed))
        };
        let Some(next) = (0..layers.len()).find(is_ready) else {
            let rest = (0..layers.len()).filter(|at| !ordered.contains(at));
            return Err(LayerConflict::Circle(
                rest.map(|at| layers[at].0.clone()).collect(),
            ));
        };
        ordered.push(next);
    }
    Ok(ordered)
}

/// Returns the layer of each collection.
fn owners(layers: &[(LayerName, LayerConf)]) -> Result<BTreeMap<&str, usize>, LayerConflict> {
    let mut owners = BTreeMap::new();
    for (at, (layer, conf)) in layers.iter().enumerate() {
        for collection in &conf.collections {
            if let Some(one) = owners.insert(collection.as_str(), at) {
                return Err(LayerConflict::Duplicate {
                    one: layers[one].0.clone(),
                    other: layer.clone(),
                    collection: collection.clone(),
                });
            }
        }
    }
    Ok(owners)
}

fn check_series(layers: &[(LayerName, LayerConf)]) -> Result<(), LayerConflict> {
    let core: Vec<_> = layers
        .iter()
        .flat_map(|(_, conf)| &conf.core_series)
        .collect();
    if core.is_empty() {
        return Ok(());
    }
    for (layer, conf) in layers {
        if !conf.series.is_empty() && !conf.series.iter().any(|series| core.contains(&series)) {
            return Err(LayerConflict::Series {
                layer: layer.clone(),
                series: conf.series.clone(),
                core: core.into_iter().cloned().collect(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORE: &str = r#"
BBPATH .= ":${LAYERDIR}"
BBFILES += "${LAYERDIR}/recipes-*/*/*.bb"
BBFILE_COLLECTIONS += "core"
LAYERVERSION_core = "16"
LAYERSERIES_CORENAMES = "wrynose blacksail"
"#;

    fn layer(name: &str, text: &str) -> (LayerName, LayerConf) {
        (name.parse().unwrap(), parse(text))
    }

    fn depending(name: &str, on: &str) -> (LayerName, LayerConf) {
        let text = format!(
            "BBFILE_COLLECTIONS += \"{name}\"\nLAYERDEPENDS_{name} = \"{on}\"\nLAYERSERIES_COMPAT_{name} = \"blacksail\"\n"
        );
        layer(name, &text)
    }

    #[test]
    fn plain_assignments_are_read() {
        let conf = parse(
            "# x\nBBFILE_COLLECTIONS += \"net\"\nLAYERDEPENDS_net = \"core \\\n  perl:2 py (>= 3)\"\nLAYERDEPENDS_net:append = \" oe\"\nLAYERSERIES_COMPAT_net = 'a b'\n",
        );
        assert_eq!(conf.collections, ["net"]);
        assert_eq!(conf.depends, ["core", "perl", "py", "oe"]);
        assert_eq!(conf.series, ["a", "b"]);
        let unknown = parse("LAYERSERIES_COMPAT_x = \"${LAYERSERIES_CORENAMES}\"\nnonsense\n=\n");
        assert_eq!(unknown, LayerConf::default());
    }

    #[test]
    fn needed_layers_come_first_and_the_order_is_kept_otherwise() {
        let layers = [
            depending("top", "middle core"),
            depending("other", "core"),
            depending("middle", "core"),
            layer("core", CORE),
        ];
        assert_eq!(order(&layers), Ok(vec![3, 1, 2, 0]));
    }

    #[test]
    fn conflicts_name_the_layers() {
        let core = || layer("core", CORE);
        let foreign = layer(
            "old",
            "BBFILE_COLLECTIONS += \"old\"\nLAYERSERIES_COMPAT_old = \"kirkstone\"\n",
        );
        for (layers, text) in [
            (
                vec![core(), depending("a", "missing")],
                "layer a needs the layer with the collection `missing`",
            ),
            (
                vec![core(), foreign],
                "layer old is made for kirkstone, and the core layer of the project is wrynose and blacksail",
            ),
            (
                vec![core(), layer("twice", CORE)],
                "the layers core and twice both have the collection `core`",
            ),
            (
                vec![core(), depending("a", "b"), depending("b", "a")],
                "the layers a and b need each other in a circle",
            ),
        ] {
            let error = order(&layers).unwrap_err().to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }
}
