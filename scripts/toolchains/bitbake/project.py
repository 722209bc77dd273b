"""A project: its file `project.json`, and the configuration files of BitBake that it becomes.

Nothing here reads or writes a file.
"""

import re
from dataclasses import dataclass

VERSION = 1

# A name that is one component of a path.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
# The name of a variable, with overrides: `IMAGE_INSTALL:append`. BitBake's own expression is
# `__config_regexp__` in bitbake/lib/bb/parse/parse_py/ConfHandler.py.
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.+-]*(:[A-Za-z0-9_.+-]+)*")
# The variables that depend on the host.
HOST_VARIABLES = "PRSERV_HOST BB_HASHSERVE BB_SIGNATURE_HANDLER SSTATE_MIRRORS PREMIRRORS"
TARGET = re.compile(r"[^\s-]\S*")


class ProjectError(Exception):
    """An error in a project, for its author."""


@dataclass(frozen=True)
class Repository:
    """A repository: the archive `archive` has the content of `commit` in a directory `name`."""

    name: str
    archive: str


@dataclass(frozen=True)
class Project:
    """A project. The paths of the layers and of BitBake begin with the name of a repository."""

    targets: list
    variables: list
    repositories: list
    bitbake: str
    layers: list
    local_conf: list


@dataclass(frozen=True)
class Host:
    """The services of the build host, by the environment of a build."""

    pr_host: str = ""
    hash_server: str = ""
    cache: str = ""


def parse(document):
    """Returns the project of the parsed file `project.json`."""
    _expect(isinstance(document, dict), "is not an object")
    version = document.get("version")
    _expect(
        version == VERSION,
        f"has version {version}, and this toolchain knows {VERSION}: use a newer toolchain",
    )
    repositories = [_repository(it) for it in _list(document, "repositories")]
    names = [repository.name for repository in repositories]
    for name in names:
        _expect(names.count(name) == 1, f"has two repositories with the name {name}")
    targets = [_text(it, "targets") for it in _list(document, "targets")]
    _expect(targets, "has no targets")
    for target in targets:
        _expect(TARGET.fullmatch(target), f"has the target {target!r}, which is not a name")
    layers = [_place(it, "layers", names) for it in _list(document, "layers")]
    _expect(layers, "has no layers")
    return Project(
        targets=targets,
        variables=[_variable(it) for it in _list(document, "variables", optional=True)],
        repositories=repositories,
        bitbake=_place(document.get("bitbake"), "bitbake", names),
        layers=layers,
        local_conf=[
            _line(it, "a line of local_conf")
            for it in _list(document, "local_conf", optional=True)
        ],
    )


def bblayers_conf(project, sources):
    """Returns the text of conf/bblayers.conf, for repositories below the directory `sources`."""
    layers = " ".join(f"{sources}/{layer}" for layer in project.layers)
    return f'LCONF_VERSION = "7"\nBBPATH = "${{TOPDIR}}"\nBBFILES ?= ""\nBBLAYERS = "{layers}"\n'


def local_conf(project):
    """Returns the text of conf/local.conf: the project's variables and lines."""
    lines = [assignment(name, value) for name, value in project.variables]
    return "".join(f"{line}\n" for line in lines + project.local_conf)


def sets(project, name):
    """Returns true if the project gives a variable a value of its own."""
    lines = [line.lstrip() for line in project.local_conf]
    own = any(line.startswith(name) for line in lines)
    return own or any(variable == name for variable, _ in project.variables)


def host_conf(host, classes, records, equivalence=False):
    """Returns the settings of the host, which BitBake reads after all others.

    `classes` is the directory above the class `buildhost`, which writes to the file `records`.
    With `equivalence`, the signatures of tasks follow the hash equivalence server of the host.
    The values that depend on the host do not belong to the identity of the configuration: a
    cache of parsed recipes serves all hosts.
    """
    lines = [
        assignment("BB_SERVER_TIMEOUT", "0"),
        f'BBPATH .= ":{classes}"',
        'INHERIT += "buildhost"',
        assignment("BUILDHOST_RECORDS", records),
        # The layer `core` refuses to parse where it cannot fetch these, and guests have no network.
        assignment("CONNECTIVITY_CHECK_URIS", ""),
        f'BB_HASHCONFIG_IGNORE_VARS:append = " {HOST_VARIABLES}"',
        # BitBake sets it when it has parsed: the resident one would not find its own cache.
        'BB_HASHCONFIG_IGNORE_VARS:append = " BBFILES_PRIORITIZED"',
    ]
    if host.pr_host:
        lines.append(assignment("PRSERV_HOST", host.pr_host))
    if host.hash_server:
        lines.append(assignment("BB_HASHSERVE", host.hash_server))
        if equivalence:
            lines.append(assignment("BB_SIGNATURE_HANDLER", "OEEquivHash"))
    if host.cache:
        lines += _mirrors(host.cache.rstrip("/"))
    return "".join(f"{line}\n" for line in lines)


def assignment(name, value):
    """Returns a line that gives a variable a value.

    BitBake has no escapes: a value ends at the last quote of its line, and a line is refused if
    its value has exactly one quote of the kind that encloses it.
    """
    quote = next((it for it in "\"'" if value.count(it) != 1), None)
    _expect(quote, f"gives {name} a value with one quote of each kind, which BitBake cannot read")
    return f"{name} = {quote}{value}{quote}"


def _mirrors(cache):
    """Returns the lines that look for downloads and shared state in the cache of the host."""
    schemes = "cvs svn git gitsm hg bzr p4 osc https? ftp npm crate gomod".split()
    downloads = " ".join(f"{scheme}://.*/.* {cache}/downloads/" for scheme in schemes)
    sstate = f"file://.* {cache}/sstate-cache/PATH;downloadfilename=PATH"
    return [
        f'PREMIRRORS:prepend = "{downloads} "',
        f'SSTATE_MIRRORS:prepend = "{sstate} "',
    ]


def _repository(value):
    _expect(isinstance(value, dict), "has a repository that is not an object")
    name = _name(value.get("name"), "the name of a repository")
    return Repository(name, _name(value.get("archive"), f"the archive of repository {name}"))


def _variable(value):
    _expect(isinstance(value, dict), "has a variable that is not an object")
    name = value.get("name")
    valid = isinstance(name, str) and VARIABLE.fullmatch(name)
    _expect(valid, f"has the variable {name!r}, which is not the name of one")
    text = _line(value.get("value"), f"the value of {name}")
    assignment(name, text)
    return name, text


def _place(value, key, names):
    """Returns the path of a directory in a repository."""
    _expect(isinstance(value, dict), f"has something in {key} that is not an object")
    repository, path = value.get("repository"), value.get("path", "")
    _expect(repository in names, f"names the repository {repository!r} in {key}, but has none")
    _expect(isinstance(path, str), f"has a path in {key} that is not a text")
    parts = [part for part in path.split("/") if part]
    for part in parts:
        _name(part, f"the path {path!r} in {key}")
    return "/".join([repository, *parts])


def _list(document, key, optional=False):
    value = document.get(key, [] if optional else None)
    _expect(isinstance(value, list), f"has no list {key}")
    return value


def _text(value, subject):
    _expect(isinstance(value, str), f"has something in {subject} that is not a text")
    return value


def _line(value, subject):
    _expect(isinstance(value, str), f"has {subject} that is not a text")
    # The others of `str.splitlines` are harmless: BitBake reads lines that end with a newline.
    _expect(not set(value) & set("\n\r\0"), f"has {subject} with an end of line")
    _expect(not value.endswith("\\"), f"has {subject} that ends with a backslash")
    return value


def _name(value, subject):
    valid = isinstance(value, str) and NAME.fullmatch(value)
    _expect(valid, f"has {value!r} for {subject}, which cannot be the name of a file")
    return value


def _expect(condition, fault):
    if not condition:
        raise ProjectError(f"project.json {fault}")
