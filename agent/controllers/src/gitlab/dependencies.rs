//! The artifacts of earlier jobs: the part of a job's script that fetches and unpacks them; pure.

use std::fmt::Write as _;

use super::job::{Dependency, Job};
use super::shell::quoted;

/// The functions of the script. The token does not become an argument of a program if `curl` is there. GitLab
/// is asked for the bytes themselves, and no redirection is followed by `curl`, which would take the token
/// along.
const FUNCTIONS: &str = "\
_buildhost_fetch() {
if command -v curl >/dev/null 2>&1; then
printf 'header = \"JOB-TOKEN: %s\"\\n' \"$2\" | curl -q -sS -f --retry 3 -K - -o \"$3\" \"$1\"
elif command -v wget >/dev/null 2>&1; then wget -q --header=\"JOB-TOKEN: $2\" -O \"$3\" \"$1\"
else echo 'The machine has neither curl nor wget, which fetch artifacts of other jobs'; return 1; fi
}
_buildhost_unpack() {
if command -v unzip >/dev/null 2>&1; then unzip -q -o \"$1\"
elif command -v busybox >/dev/null 2>&1; then busybox unzip -q -o \"$1\"
else echo 'The machine has no unzip, which unpacks artifacts of other jobs'; return 1; fi
}
";

/// Adds the part of a script that unpacks the artifacts of earlier jobs into the project. The job fails if
/// those of one are missing. `server` is the address of GitLab, `root` that of the job's directories.
pub(super) fn add(text: &mut String, job: &Job, server: &str, root: &str) {
    let mut all = job.with_artifacts().peekable();
    if all.peek().is_none() {
        return;
    }
    text.push_str(FUNCTIONS);
    let file = quoted(&format!("{root}/dependency.zip"));
    let server = server.trim_end_matches('/');
    for dependency in all {
        let Dependency {
            id, name, token, ..
        } = dependency;
        let url = format!("{server}/api/v4/jobs/{id}/artifacts?direct_download=false");
        let _ = write!(
            text,
            "printf '%s\\n' {}\n\
             _buildhost_fetch {} {} {file} && _buildhost_unpack {file} || {{ printf '%s\\n' {}; exit 1; }}\n\
             rm -f {file}\n",
            quoted(&format!("Getting the artifacts of {name} ({id})")),
            quoted(&url),
            quoted(token.reveal()),
            quoted(&format!("The artifacts of {name} cannot be had")),
        );
    }
}
