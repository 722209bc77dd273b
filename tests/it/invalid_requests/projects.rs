//! The invalid requests for releases, layers and projects of BitBake.

use super::{InvalidRequest, JSON};

const RELEASE: &str = "/api/v1/releases/{name}";
const LAYERS: &str = "/api/v1/layers";
const LAYER: &str = "/api/v1/layers/{name}";
const FIXTURES: &str = "/api/v1/layer-sources/fixtures";
const UPDATE: &str = "/api/v1/layer-sources/update";
const PROJECT: &str = "/api/v1/projects/{name}";
const PROJECT_BUILDS: &str = "/api/v1/projects/{name}/builds";
const COMMITS: &str = "/api/v1/projects/{name}/commits";

const BAD_RELEASE: &str = "/api/v1/releases/..%2Fx";
const NO_RELEASE: &str = "/api/v1/releases/none";
const BAD_LAYER: &str = "/api/v1/layers/..%2Fx";
const NO_LAYER: &str = "/api/v1/layers/none";
const BAD_PROJECT: &str = "/api/v1/projects/..%2Fx";
const NO_PROJECT: &str = "/api/v1/projects/none";
const BUILDS_OF_NONE: &str = "/api/v1/projects/none/builds";
const COMMITS_OF_NONE: &str = "/api/v1/projects/none/commits";

/// A release with a layer that does not exist.
const RELEASE_OF_NO_LAYER: &str = r#"{"name": "none", "branch": "a", "layers": ["missing"],
    "bitbake": {"url": "https://git.openembedded.org/bitbake", "reference": "a"}}"#;
/// A layer of a release that does not exist.
const LAYER_OF_NO_RELEASE: &str = r#"{"name": "none", "release": "missing",
    "location": {"url": "https://git.openembedded.org/x", "reference": "a"}}"#;

pub(super) const REQUESTS: &[InvalidRequest] = &[
    ("GET", RELEASE, BAD_RELEASE, "", "", 400),
    ("GET", RELEASE, NO_RELEASE, "", "", 404),
    ("PUT", RELEASE, NO_RELEASE, JSON, "[", 400),
    ("PUT", RELEASE, NO_RELEASE, JSON, RELEASE_OF_NO_LAYER, 404),
    ("PUT", RELEASE, NO_RELEASE, "", "{}", 415),
    ("PUT", RELEASE, NO_RELEASE, JSON, "{}", 422),
    ("DELETE", RELEASE, BAD_RELEASE, "", "", 400),
    ("DELETE", RELEASE, NO_RELEASE, "", "", 404),
    ("GET", LAYERS, "?colour=red", "", "", 400),
    ("GET", LAYER, BAD_LAYER, "", "", 400),
    ("GET", LAYER, NO_LAYER, "", "", 404),
    ("PUT", LAYER, NO_LAYER, JSON, "[", 400),
    ("PUT", LAYER, NO_LAYER, JSON, LAYER_OF_NO_RELEASE, 404),
    ("PUT", LAYER, NO_LAYER, "", "{}", 415),
    ("PUT", LAYER, NO_LAYER, JSON, "{}", 422),
    ("DELETE", LAYER, BAD_LAYER, "", "", 400),
    ("DELETE", LAYER, NO_LAYER, "", "", 404),
    ("POST", FIXTURES, "", JSON, "[", 400),
    ("POST", FIXTURES, "", "", "{}", 415),
    ("POST", FIXTURES, "", JSON, "{}", 422),
    (
        "POST",
        FIXTURES,
        "",
        JSON,
        r#"{"name": "half.xml", "text": "<django-objects>"}"#,
        422,
    ),
    ("POST", UPDATE, "", JSON, "[", 400),
    ("POST", UPDATE, "", "", "{}", 415),
    ("POST", UPDATE, "", JSON, r#"{"colour": "red"}"#, 422),
    ("GET", PROJECT, BAD_PROJECT, "", "", 400),
    ("GET", PROJECT, NO_PROJECT, "", "", 404),
    ("PUT", PROJECT, NO_PROJECT, JSON, "[", 400),
    (
        "PUT",
        PROJECT,
        NO_PROJECT,
        JSON,
        r#"{"release": "missing"}"#,
        404,
    ),
    ("PUT", PROJECT, NO_PROJECT, "", "{}", 415),
    ("PUT", PROJECT, NO_PROJECT, JSON, r#"{"colour": 1}"#, 422),
    ("DELETE", PROJECT, BAD_PROJECT, "", "", 400),
    ("DELETE", PROJECT, NO_PROJECT, "", "", 404),
    ("POST", PROJECT_BUILDS, BUILDS_OF_NONE, JSON, "[", 400),
    ("POST", PROJECT_BUILDS, BUILDS_OF_NONE, JSON, "{}", 404),
    ("POST", PROJECT_BUILDS, BUILDS_OF_NONE, "", "{}", 415),
    ("POST", PROJECT_BUILDS, BUILDS_OF_NONE, JSON, "7", 422),
    ("POST", COMMITS, COMMITS_OF_NONE, JSON, "[", 400),
    (
        "POST",
        COMMITS,
        COMMITS_OF_NONE,
        JSON,
        r#"{"layer": "x", "from": "a"}"#,
        404,
    ),
    ("POST", COMMITS, COMMITS_OF_NONE, "", "{}", 415),
    ("POST", COMMITS, COMMITS_OF_NONE, JSON, "{}", 422),
];
