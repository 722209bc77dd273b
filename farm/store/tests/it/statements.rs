//! The statements: all can be prepared, and the hot ones use indexes.

use farm_store::STATEMENTS;
use server_tests::Cluster;

use super::harness::{client, is_long, open};

/// The hot statements with parameters.
const HOT: [(&str, &str); 14] = [
    ("submitted", "('k7')"),
    ("cancel_queued", "(7)"),
    ("cancel_leased", "(7)"),
    ("outcome", "(7)"),
    ("beat", "(7, '{}')"),
    ("leases", "(7)"),
    ("candidates", "('{m1,m2}', 32)"),
    ("used", "('{s1,s2}')"),
    ("claim", "(7, 0, '{7,8}', '{0,0}', '{0,0}', '{1,1}')"),
    ("finish", "(7, 7, 1, 'success')"),
    ("is_finished", "(7, 7, 1)"),
    ("release", "(7, 7, 1, 5)"),
    ("rescue", "(7, 0, 5)"),
    ("show", "(7)"),
];

/// Fills the tables: one half of the builds has results, and one in a thousand has a lease.
fn fill(rows: u64) -> String {
    format!(
        "INSERT INTO hosts (id, name) SELECT n, 'filled' || n FROM generate_series(100, 1100) n;
         INSERT INTO submissions SELECT 'k' || n, n FROM generate_series(1, {rows}) n;
         INSERT INTO builds (id, submitter, priority, machine, requirements, submitted, state, host)
         SELECT n, 's' || n % 50, n % 3, 'm' || n % 20, '{{}}', now(),
             (n % 1000 = 0)::int, CASE WHEN n % 1000 = 0 THEN 100 + n / 1000 % 1000 END
         FROM generate_series(1, {rows} / 2) n;
         INSERT INTO finished (id, submitter, machine, requirements, submitted, epoch, losses,
             revision, outcome, is_reported)
         SELECT n, 's', 'm', '{{}}', now(), 1, 0, 0, 'success', true
         FROM generate_series({rows} / 2 + 1, {rows}) n;
         INSERT INTO used SELECT 's' || n % 5000, current_date - n / 80000, n / 5000 % 16, 1
         FROM generate_series(0, 399999) n;
         ANALYZE"
    )
}

#[test]
#[ignore = "needs PostgreSQL"]
fn every_statement_is_valid_and_the_hot_ones_use_indexes() {
    let cluster = Cluster::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    drop(runtime.block_on(open(&cluster.url(), 0)));
    let mut client = client(&cluster);
    let rows = if is_long() { 1_000_000 } else { 40_000 };
    client.batch_execute(&fill(rows)).unwrap();
    for (name, sql) in STATEMENTS {
        if name == "partitions" {
            client.batch_execute(sql).unwrap();
        } else {
            client
                .batch_execute(&format!("PREPARE \"{name}\" AS {sql}"))
                .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        }
    }
    client
        .batch_execute("SET plan_cache_mode = force_generic_plan")
        .unwrap();
    for (name, parameters) in HOT {
        let explain = format!("EXPLAIN EXECUTE \"{name}\" {parameters}");
        let plan = client.query(&explain, &[]).unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
        let plan = plan.join("\n");
        for table in ["builds", "finished", "submissions", "used", "hosts"] {
            let scan = format!("Seq Scan on {table}");
            // An empty partition costs nothing.
            let is_slow = |line: &str| line.contains(&scan) && !line.contains("cost=0.00..0.00");
            assert!(
                !plan.lines().any(is_slow),
                "{name} reads all of {table}:\n{plan}"
            );
        }
    }
}
