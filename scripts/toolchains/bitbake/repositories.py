"""The repositories of a project on disk.

Files whose content stays the same are left alone, because BitBake's cache of parsed recipes knows
each file by its time, size and inode (`cached_mtime` in bitbake/lib/bb/parse/__init__.py).
"""

import os
import shutil
import tarfile

from project import ProjectError

PIECE = 1 << 20


def update(archive, name, directory):
    """Makes `directory` equal to the directory `name` of an archive. Returns the changed paths."""
    try:
        with tarfile.open(archive) as members:
            below = [(_path_below(member.name, name), member) for member in members]
            below = [(path, member) for path, member in below if path is not None]
            if not below:
                raise ProjectError(f"{os.path.basename(archive)} has no directory {name}")
            os.makedirs(directory, mode=0o755, exist_ok=True)
            kinds = _kinds(below)
            changed = _delete_others(directory, kinds, _read_list(directory))
            _write_list(directory, kinds)
            for path, member in below:
                if _update_member(members, member, os.path.join(directory, path)):
                    changed.append(path)
    except (tarfile.TarError, EOFError) as error:
        raise ProjectError(f"cannot unpack {os.path.basename(archive)}: {error}") from error
    return changed


def _kinds(below):
    """Returns the kind of each path of an archive, and of the directories above it."""
    kinds = {}
    for path, member in below:
        parent = os.path.dirname(path)
        while parent:
            kinds[parent] = "directory"
            parent = os.path.dirname(parent)
        kinds[path] = "directory" if member.isdir() else "link" if member.issym() else "file"
    return kinds


def _path_below(member, name):
    """Returns the path of a member below the directory `name`; `None` if it is elsewhere."""
    parts = [part for part in member.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ProjectError(f"the archive of {name} has a member outside of it: {member}")
    return "/".join(parts[1:]) if parts[:1] == [name] else None


def _update_member(members, member, path):
    """Creates or replaces what differs. Returns true if a file or link has changed."""
    if member.isdir():
        os.makedirs(path, mode=0o755, exist_ok=True)
        return False
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    if member.issym():
        if os.path.islink(path) and os.readlink(path) == member.linkname:
            return False
        _remove(path)
        os.symlink(member.linkname, path)
        return True
    source = members.extractfile(member)
    if source is None:
        raise ProjectError(f"{member.name} in the archive is neither a file, a link nor a directory")
    mode = 0o755 if member.mode & 0o100 else 0o644
    if _is_equal(source, path, mode):
        return False
    source.seek(0)
    _remove(path)
    with open(path, "wb") as file:
        shutil.copyfileobj(source, file, PIECE)
    os.chmod(path, mode)
    return True


def _is_equal(source, path, mode):
    if not os.path.isfile(path):
        return False
    if os.stat(path).st_mode & 0o777 != mode:
        return False
    with open(path, "rb") as file:
        while True:
            piece = source.read(PIECE)
            if piece != file.read(PIECE):
                return False
            if not piece:
                return True


def _remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def _delete_others(directory, kinds, earlier):
    """Deletes what came from an earlier archive and is not in this one, or has another kind.

    Other files are those that programs have generated, such as BitBake's parser tables. Returns the
    deleted paths.
    """
    deleted = []
    for below in sorted(earlier | set(kinds)):
        path = os.path.join(directory, below)
        if os.path.lexists(path) and kinds.get(below) != _kind(path):
            deleted.append(below)
            _remove(path)
    return deleted


def _read_list(directory):
    """Returns the paths of the archives from which a directory was made."""
    try:
        with open(f"{directory}.paths", encoding="utf-8", errors="surrogateescape") as file:
            return {path for path in file.read().split("\0") if path}
    except FileNotFoundError:
        return set()


def _write_list(directory, kinds):
    with open(f"{directory}.paths", "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write("\0".join(sorted(kinds)))


def _kind(path):
    if os.path.islink(path):
        return "link"
    return "directory" if os.path.isdir(path) else "file"
