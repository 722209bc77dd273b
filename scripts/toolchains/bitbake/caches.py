"""The cache of the host: what a build has downloaded and made is put there for later ones."""

import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

SECONDS_MAX = 60


class CacheError(Exception):
    """An error in the use of the cache."""


def upload(environment, directories):
    """Puts the new downloads and shared state into the cache of the host, if it takes them.

    Returns the number of files.
    """
    cache = environment.get("BUILDHOST_CACHE", "").rstrip("/")
    if not cache or environment.get("BUILDHOST_CACHE_MODE") != "write":
        return 0
    count = 0
    for kind, name in (("downloads", "DL_DIR"), ("sstate-cache", "SSTATE_DIR")):
        directory = directories.get(name)
        for path in entries(kind, Path(directory)) if directory else []:
            url = f"{cache}/{kind}/{urllib.parse.quote(path)}"
            count += put(url, Path(directory, path))
    return count


def entries(kind, directory):
    """Returns the paths in a directory of BitBake that belong into a cache.

    Downloads are the files at the top: those below are working copies of the fetchers.
    """
    found = []
    for parent, directories, names in os.walk(directory):
        if kind == "downloads":
            directories.clear()
        for name in names:
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink() and is_complete(name):
                found.append(str(path.relative_to(directory)))
    return sorted(found)


def is_complete(name):
    """Returns true for a file that is neither temporary nor a mark of BitBake's."""
    return not name.startswith(".") and not name.endswith((".done", ".lock", ".tmp", ".part"))


def put(url, path):
    """Puts a file unless the cache has it. Returns the number of files put."""
    try:
        if _request("HEAD", url) != 404:
            return 0
        with open(path, "rb") as content:
            size = str(path.stat().st_size)
            status = _request("PUT", url, content, {"Content-Length": size})
    except OSError as error:
        raise CacheError(f"cannot put {path.name} into the cache of the host: {error}") from error
    if status >= 300:
        raise CacheError(f"the cache of the host refuses {path.name} with status {status}")
    return 1


def _request(method, url, data=None, headers=None):
    request = urllib.request.Request(url, data=data, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS_MAX) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
