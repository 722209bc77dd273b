//! The statements: all can be prepared, and the hot ones use indexes.

use farm_store::STATEMENTS;
use server_tests::Cluster;

use super::harness::{client, is_long, open};

/// The hot statements with parameters.
const HOT: [(&str, &str); 38] = [
    ("copies", "('{a,b}')"),
    ("keep", "('a', 'http://c')"),
    ("expire", "(1000)"),
    ("discard", "('a', 'http://c')"),
    ("submit", "('k', 's', 0, 'm', '{}', NULL, NULL, '{a,b}')"),
    ("run_schedule", "('s', 'k7', NULL, NULL, NULL, NULL, NULL)"),
    ("take_uploads", "(4, 60000)"),
    ("defer_upload", "(7, 1, 1, 1000)"),
    ("archive", "(7, 1, '{}')"),
    ("archive_of", "(7)"),
    ("site", "(7)"),
    ("submitted", "('k7')"),
    ("cancel_queued", "(7, '{r}')"),
    ("cancel_leased", "(7)"),
    ("outcome", "(7)"),
    (
        "beats",
        "('{7,8}', '{\"\",\"\"}', '{m1,m2}', '{true,false}')",
    ),
    ("host_of_name", "('filled107')"),
    ("host_name", "(107)"),
    ("leases", "('{7,8}', '{0,0}')"),
    ("candidates", "('{m1,m2}', 32)"),
    ("used", "('{s1,s2}')"),
    (
        "claim",
        "(7, 0, '{7,8}', '{0,0}', '{0,0}', '{1,1}', '{c,c}', '{1,NULL}')",
    ),
    ("finish", "(7, 7, 1, 'success', true, true, 'm', '{r}')"),
    ("fail_on_trial", "(7, 7, 1, 'error')"),
    ("run_on_trial", "(7)"),
    ("is_released", "(7, 7, 1)"),
    ("trials", "(true)"),
    ("charge", "('{s1,s2}', '{9000,9000}', '{1,1}', 1)"),
    ("is_finished", "(7, 7, 1)"),
    ("release", "(7, 7, 1, 5, '{r}')"),
    ("give_back", "(7, 7, 1, '{r}')"),
    ("rescue", "(7, 0, 5, '{r}')"),
    ("show", "(7)"),
    ("details", "('{7,8}')"),
    ("lost", "(7)"),
    ("usual", "('t7', 'm7')"),
    ("failing", ""),
    ("usuals", "('{7,8}')"),
];

/// The filters of lists of builds.
const FILTERS: [&str; 9] = [
    "{}",
    r#"{"before": 100}"#,
    r#"{"state": "queued"}"#,
    r#"{"machine": "m7"}"#,
    r#"{"package": "t7"}"#,
    r#"{"project": "p7", "state": "finished"}"#,
    r#"{"submitter": "s7"}"#,
    r#"{"host": "filled107"}"#,
    r#"{"outcome": "error"}"#,
];

/// The filters of pages of hosts, and of their machines.
const HOST_FILTERS: [&str; 4] = [
    r#"{"count": 51}"#,
    r#"{"after": "filled2000", "count": 51}"#,
    r#"{"machine": "rare", "count": 51}"#,
    r#"{"machine": "rare", "after": "filled2000", "count": 51}"#,
];

/// Fills the tables: one half of the builds has results, and one in a thousand has a lease.
fn fill(rows: u64) -> String {
    format!(
        "INSERT INTO hosts (id, name) SELECT n, 'filled' || n FROM generate_series(100, 5099) n;
         INSERT INTO offers SELECT n, '{{}}', ARRAY[CASE WHEN n % 500 = 0 THEN 'rare' ELSE 'linux' END]
         FROM generate_series(100, 5099) n;
         INSERT INTO submissions SELECT 'k' || n, n FROM generate_series(1, {rows}) n;
         INSERT INTO builds (id, submitter, priority, machine, requirements, submitted, state, host)
         SELECT n, 's' || n % 50, n % 3, 'm' || n % 20, '{{}}', now(),
             (n % 1000 = 0)::int, CASE WHEN n % 1000 = 0 THEN 100 + n / 1000 % 1000 END
         FROM generate_series(1, {rows} / 2) n;
         INSERT INTO finished (id, submitter, machine, requirements, submitted, epoch, losses,
             revision, outcome, is_reported, host, target, project)
         SELECT n, 's' || n % 50, 'm' || n % 20, '{{}}', now(), 1, 0, 0,
             CASE WHEN n % 40 = 0 THEN 'error' ELSE 'success' END, true, 100 + n % 1000,
             't' || n % 500, 'p' || n % 10
         FROM generate_series({rows} / 2 + 1, {rows}) n;
         UPDATE builds SET sources = ARRAY[md5(id::text)] WHERE id % 10 = 0;
         INSERT INTO sources SELECT md5(n::text), now() FROM generate_series(1, 50000) n;
         INSERT INTO source_copies SELECT digest, 'http://c' FROM sources;
         INSERT INTO uploads (build, epoch, host, due)
         SELECT n, 1, 100, now() + interval '1 min' FROM generate_series(1, {rows} / 4) n;
         INSERT INTO archives SELECT n, 1, now(), '{{}}' FROM generate_series({rows} / 4 + 1, {rows}) n;
         INSERT INTO machines SELECT 'm' || n, 1 FROM generate_series(1, 20) n;
         INSERT INTO trials (machine, number, revision, terms, began)
         SELECT 'm' || n, n, 2, '1 of 1', now() FROM generate_series(1, 20) n;
         INSERT INTO trial_runs SELECT n, n / 10, 2, 1, 100, now() FROM generate_series(1, {rows} / 4) n;
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
        check_plan(
            &mut client,
            name,
            &format!("EXECUTE \"{name}\" {parameters}"),
            &[
                "builds",
                "finished",
                "submissions",
                "used",
                "hosts",
                "offers",
                "source_copies",
                "uploads",
                "archives",
                "trial_runs",
            ],
        );
    }
    for filter in HOST_FILTERS {
        let query = serde_json::from_str(filter).unwrap();
        let sql = with_values(farm_store::host_listing(&query));
        check_plan(&mut client, filter, &sql, &["hosts", "offers", "builds"]);
    }
    // The queue is counted; it has only what is unfinished.
    check_plan(&mut client, "projects", "EXECUTE projects", &["finished"]);
    for filter in FILTERS {
        let query = serde_json::from_str(filter).unwrap();
        let sql = with_values(farm_store::listing(&query));
        // A rare target may be searched for in the whole queue, which only has what is unfinished.
        check_plan(&mut client, filter, &sql, &["finished", "hosts"]);
    }
}

/// Returns a statement with its parameters in their places.
fn with_values((mut sql, parameters): (String, Vec<String>)) -> String {
    for (number, value) in (1..).zip(parameters) {
        sql = sql.replace(&format!("${number}::text"), &format!("'{value}'"));
    }
    sql
}

/// Fails if a statement reads all of one of the tables.
fn check_plan(client: &mut postgres::Client, name: &str, sql: &str, tables: &[&str]) {
    let plan = client.query(&format!("EXPLAIN {sql}"), &[]).unwrap();
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    let plan = plan.join("\n");
    for table in tables {
        let scan = format!("Seq Scan on {table}");
        // An empty partition costs nothing.
        let is_slow = |line: &str| line.contains(&scan) && !line.contains("(cost=0.00..0.0");
        let slow = plan.lines().any(is_slow);
        assert!(!slow, "{name} reads all of {table}:\n{plan}");
    }
}

/// The statements that add a result, with builds that get one: the state, its losses, and if it is canceled.
const RESULTS: [(&str, &str, &str); 6] = [
    (
        "finish",
        "(1, 1, 1, 'success', true, true, 'm', '{r}')",
        "1, 0, false",
    ),
    ("cancel_queued", "(1, '{r}')", "0, 0, false"),
    ("release", "(1, 1, 1, 5, '{r}')", "1, 4, false"),
    ("release", "(1, 1, 1, 5, '{r}')", "1, 0, true"),
    ("give_back", "(1, 1, 1, '{r}')", "1, 0, true"),
    ("rescue", "(1, 0, 5, '{r}')", "1, 4, false"),
];

#[test]
#[ignore = "needs PostgreSQL"]
fn a_result_touches_the_partition_of_its_month_only() {
    let cluster = Cluster::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    drop(runtime.block_on(open(&cluster.url(), 1)));
    let mut client = client(&cluster);
    let old = "CREATE TABLE finished_2020_02 PARTITION OF finished
        FOR VALUES FROM ('2020-02-01') TO ('2020-03-01')";
    client.batch_execute(old).unwrap();
    for (name, sql) in STATEMENTS {
        if RESULTS.iter().any(|(result, ..)| *result == name) {
            let prepare = format!("PREPARE \"{name}\" AS {sql}");
            client.batch_execute(&prepare).unwrap();
        }
    }
    let month: String = client
        .query_one("SELECT 'finished_' || to_char(now(), 'YYYY_MM')", &[])
        .unwrap()
        .get(0);
    for (name, parameters, build) in RESULTS {
        let add = format!(
            "DELETE FROM builds;
             INSERT INTO builds (id, submitter, priority, machine, requirements, submitted, epoch, host,
                state, losses, canceled)
             VALUES (1, 's', 0, 'm', '{{}}', now(), 1, 1, {build});
             BEGIN; EXECUTE \"{name}\" {parameters}"
        );
        client.batch_execute(&add).unwrap();
        // A transaction has locks on all tables that it has read or written.
        let touched = "SELECT relname::text FROM pg_locks JOIN pg_class ON pg_class.oid = relation
            WHERE pid = pg_backend_pid() AND relispartition AND relkind = 'r'";
        let touched = client.query(touched, &[]).unwrap();
        let touched: Vec<String> = touched.iter().map(|row| row.get(0)).collect();
        assert_eq!(touched, [month.as_str()], "{name}");
        client.batch_execute("ROLLBACK").unwrap();
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn months_that_are_old_are_forgotten() {
    let cluster = Cluster::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(open(&cluster.url(), 0));
    let mut client = client(&cluster);
    client
        .batch_execute(
            "CREATE TABLE finished_2020_02 PARTITION OF finished
                FOR VALUES FROM ('2020-02-01') TO ('2020-03-01');
             INSERT INTO finished (id, submitter, machine, requirements, submitted, finished, epoch,
                losses, revision, outcome, is_reported)
             SELECT n, 's', 'm', '{}', at, at, 1, 0, 0, 'success', true
             FROM (VALUES (1, timestamptz '2020-02-07'), (2, now())) AS rows (n, at);
             INSERT INTO submissions SELECT 'old' || n, n, '2020-02-07' FROM generate_series(1, 25000) n;
             INSERT INTO submissions VALUES ('new', 2, now());
             INSERT INTO lost_attempts (build, epoch, ended, is_released)
             VALUES (1, 1, '2020-02-07', false), (2, 1, now(), false);
             INSERT INTO uploads (build, epoch, host, ended)
             VALUES (1, 1, 1, '2020-02-07'), (2, 1, 1, now());
             INSERT INTO archives VALUES (1, 1, '2020-02-07'), (2, 1, now());
             INSERT INTO trial_runs VALUES (1, 1, 1, 1, 1, '2020-02-07'), (2, 1, 1, 1, 1, now())",
        )
        .unwrap();
    assert_eq!(
        runtime.block_on(store.forget(24)).unwrap(),
        ["finished_2020_02"]
    );
    assert!(runtime.block_on(store.forget(24)).unwrap().is_empty());
    for (table, id) in [
        ("finished", "id"),
        ("submissions", "build"),
        ("lost_attempts", "build"),
        ("uploads", "build"),
        ("archives", "build"),
        ("trial_runs", "build"),
    ] {
        let rows = client
            .query(&format!("SELECT {id} FROM {table}"), &[])
            .unwrap();
        let left: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(left, [2], "{table}");
    }
}
