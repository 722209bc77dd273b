use config::layers::{Layer, LayerContent, LayerQuery, Recipe};
use config::projects::NewProject;
use jiff::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::Content;
use crate::fixtures::Fixture;
use crate::project;

const INDEX: &str = "https://layers.example.org/layerindex/api/";

fn catalog() -> (TempDir, Catalog) {
    let directory = tempfile::tempdir().unwrap();
    let catalog = Catalog::new(&directory.path().join("layers.sqlite3"));
    catalog.load_fixtures(&[], true, now()).unwrap();
    (directory, catalog)
}

fn now() -> Timestamp {
    "2026-11-30T00:00:00Z".parse().unwrap()
}

fn index() -> SourceKey {
    SourceKey::Index(INDEX.to_owned(), 0)
}

fn layer(name: &str, release: &str, url: &str) -> Layer {
    let text = format!(
        r#"{{"name": "{name}", "release": "{release}", "location": {{"url": "{url}", "reference": "{release}", "path": ""}}}}"#
    );
    serde_json::from_str(&text).unwrap()
}

fn content(layers: &[(&str, &str)]) -> Content {
    let layers = layers.iter().map(|(name, release)| LayerContent {
        layer: layer(name, release, "https://git.example.org/index"),
        machines: Vec::new(),
        distros: Vec::new(),
        recipes: vec![Recipe {
            name: "busybox".to_owned(),
            version: "1".to_owned(),
            summary: String::new(),
            file: "busybox_1.bb".to_owned(),
            image: false,
        }],
    });
    Content {
        layers: layers.collect(),
        ..Content::default()
    }
}

fn put_project(catalog: &Catalog, name: &str, layers: &[&str]) -> Result<bool, CatalogError> {
    let layers: Vec<_> = layers
        .iter()
        .map(|it| format!(r#"{{"name": "{it}"}}"#))
        .collect();
    let text = format!(
        r#"{{"release": "wrynose", "layers": [{}]}}"#,
        layers.join(",")
    );
    let new: NewProject = serde_json::from_str(&text).unwrap();
    let owner = config::builds::Submitter::root();
    let project = project::complete(name.parse().unwrap(), new, None, &[], owner, now()).unwrap();
    catalog.put_project(&project, false)
}

fn names(catalog: &Catalog, search: &str) -> Vec<String> {
    let query = LayerQuery {
        search: Some(search.to_owned()),
        ..LayerQuery::default()
    };
    let layers = catalog.layers(&query).unwrap();
    let shown = |it: &Layer| {
        format!(
            "{} {}{}",
            it.name,
            it.source,
            if it.gone { " gone" } else { "" }
        )
    };
    layers.iter().map(shown).collect()
}

#[test]
fn a_catalog_is_reopened_as_it_was() {
    let (directory, catalog) = catalog();
    let releases = catalog.releases().unwrap();
    assert_eq!(releases.len(), 4);
    let again = Catalog::new(&directory.path().join("layers.sqlite3"));
    assert_eq!(again.releases().unwrap(), releases);
    again
        .write(|it| it.pragma_update(None, "user_version", 99).map(Ok))
        .unwrap();
    let newer = Catalog::new(&directory.path().join("layers.sqlite3"));
    assert!(matches!(
        newer.prepare(),
        Err(CatalogError::Newer { found: 99, .. })
    ));
}

#[test]
fn the_source_of_the_lowest_rank_decides() {
    let (_directory, catalog) = catalog();
    catalog
        .replace(
            &index(),
            &content(&[("openembedded-core", "wrynose")]),
            "",
            now(),
        )
        .unwrap();
    let wrynose = "wrynose".parse().unwrap();
    let name = "openembedded-core".parse().unwrap();
    let source = || {
        catalog
            .find_layer(&name, Some(&wrynose))
            .unwrap()
            .unwrap()
            .source
    };
    assert_eq!(source(), INDEX);
    catalog
        .add_layer(&layer("openembedded-core", "wrynose", "/srv/oe"))
        .unwrap();
    assert_eq!(source(), "added");
    catalog.remove_layer(&name, Some(&wrynose)).unwrap();
    assert_eq!(source(), INDEX);
    let error = catalog
        .remove_layer(&name, Some(&wrynose))
        .unwrap_err()
        .to_string();
    assert!(error.contains("only what was added by hand"), "{error}");
}

#[test]
fn a_layer_that_left_its_index_stays_while_a_project_has_it() {
    let (_directory, catalog) = catalog();
    let both = content(&[
        ("meta-a", "wrynose"),
        ("meta-b", "wrynose"),
        ("meta-b", "master"),
    ]);
    let replaced = catalog.replace(&index(), &both, "", now()).unwrap();
    assert_eq!((replaced.layers, replaced.left), (3, 0));
    put_project(&catalog, "p", &["meta-b"]).unwrap();
    let none = content(&[("meta-c", "wrynose")]);
    let replaced = catalog.replace(&index(), &none, "", now()).unwrap();
    assert_eq!((replaced.layers, replaced.left), (1, 3));
    let shown = |name: &str| format!("{name} {INDEX}");
    assert_eq!(
        names(&catalog, "meta-b"),
        [format!("{} gone", shown("meta-b"))]
    );
    assert_eq!(names(&catalog, "meta-a"), Vec::<String>::new());
    // It is counted once, and comes back as it was.
    assert_eq!(catalog.replace(&index(), &none, "", now()).unwrap().left, 0);
    catalog.replace(&index(), &both, "", now()).unwrap();
    assert_eq!(
        names(&catalog, "meta-b"),
        [shown("meta-b"), shown("meta-b")]
    );
    catalog.replace(&index(), &none, "", now()).unwrap();
    catalog.remove_project(&"p".parse().unwrap()).unwrap();
    assert_eq!(names(&catalog, "meta-b"), Vec::<String>::new());
}

#[test]
fn a_project_names_layers_that_there_are() {
    let (_directory, catalog) = catalog();
    assert!(put_project(&catalog, "p", &["openembedded-core"]).unwrap());
    let error = put_project(&catalog, "q", &["meta-none"])
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("there is no layer meta-none"), "{error}");
    assert!(matches!(
        put_project(&catalog, "p", &["openembedded-core"]),
        Err(CatalogError::ProjectExists(_))
    ));
    assert_eq!(catalog.projects().unwrap().len(), 1);
}

#[test]
fn what_a_project_needs_is_not_removed() {
    let (_directory, catalog) = catalog();
    catalog
        .add_layer(&layer("meta-own", "wrynose", "/srv/own"))
        .unwrap();
    put_project(&catalog, "p", &["meta-own"]).unwrap();
    let (name, wrynose) = ("meta-own".parse().unwrap(), "wrynose".parse().unwrap());
    let error = catalog
        .remove_layer(&name, Some(&wrynose))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "layer meta-own is needed by the projects p; change them first"
    );
    assert_eq!(names(&catalog, "meta-own"), ["meta-own added"]);
    let unknown = layer("x", "none", "/srv/x");
    assert!(matches!(
        catalog.add_layer(&unknown),
        Err(CatalogError::NoRelease(_))
    ));
}

#[test]
fn a_fixture_with_a_fault_changes_nothing() {
    let (_directory, catalog) = catalog();
    let fixture = |text: &str| Fixture {
        name: "custom.xml".to_owned(),
        text: text.to_owned(),
    };
    let setting = r#"<django-objects version="1.0"><object model="orm.toastersetting" pk="4"><field name="name">DEFCONF_MACHINE</field><field name="value">own</field></object></django-objects>"#;
    catalog
        .load_fixtures(&[fixture(setting)], false, now())
        .unwrap();
    let machine = || {
        let settings = catalog.settings().unwrap();
        settings
            .into_iter()
            .find(|it| it.name == "DEFCONF_MACHINE")
            .unwrap()
            .value
    };
    assert_eq!(machine(), "own");
    let half = fixture(&setting[..setting.len() - 10]);
    let error = catalog.load_fixtures(&[half], false, now()).unwrap_err();
    assert!(matches!(error, CatalogError::Fixtures(_)), "{error}");
    assert_eq!(machine(), "own");
    // The directory of the settings is empty, and what was loaded by hand stays.
    catalog.load_fixtures(&[], true, now()).unwrap();
    assert_eq!(machine(), "own");
}

#[test]
fn a_source_keeps_the_fault_of_its_last_update() {
    let (_directory, catalog) = catalog();
    catalog
        .replace(&index(), &content(&[("a", "wrynose")]), "mark", now())
        .unwrap();
    assert_eq!(catalog.mark(&index()).unwrap(), "mark");
    let later = now() + jiff::SignedDuration::from_hours(1);
    catalog
        .record_update(&index(), "unreachable", later)
        .unwrap();
    let source = || {
        let sources = catalog.sources().unwrap();
        sources.into_iter().find(|it| it.name == INDEX).unwrap()
    };
    assert_eq!(
        (source().fault.as_str(), source().updated),
        ("unreachable", Some(now()))
    );
    catalog.record_update(&index(), "", later).unwrap();
    assert_eq!(
        (source().fault.as_str(), source().updated),
        ("", Some(later))
    );
    assert_eq!(source().layers, 1);
}

#[test]
fn an_archive_has_the_origin_that_the_host_gave_it() {
    let (_directory, catalog) = catalog();
    let origin = Origin {
        url: "https://git.example.org/x".parse().unwrap(),
        commit: "1".repeat(40).parse().unwrap(),
    };
    let hash = "a".repeat(64).parse().unwrap();
    assert_eq!(catalog.origin(&hash).unwrap(), None);
    catalog.add_archive(&hash, &origin, "x").unwrap();
    assert_eq!(catalog.origin(&hash).unwrap(), Some(origin.clone()));
    assert_eq!(catalog.archive_of(&origin, "x").unwrap(), Some(hash));
    assert_eq!(catalog.archive_of(&origin, "y").unwrap(), None);
}

#[test]
fn a_row_that_cannot_be_read_does_not_hide_the_others() {
    let (directory, catalog) = catalog();
    for name in ["one", "two", "three"] {
        put_project(&catalog, name, &[]).unwrap();
    }
    let (releases, layers) = (catalog.releases().unwrap(), names(&catalog, ""));
    assert_eq!(catalog.unreadable().unwrap(), []);
    let path = directory.path().join("layers.sqlite3");
    let other = rusqlite::Connection::open(path).unwrap();
    for (table, name) in [
        ("projects", "two"),
        ("releases", releases[0].name.as_str()),
        ("layers", layers[0].split(' ').next().unwrap()),
    ] {
        let sql = format!("UPDATE {table} SET content = '{{\"format\": 9}}' WHERE name = ?1");
        assert!(other.execute(&sql, [name]).unwrap() > 0, "{name}");
    }
    let projects = catalog.projects().unwrap();
    let shown: Vec<_> = projects.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(shown, ["one", "three"]);
    assert_eq!(catalog.releases().unwrap(), releases[1..]);
    assert!(names(&catalog, "").len() < layers.len());
    let unreadable = catalog.unreadable().unwrap();
    assert_eq!(unreadable[0].0, "project two");
    assert!(unreadable[0].1.contains("unknown field"), "{unreadable:?}");
    assert!(catalog.project(&"two".parse().unwrap()).is_err());
    catalog.remove_project(&"two".parse().unwrap()).unwrap();
}

#[test]
fn a_removed_project_keeps_its_number() {
    let (_directory, catalog) = catalog();
    let (camera, gateway) = ("camera".parse().unwrap(), "gateway".parse().unwrap());
    for name in ["camera", "gateway"] {
        put_project(&catalog, name, &[]).unwrap();
    }
    let id_of = |name| catalog.project(name).unwrap().id;
    let id = id_of(&camera);
    assert_ne!(id, id_of(&gateway));
    let listed: Vec<_> = catalog.projects().unwrap().iter().map(|it| it.id).collect();
    assert_eq!(listed, [id, id_of(&gateway)]);
    catalog.remove_project(&camera).unwrap();
    assert_eq!(catalog.project_with_id(id).unwrap(), Some(camera.clone()));
    put_project(&catalog, "camera", &[]).unwrap();
    assert_eq!(id_of(&camera), id);
    assert_eq!(catalog.project_with_id(77).unwrap(), None);
}
