//! The agent's hash equivalence service, and the rights of its clients.

use config::hashserv::HashservMode;
use config::settings::Hashserv;
use hashserv::client::{Address, AddressError};
use hashserv::permission::{Permission, Permissions};
use hashserv::service::Retention;
use hashserv::session::Access;
use hashserv::{OpenOptions, Server, Service};
use prserv::client::{Proxies, TargetError};
use prserv::host_names::HostNames;
use prserv::server::Limits;

/// The connections of a guest to the service. BitBake opens one for look-ups, and one for each task
/// that reports.
const GUEST_CONNECTIONS_MAX: usize = 128;

/// An unusable address in the settings of the service.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The proxy.
    #[error("the setting hashserv.proxy cannot be used")]
    Proxy(#[from] TargetError),
    /// The upstream server.
    #[error("the setting hashserv.upstream cannot be used")]
    Upstream(#[from] AddressError),
}

/// The access of one guest to the hash equivalence service.
#[derive(Debug, Clone)]
pub struct HashservAccess {
    /// The rights.
    pub mode: HashservMode,
    /// The owner of the reports, such as `build 42`.
    pub owner: String,
}

/// Returns the options to open the service.
///
/// # Errors
/// The setting `hashserv.proxy` or `hashserv.upstream` is invalid.
pub fn options(settings: &Hashserv) -> Result<OpenOptions, SettingsError> {
    let mut options = OpenOptions::new(settings.database.as_str());
    options.read_only = settings.read_only;
    options.retention = Retention {
        task_age_max: settings.task_age_max,
        unused_age_max: settings.unused_age_max,
    };
    if let Some(upstream) = &settings.upstream {
        options.upstream = Some(Address::parse(
            upstream,
            &Proxies::chosen(settings.proxy.as_deref())?,
        )?);
    }
    Ok(options)
}

/// Returns a server for clients on the network. Without a login they only read.
pub fn server(service: Service, settings: &Hashserv) -> Server {
    let limits = Limits {
        connections_max: settings.connections_max,
        connections_per_peer_max: settings.connections_per_peer_max,
        ..Limits::default()
    };
    let access = Access {
        anonymous: Permissions::default().with(Permission::Read),
        host_names: HostNames::of_system(&settings.allowed_hosts, &settings.listen),
        ..Access::default()
    };
    Server::new(service).with_access(access).with_limits(limits)
}

/// Returns a server for a guest, which is logged under `name`. It neither accepts logins nor shows
/// counters: a guest has the rights of its build and no others.
pub fn server_for_guest(service: Service, access: HashservAccess, name: &str) -> Server {
    let mut anonymous = Permissions::default().with(Permission::Read);
    if access.mode.reports() {
        anonymous = anonymous.with(Permission::Report);
    }
    let access = Access {
        anonymous,
        login: false,
        owner: Some(access.owner),
        ..Access::default()
    };
    Server::new(service)
        .with_access(access)
        .with_limits(Limits::of_one_peer(GUEST_CONNECTIONS_MAX))
        .with_peer_name(name)
}

#[cfg(test)]
mod tests {
    use config::settings::Settings;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    struct Guest {
        directory: tempfile::TempDir,
        service: Service,
        address: std::net::SocketAddr,
        activity: tokio::sync::mpsc::UnboundedReceiver<()>,
    }

    /// Serves a service to a guest with these rights.
    async fn guest(mode: HashservMode) -> Guest {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hashserv.sqlite3");
        let service = Service::open(&OpenOptions::new(path.as_path())).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, activity) = tokio::sync::mpsc::unbounded_channel();
        let observer = sys::observer::Observer::new(move || {
            let _ = sender.send(());
        });
        let owner = "build 42".to_owned();
        let access = HashservAccess { mode, owner };
        let server = server_for_guest(service.clone(), access, "guest").with_observer(observer);
        tokio::spawn(server.serve(listener, std::future::pending()));
        Guest {
            directory,
            service,
            address,
            activity,
        }
    }

    impl Guest {
        /// Sends bytes on a connection of its own and returns the whole reply.
        async fn exchange(&self, bytes: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(bytes.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut reply = Vec::new();
            stream.read_to_end(&mut reply).await.unwrap();
            String::from_utf8(reply).unwrap()
        }

        async fn ask(&self, request: &str) -> String {
            let text = format!("OEHASHEQUIV 1.1\nneeds-headers: false\n\n{request}\n");
            self.exchange(&text).await
        }

        async fn report(&self, taskhash: &str, digit: u32) -> String {
            let request = format!(
                r#"{{"report": {{"method": "m", "taskhash": "{taskhash}", "outhash": "o", "unihash": "{digit:064}", "owner": "alice"}}}}"#
            );
            self.ask(&request).await
        }
    }

    const GET: &str = r#"{"get": {"method": "m", "taskhash": "t"}}"#;

    #[tokio::test]
    async fn a_reader_gets_the_unihash_that_it_proposes_and_changes_nothing() {
        let mut guest = guest(HashservMode::Read).await;
        let reply = guest.report("t", 1).await;
        assert!(reply.contains(&format!("{:064}", 1)), "{reply}");
        assert_eq!(guest.ask(GET).await.trim(), "null");
        assert!(guest.activity.try_recv().is_ok(), "a request is activity");
        drop(guest.directory);
    }

    #[tokio::test]
    async fn reports_of_a_guest_have_its_build_as_owner() {
        let guest = guest(HashservMode::Report).await;
        guest.report("t", 1).await;
        let reply = guest.report("u", 2).await;
        assert!(reply.contains(&format!("{:064}", 1)), "{reply}");
        let rows = guest
            .ask(r#"{"get": {"method": "m", "taskhash": "t", "all": true}}"#)
            .await;
        assert!(
            rows.contains("build 42") && !rows.contains("alice"),
            "{rows}"
        );
    }

    #[tokio::test]
    async fn a_guest_can_neither_log_in_nor_administer_nor_read_the_counters() {
        let guest = guest(HashservMode::Report).await;
        guest.report("t", 1).await;
        let user = hashserv::store::User {
            username: "admin".to_owned(),
            permissions: Permissions::default().with(Permission::All),
        };
        let hash = hashserv::token::hash("secret").unwrap();
        let change = hashserv::service::UserChange::Set(user, hash);
        guest.service.change_users(change).await.unwrap();
        for request in [
            r#"{"auth": {"username": "admin", "token": "secret"}}"#,
            r#"{"remove": {"where": {"method": "m"}}}"#,
            r#"{"clean-unused": {"max_age_seconds": 0}}"#,
            r#"{"gc-mark": {"mark": "x", "where": {"method": "m"}}}"#,
            r#"{"gc-sweep": {"mark": "x"}}"#,
            r#"{"get-db-usage": null}"#,
            r#"{"reset-stats": null}"#,
            r#"{"new-user": {"username": "x", "permissions": ["@read"]}}"#,
            r#"{"become-user": {"username": "admin"}}"#,
        ] {
            let reply = guest.ask(request).await;
            assert!(reply.contains("invoke-error"), "{request}: {reply}");
        }
        let page = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
        let reply = guest.exchange(page).await;
        assert!(reply.starts_with("HTTP/1.1 403"), "{reply}");
        assert!(guest.ask(GET).await.contains(&format!("{:064}", 1)));
    }

    #[test]
    fn an_upstream_server_without_a_port_is_refused_with_the_name_of_the_setting() {
        let text = "[hashserv]\nupstream = \"ws://hashes.example.org\"\nproxy = \"none\"\n";
        let settings = Settings::parse(text).unwrap().hashserv;
        options(&settings).unwrap();
        let text = "[hashserv]\nupstream = \"nowhere\"\nproxy = \"none\"\n";
        let settings = Settings::parse(text).unwrap().hashserv;
        let error = sys::error_report::chain(&options(&settings).unwrap_err());
        assert!(
            error.contains("hashserv.upstream") && error.contains("nowhere"),
            "{error}"
        );
    }
}
