"""Tests of repositories on disk."""

import io
import os
import random
import tarfile
import tempfile
import unittest
from pathlib import Path

import repositories
from project import ProjectError


def archive(path, files):
    """Writes an archive: a text is a file, a pair is a link, and `None` is a directory."""
    with tarfile.open(path, "w") as members:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if content is None:
                member.type = tarfile.DIRTYPE
            elif isinstance(content, tuple):
                member.type, member.linkname = tarfile.SYMTYPE, content[1]
            else:
                member.size = len(content)
            data = content.encode() if isinstance(content, str) else b""
            members.addfile(member, io.BytesIO(data))


def tree(directory):
    found = {}
    for parent, directories, names in os.walk(directory):
        for name in names + [it for it in directories if os.path.islink(f"{parent}/{it}")]:
            path = Path(parent, name)
            key = str(path.relative_to(directory))
            found[key] = ("link", os.readlink(path)) if path.is_symlink() else path.read_text()
    return found


def identities(directory):
    paths = (Path(parent, name) for parent, _, names in os.walk(directory) for name in names)
    stats = ((path, path.lstat()) for path in paths)
    return {path: (stat.st_mtime_ns, stat.st_size, stat.st_ino) for path, stat in stats}


class Repositories(unittest.TestCase):
    def setUp(self):
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.archive = Path(place.name, "repo-a.tar")
        self.directory = Path(place.name, "sources/a")

    def update(self, files):
        archive(self.archive, files)
        return repositories.update(self.archive, "a", self.directory)

    def test_only_what_differs_is_changed(self):
        files = {"a/x": "1", "a/d/y": "2", "a/l": ("link", "x"), "other/z": "3"}
        self.assertEqual(sorted(self.update(files)), ["d/y", "l", "x"])
        before = identities(self.directory)
        generated = self.directory / "d/tables.py"
        generated.write_text("")
        self.assertEqual(self.update(files), [])
        self.assertTrue(generated.exists())
        generated.unlink()
        self.assertEqual(identities(self.directory), before)
        changed = {"a/x": "1", "a/d/y": "3", "a/l": ("link", "d")}
        self.assertEqual(sorted(self.update(changed)), ["d/y", "l"])
        after = identities(self.directory)
        self.assertEqual(after[self.directory / "x"], before[self.directory / "x"])
        self.assertNotEqual(after[self.directory / "d/y"], before[self.directory / "d/y"])

    def test_any_tree_becomes_equal_to_the_archive(self):
        choice = random.Random(1)
        for _ in range(60):
            files = {"a": None}
            for _ in range(choice.randrange(8)):
                name = "a/" + "/".join(choice.choice("pqr") for _ in range(choice.randint(1, 3)))
                parents = [name[: at + 1] for at, c in enumerate(name) if c == "/"]
                clash = any(f.startswith(name + "/") or f + "/" in parents for f in files if f != "a")
                if not clash:
                    files[name] = choice.choice(["1", "2", ("link", "q"), ("link", "/nowhere")])
            self.update(files)
            expected = {name[2:]: content for name, content in files.items() if content}
            self.assertEqual(tree(self.directory), expected)

    def test_faults_name_the_archive(self):
        with self.assertRaisesRegex(ProjectError, "repo-a.tar has no directory a"):
            self.update({"b/x": "1"})
        with self.assertRaisesRegex(ProjectError, "a member outside of it: a/../../x"):
            self.update({"a/../../x": "1"})
        self.archive.write_bytes(b"x" * 2000)
        with self.assertRaisesRegex(ProjectError, "cannot unpack repo-a.tar"):
            repositories.update(self.archive, "a", self.directory)
