"""The files of a build that become its artifacts."""

import os
import shutil
from pathlib import Path

import packages


def take_products(found, out):
    """Puts packages, images and SDKs among the artifacts. Returns the text of packages.manifest."""
    deploy = Path(found.directories.get("DEPLOY_DIR") or "/nonexistent")
    made = {}
    for kind in ("deb", "ipk", "rpm"):
        for path in _files(deploy / kind):
            package = packages.parse_name(path.name)
            if package and package.file not in made:
                made[package.file] = package
                _take(path, out)
    images = Path(found.directories.get("DEPLOY_DIR_IMAGE") or deploy / "images")
    for path in [*_files(images), *_files(deploy / "sdk")]:
        _take(path, out)
    data = Path(found.directories.get("PKGDATA_DIR") or "/nonexistent") / "runtime"
    texts = (path.read_text(errors="replace") for path in _files(data) if path.suffix != ".packaged")
    return packages.manifest(
        [made[file] for file in sorted(made)],
        packages.recipes(texts),
        found.revisions,
        lambda file: packages.sha256(out / file),
    )


def take_logs(failed, build, out):
    """Puts the logs of failed tasks and of BitBake's server among the artifacts.

    Returns the text of the log of the first task.
    """
    texts = []
    for task in failed:
        log = Path(task["log"])
        if log.is_file():
            texts.append(log.read_text(errors="replace"))
            _take(log, out, f"{task['PF']}.{task['task']}.log")
    server = build / "bitbake-cookerdaemon.log"
    if server.is_file():
        _take(server, out)
    return texts[0] if texts else ""


def _files(directory):
    """Returns the files below a directory; links belong to other files."""
    found = []
    for parent, _, names in os.walk(directory):
        paths = (Path(parent, name) for name in names if not name.startswith("."))
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
    return sorted(found)


def _take(path, out, name=None):
    """Puts a file among the artifacts, without a copy where that is possible."""
    target = out / (name or path.name)
    if target.exists():
        # Two machines have an image of the same name.
        target = out / f"{path.parent.name}-{path.name}"
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)
