//! Tests of the content of listings, and of the indexes that they use.

use config::builds::{Cursor, Request, Submitter};
use config::task::Outcome;
use config::{BuildId, MachineName};
use jiff::Timestamp;
use telemetry::Telemetry;

use super::super::Records;
use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// Build `n` was asked for in second `n`; it took `10 - n` seconds on machine `a` or
/// `b` by turns; 3 failed, 8 has not ended; 2 and 6 are of the project `camera`.
async fn eight() -> (tempfile::TempDir, Records) {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::open(&directory.path().join("r"), Telemetry::default()).unwrap();
    for number in 1..=8 {
        let machine: MachineName = ["a", "b"][number % 2].parse().unwrap();
        let target = if number < 4 { "hello" } else { "world" };
        let text = format!(r#"{{"machine": "{machine}", "sources": [], "target": "{target}"}}"#);
        let mut request: Request = serde_json::from_str(&text).unwrap();
        if [2, 6].contains(&number) {
            request.project = Some("camera".parse().unwrap());
        }
        let who: Submitter = if number == 5 { "eve" } else { "adam" }.parse().unwrap();
        let now = i64::try_from(number).unwrap();
        let toolchain = "default".parse().unwrap();
        let build = records.submit(request, toolchain, who, at(now)).await;
        let mut build = build.unwrap();
        if number < 8 {
            build.enter(State::Starting, at(now)).unwrap();
            build.enter(State::Finished, at(10)).unwrap();
            build.outcome = Some(if number == 3 {
                Outcome::Error
            } else {
                Outcome::Success
            });
            records.save(&mut build).await.unwrap();
        }
    }
    (directory, records)
}

fn listing(query: &str) -> ListQuery {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let mut object = serde_json::Map::new();
    for (key, value) in pairs.filter_map(|pair| pair.split_once('=')) {
        let value = match value.parse::<u64>() {
            Ok(number) => number.into(),
            Err(_) if value == "true" => true.into(),
            Err(_) => value.into(),
        };
        object.insert(key.to_owned(), value);
    }
    serde_json::from_value(object.into()).unwrap()
}

async fn ids(records: &Records, listing: ListQuery) -> Vec<u64> {
    let builds = records.list(listing).await.unwrap();
    builds.iter().map(|build| build.id.0).collect()
}

#[tokio::test]
async fn listings_match_all_conditions() {
    let (_directory, records) = eight().await;
    for (query, expected) in [
        ("", vec![8, 7, 6, 5, 4, 3, 2, 1]),
        ("reverse=true&count=2", vec![1, 2]),
        ("machine=a", vec![8, 6, 4, 2]),
        ("machine=a&toolchain=other", vec![]),
        ("outcome=error", vec![3]),
        ("state=queued", vec![8]),
        ("state=finished&machine=a", vec![6, 4, 2]),
        ("submitter=eve", vec![5]),
        ("submitter=adam&machine=b", vec![7, 3, 1]),
        ("project=camera", vec![6, 2]),
        ("project=camera&sort=finished&count=1", vec![6]),
        ("project=other", vec![]),
        ("package=hello", vec![3, 2, 1]),
        ("package=hello&machine=b&reverse=true", vec![1, 3]),
        ("package=world&sort=seconds", vec![4, 5, 6, 7]),
        (
            "since=1970-01-01T00:00:03Z&until=1970-01-01T00:00:06Z",
            vec![5, 4, 3],
        ),
        ("package=hello&since=1970-01-01T00:00:02Z", vec![3, 2]),
        ("sort=finished&until=1970-01-01T00:00:10Z", vec![]),
        ("sort=finished&machine=a", vec![6, 4, 2]),
        ("sort=seconds&count=3", vec![1, 2, 3]),
        ("before=3", vec![2, 1]),
    ] {
        assert_eq!(ids(&records, listing(query)).await, expected, "{query}");
    }
}

#[tokio::test]
async fn pages_are_complete_even_if_a_build_is_deleted_between_them() {
    let (_directory, records) = eight().await;
    for query in [
        "",
        "sort=finished",
        "sort=seconds",
        "package=world",
        "reverse=true",
    ] {
        let whole = ids(&records, listing(query)).await;
        let mut paged = Vec::new();
        let mut page = Some(ListQuery {
            count: Some(2),
            ..listing(query)
        });
        while let Some(asked) = page {
            let answer = records.list(asked.clone()).await.unwrap();
            paged.extend(answer.iter().map(|build| build.id.0));
            page = asked.next(&answer);
        }
        assert_eq!(paged, whole, "{query}");
    }
    let gone = Cursor {
        key: SortKey::Time(at(100)),
        id: BuildId(100),
    };
    let from = ListQuery {
        from: Some(gone),
        count: Some(1),
        ..ListQuery::default()
    };
    assert_eq!(ids(&records, from).await, [8]);
}

#[tokio::test]
async fn every_listing_uses_an_index() {
    let (_directory, records) = eight().await;
    let connection = records.database.reader().unwrap();
    let filters = [
        "",
        "machine=a",
        "toolchain=default",
        "outcome=error",
        "state=queued",
        "state=finished",
        "submitter=eve",
        "schedule=nightly",
        "project=camera",
        "package=hello",
        "package=hello&machine=a&outcome=error",
        "machine=a&outcome=error&submitter=eve",
        "since=1970-01-01T00:00:03Z",
        "machine=a&since=1970-01-01T00:00:03Z&until=1970-01-01T00:00:06Z",
    ];
    let mut plans = String::new();
    for sort in ["submitted", "finished", "seconds"] {
        let key = if sort == "seconds" {
            "3.5"
        } else {
            "1970-01-01T00:00:04Z"
        };
        for (filter, from) in filters
            .iter()
            .flat_map(|filter| [(filter, false), (filter, true)])
        {
            let from = if from {
                format!("&from={key},4")
            } else {
                String::new()
            };
            let text = format!("{filter}&sort={sort}{from}");
            let query = query(&listing(&text));
            let sql = format!("EXPLAIN QUERY PLAN {}", query.sql);
            let mut statement = connection.prepare(&sql).unwrap();
            let plan = statement
                .query_map(params_from_iter(query.values), |row| {
                    row.get::<_, String>("detail")
                })
                .unwrap();
            let plan: Vec<_> = plan.map(Result::unwrap).collect();
            let plan = plan.join("; ");
            assert!(!plan.contains("TEMP B-TREE"), "{text}: {plan}");
            assert!(
                plan.contains("INDEX") || plan.contains("PRIMARY KEY"),
                "{text}: {plan}"
            );
            if from.is_empty() && sort == "submitted" {
                plans.extend([filter, ": ", &plan, "\n"]);
            }
        }
    }
    insta::assert_snapshot!(plans);
}
