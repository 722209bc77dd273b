//! Floods of connections to the PR service, while another client works.

mod long {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use tests::flood::{Flood, FloodPlan, Latencies};
    use tests::pr_process::PrProcess;

    /// The clients of a flood.
    const CLIENTS: usize = 10_000;
    /// The queries of the well-behaved client in each phase.
    const QUERIES: usize = 2_000;
    /// The memory that the server may take for a flood.
    const MEMORY_KIB_MAX: u64 = 200 * 1024;

    /// A build's connection.
    struct Build(BufReader<TcpStream>);

    impl Build {
        fn connect(server: &PrProcess) -> Self {
            let mut stream = TcpStream::connect(server.address()).unwrap();
            stream.set_nodelay(true).unwrap();
            let limit = Some(Duration::from_mins(1));
            stream.set_read_timeout(limit).unwrap();
            stream.write_all(b"PRSERVICE 1.0\n\n").unwrap();
            Self(BufReader::new(stream))
        }

        fn query(&mut self) -> Latencies {
            let query =
                "{\"get-pr\": {\"version\": \"v\", \"pkgarch\": \"a\", \"checksum\": \"c\"}}\n";
            Latencies::measure(QUERIES, || {
                self.0.get_mut().write_all(query.as_bytes()).unwrap();
                let mut line = String::new();
                self.0.read_line(&mut line).unwrap();
                assert!(line.contains("value"), "{line}");
            })
        }
    }

    #[test]
    fn a_build_gets_its_values_during_a_flood() {
        for (sources, description) in [(1, "one address"), (200, "200 addresses")] {
            let server = PrProcess::start();
            let mut build = Build::connect(&server);
            let (quiet, before) = (build.query(), server.memory_kib());
            let flood = Flood::start(FloodPlan {
                address: server.address(),
                clients: CLIENTS,
                sources,
                first_bytes: b"PRSERVICE 1.0\n",
                network: None,
            });
            flood.wait_until_all_have_tried(CLIENTS);
            let flooded = build.query();
            let (open, memory) = (flood.open(), server.memory_kib());
            println!("flood from {description}: {CLIENTS} clients, {open} connections open");
            println!("  PR queries: quiet {quiet}; flooded {flooded}");
            println!("  ratio of the medians: {:.2}", flooded.ratio_to(&quiet));
            println!("  memory: {before} KiB before, {memory} KiB");
            assert!(memory - before < MEMORY_KIB_MAX, "the server has grown");
            if sources == 1 {
                // Another client can still connect.
                Build::connect(&server).query();
            }
        }
    }
}
