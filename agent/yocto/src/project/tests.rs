use super::*;
use crate::releases::built_in;

fn release() -> Release {
    let content = built_in().unwrap();
    content
        .releases
        .into_iter()
        .find(|it| it.name.as_str() == "wrynose")
        .unwrap()
}

fn known() -> BTreeMap<LayerName, Layer> {
    let layers = built_in().unwrap().layers.into_iter().map(|it| it.layer);
    let of_release = layers.filter(|it| it.release == Some(release().name));
    of_release.map(|it| (it.name.clone(), it)).collect()
}

fn new(text: &str) -> NewProject {
    serde_json::from_str(text).unwrap()
}

fn completed(text: &str) -> Result<Project, ProjectFault> {
    let settings = built_in().unwrap().settings;
    let (name, owner) = ("p".parse().unwrap(), Submitter::root());
    let now = Timestamp::UNIX_EPOCH;
    complete(name, new(text), Some(&release()), &settings, owner, now)
}

#[test]
fn a_project_begins_with_the_defaults_of_its_release() {
    let text = r#"{"release": "wrynose", "defaults": true,
        "layers": [{"name": "meta-x", "url": "/srv/x", "reference": "HEAD"},
                   {"name": "meta-poky", "reference": "next"}],
        "variables": [{"name": "MACHINE", "value": "qemuarm64"}]}"#;
    let project = completed(text).unwrap();
    let names: Vec<_> = project.layers.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(
        names,
        ["openembedded-core", "meta-poky", "meta-yocto-bsp", "meta-x"]
    );
    let variables: Vec<_> = project
        .variables
        .iter()
        .map(|it| format!("{}={}", it.name, it.value))
        .collect();
    assert_eq!(variables, ["DISTRO=poky", "MACHINE=qemuarm64"]);
    let places = places(&project, Some(&release()), &known(), &[]).unwrap();
    let shown: Vec<_> = places
        .layers
        .iter()
        .map(|(name, it)| format!("{name} {} {} {}", it.url, it.reference, it.path))
        .collect();
    assert_eq!(
        shown,
        [
            "openembedded-core https://git.openembedded.org/openembedded-core wrynose meta",
            "meta-poky https://git.yoctoproject.org/meta-yocto next meta-poky",
            "meta-yocto-bsp https://git.yoctoproject.org/meta-yocto wrynose meta-yocto-bsp",
            "meta-x /srv/x HEAD ",
        ]
    );
}

#[test]
fn faults_name_the_thing_and_the_remedy() {
    let twice = r#"{"release": "wrynose", "layers": [{"name": "a"}, {"name": "a"}]}"#;
    let nowhere = r#"{"layers": [{"name": "a"}]}"#;
    let half = r#"{"bitbake": {"url": "/b", "reference": "HEAD"}, "layers": [{"name": "a", "url": "/a"}]}"#;
    for (text, reason) in [
        (twice, "names the layer a twice"),
        (nowhere, "BitBake has no repository"),
        (half, "the layer a has no repository"),
    ] {
        let fault = completed(text).unwrap_err().to_string();
        assert!(fault.contains(reason), "{fault}");
    }
    let project = completed(r#"{"release": "wrynose", "layers": [{"name": "a"}]}"#).unwrap();
    let fault = places(&project, Some(&release()), &known(), &[]).unwrap_err();
    let text = fault.to_string();
    assert!(
        text.starts_with("there is no layer a of release wrynose"),
        "{text}"
    );
}

#[test]
fn a_commit_of_a_layer_is_that_of_its_repository() {
    let project = completed(r#"{"release": "wrynose", "defaults": true}"#).unwrap();
    let at = |layer: &str| LayerCommit {
        layer: layer.parse().unwrap(),
        reference: "bad".parse().unwrap(),
    };
    let places = |at: &[LayerCommit]| places(&project, Some(&release()), &known(), at);
    let moved = places(&[at("meta-poky")]).unwrap();
    let references: Vec<_> = moved
        .layers
        .iter()
        .map(|(_, it)| it.reference.as_str())
        .collect();
    assert_eq!(references, ["wrynose", "bad", "bad"]);
    assert_eq!(
        places(&[at("x")]),
        Err(ProjectFault::Unknown("x".parse().unwrap()))
    );
}

#[test]
fn each_commit_of_a_repository_is_one_archive() {
    let place = |url: &str, commit: &str| (url.parse().unwrap(), commit.parse().unwrap());
    let (found, indexes) = repositories(&[
        place("https://a.example.org/meta.git", "1"),
        place("https://b.example.org/meta", "1"),
        place("https://a.example.org/meta.git", "1"),
        place("https://a.example.org/meta.git", "2"),
        place("/srv/_x", "1"),
    ]);
    let names: Vec<_> = found.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["meta", "meta-2", "meta-3", "repository_x"]);
    assert_eq!(indexes, [0, 1, 0, 2, 3]);
}
