//! The agent's PR service, the rights of its clients, and the packages whose revisions
//! another server assigns.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::settings::{PackageRoute, Pr, PrMode};
use config::task::Package;
use config::text::printable;
use prserv::access::{Access, Requests, Rights, Token, UnknownTuple, Writers};
use prserv::client::{
    Client, ClientError, MalformedToken, Proxies, RetryPolicy, Target, TargetError,
    Token as ClientToken,
};
use prserv::host_names::HostNames;
use prserv::server::Limits;
use prserv::session::{AuthorizedService, RequestError};
use prserv::{History, OpenOptions, Peer, Server, Service, Tuple};
use tokio::sync::Semaphore;
use wildmatch::WildMatch;

/// The connections of a guest to the PR service, at all addresses of its gateway.
const GUEST_CONNECTIONS_MAX: usize = 16;

/// The error that a package has no revision.
#[derive(Debug, thiserror::Error)]
#[error("no PR service assigned a revision to {}", printable(.version))]
pub struct RevisionError {
    version: String,
    source: Cause,
}

impl RevisionError {
    /// Returns true if the service answered that the package gets no revision, so that another
    /// request would fail as well.
    pub fn is_refusal(&self) -> bool {
        matches!(&self.source, Cause::Local(RequestError::NotRecorded { .. }))
    }
}

/// The failure of the PR service that the settings name for a package.
#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Local(#[from] RequestError),
    #[error("the server {server} failed")]
    Remote { server: String, source: ClientError },
    #[error(transparent)]
    Address(#[from] TargetError),
    #[error("cannot use the token in {}", path.display())]
    Token { path: PathBuf, source: io::Error },
}

/// Returns the options to open the PR service.
///
/// # Errors
/// The setting `pr.proxy` or `pr.upstream` is invalid.
pub fn options(pr: &Pr) -> Result<OpenOptions, TargetError> {
    let mut options = OpenOptions::new(pr.database.as_str()).read_only(pr.mode == PrMode::ReadOnly);
    let target = |server: &String| Target::parse(server, &Proxies::chosen(pr.proxy.as_deref())?);
    options.audit_log.clone_from(&pr.audit_log);
    options.upstream = pr.upstream.as_ref().map(target).transpose()?;
    Ok(options)
}

/// Returns a server of the PR service for clients on the network, with their rights.
///
/// # Errors
/// The tokens cannot be read.
pub fn server(service: Service, pr: &Pr) -> io::Result<Server> {
    let writers = match &pr.writers[..] {
        [] => Writers::Anyone,
        networks => Writers::Networks(networks.to_vec()),
    };
    let mut access = access(pr, writers);
    access.host_names = HostNames::of_system(&pr.allowed_hosts, &pr.listen);
    if let Some(path) = &pr.token_file {
        let text = sys::trusted::read_text(path)?;
        access.tokens = Token::parse_file(&text).map_err(io::Error::other)?;
    }
    let limits = Limits {
        connections_max: pr.connections_max,
        connections_per_peer_max: pr.connections_per_peer_max,
        ..Limits::default()
    };
    Ok(Server::new(service).with_access(access).with_limits(limits))
}

/// Returns a server of the PR service for a guest, which is logged under `name`. It answers only
/// queries: a guest can neither choose values nor read the rows of other builds.
pub fn server_for_guest(service: Service, pr: &Pr, name: &str) -> Server {
    let mut access = access(pr, Writers::Anyone);
    access.requests = Requests::Queries;
    Server::new(service)
        .with_access(access)
        .with_limits(Limits::of_one_peer(GUEST_CONNECTIONS_MAX))
        .with_peer_name(name)
}

fn access(pr: &Pr, writers: Writers) -> Access {
    Access {
        writers: match pr.mode {
            PrMode::Lockdown => Writers::None,
            PrMode::ReadWrite | PrMode::ReadOnly => writers,
        },
        unknown: pr
            .unknown
            .clone()
            .map_or(UnknownTuple::Refuse, UnknownTuple::Fallback),
        tokens: Vec::new(),
        requests: Requests::All,
        host_names: HostNames::default(),
    }
}

/// Returns the revision of a package: that of its recipe, followed by the value of a PR
/// service unless the settings exempt the package.
///
/// # Errors
/// The PR service for this package assigns no value.
pub async fn revision(
    service: &Service,
    pr: &Pr,
    package: &Package,
) -> Result<String, RevisionError> {
    let version = package.pr_version();
    let tuple = Tuple::new(&version, &package.architecture, &package.checksum);
    let value = match route(pr, &package.name) {
        None => local_value(service, pr, &tuple).await,
        Some(PackageRoute {
            server: Some(server),
            ..
        }) => remote_value(pr, server, &tuple).await,
        Some(PackageRoute { server: None, .. }) => return Ok(package.recipe_revision.clone()),
    };
    match value {
        Ok(value) => Ok(format!("{}.{value}", package.recipe_revision)),
        Err(source) => Err(RevisionError { version, source }),
    }
}

/// Requests a value from the agent's service, within the rights of its mode.
async fn local_value(service: &Service, pr: &Pr, tuple: &Tuple) -> Result<String, Cause> {
    let mut peer = Peer::new("the agent");
    if pr.mode == PrMode::Lockdown {
        peer.rights = Rights::Read;
    }
    let service = AuthorizedService {
        service: service.clone(),
        access: Arc::new(access(pr, Writers::Anyone)),
        peer,
        quit: None,
        exports: Arc::new(Semaphore::new(0)),
    };
    let answer = service.get_pr(tuple, History::Ignore).await?;
    Ok(answer.as_str().to_owned())
}

/// Returns the route of a package; `None` for the agent's service.
fn route<'p>(pr: &'p Pr, package: &str) -> Option<&'p PackageRoute> {
    pr.elsewhere
        .iter()
        .find(|route| WildMatch::new(&route.pattern).matches(package))
}

/// Requests a value from another server.
async fn remote_value(pr: &Pr, server: &str, tuple: &Tuple) -> Result<String, Cause> {
    let target = Target::parse(server, &Proxies::chosen(pr.proxy.as_deref())?)?;
    let token = pr
        .client_token_file
        .as_deref()
        .map(read_token)
        .transpose()?;
    let mut client = Client::new(target, RetryPolicy::default()).with_token(token);
    let value = client.get_pr(tuple, History::Ignore).await;
    value.map_err(|source| Cause::Remote {
        server: server.to_owned(),
        source,
    })
}

/// Reads the token for other servers.
fn read_token(path: &Path) -> Result<ClientToken, Cause> {
    let failed = |source| Cause::Token {
        path: path.to_owned(),
        source,
    };
    let text = sys::trusted::read_text(path).map_err(failed)?;
    text.parse()
        .map_err(|error| failed(io::Error::other::<MalformedToken>(error)))
}

#[cfg(test)]
mod tests {
    use config::settings::Settings;
    use prserv::Value;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    fn package(name: &str) -> Package {
        Package {
            file: "x.ipk".parse().unwrap(),
            name: name.to_owned(),
            version: "1.0".into(),
            recipe_revision: "r0".into(),
            architecture: "all".into(),
            checksum: "c".into(),
            told_revision: None,
        }
    }

    fn service(directory: &tempfile::TempDir, name: &str) -> Service {
        Service::open(&OpenOptions::new(
            directory.path().join(name).display().to_string().as_str(),
        ))
        .unwrap()
    }

    #[tokio::test]
    async fn the_settings_select_the_server_for_each_package() {
        let directory = tempfile::tempdir().unwrap();
        let (local, remote) = (service(&directory, "local"), service(&directory, "remote"));
        let value = "41".parse().unwrap();
        remote
            .import_one(&Tuple::new("linux-rt-1.0-r0", "all", "other"), &value)
            .await
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(prserv::serve(remote, listener, std::future::pending()));
        let text = format!(
            "pr.elsewhere = [\"test-* = none\", \"linux-* = {address}\"]\npr.proxy = \"none\"\n"
        );
        let pr = Settings::parse(&text).unwrap().pr;
        let mut revisions = Vec::new();
        for name in ["hello", "linux-rt", "test-linux"] {
            revisions.push(revision(&local, &pr, &package(name)).await.unwrap());
        }
        assert_eq!(revisions, ["r0.0", "r0.42", "r0"]);
    }

    #[tokio::test]
    async fn in_lockdown_a_package_gets_its_recorded_value_or_the_fallback() {
        let directory = tempfile::tempdir().unwrap();
        let service = service(&directory, "local");
        let known = package("known");
        let value = "7".parse().unwrap();
        let tuple = Tuple::new(known.pr_version(), "all", "c");
        service.import_one(&tuple, &value).await.unwrap();
        let pr = Settings::parse("pr.mode = \"lockdown\"\npr.unknown = \"custom\"\n");
        let pr = pr.unwrap().pr;
        assert_eq!(revision(&service, &pr, &known).await.unwrap(), "r0.7");
        let new = package("new");
        assert_eq!(revision(&service, &pr, &new).await.unwrap(), "r0.custom");
        let pr = Settings::parse("pr.mode = \"lockdown\"\n").unwrap().pr;
        let error = revision(&service, &pr, &new).await.unwrap_err();
        let message = sys::error_report::chain(&error);
        assert!(message.contains("this client may not write"), "{message}");
    }

    /// Sends bytes on a connection of its own and returns the whole reply.
    async fn exchange(address: std::net::SocketAddr, bytes: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.unwrap();
        String::from_utf8(reply).unwrap()
    }

    fn http(method: &str, path: &str, kind: &str, body: &str) -> String {
        let length = body.len();
        format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
             Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    }

    fn xmlrpc(method: &str, params: &[&str]) -> String {
        let params = params.join("</value></param><param><value>");
        let params = match &params[..] {
            "" => String::new(),
            values => format!("<param><value>{values}</value></param>"),
        };
        let call = format!(
            "<methodCall><methodName>{method}</methodName><params>{params}</params></methodCall>"
        );
        http("POST", "/", "text/xml", &call)
    }

    #[tokio::test]
    async fn a_guest_gets_answers_to_queries_and_to_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let service = service(&directory, "local");
        let tuple = Tuple::new("v", "all", "other");
        let value: Value = "7".parse().unwrap();
        service.import_one(&tuple, &value).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pr = Settings::parse("").unwrap().pr;
        let (sender, mut activity) = tokio::sync::mpsc::unbounded_channel();
        let observer = sys::observer::Observer::new(move || {
            let _ = sender.send(());
        });
        let server = server_for_guest(service.clone(), &pr, "guest").with_observer(observer);
        tokio::spawn(server.serve(listener, std::future::pending()));

        let json = |request: &str| format!("PRSERVICE 1.0\n\n{request}\n");
        let tuple_of =
            |checksum| format!(r#""version": "v", "pkgarch": "all", "checksum": "{checksum}""#);
        let (known, row) = (tuple_of("other"), r#""value": "99999""#);
        let queries = [
            (json(r#"{"ping": {}}"#), "\"alive\": true"),
            (json(r#"{"is-readonly": {}}"#), "\"readonly\": false"),
            (json(&format!(r#"{{"test-pr": {{{known}}}}}"#)), "\"7\""),
            (
                json(r#"{"max-package-pr": {"version": "v", "pkgarch": "all"}}"#),
                "\"7\"",
            ),
            (
                json(r#"{"test-package": {"version": "v", "pkgarch": "all"}}"#),
                "true",
            ),
            (
                json(&format!(r#"{{"get-pr": {{{}}}}}"#, tuple_of("new"))),
                "\"8\"",
            ),
            (xmlrpc("ping", &[]), "<boolean>1</boolean>"),
            (xmlrpc("getPR", &["v", "all", "next"]), "<int>9</int>"),
            (
                http("GET", "/api/v1/packages?version=v&pkgarch=all", "", ""),
                "\"9\"",
            ),
        ];
        for (request, expected) in queries {
            let reply = exchange(address, &request).await;
            assert!(reply.contains(expected), "{request}\n{reply}");
            assert!(activity.try_recv().is_ok(), "{request} is activity");
            while activity.try_recv().is_ok() {}
        }
        let body = format!("{{{known}, {row}}}");
        let refused = [
            json(&format!(r#"{{"import-one": {{{known}, {row}}}}}"#)),
            json(
                r#"{"export": {"version": null, "pkgarch": null, "checksum": null, "colinfo": true}}"#,
            ),
            xmlrpc("importone", &["v", "all", "c", "<int>99999</int>"]),
            xmlrpc("export", &[]),
            xmlrpc("dump_db", &[]),
            http("PUT", "/api/v1/pr", "application/json", &body),
            http("GET", "/api/v1/rows", "", ""),
            http("GET", "/metrics", "", ""),
        ];
        for request in refused {
            let reply = exchange(address, &request).await;
            assert!(reply.contains("does not answer"), "{request}\n{reply}");
            assert!(!reply.contains("other"), "{request}\n{reply}");
        }
        let max = service.max_package_pr(&tuple.package).await.unwrap();
        assert_eq!(max, Some("9".parse().unwrap()));
    }

    #[tokio::test]
    async fn the_error_names_a_server_that_does_not_answer() {
        let directory = tempfile::tempdir().unwrap();
        let text = "pr.elsewhere = [\"* = 127.0.0.1:1\"]\npr.proxy = \"none\"\n";
        let pr = Settings::parse(text).unwrap().pr;
        let error = revision(&service(&directory, "local"), &pr, &package("hello"))
            .await
            .unwrap_err();
        let message = sys::error_report::chain(&error);
        assert!(
            message.contains("hello-1.0-r0: the server 127.0.0.1:1 failed"),
            "{message}"
        );
    }
}
