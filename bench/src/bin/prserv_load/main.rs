//! A load generator for PR servers: ours, or BitBake's own. Prints one line of figures.
//!
//! It does little per request, prepared bytes out and lines in, so that it is not the bottleneck.

mod latency;

mod requests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Parser;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use latency::Latencies;
use requests::{GREETING, Load, Requests};

/// Asks a PR server as fast as it answers.
#[derive(Debug, Parser)]
struct Arguments {
    /// The server.
    #[arg(long)]
    address: SocketAddr,

    /// What is asked.
    #[arg(long, value_enum, default_value_t = Load::Known)]
    load: Load,

    /// How many connections ask at once.
    #[arg(long, default_value_t = 64)]
    connections: usize,

    /// As many requests are under way on each connection.
    #[arg(long, default_value_t = 1)]
    pipeline: usize,

    /// How long; `growing` ends when the package has its checksums.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,

    /// How many checksums `growing` gives its package.
    #[arg(long, default_value_t = 10_000)]
    checksums: u64,
}

/// What all connections share.
struct Shared {
    arguments: Arguments,
    requests: Requests,
    next: AtomicU64,
    end: Instant,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(
        arguments.pipeline > 0 && arguments.connections > 0,
        "nothing to do"
    );
    let requests = Requests::new(arguments.load);
    prepare(&arguments, &requests).await?;
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(arguments.seconds);
    let shared = Arc::new(Shared {
        arguments,
        requests,
        next: AtomicU64::new(0),
        end,
    });
    let mut connections = JoinSet::new();
    for _ in 0..shared.arguments.connections {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            match shared.arguments.load {
                Load::Connect => connect_and_ask(&shared).await,
                _ => ask(&shared).await,
            }
        });
    }
    let mut all = Latencies::default();
    while let Some(latencies) = connections.join_next().await {
        all.add(&latencies??);
    }
    report(&shared.arguments, &all, start.elapsed())
}

/// Makes the tuples known that are asked for as such.
async fn prepare(arguments: &Arguments, requests: &Requests) -> Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(arguments.address).await?);
    stream.get_mut().write_all(GREETING).await?;
    let mut line = String::new();
    for request in requests.known() {
        stream.get_mut().write_all(request).await?;
        line.clear();
        stream.read_line(&mut line).await?;
        ensure!(line.contains("value"), "the server answered {line:?}");
    }
    Ok(())
}

/// Asks on one connection until the end.
async fn ask(shared: &Shared) -> Result<Latencies> {
    let mut stream = TcpStream::connect(shared.arguments.address).await?;
    stream.set_nodelay(true)?;
    // The generator should cost as little as it can: pacing single packets costs timers.
    let _ = socket2::SockRef::from(&stream).set_tcp_congestion(b"reno");
    stream.write_all(GREETING).await?;
    let mut latencies = Latencies::default();
    let (mut out, mut bytes) = (Vec::new(), vec![0; 4 * 1024]);
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
        let mut answered = 0;
        while answered < sent {
            let read = stream.read(&mut bytes).await?;
            ensure!(read > 0, "the server closed a connection");
            answered += memchr::memchr_iter(b'\n', &bytes[..read]).count();
        }
        latencies.note(start.elapsed(), sent);
    }
    Ok(latencies)
}

/// Connects anew for every request, as BitBake's tasks do.
async fn connect_and_ask(shared: &Shared) -> Result<Latencies> {
    let mut latencies = Latencies::default();
    let (mut out, mut bytes) = (Vec::new(), vec![0; 1024]);
    while Instant::now() < shared.end {
        out.clear();
        out.extend_from_slice(GREETING);
        shared
            .requests
            .append(&mut out, shared.next.fetch_add(1, Ordering::Relaxed));
        let start = Instant::now();
        let mut stream = TcpStream::connect(shared.arguments.address).await?;
        stream.write_all(&out).await?;
        let read = stream.read(&mut bytes).await?;
        if !bytes[..read].ends_with(b"\n") {
            bail!(
                "the server answered {:?}",
                String::from_utf8_lossy(&bytes[..read])
            );
        }
        latencies.note(start.elapsed(), 1);
        stream.set_zero_linger()?; // or a few seconds of this use up all ports
    }
    Ok(latencies)
}

#[expect(
    clippy::print_stdout,
    reason = "the figures are what this program is for"
)]
fn report(arguments: &Arguments, latencies: &Latencies, time: Duration) -> Result<()> {
    let count = latencies.count();
    ensure!(count > 0, "nothing was answered");
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let rate = count as f64 / time.as_secs_f64();
    println!(
        "{:<8} {:>4} connections  {rate:>9.0}/s  p50 {:>8.3} ms  p99 {:>8.3} ms",
        format!("{:?}", arguments.load).to_lowercase(),
        arguments.connections,
        latencies.quantile(0.50).as_secs_f64() * 1000.0,
        latencies.quantile(0.99).as_secs_f64() * 1000.0,
    );
    Ok(())
}
