//! Floods of connections to an agent, while its administrator and a build go on.

mod long {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use config::builds::{SOCKET, State};
    use config::task::{GATEWAY, PR_PORT};
    use guest::network::Network;
    use tests::agent::AgentHost;
    use tests::attacks::refused;
    use tests::flood::{Flood, FloodPlan, Latencies};
    use tests::process_status::number;
    use tests::wait_until;

    /// The clients of each of the two floods. This process has the descriptors of all.
    const CLIENTS: usize = 5_000;
    /// The requests of each well-behaved client in each phase.
    const REQUESTS: usize = 300;
    /// The memory that the agent may take for all floods.
    const MEMORY_KIB_MAX: u64 = 100 * 1024;
    const LIMIT: Duration = Duration::from_mins(1);

    /// Repeats a request of an administrator, each on a connection of its own.
    fn administer(host: &AgentHost) -> Latencies {
        let socket = host.run_directory().join(SOCKET);
        Latencies::measure(REQUESTS, || {
            let mut stream = UnixStream::connect(&socket).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            let request = "GET /api/v1/queue HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).unwrap();
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).unwrap();
            assert!(line.starts_with("HTTP/1.1 200"), "{line}");
        })
    }

    /// The network of a build's guest.
    fn network(host: &AgentHost, id: u64) -> Network {
        Network::open(&format!("{}-{id}", host.name())).unwrap()
    }

    /// Asks for a value as a build does, each time on a connection of its own.
    fn query(host: &AgentHost, id: u64) -> Latencies {
        let network = network(host, id);
        let measured = network.enter(|| {
            Ok(Latencies::measure(REQUESTS, || {
                let mut stream = TcpStream::connect((GATEWAY, PR_PORT)).unwrap();
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                let query = "PRSERVICE 1.0\n\n{\"get-pr\": {\"version\": \"v\", \"pkgarch\": \"a\", \"checksum\": \"c\"}}\n";
                stream.write_all(query.as_bytes()).unwrap();
                let mut line = String::new();
                BufReader::new(stream).read_line(&mut line).unwrap();
                assert!(line.contains("value"), "{line}");
            }))
        });
        measured.unwrap()
    }

    /// Returns the number of descriptors of the agent.
    fn descriptors(host: &AgentHost) -> usize {
        let path = format!("/proc/{}/fd", host.pid().as_raw_nonzero());
        std::fs::read_dir(path).unwrap().count()
    }

    /// The state of a host: latencies of its administrator and of a build, and the size of the
    /// agent.
    struct Measurement {
        administrator: Latencies,
        build: Latencies,
        memory_kib: u64,
        descriptors: usize,
    }

    impl Measurement {
        fn take(host: &AgentHost, build: u64) -> Self {
            Self {
                administrator: administer(host),
                build: query(host, build),
                memory_kib: number(host.pid(), "VmRSS:"),
                descriptors: descriptors(host),
            }
        }

        fn print(&self, name: &str, quiet: &Self) {
            let (administrator, build) = (&self.administrator, &self.build);
            println!(
                "{name}: {} KiB, {} descriptors",
                self.memory_kib, self.descriptors
            );
            println!(
                "  administrator: {administrator}; ratio {:.2}",
                administrator.ratio_to(&quiet.administrator)
            );
            println!(
                "  PR queries of a build: {build}; ratio {:.2}",
                build.ratio_to(&quiet.build)
            );
        }
    }

    /// Starts floods of the API, and of the PR service at the gateway of a guest. The host's end of
    /// its network stands in for the guest.
    fn start_floods(api: SocketAddr, network: &Network) -> [Flood; 2] {
        let plan = FloodPlan {
            address: api,
            clients: CLIENTS,
            sources: 200,
            first_bytes: b"GET / HTTP/1.1\r\n",
            network: None,
        };
        let of_guest = FloodPlan {
            address: format!("{GATEWAY}:{PR_PORT}").parse().unwrap(),
            sources: 0,
            first_bytes: b"PRSERVICE 1.0\n",
            network: Some(network.name().to_owned()),
            ..plan.clone()
        };
        let floods = [Flood::start(plan), Flood::start(of_guest)];
        for flood in &floods {
            flood.wait_until_all_have_tried(CLIENTS);
        }
        floods
    }

    #[test]
    #[ignore = "needs root: real btrfs, QEMU and network namespaces"]
    fn administrator_and_builds_go_on_during_floods() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let api = free.local_addr().unwrap();
        drop(free);
        let host = AgentHost::ready(&format!(
            "http.listen = \"{api}\"\nguests.parallel_max = 2\n"
        ));
        let [hostile, good] = ["a", "b"].map(|text| host.submit_stopped("demo", text));
        for id in [hostile, good] {
            host.wait_for_breakpoint(id);
        }
        let quiet = Measurement::take(&host, good);
        let floods = start_floods(api, &network(&host, hostile));
        let flooded = Measurement::take(&host, good);
        quiet.print("quiet", &quiet);
        let open = floods.each_ref().map(Flood::open);
        flooded.print(
            &format!("{CLIENTS} clients of the API and of a gateway, {open:?} open"),
            &quiet,
        );
        assert!(
            flooded.memory_kib - quiet.memory_kib < MEMORY_KIB_MAX,
            "the agent has grown"
        );
        refused(
            "network -> API",
            "5000 connections",
            "places, reserved descriptors",
        );
        refused(
            "guest -> PR service",
            "5000 connections",
            "the share of a guest",
        );
        drop(floods);
        for id in [hostile, good] {
            host.resume(id);
            host.wait_for(id, State::Finished);
        }
        wait_until("the descriptors are free again", || {
            descriptors(&host) < quiet.descriptors + 64
        });
        host.wait_until_torn_down();
    }
}
