"""The workspace of BitBake: the repositories of a project, and the build directory.

It lies outside of the directory that the worker empties, at the same place in the bootstrap and
in all builds. A build therefore starts with what the bootstrap has left there.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import project as projects
import repositories
import resident
from project import Host, ProjectError
from records import Records, error_lines
from resident import Changes

HOME = Path(os.environ.get("BITBAKE_HOME", "/buildhost/bitbake"))
SOURCES = HOME / "sources"
BUILD = HOME / "build"
HOST_CONF = HOME / "host.conf"
RECORDS = HOME / "records"
FIRST = HOME / "first"
RESIDENT = HOME / "resident.sock"
RESIDENT_LOG = HOME / "resident.log"
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
    """Updates the repositories, and writes the configuration. Returns what has changed."""
    changes = Changes(configuration=configure(project, host))
    for repository in project.repositories:
        archive = archives / repository.archive
        if not archive.is_file():
            raise ProjectError(
                f"no source is named {repository.archive}, the archive of repository "
                f"{repository.name}"
            )
        paths = repositories.update(archive, repository.name, SOURCES / repository.name)
        changes.repositories += [f"{repository.name}/{path}" for path in paths]
    return changes


def configure(project, host):
    """Writes the files of the configuration that differ, and returns their names."""
    equivalence = has_equivalence(project, SOURCES)
    texts = {
        BUILD / "conf/bblayers.conf": projects.bblayers_conf(project, SOURCES),
        BUILD / "conf/local.conf": projects.local_conf(project),
        HOST_CONF: projects.host_conf(host, str(TOOLCHAIN), str(RECORDS), equivalence),
    }
    (BUILD / "conf").mkdir(parents=True, exist_ok=True)
    changed = [path for path, text in texts.items() if not _is_text(path, text)]
    for path in changed:
        # BitBake reads a file again whose time has changed.
        path.write_text(texts[path])
    return [path.name for path in changed]


def _is_text(path, text):
    try:
        return path.read_text() == text
    except FileNotFoundError:
        return False


def has_equivalence(project, sources):
    """Returns true if a layer has the signature handler of hash equivalence.

    The layer `core` of OpenEmbedded has it. A project that chooses a handler keeps its own.
    """
    if projects.sets(project, "BB_SIGNATURE_HANDLER"):
        return False
    handlers = (sources / layer / "lib/oe/sstatesig.py" for layer in project.layers)
    return any("class SignatureGeneratorOEEquivHash" in _text(it) for it in handlers)


def _text(path):
    """Returns the text of a file; an empty one if there is none."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def run(project, changes, arguments, show):
    """Runs BitBake, the resident one if it has parsed what is built. Passes the lines of its output
    and of its progress to `show`.

    Returns its exit status, its records, and the lines in which it reported errors.
    """
    RECORDS.write_bytes(b"")
    process = _use_resident(project, changes, arguments, show) or _start(project, arguments)
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


def run_first(project):
    """Runs BitBake with a recipe of its own, so that it has parsed the functions of the layers.

    Their dependencies are part of the configuration's identity, and BitBake finds others when it
    parses a function than when its cache has it (`modulecode_deps` in bitbake/lib/bb/codeparser.py).
    Without this run, the cache of the first parse would not be found by the second. An error is
    reported by the parse of the layers.
    """
    FIRST.mkdir(exist_ok=True)
    recipe, conf = FIRST / "first_1.0.bb", FIRST / "first.conf"
    recipe.write_text('SUMMARY = "The first recipe"\nLICENSE = "CLOSED"\n')
    conf.write_text(f'BBFILES = "{recipe}"\n')
    with _start(project, ["--postread", conf, "--parse-only"]) as process:
        process.stdout.read()


def start_resident(project):
    """Starts the resident BitBake. Returns its process, which listens when it has parsed."""
    program = _program(project)
    RESIDENT.unlink(missing_ok=True)
    server = [TOOLCHAIN / "resident_server.py", program.parent.parent, RESIDENT]
    with open(RESIDENT_LOG, "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-B", *server, "--postread", HOST_CONF],
            cwd=BUILD,
            env=_environment(program),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _use_resident(project, changes, arguments, show):
    """Returns the run of the resident BitBake; `None` if none shall be used."""
    connection = resident.connect(RESIDENT)
    if connection is None:
        return None
    use = resident.decide(changes, project.bitbake)
    verdict, reason = "outdated", f"{use.reason} since the checkpoint"
    if not use.reason:
        try:
            run_of_resident = resident.Run(connection, arguments, use.check)
        except resident.ResidentError as error:
            verdict, reason = "failed", f"that of the checkpoint has failed: {error}"
        else:
            show("buildhost-progress: preload used\n")
            show("build: BitBake has parsed the recipes in the checkpoint\n")
            return run_of_resident
    connection.close()
    show(f"buildhost-progress: preload {verdict}\n")
    show(f"build: BitBake starts cold, because {reason}\n")
    try:
        resident.end_server(BUILD)
    except resident.ResidentError as error:
        raise ProjectError(f"the BitBake of the checkpoint is in the way: {error}") from error
    return None


def _start(project, arguments):
    program = _program(project)
    return subprocess.Popen(
        [program, "--postread", HOST_CONF, *arguments],
        cwd=BUILD,
        env=_environment(program),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )


def _program(project):
    program = SOURCES / project.bitbake / "bin/bitbake"
    if not program.is_file():
        raise ProjectError(f"there is no bin/bitbake in {project.bitbake}, which `bitbake` names")
    return program


def _environment(program):
    return {
        "HOME": os.environ.get("HOME", "/"),
        "USER": os.environ.get("USER", "builder"),
        "LANG": "en_US.UTF-8",
        "PATH": f"{program.parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
    }


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
