//! A load generator for PR servers and hash equivalence servers, including BitBake's own. Prints a
//! line of results for each server, and the ratio of the first two.
//!
//! The servers take turns, so that they see the same load of the host. The generator sends prepared
//! bytes and only counts the lines of the replies, so that it is not the bottleneck.

mod latency;

mod report;

mod requests;

mod server;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Parser;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use latency::LatencyHistogram;
use report::{Goal, Round, Rounds};
use requests::{Load, Requests};
use server::Server;

/// Send requests to PR servers or hash equivalence servers as fast as they reply.
#[derive(Debug, Clone, Parser)]
struct Arguments {
    /// A server on this host. May be repeated; the second one is the reference.
    #[arg(long, value_name = "NAME=ADDRESS=PID", required = true)]
    server: Vec<Server>,

    /// The number of rounds.
    #[arg(long, default_value_t = 1)]
    rounds: usize,

    /// The least ratio of the rates that passes.
    #[arg(long)]
    goal_rate: Option<f64>,

    /// The least ratio of the times on processors per request that passes.
    #[arg(long, requires = "goal_rate")]
    goal_cpu: Option<f64>,

    /// The kind of requests.
    #[arg(long, value_enum, default_value_t = Load::Known)]
    load: Load,

    /// The number of concurrent connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,

    /// The number of pipelined requests per connection.
    #[arg(long, default_value_t = 1)]
    pipeline: usize,

    /// The duration of each round in seconds. `growing` ends earlier when the package has all its checksums.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,

    /// The number of checksums that `growing` requests.
    #[arg(long, default_value_t = 10_000)]
    checksums: u64,
}

/// The state that all connections share.
struct Shared {
    arguments: Arguments,
    address: SocketAddr,
    requests: Requests,
    next: AtomicU64,
    end: Instant,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(
        arguments.pipeline > 0 && arguments.connections > 0 && arguments.rounds > 0,
        "--pipeline, --connections and --rounds must be positive"
    );
    for server in &arguments.server {
        prepare(server.address, &Requests::new(arguments.load)).await?;
    }
    let mut results = vec![Vec::new(); arguments.server.len()];
    for _ in 0..arguments.rounds {
        for (server, results) in arguments.server.iter().zip(&mut results) {
            results.push(measure(&arguments, server).await?);
        }
    }
    let results: Vec<Rounds> = results.into_iter().map(Rounds::new).collect();
    report(&arguments, &results);
    Ok(())
}

/// Measures a server in one round.
async fn measure(arguments: &Arguments, server: &Server) -> Result<Round> {
    let requests = Requests::new(arguments.load);
    let generator = server::cpu_time(std::process::id());
    let (cpu_before, own_cpu_before) = (server.cpu_time()?, generator?);
    let start = Instant::now();
    let shared = Arc::new(Shared {
        arguments: arguments.clone(),
        address: server.address,
        requests,
        next: AtomicU64::new(0),
        end: start + Duration::from_secs_f64(arguments.seconds),
    });
    let mut connections = JoinSet::new();
    for _ in 0..arguments.connections {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            if shared.arguments.load.connects() {
                run_with_connections(&shared).await
            } else {
                run(&shared).await
            }
        });
    }
    let mut total = LatencyHistogram::default();
    while let Some(latencies) = connections.join_next().await {
        total.add(&latencies??);
    }
    let (time, cpu) = (start.elapsed(), server.cpu_time()?);
    let own_cpu = server::cpu_time(std::process::id())?;
    let count = total.count();
    ensure!(count > 0, "there were no replies");
    #[expect(
        clippy::cast_precision_loss,
        reason = "the printed results are rounded"
    )]
    let count = count as f64;
    Ok(Round {
        rate: count / time.as_secs_f64(),
        cpu: cpu.saturating_sub(cpu_before).div_f64(count),
        generator_cpu: own_cpu.saturating_sub(own_cpu_before).div_f64(count),
        p50: total.quantile(0.50),
        p99: total.quantile(0.99),
    })
}

/// Requests the known tuples once, or reports the known tasks, so that they are recorded.
async fn prepare(address: SocketAddr, requests: &Requests) -> Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    stream.get_mut().write_all(requests.greeting()).await?;
    let mut line = String::new();
    for request in requests.preparation() {
        stream.get_mut().write_all(&request).await?;
        line.clear();
        stream.read_line(&mut line).await?;
        let is_recorded = line.contains("value") || line.contains("unihash");
        ensure!(is_recorded, "the server replied {line:?}");
    }
    Ok(())
}

/// Sends requests on one connection until the end.
async fn run(shared: &Shared) -> Result<LatencyHistogram> {
    let mut stream = TcpStream::connect(shared.address).await?;
    stream.set_nodelay(true)?;
    // Without pacing (BBR), which costs a timer per packet.
    let _ = socket2::SockRef::from(&stream).set_tcp_congestion(b"reno");
    stream.write_all(shared.requests.greeting()).await?;
    let mut latencies = LatencyHistogram::default();
    let (mut out, mut bytes) = (Vec::new(), vec![0; 16 * 1024]);
    if let Some(begin) = shared.requests.begin() {
        stream.write_all(begin).await?;
        while stream.read(&mut bytes[..1]).await? == 1 && bytes[0] != b'\n' {}
    }
    while Instant::now() < shared.end {
        out.clear();
        let mut sent = 0;
        for _ in 0..shared.arguments.pipeline {
            let number = shared.next.fetch_add(1, Ordering::Relaxed);
            if shared.arguments.load == Load::Growing && number >= shared.arguments.checksums {
                break;
            }
            shared.requests.append(&mut out, number);
            sent += 1;
        }
        if sent == 0 {
            break;
        }
        let start = Instant::now();
        stream.write_all(&out).await?;
        let mut replies = 0;
        while replies < sent {
            let read = stream.read(&mut bytes).await?;
            ensure!(read > 0, "the server closed a connection");
            replies += memchr::memchr_iter(b'\n', &bytes[..read]).count();
        }
        latencies.record(start.elapsed(), sent);
    }
    Ok(latencies)
}

/// Opens a connection for every request, as BitBake's tasks do.
async fn run_with_connections(shared: &Shared) -> Result<LatencyHistogram> {
    let mut latencies = LatencyHistogram::default();
    let (mut out, mut bytes) = (Vec::new(), vec![0; 1024]);
    while Instant::now() < shared.end {
        out.clear();
        out.extend_from_slice(shared.requests.greeting());
        shared
            .requests
            .append(&mut out, shared.next.fetch_add(1, Ordering::Relaxed));
        let start = Instant::now();
        let mut stream = TcpStream::connect(shared.address).await?;
        stream.write_all(&out).await?;
        let read = stream.read(&mut bytes).await?;
        if !bytes[..read].ends_with(b"\n") {
            bail!(
                "the server replied {:?}",
                String::from_utf8_lossy(&bytes[..read])
            );
        }
        latencies.record(start.elapsed(), 1);
        stream.set_zero_linger()?; // else TIME_WAIT uses up all ports within seconds
    }
    Ok(latencies)
}

#[expect(clippy::print_stdout, reason = "the program prints its results")]
fn report(arguments: &Arguments, results: &[Rounds]) {
    let load = format!("{:?}", arguments.load).to_lowercase();
    for (server, rounds) in arguments.server.iter().zip(results) {
        println!(
            "{load:<14} {:>4} connections  {:<18} {rounds}",
            arguments.connections, server.name
        );
    }
    if let [ours, reference, ..] = results {
        let cpu = arguments.goal_cpu;
        let goal = arguments.goal_rate.map(|rate| Goal { rate, cpu });
        println!("{:>37}{}", "", ours.ratio_to(reference, goal));
    }
}
