//! The answers of a test controller.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use config::manifest::{self, Manifest};
use sys::command;

use super::message::{Answer, Request};
use super::{RequestKind, Session, State};

/// The limits of requests for tasks and of results.
const TASK_REQUEST_BYTES_MAX: usize = 102_400;
const RESULT_BYTES_MAX: usize = 15_728_640;
/// The version of all packages.
const VERSION: &str = "1.0.0";
/// The types of uploads that are taken.
const UPLOADS: [&str; 2] = ["archive", "bindist"];
/// The values of the agent and of a machine that are known.
const AGENT_VALUES: [&str; 7] = [
    "agent",
    "toolchain-name",
    "toolchain-version",
    "interactive-mode",
    "interactive-login",
    "fingerprint",
    "auxiliary-ram",
];
const MACHINE_VALUES: [&str; 6] = [
    "id",
    "name",
    "summary",
    "role",
    "ram-minimum",
    "ram-maximum",
];
/// The statuses of results.
const STATUSES: [&str; 7] = [
    "skip",
    "success",
    "warning",
    "error",
    "abort",
    "abnormal",
    "interrupt",
];

/// Answers a request.
pub(super) fn answer(
    state: &mut State,
    kind: RequestKind,
    request: &Request,
    base: &str,
) -> Answer {
    let answered = match kind {
        RequestKind::Task => task(state, request, base),
        RequestKind::Upload => upload(state, request),
        RequestKind::Result => result(state, request),
    };
    answered.unwrap_or_else(|refused| refused)
}

fn bad(reason: impl Into<String>) -> Answer {
    (400, reason.into())
}

fn parse(request: &Request, bytes_max: usize) -> Result<Vec<Manifest>, Answer> {
    if request.body.len() > bytes_max {
        return Err((413, "payload too large".into()));
    }
    let text = str::from_utf8(&request.body).map_err(|error| bad(error.to_string()))?;
    manifest::parse(text).map_err(|error| bad(error.to_string()))
}

fn value<'m>(manifest: &'m Manifest, name: &str) -> Result<&'m str, Answer> {
    let value = manifest.get(name).filter(|value| !value.is_empty());
    value.ok_or_else(|| bad(format!("no {name} specified")))
}

fn check_known(manifest: &Manifest, known: &[&str]) -> Result<(), Answer> {
    let mut names = manifest.pairs().iter().map(|(name, _)| name.as_str());
    match names.find(|name| !known.contains(name)) {
        Some(name) => Err(bad(format!("unknown name '{name}'"))),
        None => Ok(()),
    }
}

fn task(state: &mut State, request: &Request, base: &str) -> Result<Answer, Answer> {
    let known = [
        "build-task",
        "repository",
        "tenant-service-type",
        "interactive",
    ];
    if let Some((name, _)) = request
        .query
        .iter()
        .find(|it| !known.contains(&it.0.as_str()))
    {
        return Err(bad(format!("unknown parameter {name}")));
    }
    let manifests = parse(request, TASK_REQUEST_BYTES_MAX)?;
    let (agent, machines) = manifests.split_first().ok_or_else(|| bad("empty"))?;
    check_known(agent, &AGENT_VALUES)?;
    for name in ["agent", "toolchain-name", "toolchain-version"] {
        value(agent, name)?;
    }
    let (mut offered, mut auxiliaries) = (Vec::new(), BTreeMap::new());
    for machine in machines {
        check_known(machine, &MACHINE_VALUES)?;
        value(machine, "summary")?;
        let (name, id) = (value(machine, "name")?, value(machine, "id")?);
        match machine.get("role").unwrap_or("build") {
            "build" => offered.push((name.to_owned(), id.to_owned())),
            "auxiliary" => drop(auxiliaries.insert(name.to_owned(), auxiliary_memory(machine)?)),
            role => return Err(bad(format!("invalid role '{role}'"))),
        }
    }
    if offered.is_empty() {
        return Err(bad("no build machines specified"));
    }
    if state.public_key.is_some() && agent.get("fingerprint").is_none() {
        return Err((401, "unauthorized".into()));
    }
    state.requests.push((agent.clone(), offered.clone()));
    let most = agent.get("auxiliary-ram").map(str::parse::<u64>);
    let most = most.transpose().map_err(|error| bad(error.to_string()))?;
    let is_for = |task: &super::Task| {
        offered.iter().any(|(name, _)| *name == task.machine)
            && has_auxiliaries(task, &auxiliaries, most)
    };
    let index = state.tasks.iter().position(is_for);
    state.auxiliaries = auxiliaries;
    let Some(index) = index else {
        return Ok((200, manifest::print(&[Manifest::new().with("session", "")])));
    };
    let Some(task) = state.tasks.remove(index) else {
        return Err((500, "no task".into()));
    };
    Ok((200, hand_out(state, task, agent, base)))
}

/// Returns the least memory of an auxiliary machine, whose name must begin with an architecture.
fn auxiliary_memory(machine: &Manifest) -> Result<u64, Answer> {
    let name = value(machine, "name")?;
    if !name.contains('-') || name.starts_with('-') || name.ends_with('-') {
        return Err(bad(format!(
            "no architecture in auxiliary machine '{name}'"
        )));
    }
    let memory = value(machine, "ram-minimum")?;
    memory.parse().map_err(|_| bad("invalid ram-minimum"))
}

/// Returns true if all auxiliary machines of a task are offered, and their memory is.
fn has_auxiliaries(task: &super::Task, offered: &BTreeMap<String, u64>, most: Option<u64>) -> bool {
    let values = task.values.pairs().iter();
    let names = values.filter(|(name, _)| name.starts_with("auxiliary-machine"));
    let memory: Option<u64> = names.map(|(_, machine)| offered.get(machine)).sum();
    memory.is_some_and(|memory| most.is_none_or(|most| memory <= most))
}

/// Makes a session, and returns the answer with its task.
fn hand_out(state: &mut State, task: super::Task, agent: &Manifest, base: &str) -> String {
    state.made += 1;
    let toolchain = agent.get("toolchain-name").unwrap_or_default();
    let name = format!(
        "t/{}/{VERSION}/x86_64-linux-gnu/{}/default/{toolchain}/0.17.0/{:019}",
        task.package, task.machine, state.made
    );
    let challenge = state.public_key.as_ref().map(|_| {
        let digest = sys::file::digest_of(name.as_bytes());
        digest.to_string()
    });
    let mut header = Manifest::new().with("session", &name);
    if let Some(challenge) = &challenge {
        header = header.with("challenge", challenge);
    }
    header = header.with("result-url", &format!("{base}?build-result"));
    for kind in UPLOADS {
        header = header.with(
            &format!("{kind}-upload-url"),
            &format!("{base}?upload={kind}"),
        );
    }
    let manifest = Manifest::new()
        .with("name", &task.package)
        .with("version", VERSION)
        .with("repository-url", "https://git.example.org/x.git#master")
        .with("machine", &task.machine);
    let values = task.values.pairs().iter();
    let manifest = values.fold(manifest, |all, (name, value)| all.with(name, value));
    state.sessions.insert(
        name,
        Session {
            task,
            challenge,
            accepted: Vec::new(),
            stale: 0,
            result: None,
            uploads: Vec::new(),
            unauthenticated: false,
        },
    );
    manifest::print(&[header, manifest])
}

fn result(state: &mut State, request: &Request) -> Result<Answer, Answer> {
    if request.query != [("build-result".to_owned(), String::new())] {
        return Err(bad("unknown parameter"));
    }
    let manifests = parse(request, RESULT_BYTES_MAX)?;
    let [header, result] = manifests.as_slice() else {
        return Err(bad("a result is expected"));
    };
    check_known(header, &["session", "challenge", "agent-checksum"])?;
    let name = value(header, "session")?;
    let status = value(result, "status")?.to_owned();
    if !STATUSES.contains(&status.as_str()) {
        return Err(bad(format!("invalid status '{status}'")));
    }
    let parts: Vec<_> = name.split('/').collect();
    if parts.len() != 9 || parts[8].parse::<u64>().is_err() {
        return Err(bad("invalid session"));
    }
    if value(result, "name")? != parts[1] || value(result, "version")? != parts[2] {
        return Err(bad("invalid session: package name or version mismatch"));
    }
    let key = state.public_key.clone();
    let Some(session) = state.sessions.get_mut(name) else {
        return Ok((200, String::new()));
    };
    if !session.accepted.is_empty() {
        session.stale += 1;
        return Ok((200, String::new()));
    }
    if !is_authentic(key.as_deref(), session, header.get("challenge")) {
        session.unauthenticated = true;
        return Ok((200, String::new()));
    }
    session.accepted.push(status.clone());
    session.result = Some(result.clone());
    if status == "interrupt" {
        let task = session.task.clone();
        state.tasks.push_back(task);
    }
    Ok((200, String::new()))
}

/// Verifies a challenge as brep does: the program recovers the signed text.
fn is_authentic(key: Option<&Path>, session: &Session, answer: Option<&str>) -> bool {
    let (Some(key), Some(challenge)) = (key, &session.challenge) else {
        return session.challenge.is_none() && answer.is_none();
    };
    let Some(answer) = answer else { return false };
    let directory = tempfile::tempdir().expect("a directory");
    let (encoded, signature) = (
        directory.path().join("base64"),
        directory.path().join("sig"),
    );
    crate::write_file(&encoded, &format!("{answer}\n"));
    let mut decode = command::prepare("openssl");
    decode.args(["base64", "-d", "-A", "-in"]).arg(&encoded);
    decode.arg("-out").arg(&signature);
    let mut recover = command::prepare("openssl");
    recover
        .args(["pkeyutl", "-verifyrecover", "-pubin", "-inkey"])
        .arg(key);
    recover.arg("-in").arg(&signature);
    let limit = Duration::from_mins(1);
    let recovered = command::run(decode, limit).and_then(|_| command::run(recover, limit));
    recovered.is_ok_and(|text| text == challenge.as_bytes())
}

fn upload(state: &mut State, request: &Request) -> Result<Answer, Answer> {
    let [(_, kind)] = request.query.as_slice() else {
        return Err(bad("invalid parameter"));
    };
    let boundary = request.content_type.split_once("boundary=");
    let (_, boundary) = boundary.ok_or_else(|| bad("no form"))?;
    let form = form(&request.body, boundary).ok_or_else(|| bad("no form"))?;
    let field = |name: &str| {
        let found = form.iter().find(|(field, _, _)| field == name);
        found.ok_or_else(|| bad(format!("upload {name} expected")))
    };
    let text = |name: &str| {
        let (_, _, content) = field(name)?;
        String::from_utf8(content.clone()).map_err(|_| bad("not UTF-8"))
    };
    let (_, file, content) = field("archive")?;
    let digest = sys::file::digest_of(content).to_string();
    if text("sha256sum")? != digest {
        return Err(bad("upload archive checksum mismatch"));
    }
    let queued = Manifest::new()
        .with("status", "200")
        .with("message", &format!("{kind} upload is queued"));
    let queued = (200, manifest::print(&[queued]));
    let (name, key) = (text("session")?, state.public_key.clone());
    let Some(session) = state.sessions.get_mut(&name) else {
        return Ok(queued);
    };
    let challenge = text("challenge").ok();
    let is_open = session.accepted.is_empty();
    if is_open && is_authentic(key.as_deref(), session, challenge.as_deref()) {
        let upload = (
            kind.clone(),
            text("instance")?,
            file.clone(),
            content.clone(),
        );
        session.uploads.push(upload);
    }
    Ok(queued)
}

/// Returns the fields of a form: name, name of the file and content.
fn form(body: &[u8], boundary: &str) -> Option<Vec<(String, String, Vec<u8>)>> {
    let delimiter = format!("\r\n--{boundary}");
    let mut rest = body.strip_prefix(&delimiter.as_bytes()[2..])?;
    let mut fields = Vec::new();
    while let Some(part) = rest.strip_prefix(b"\r\n") {
        let head = find(part, b"\r\n\r\n")?;
        let end = find(&part[head..], delimiter.as_bytes())? + head;
        let headers = str::from_utf8(&part[..head]).ok()?;
        let parameter = |name: &str| {
            let (_, value) = headers.split_once(&format!("{name}=\""))?;
            Some(value.split_once('"')?.0.to_owned())
        };
        let file = parameter("filename").unwrap_or_default();
        fields.push((parameter(" name")?, file, part[head + 4..end].to_vec()));
        rest = &part[end + delimiter.len()..];
    }
    Some(fields)
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len())
        .position(|window| window == wanted)
}
