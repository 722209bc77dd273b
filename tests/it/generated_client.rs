//! A client that a foreign generator makes from the description of the API.

use std::path::PathBuf;
use std::time::Duration;

use sys::command::{prepare, run};
use tests::api_host::ApiHost;

/// The time limit for an installation or a generation.
const LIMIT: Duration = Duration::from_mins(4);
/// The generator, as a requirement for pip.
const GENERATOR: &str = "openapi-python-client==0.29.1";

/// A program that uses the client. Its arguments are the address of the host and a token.
const PROGRAM: &str = r#"
import hashlib, io, sys
from generated import AuthenticatedClient
from generated.api.builds import build, cancel_build, hand_in_source, list_builds, submit_build
from generated.models import Problem, Request, Source, State
from generated.types import File

client = AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2])
sha256 = hashlib.sha256(b"source").hexdigest()
put = hand_in_source.sync_detailed(sha256, client=client, body=File(payload=io.BytesIO(b"source")))
assert put.status_code == 201, put
request = Request(machine="linux", sources=[Source(name="a.tar", sha256=sha256)])
made = submit_build.sync(client=client, body=request, idempotency_key="k")
again = submit_build.sync(client=client, body=request, idempotency_key="k")
assert made.id == again.id == 1 and made.state == State.QUEUED, (made, again)
assert [it.id for it in list_builds.sync(client=client, state=State.QUEUED)] == [1]
assert cancel_build.sync(1, client=client).outcome == "abort"
assert build.sync(1, client=client).state == State.FINISHED
missing = build.sync(7, client=client)
assert isinstance(missing, Problem) and missing.status == 404, missing
"#;

/// Tests that take minutes; `scripts/test --long` runs them.
mod long {
    use super::*;

    #[test]
    #[ignore = "takes minutes and downloads the generator"]
    fn a_generated_client_works() {
        let cache = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.cache/openapi-client");
        let tools = cache.join("bin");
        if !cache.join("ready").exists() {
            let mut venv = prepare("python3");
            venv.args(["-m", "venv", "--clear"]).arg(&cache);
            run(venv, LIMIT).unwrap();
            let mut install = prepare(tools.join("python"));
            install.args(["-m", "pip", "--quiet", "install", GENERATOR]);
            run(install, LIMIT).unwrap();
            tests::write_file(&cache.join("ready"), GENERATOR);
        }
        let host = ApiHost::new("");
        host.allow(&[("submit", "s")]);
        let description = host.path("openapi.json");
        tests::write_file(&description, agent::api::OPENAPI);
        let mut generate = prepare(tools.join("openapi-python-client"));
        generate.args(["generate", "--meta", "none", "--output-path"]);
        generate.arg(host.path("generated"));
        generate.arg("--path").arg(&description);
        run(generate, LIMIT).unwrap();
        let mut program = prepare(tools.join("python"));
        program.args(["-c", PROGRAM, &format!("http://{}", host.address), "s"]);
        program.env("PYTHONPATH", host.path(""));
        run(program, LIMIT).unwrap();
    }
}
