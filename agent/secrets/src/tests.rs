//! Tests of the store in real directories.

use super::*;

struct Fixture {
    store: SecretStore,
    directory: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = SecretStore::new(&directory.path().join("secrets"));
        Self { store, directory }
    }

    fn add(&self, name: &str, value: &str, replace: bool) -> Result<(Secret, bool), SecretsError> {
        let new = NewSecret {
            value: SecretValue::new(value.into()).unwrap(),
            submitters: vec![submitter("bob"), submitter("alice"), submitter("bob")],
            replace,
        };
        let now = Timestamp::UNIX_EPOCH;
        self.store.add(secret(name), new, Submitter::root(), now)
    }

    fn value(&self, name: &str, of: &str) -> Result<String, SecretsError> {
        let values = self.store.values(&[secret(name)], &submitter(of))?;
        Ok(String::from_utf8_lossy(values[0].1.bytes()).into_owned())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join("secrets").join(name)
    }
}

fn secret(name: &str) -> SecretName {
    name.parse().unwrap()
}

fn submitter(name: &str) -> Submitter {
    name.parse().unwrap()
}

#[test]
fn a_secret_is_added_replaced_and_deleted() {
    let fixture = Fixture::new();
    let (added, is_new) = fixture.add("key", "password one", false).unwrap();
    assert_eq!(added.submitters, [submitter("alice"), submitter("bob")]);
    assert!(is_new);
    let exists = fixture.add("key", "password two", false);
    assert!(matches!(exists, Err(SecretsError::Exists(_))));
    assert_eq!(fixture.value("key", "alice").unwrap(), "password one");
    let (_, is_new) = fixture.add("key", "password two", true).unwrap();
    assert!(!is_new);
    // Another agent reads what this one has written.
    let again = SecretStore::new(&fixture.store.path);
    again.prepare().unwrap();
    assert_eq!(again.list().unwrap(), fixture.store.list().unwrap());
    assert_eq!(fixture.value("key", "root").unwrap(), "password two");
    assert!(fixture.store.delete(&secret("key")).unwrap());
    assert!(!fixture.store.delete(&secret("key")).unwrap());
    assert_eq!(fixture.store.list().unwrap(), []);
}

#[test]
fn a_secret_is_refused_to_those_whom_it_does_not_name() {
    let fixture = Fixture::new();
    fixture.add("key", "password one", false).unwrap();
    let error = fixture.value("key", "eve").unwrap_err();
    assert!(matches!(error, SecretsError::Forbidden { .. }), "{error}");
    let error = fixture.value("other", "root").unwrap_err();
    assert!(matches!(error, SecretsError::Missing(_)), "{error}");
}

#[test]
fn only_root_reads_the_files() {
    let fixture = Fixture::new();
    fixture.add("key", "password one", false).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&fixture.store.path), 0o700);
    assert_eq!(mode(&fixture.file("key")), 0o600);
    assert_eq!(fixture.store.open_files().unwrap(), []);
    fs::set_permissions(fixture.file("key"), fs::Permissions::from_mode(0o640)).unwrap();
    let open = [(fixture.file("key"), 0o640)];
    assert_eq!(fixture.store.open_files().unwrap(), open);
    let error = fixture.value("key", "root").unwrap_err();
    assert!(matches!(
        error,
        SecretsError::Permissions { mode: 0o640, .. }
    ));
}

#[test]
fn what_a_crash_left_is_removed_and_other_files_stay() {
    let fixture = Fixture::new();
    fixture.store.prepare().unwrap();
    let (unfinished, other) = (fixture.file(".tmpX1y2Z3"), fixture.file("~README"));
    for path in [&unfinished, &other] {
        sys::file::replace(path, b"password one").unwrap();
    }
    fixture.store.prepare().unwrap();
    assert!(!unfinished.exists() && other.exists());
    assert_eq!(fixture.store.list().unwrap(), []);
}

#[test]
fn the_error_of_a_damaged_file_does_not_show_its_content() {
    let fixture = Fixture::new();
    fixture.add("key", "password one", false).unwrap();
    let text = r#"{"name": "key", "for": [], "by": "root", "value": "password one"}"#;
    sys::file::replace(&fixture.file("key"), text.as_bytes()).unwrap();
    let error = fixture.value("key", "root").unwrap_err().to_string();
    assert!(
        error.contains("secrets/key") && !error.contains("password"),
        "{error}"
    );
    fixture.add("one", "password one", false).unwrap();
    fs::rename(fixture.file("one"), fixture.file("two")).unwrap();
    let error = fixture.value("two", "root").unwrap_err().to_string();
    assert!(error.contains("another secret"), "{error}");
}
