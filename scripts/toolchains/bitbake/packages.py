"""The list of the packages that BitBake has made."""

import hashlib
import os
import re
from dataclasses import dataclass

PACKAGE_SUFFIXES = (".deb", ".ipk", ".rpm")
# The revision of a recipe with the value of the PR service: `r0.2`.
REVISION = re.compile(r"(r[0-9]+)\.[0-9]+(\.[0-9]+)*")


@dataclass(frozen=True)
class Package:
    """A package, by the name of its file."""

    file: str
    name: str
    version: str
    revision: str
    architecture: str


def parse_name(file):
    """Returns the package of a file; `None` if its name is not that of a package."""
    stem, suffix = os.path.splitext(file)
    if suffix in (".deb", ".ipk"):
        parts = stem.split("_")
        version, dash, revision = parts[1].rpartition("-") if len(parts) == 3 else ("", "", "")
        return Package(file, parts[0], version, revision, parts[2]) if dash else None
    if suffix == ".rpm":
        stem, dot, architecture = stem.rpartition(".")
        parts = stem.rsplit("-", 2)
        return Package(file, *parts, architecture) if dot and len(parts) == 3 else None
    return None


def recipes(runtime):
    """Returns the recipe of each package, by the texts of BitBake's package data.

    Each text has lines such as `PN: busybox` and `PKG:busybox: busybox`.
    """
    found = {}
    for text in runtime:
        fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
        names = [value for key, value in fields.items() if key.startswith("PKG:")]
        if "PN" in fields:
            found.update({name: fields["PN"] for name in names})
    return found


def manifest(packages, recipe_of, revisions, hash_of_file):
    """Returns the text of packages.manifest.

    `revisions` are the records of the recipes that the PR service was asked for, by name. The
    checksum of a package is that of the request. The hash of its file stands for that of a package
    that BitBake took from shared state.
    """
    texts = []
    for package in packages:
        record = revisions.get(recipe_of.get(package.name, package.name), {})
        match = REVISION.fullmatch(package.revision)
        recipe_revision = record.get("PR") or (match[1] if match else package.revision)
        checksum = record.get("hash") or hash_of_file(package.file)
        texts.append(
            f"package: {package.name}\n"
            f"version: {package.version}\n"
            f"recipe-revision: {recipe_revision}\n"
            f"architecture: {package.architecture}\n"
            f"checksum: {checksum}\n"
            f"revision: {package.revision}\n"
            f"file: {package.file}\n"
        )
    return ": 1\n" + ":\n".join(texts) if texts else ""


def sha256(path):
    """Returns the SHA-256 hash of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
