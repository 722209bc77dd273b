//! The library as the agent uses it.

use std::time::Duration;

use prserv::{History, OpenOptions, Peer, Service, Tuple, Value, serve, serve_connection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::harness::GREETING;

fn service(dir: &tempfile::TempDir) -> Service {
    Service::open(&OpenOptions::new(dir.path().join("prserv.sqlite3"))).unwrap()
}

#[tokio::test]
async fn any_stream_can_be_served() {
    let dir = tempfile::tempdir().unwrap();
    let service = service(&dir);
    let (mut client, server) = tokio::io::duplex(64);
    let serving = tokio::spawn(async move {
        serve_connection(service, server, Peer::new("guest 1")).await;
    });
    let request = format!(
        "{GREETING}{{\"get-pr\": {{\"version\": \"v\", \"pkgarch\": \"a\", \"checksum\": \"c\"}}}}\nnull\n"
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let mut received = String::new();
    client.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "{\"value\": \"0\"}\n");
    serving.await.unwrap();
}

#[tokio::test]
async fn dropping_a_server_frees_its_port_and_keeps_the_service_open() {
    let dir = tempfile::tempdir().unwrap();
    let service = service(&dir);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(serve(service.clone(), listener, std::future::pending()));
    let mut client = TcpStream::connect(address).await.unwrap();
    client
        .write_all(format!("{GREETING}{{\"ping\": {{}}}}\n").as_bytes())
        .await
        .unwrap();
    client.read_exact(&mut [0; 16]).await.unwrap();
    serving.abort();
    assert!(serving.await.unwrap_err().is_cancelled());
    let end = tokio::time::timeout(Duration::from_secs(5), client.read(&mut [0; 16])).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
    TcpListener::bind(address).await.unwrap();
    let tuple = Tuple::new("v", "a", "c");
    assert_eq!(
        service.get_pr(&tuple, History::Ignore).await.unwrap(),
        Value::first()
    );
    service.close().await;
    let other = Tuple::new("v", "a", "d");
    assert!(service.get_pr(&other, History::Ignore).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_get_one_value_per_tuple() {
    let dir = tempfile::tempdir().unwrap();
    let service = service(&dir);
    let requests: Vec<_> = (0..400)
        .map(|number| {
            let (service, tuple) = (
                service.clone(),
                Tuple::new("v", "a", format!("{}", number % 40)),
            );
            tokio::spawn(
                async move { (tuple.clone(), service.get_pr(&tuple, History::Keep).await) },
            )
        })
        .collect();
    let mut assigned = std::collections::BTreeMap::new();
    for request in requests {
        let (tuple, value) = request.await.unwrap();
        let value = value.unwrap();
        assert_eq!(*assigned.entry(tuple).or_insert(value.clone()), value);
    }
    let mut values: Vec<_> = assigned.into_values().collect();
    values.sort();
    assert_eq!(values, (0..40).map(Value::from).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_small_cache_changes_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = OpenOptions::new(dir.path().join("prserv.sqlite3"));
    options.cached_rows_max = 0;
    let service = Service::open(&options).unwrap();
    for round in 0..3_u64 {
        for package in 0..100 {
            let tuple = Tuple::new(format!("p{package}"), "a", format!("c{round}"));
            let value = service.get_pr(&tuple, History::Ignore).await.unwrap();
            assert_eq!(value, Value::from(round));
        }
    }
}
