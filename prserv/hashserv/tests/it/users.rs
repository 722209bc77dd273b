//! Users, their tokens and permissions.

use std::io::Write;

use serde_json::{Value as Json, json};

use super::harness::{Server, database, execute};

struct Farm {
    _directory: tempfile::TempDir,
    server: Server,
}

/// Starts a server without permissions for clients that do not log in.
fn start() -> Farm {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    let mut file = std::fs::File::create(&token).unwrap();
    writeln!(file, "password").unwrap();
    let arguments = [
        "--anonymous",
        "@none",
        "--admin-user",
        "admin",
        "--admin-token-file",
        token.to_str().unwrap(),
    ];
    let server = Server::start_with(database(&directory), &arguments);
    Farm {
        _directory: directory,
        server,
    }
}

impl Farm {
    /// Logs in and sends a request. Returns the reply, or the message of the refusal.
    fn request_as(&self, user: Option<(&str, &str)>, request: &Json) -> Result<Json, String> {
        let mut client = self.server.client();
        let mut send = |request: &Json| {
            let reply = client.request(request).unwrap();
            match reply["invoke-error"]["message"].as_str() {
                Some(message) => Err(message.to_owned()),
                None => Ok(reply),
            }
        };
        if let Some((username, token)) = user {
            send(&json!({"auth": {"username": username, "token": token}}))?;
        }
        send(request)
    }

    fn as_admin(&self, request: &Json) -> Result<Json, String> {
        self.request_as(Some(("admin", "password")), request)
    }

    /// Creates a user and returns the token.
    fn create(&self, username: &str, permissions: &[&str]) -> String {
        let request = json!({"new-user": {"username": username, "permissions": permissions}});
        let reply = self.as_admin(&request).unwrap();
        reply["token"].as_str().unwrap().to_owned()
    }
}

#[test]
fn permissions_are_required_and_named() {
    let farm = start();
    let reader = farm.create("reader", &["@read"]);
    let reader = Some(("reader", reader.as_str()));
    let get = json!({"get": {"method": "m", "taskhash": "t"}});
    assert_eq!(
        farm.request_as(None, &get),
        Err("Anonymous user is not allowed to access permissions(s) @read".into())
    );
    assert_eq!(farm.request_as(reader, &get), Ok(Json::Null));
    let mark = json!({"gc-mark": {"mark": "A", "where": {}}});
    assert_eq!(
        farm.request_as(reader, &mark),
        Err("reader is not allowed to access permissions(s) @db-admin".into())
    );
    assert_eq!(farm.as_admin(&mark), Ok(json!({"count": 0})));
    assert!(farm.request_as(None, &json!({"ping": {}})).is_ok());
}

#[test]
fn a_user_manages_the_own_token_and_nobody_elses() {
    let farm = start();
    let token = farm.create("me", &[]);
    farm.create("you", &[]);
    let refresh = |user: Json| json!({ "refresh-token": user });
    let yours = farm.request_as(Some(("me", &token)), &refresh(json!({"username": "you"})));
    assert!(yours.unwrap_err().contains("@user-admin"));
    let own = farm
        .request_as(Some(("me", &token)), &refresh(json!({})))
        .unwrap();
    let new = own["token"].as_str().unwrap();
    let get = json!({"get-user": {}});
    assert_eq!(
        farm.request_as(Some(("me", &token)), &get),
        Err("Unable to authenticate as me".into())
    );
    assert_eq!(
        farm.request_as(Some(("me", new)), &get),
        Ok(json!({"username": "me", "permissions": []}))
    );
    assert!(farm.request_as(None, &refresh(json!({}))).is_err());
}

#[test]
fn users_are_managed_by_those_who_may() {
    let farm = start();
    farm.create("me", &["@read", "@read", "@none"]);
    let again = json!({"new-user": {"username": "me", "permissions": []}});
    assert_eq!(
        farm.as_admin(&again),
        Err("Cannot create new user 'me'".into())
    );
    let unknown = json!({"set-user-perms": {"username": "me", "permissions": ["@x", "@a"]}});
    assert_eq!(
        farm.as_admin(&unknown),
        Err("Unknown permissions @a, @x".into())
    );
    let users = farm.as_admin(&json!({"get-all-users": {}})).unwrap();
    let all = ["@all", "@db-admin", "@read", "@report", "@user-admin"];
    assert_eq!(
        users,
        json!({"users": [
            {"username": "admin", "permissions": all},
            {"username": "me", "permissions": ["@read"]},
        ]})
    );
    let become_me = json!({"become-user": {"username": "me"}});
    assert_eq!(
        farm.as_admin(&become_me),
        Ok(json!({"username": "me", "permissions": ["@read"]}))
    );
    let delete = json!({"delete-user": {"username": "me"}});
    assert_eq!(farm.as_admin(&delete), Ok(json!({"username": "me"})));
    assert_eq!(
        farm.as_admin(&delete),
        Err("No user named 'me' exists".into())
    );
    assert_eq!(
        farm.as_admin(&json!({"get-user": {"username": "me"}})),
        Ok(Json::Null)
    );
}

#[test]
fn users_of_bitbakes_server_log_in_with_their_tokens() {
    let directory = tempfile::tempdir().unwrap();
    let db = database(&directory);
    drop(Server::start(&db));
    execute(
        &db,
        "INSERT INTO users (username, token, permissions) VALUES ('old',
        'sha256:0011223344556677:bb657d0d40853b19888803dd3e5675479e0cf1925d43fc9c007b575ed0992624',
        '@read @report')",
    );
    let server = Server::start(&db);
    let auth = json!({"auth": {"username": "old", "token": "password"}});
    assert_eq!(
        server.client().request(&auth).unwrap(),
        json!({"result": true, "username": "old", "permissions": ["@read", "@report"]})
    );
}

#[test]
fn clients_without_a_login_cannot_be_made_managers() {
    let output = super::harness::hashserv()
        .args(["serve", "--anonymous", "@all", "--listen", "127.0.0.1:0"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("clients without a login cannot have @all"),
        "{text}"
    );
}
