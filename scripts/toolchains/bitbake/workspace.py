"""The workspace of BitBake: the repositories of a project, and the build directory.

It lies outside of the directory that the worker empties, at the same place in the bootstrap and
in all builds. A build therefore starts with what the bootstrap has left there.
"""

import json
import os
import subprocess
import threading
import time
from pathlib import Path

import project as projects
import repositories
from project import Host, ProjectError
from records import Records, error_lines

HOME = Path(os.environ.get("BITBAKE_HOME", "/buildhost/bitbake"))
SOURCES = HOME / "sources"
BUILD = HOME / "build"
HOST_CONF = HOME / "host.conf"
RECORDS = HOME / "records"
TOOLCHAIN = Path(__file__).resolve().parent

# The time between two looks at the records, in seconds.
PAUSE = 0.2


def read_project(directory):
    """Returns the project in a directory with its file and the archives of its repositories."""
    try:
        document = json.loads((directory / "project.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ProjectError(
            "no source is named project.json; `buildhost project build` makes the sources"
        ) from error
    except ValueError as error:
        raise ProjectError(f"project.json is not JSON: {error}") from error
    return projects.parse(document)


def host_of(environment):
    """Returns the services of the host."""
    return Host(
        pr_host=environment.get("BUILDHOST_PR_HOST", ""),
        hash_server=environment.get("BB_HASHSERVE", ""),
        cache=environment.get("BUILDHOST_CACHE", ""),
    )


def prepare(project, archives, host):
    """Updates the repositories, and writes the configuration."""
    changed = []
    for repository in project.repositories:
        archive = archives / repository.archive
        if not archive.is_file():
            raise ProjectError(
                f"no source is named {repository.archive}, the archive of repository "
                f"{repository.name}"
            )
        paths = repositories.update(archive, repository.name, SOURCES / repository.name)
        changed += [f"{repository.name}/{path}" for path in paths]
    (BUILD / "conf").mkdir(parents=True, exist_ok=True)
    (BUILD / "conf/bblayers.conf").write_text(projects.bblayers_conf(project, SOURCES))
    (BUILD / "conf/local.conf").write_text(projects.local_conf(project))
    HOST_CONF.write_text(projects.host_conf(host, str(TOOLCHAIN), str(RECORDS)))
    return changed


def run(project, arguments, show):
    """Runs BitBake. Passes the lines of its output and of its progress to `show`.

    Returns its exit status, its records, and the lines in which it reported errors.
    """
    RECORDS.write_bytes(b"")
    program = SOURCES / project.bitbake / "bin/bitbake"
    if not program.is_file():
        raise ProjectError(f"there is no bin/bitbake in {project.bitbake}, which `bitbake` names")
    environment = {
        "HOME": os.environ.get("HOME", "/"),
        "USER": os.environ.get("USER", "builder"),
        "LANG": "en_US.UTF-8",
        "PATH": f"{program.parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
    }
    process = subprocess.Popen(
        [program, "--postread", HOST_CONF, *arguments],
        cwd=BUILD,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    records, ended = Records(), threading.Event()
    follower = threading.Thread(target=_follow, args=(records, ended, show))
    follower.start()
    lines = []
    for line in process.stdout:
        show(line)
        lines.append(line)
    status = process.wait()
    ended.set()
    follower.join()
    return status, records, error_lines(lines)


def _follow(records, ended, show):
    """Adds the records as they are written, until the end of BitBake and of the file."""
    with open(RECORDS, encoding="utf-8") as file:
        part = ""
        while True:
            is_last = ended.is_set()
            part += file.read()
            *lines, part = part.split("\n")
            for line in lines:
                progress = records.add(line)
                if progress:
                    show(progress + "\n")
            if is_last:
                return
            time.sleep(PAUSE)
