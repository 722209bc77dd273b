//! The arguments about layers and variables of projects.

use config::layers::{LayerPath, Reference, RepositoryUrl};
use config::projects::{LayerCommit, ProjectLayer, Variable};

/// Parses `NAME`, `NAME=URL`, `NAME=URL@BRANCH` or `NAME=URL@BRANCH:DIR`.
pub(super) fn layer_argument(text: &str) -> Result<ProjectLayer, String> {
    let (name, place) = match text.split_once('=') {
        Some((name, place)) => (name, Some(place)),
        None => (text, None),
    };
    let name = name.parse().map_err(shown)?;
    let Some(place) = place else {
        return Ok(ProjectLayer {
            name,
            url: None,
            reference: None,
            path: None,
        });
    };
    // The `@` of a user is before the last slash or colon of an address.
    let (url, rest) = match place.rsplit_once('@') {
        Some((url, rest)) if is_address(url) => (url, Some(rest)),
        _ => (place, None),
    };
    let (reference, path) = match rest.map(|rest| rest.split_once(':').unwrap_or((rest, ""))) {
        Some((reference, path)) => (Some(reference), Some(path).filter(|path| !path.is_empty())),
        None => (None, None),
    };
    let reference = reference
        .unwrap_or("HEAD")
        .parse::<Reference>()
        .map_err(shown)?;
    Ok(ProjectLayer {
        name,
        url: Some(url.parse::<RepositoryUrl>().map_err(shown)?),
        reference: Some(reference),
        path: path
            .map(str::parse::<LayerPath>)
            .transpose()
            .map_err(shown)?,
    })
}

/// Returns true for a whole address. The part before the `@` of a user is not an address.
fn is_address(text: &str) -> bool {
    text.parse::<RepositoryUrl>().is_ok()
}

/// Parses `NAME=VALUE`.
pub(super) fn variable_argument(text: &str) -> Result<Variable, String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is expected")?;
    Ok(Variable {
        name: name.parse().map_err(shown)?,
        value: value.parse().map_err(shown)?,
    })
}

/// Parses `LAYER=COMMIT`.
pub(super) fn commit_argument(text: &str) -> Result<LayerCommit, String> {
    let (layer, reference) = text.split_once('=').ok_or("LAYER=COMMIT is expected")?;
    Ok(LayerCommit {
        layer: layer.parse().map_err(shown)?,
        reference: reference.parse().map_err(shown)?,
    })
}

/// Returns a layer as it is written as an argument.
pub(super) fn shown_layer(layer: &ProjectLayer) -> String {
    let part = |mark: &str, part: Option<String>| part.map(|it| format!("{mark}{it}"));
    let parts = [
        Some(layer.name.to_string()),
        part("=", layer.url.as_ref().map(ToString::to_string)),
        part("@", layer.reference.as_ref().map(ToString::to_string)),
        part(":", layer.path.as_ref().map(ToString::to_string)),
    ];
    parts.into_iter().flatten().collect()
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is the argument of `map_err`"
)]
fn shown(error: impl ToString) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_has_an_optional_place() {
        for text in [
            "meta-oe",
            "meta-x=https://git.example.org/x@wrynose",
            "meta-x=https://git.example.org/x@wrynose:sub/dir",
            "meta-x=ssh://git@git.example.org/x@main",
            "meta-x=git@git.example.org:x/y@main:meta",
            "meta-x=/srv/x@HEAD",
        ] {
            assert_eq!(shown_layer(&layer_argument(text).unwrap()), text);
        }
        for (text, full) in [
            ("x=/srv/x", "x=/srv/x@HEAD"),
            ("x=git@git.example.org:y", "x=git@git.example.org:y@HEAD"),
            (
                "x=ssh://git@git.example.org/x",
                "x=ssh://git@git.example.org/x@HEAD",
            ),
        ] {
            assert_eq!(shown_layer(&layer_argument(text).unwrap()), full);
        }
        for text in ["", "=x", "x=", "x=--y", "x=/srv/x@-y", "x=/srv/x@y:../z"] {
            layer_argument(text).unwrap_err();
        }
    }

    #[test]
    fn a_variable_has_the_rest_as_its_value() {
        let variable = variable_argument("IMAGE_INSTALL:append= a=b").unwrap();
        assert_eq!(variable.name.as_str(), "IMAGE_INSTALL:append");
        assert_eq!(variable.value.as_str(), " a=b");
        for text in ["X", "=x", "X=a\"b", "X=a\nb"] {
            variable_argument(text).unwrap_err();
        }
    }
}
