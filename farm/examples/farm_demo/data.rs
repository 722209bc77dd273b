//! The content of the demo's farm: tokens, hosts, results of many days, and builds that run and wait.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use config::BuildId;
use config::task::Digest;
use config::tokens::Scope;
use farm_core::{Capacity, Offer, OfferedMachine, Revision};
use farm_store::Store;
use postgres::Client as Database;
use serde_json::{Value, json};
use sys::file::digest_of;
use tokio::runtime::Runtime;

use super::host::Host;
use super::{PAUSE, hash};

/// The tokens of clients, with the secret `NAME-token`.
const TOKENS: [(&str, Scope); 3] = [
    ("admin", Scope::Admin),
    ("submit", Scope::Submit),
    ("read", Scope::Read),
];
/// The packages, each with its machine and the seconds that its builds take.
const PACKAGES: [(&str, &str, u32); 8] = [
    ("busybox", "linux-gcc_14", 48),
    ("zlib", "linux-gcc_14", 21),
    ("openssl", "debian-12", 214),
    ("linux-yocto", "yocto-arm", 1310),
    ("gcc-cross-arm", "yocto-arm", 2204),
    ("hello", "linux-gcc_14", 3),
    ("python3", "debian-12", 402),
    ("core-image-minimal", "yocto-arm", 1720),
];
const SUBMITTERS: [&str; 4] = ["token:nightly", "token:alice", "token:bob", "token:release"];
/// A host, in short.
struct Sketch {
    name: &'static str,
    cpus: u64,
    guests: u64,
    licenses: u64,
    machines: &'static [(&'static str, u64)],
    /// The reason for which it starts nothing.
    halt: Option<&'static str>,
}

/// The hosts that poll.
const HOSTS: [Sketch; 5] = [
    Sketch {
        name: "build1",
        cpus: 16,
        guests: 2,
        licenses: 2,
        machines: &[("linux-gcc_14", 3), ("debian-12", 7)],
        halt: None,
    },
    Sketch {
        name: "build2",
        cpus: 16,
        guests: 1,
        licenses: 0,
        machines: &[("linux-gcc_14", 3), ("debian-12", 7), ("scratch", 1)],
        halt: None,
    },
    Sketch {
        name: "build3",
        cpus: 32,
        guests: 4,
        licenses: 0,
        machines: &[("debian-12", 6)],
        halt: None,
    },
    Sketch {
        name: "arm-rack2-node1",
        cpus: 64,
        guests: 1,
        licenses: 0,
        machines: &[("yocto-arm", 2)],
        halt: None,
    },
    Sketch {
        name: "arm-rack2-node2",
        cpus: 64,
        guests: 1,
        licenses: 0,
        machines: &[("yocto-arm", 2)],
        halt: Some("the volume /var/lib/buildhost/machines is full: 1.2 GiB free, 5 GiB kept"),
    },
];
/// The builds that run: package, machine, submitter, and the seconds since their claims.
const RUNNING: [(&str, &str, &str, u32); 4] = [
    ("openssl", "debian-12", "token:alice", 97),
    ("core-image-minimal", "yocto-arm", "token:nightly", 1100),
    ("zlib", "linux-gcc_14", "token:bob", 6),
    ("busybox", "linux-gcc_14", "token:nightly", 12),
];
/// The builds that wait: package, machine, submitter, and the licenses that they need.
const WAITING: [(&str, &str, &str, u64); 4] = [
    ("gcc-cross-arm", "yocto-arm", "token:nightly", 0),
    ("python3", "debian-12", "token:bob", 0),
    ("firmware", "linux-gcc_14", "token:release", 3),
    ("driver", "windows-11", "token:alice", 0),
];
/// The time within which the hosts take their builds.
const TAKEN_MAX: Duration = Duration::from_mins(1);

/// Adds the tokens of clients.
pub(crate) async fn add_tokens(store: &Store) -> anyhow::Result<()> {
    for (name, scope) in TOKENS {
        let secret = hash(&format!("{name}-token"));
        store.add_token(&name.parse()?, scope, secret).await?;
    }
    Ok(())
}

/// Enrols the hosts that poll, and publishes their machines.
pub(crate) async fn add_hosts(store: &Store, coordinators: &[String]) -> anyhow::Result<Vec<Host>> {
    let mut hosts = Vec::new();
    for sketch in HOSTS {
        let key = enrol(store, sketch.name).await?;
        let total = capacity(&sketch)?;
        let machines = sketch.machines.iter().map(|(name, revision)| {
            let machine = OfferedMachine {
                revision: Revision(*revision),
                content: Some(content(name, *revision)),
                toolchains: ["default".parse()?].into(),
                frozen: true,
                ..OfferedMachine::default()
            };
            Ok((name.parse()?, machine))
        });
        hosts.push(Host {
            key,
            coordinators: coordinators.to_owned(),
            offer: Offer {
                machines: machines.collect::<anyhow::Result<_>>()?,
                free: total.clone(),
                total,
                halt: sketch.halt.map(str::to_owned),
                version: "0.1.0".to_owned(),
            },
            held: Mutex::default(),
            http: reqwest::Client::new(),
        });
    }
    for (machine, revision) in [("linux-gcc_14", 3), ("debian-12", 7), ("yocto-arm", 2)] {
        post(
            &coordinators[0],
            &format!("machines/{machine}"),
            &json!({ "revision": revision, "content": content(machine, revision) }),
        )
        .await?;
    }
    post(&coordinators[0], "hosts/build3/drain", &Value::Null).await?;
    Ok(hosts)
}

/// Returns the digest of the content of a revision.
fn content(machine: &str, revision: u64) -> Digest {
    digest_of(format!("{machine} {revision}").as_bytes())
}

/// Enrols a host, and returns its key.
async fn enrol(store: &Store, name: &str) -> anyhow::Result<String> {
    let (token, key) = (format!("the token of {name}"), format!("{name:x<64}"));
    store.invite(hash(&token), name, 60).await?;
    let enrolled = store.enrol(hash(&token), hash(&key)).await?;
    enrolled.with_context(|| format!("host {name} has not enrolled"))?;
    Ok(key)
}

fn capacity(sketch: &Sketch) -> anyhow::Result<Capacity> {
    let mut resources = BTreeMap::new();
    if sketch.licenses > 0 {
        resources.insert("license".parse()?, sketch.licenses);
    }
    Ok(Capacity {
        guests: sketch.guests,
        cpus: sketch.cpus,
        memory_mib: sketch.cpus * 4096,
        resources,
    })
}

/// Adds hosts that are silent, have never polled, and whose key was taken away.
pub(crate) fn add_absent_hosts(
    database: &mut Database,
    store: &Store,
    runtime: &Runtime,
) -> anyhow::Result<()> {
    for name in ["build4", "build5", "build6"] {
        runtime.block_on(enrol(store, name))?;
    }
    database.batch_execute(
        r#"UPDATE hosts SET seen = now() - interval '47 min' WHERE name IN ('build4', 'build6');
        INSERT INTO offers SELECT id, '{"total":{"guests":2,"cpus":8,"memory_mib":32768},"version":"0.1.0"}'
            FROM hosts WHERE name = 'build4'"#,
    )?;
    ensure!(
        runtime.block_on(store.revoke("build6"))?,
        "no host was revoked"
    );
    Ok(())
}

/// Adds results, the newest of which is some minutes old.
pub(crate) fn add_results(database: &mut Database, count: u32) -> anyhow::Result<()> {
    let add = database.prepare(
        "INSERT INTO finished (id, submitter, machine, requirements, submitted, claimed, finished, epoch,
            host, losses, revision, outcome, is_reported, target)
        SELECT nextval('build_ids'), $1, $2, $3, at, at + interval '4 s',
            at + interval '4 s' + $5 * interval '1 s', 1 + $6::bigint,
            (SELECT id FROM hosts WHERE name = $7), $6::bigint, $8::bigint, $9, true, $10
        FROM (SELECT now() - $4 * interval '1 s' AS at) AS submitted",
    )?;
    for number in 0..count {
        let (target, machine, usual) = PACKAGES[(number * 5 % 8) as usize];
        let seconds = usual + number * 7 % (usual / 4 + 1);
        let ago = (count - number) * 180 + 2600;
        let losses = i64::from(number % 29 == 7) + i64::from(number + 3 == count) * 2;
        let host = match machine {
            "yocto-arm" => ["arm-rack2-node1", "arm-rack2-node2"][(number % 2) as usize],
            _ => ["build1", "build2", "build3"][(number % 3) as usize],
        };
        let revision: i64 = match machine {
            "debian-12" => 7,
            "yocto-arm" => 2,
            _ => 3,
        };
        let is_late = number + 24 > count;
        let outcome = match (target, number % 41) {
            ("zlib" | "python3", _) if is_late => "error",
            ("linux-yocto", _) if is_late => "abnormal",
            (_, 5) => "warning",
            (_, 12) => "error",
            (_, 23) => "abort",
            _ => "success",
        };
        database.execute(
            &add,
            &[
                &SUBMITTERS[(number / 3 % 4) as usize],
                &machine,
                &requirements(target, machine, 0).to_string(),
                &f64::from(ago),
                &f64::from(seconds),
                &losses,
                &host,
                &revision,
                &outcome,
                &target,
            ],
        )?;
    }
    // The attempts that were lost, some of them because the host gave the build back.
    database.batch_execute(
        "INSERT INTO lost_attempts (build, epoch, host, claimed, ended, is_released)
        SELECT finished.id, lost, hosts.id, submitted + lost * interval '1 s',
            submitted + lost * interval '1 s' + interval '1 s', lost % 2 = 0
        FROM finished, generate_series(1, losses) AS lost
        JOIN hosts ON hosts.name = CASE lost % 2 WHEN 0 THEN 'build1' ELSE 'build3' END",
    )?;
    Ok(())
}

/// Submits the builds that run, and returns their numbers.
pub(crate) async fn submit_running(coordinator: &str) -> anyhow::Result<Vec<BuildId>> {
    let mut builds = Vec::new();
    for (target, machine, submitter, _) in RUNNING {
        builds.push(submit(coordinator, target, machine, submitter, 0).await?);
    }
    Ok(builds)
}

/// Submits the builds that wait.
pub(crate) async fn submit_waiting(coordinator: &str) -> anyhow::Result<()> {
    for (target, machine, submitter, licenses) in WAITING {
        submit(coordinator, target, machine, submitter, licenses).await?;
    }
    Ok(())
}

async fn submit(
    coordinator: &str,
    target: &str,
    machine: &str,
    submitter: &str,
    licenses: u64,
) -> anyhow::Result<BuildId> {
    let build = json!({
        "key": format!("{target} on {machine} of {submitter}"),
        "submitter": submitter,
        "target": target,
        "requirements": requirements(target, machine, licenses),
    });
    let answer = post(coordinator, "builds", &build).await?;
    Ok(serde_json::from_value(answer["build"].clone())?)
}

fn requirements(target: &str, machine: &str, licenses: u64) -> Value {
    let resources = if licenses > 0 {
        json!({ "license": licenses })
    } else {
        json!({})
    };
    json!({
        "machine": machine, "toolchain": "default", "cpus": 4, "memory_mib": 8192,
        "resources": resources, "work": { "script": "#!/bin/sh\nmake\n", "package": target },
    })
}

/// Waits until the hosts have taken their builds.
pub(crate) fn wait_for_running(database: &mut Database) -> anyhow::Result<()> {
    let began = Instant::now();
    let query = "SELECT count(*) FROM builds WHERE state = 1";
    while database.query_one(query, &[])?.get::<_, i64>(0) < RUNNING.len().try_into()? {
        if began.elapsed() > TAKEN_MAX {
            bail!("the hosts have not taken their builds");
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Sets the times of the builds that run.
pub(crate) fn set_times(database: &mut Database) -> anyhow::Result<()> {
    for (target, _, _, seconds) in RUNNING {
        database.execute(
            "UPDATE builds SET claimed = now() - $2 * interval '1 s',
                submitted = now() - ($2 + 3) * interval '1 s' WHERE target = $1",
            &[&target, &f64::from(seconds)],
        )?;
    }
    Ok(())
}

/// Sets the times of the builds that wait.
pub(crate) fn set_waiting_times(database: &mut Database) -> anyhow::Result<()> {
    let sql =
        "UPDATE builds SET submitted = now() - (3 + id % 7 * 40) * interval '1 s' WHERE state = 0";
    database.execute(sql, &[])?;
    Ok(())
}

/// Sends a request as the administrator.
async fn post(coordinator: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
    let request = reqwest::Client::new().post(format!("{coordinator}/farm/v1/{path}"));
    let answer = request.bearer_auth("admin-token").json(body).send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status.is_success(), "{path}: {status}: {text}");
    Ok(serde_json::from_str(&text).unwrap_or_default())
}
