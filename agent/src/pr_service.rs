//! The revisions of packages: our own PR service, who may ask it, and the packages
//! that another server numbers.

use std::io;
use std::sync::Arc;

use config::settings::{PackageRoute, Pr, PrMode};
use config::task::Package;
use prserv::access::{Access, Rights, Token, UnknownTuple, Writers};
use prserv::client::{Client, ClientError, Proxies, RetryPolicy, Target, TargetError};
use prserv::session::{AuthorizedService, RequestError};
use prserv::{History, OpenOptions, Peer, Server, Service, Tuple};
use wildmatch::WildMatch;

/// Why a package has no revision.
#[derive(Debug, thiserror::Error)]
#[error("no PR service gave a revision for {version}")]
pub struct RevisionError {
    version: String,
    source: Cause,
}

/// Who failed.
#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Ours(#[from] RequestError),
    #[error("the server {server} failed")]
    Theirs { server: String, source: ClientError },
    #[error(transparent)]
    Address(#[from] TargetError),
}

/// How our PR service is opened.
///
/// # Errors
/// When a proxy cannot be understood.
pub fn options(pr: &Pr) -> Result<OpenOptions, TargetError> {
    let mut options = OpenOptions::new(pr.database.as_str()).read_only(pr.mode == PrMode::ReadOnly);
    let target = |server: &String| Target::parse(server, &proxies(pr)?);
    options.upstream = pr.upstream.as_ref().map(target).transpose()?;
    Ok(options)
}

/// Our PR service for those outside of guests, with the rights that they have.
///
/// # Errors
/// When the tokens cannot be read.
pub fn server(service: Service, pr: &Pr) -> io::Result<Server> {
    let writers = match &pr.writers[..] {
        [] => Writers::Anyone,
        networks => Writers::Networks(networks.to_vec()),
    };
    let mut access = access(pr, writers);
    if let Some(path) = &pr.token_file {
        let text = std::fs::read_to_string(path)?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        access.tokens = lines.map(Token::new).collect();
    }
    Ok(Server::new(service).with_access(access))
}

/// Our PR service for a guest, which our log calls by a name.
pub fn server_for_guest(service: Service, pr: &Pr, name: &str) -> Server {
    let access = access(pr, Writers::Anyone);
    Server::new(service)
        .with_access(access)
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
    }
}

/// The revision of a package: the one in its recipe and, unless the settings say
/// that nobody numbers it, the value that a PR service gives it.
///
/// # Errors
/// When the server that numbers it gives no value.
pub async fn revision(
    service: &Service,
    pr: &Pr,
    package: &Package,
) -> Result<String, RevisionError> {
    let version = package.pr_version();
    let tuple = Tuple::new(&version, &package.architecture, &package.checksum);
    let value = match numbered_by(pr, &package.name) {
        None => ask_ours(service, pr, &tuple).await,
        Some(PackageRoute {
            server: Some(server),
            ..
        }) => ask_theirs(pr, server, &tuple).await,
        Some(PackageRoute { server: None, .. }) => return Ok(package.recipe_revision.clone()),
    };
    match value {
        Ok(value) => Ok(format!("{}.{value}", package.recipe_revision)),
        Err(source) => Err(RevisionError { version, source }),
    }
}

/// Asks our own service, within the rights that its mode leaves us.
async fn ask_ours(service: &Service, pr: &Pr, tuple: &Tuple) -> Result<String, Cause> {
    let mut peer = Peer::new("the agent");
    if pr.mode == PrMode::Lockdown {
        peer.rights = Rights::Read;
    }
    let service = AuthorizedService {
        service: service.clone(),
        access: Arc::new(access(pr, Writers::Anyone)),
        peer,
        quit: None,
    };
    let answer = service.get_pr(tuple, History::Ignore).await?;
    Ok(answer.as_str().to_owned())
}

/// Who numbers a package, when it is not us.
fn numbered_by<'p>(pr: &'p Pr, package: &str) -> Option<&'p PackageRoute> {
    pr.elsewhere
        .iter()
        .find(|elsewhere| WildMatch::new(&elsewhere.pattern).matches(package))
}

async fn ask_theirs(pr: &Pr, server: &str, tuple: &Tuple) -> Result<String, Cause> {
    let target = Target::parse(server, &proxies(pr)?)?;
    let mut client = Client::new(target, RetryPolicy::default());
    let value = client.get_pr(tuple, History::Ignore).await;
    value.map_err(|source| Cause::Theirs {
        server: server.to_owned(),
        source,
    })
}

fn proxies(pr: &Pr) -> Result<Proxies, TargetError> {
    match &pr.proxy {
        Some(proxy) => Proxies::fixed(proxy),
        None => Proxies::from_environment(|name| std::env::var(name).ok()),
    }
}

#[cfg(test)]
mod tests {
    use config::settings::Settings;
    use tokio::net::TcpListener;

    use super::*;

    fn package(name: &str) -> Package {
        Package {
            file: "x.ipk".parse().unwrap(),
            name: name.to_owned(),
            version: "1.0".into(),
            recipe_revision: "r0".into(),
            architecture: "all".into(),
            checksum: "c".into(),
        }
    }

    fn service(directory: &tempfile::TempDir, name: &str) -> Service {
        Service::open(&OpenOptions::new(
            directory.path().join(name).display().to_string().as_str(),
        ))
        .unwrap()
    }

    #[tokio::test]
    async fn each_package_is_numbered_by_the_server_that_the_settings_name() {
        let directory = tempfile::tempdir().unwrap();
        let (ours, theirs) = (service(&directory, "ours"), service(&directory, "theirs"));
        let value = "41".parse().unwrap();
        theirs
            .import_one(&Tuple::new("linux-rt-1.0-r0", "all", "other"), &value)
            .await
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(prserv::serve(theirs, listener, std::future::pending()));
        let text = format!(
            "pr.elsewhere = [\"test-* = none\", \"linux-* = {address}\"]\npr.proxy = \"none\"\n"
        );
        let pr = Settings::parse(&text).unwrap().pr;
        let mut revisions = Vec::new();
        for name in ["hello", "linux-rt", "test-linux"] {
            revisions.push(revision(&ours, &pr, &package(name)).await.unwrap());
        }
        assert_eq!(revisions, ["r0.0", "r0.42", "r0"]);
    }

    #[tokio::test]
    async fn in_lockdown_a_build_gets_what_is_recorded_or_the_word_for_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let service = service(&directory, "ours");
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
        let words = sys::error_report::chain(&error);
        assert!(words.contains("this client may not write"), "{words}");
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let text = "pr.elsewhere = [\"* = 127.0.0.1:1\"]\npr.proxy = \"none\"\n";
        let pr = Settings::parse(text).unwrap().pr;
        let error = revision(&service(&directory, "ours"), &pr, &package("hello"))
            .await
            .unwrap_err();
        let words = sys::error_report::chain(&error);
        assert!(
            words.contains("hello-1.0-r0: the server 127.0.0.1:1 failed"),
            "{words}"
        );
    }
}
