"""Tests of projects and their configuration files."""

import copy
import tempfile
import unittest
from pathlib import Path

import project
import workspace
from project import ProjectError

DOCUMENT = {
    "version": 1,
    "targets": ["core-image-minimal", "busybox:do_compile"],
    "variables": [{"name": "MACHINE", "value": "qemux86-64"}],
    "repositories": [
        {"name": "bitbake", "archive": "repo-bitbake.tar"},
        {"name": "core", "archive": "repo-core.tar", "url": "https://git.example.org/oe"},
    ],
    "bitbake": {"repository": "bitbake", "path": ""},
    "layers": [{"name": "core", "repository": "core", "path": "meta"}],
    "local_conf": ['INHERIT += "rm_work"'],
}


def changed(key, value):
    document = copy.deepcopy(DOCUMENT)
    document[key] = value
    return document


class Projects(unittest.TestCase):
    def test_a_project_becomes_the_configuration_of_bitbake(self):
        parsed = project.parse(DOCUMENT)
        self.assertEqual(parsed.targets, DOCUMENT["targets"])
        self.assertEqual(parsed.bitbake, "bitbake")
        self.assertEqual(
            project.bblayers_conf(parsed, "/s"),
            'LCONF_VERSION = "7"\nBBPATH = "${TOPDIR}"\nBBFILES ?= ""\nBBLAYERS = "/s/core/meta"\n',
        )
        self.assertEqual(
            project.local_conf(parsed), 'MACHINE = "qemux86-64"\nINHERIT += "rm_work"\n'
        )

    def test_the_settings_of_the_host_depend_on_its_services(self):
        bare = project.host_conf(project.Host(), "/t", "/r")
        self.assertNotIn("\nPRSERV_HOST", bare)
        host = project.Host("169.254.111.222:8585", "169.254.111.222:8686", "http://h:8080/")
        text = project.host_conf(host, "/t", "/r")
        for line in [
            'BBPATH .= ":/t"',
            'BUILDHOST_RECORDS = "/r"',
            'CONNECTIVITY_CHECK_URIS = ""',
            'PRSERV_HOST = "169.254.111.222:8585"',
            'BB_HASHSERVE = "169.254.111.222:8686"',
            'SSTATE_MIRRORS:prepend = "file://.* http://h:8080/sstate-cache/PATH;downloadfilename=PATH "',
        ]:
            self.assertIn(line + "\n", text)
        self.assertIn("https?://.*/.* http://h:8080/downloads/ ", text)

    def test_signatures_follow_the_hash_equivalence_server_if_the_layers_can(self):
        host = project.Host(hash_server="169.254.111.222:8686")
        line = 'BB_SIGNATURE_HANDLER = "OEEquivHash"\n'
        self.assertNotIn(line, project.host_conf(host, "/t", "/r"))
        self.assertIn(line, project.host_conf(host, "/t", "/r", True))
        self.assertNotIn(line, project.host_conf(project.Host(), "/t", "/r", True))
        parsed = project.parse(DOCUMENT)
        with tempfile.TemporaryDirectory() as directory:
            sources = Path(directory)
            self.assertFalse(workspace.has_equivalence(parsed, sources))
            module = sources / "core/meta/lib/oe/sstatesig.py"
            module.parent.mkdir(parents=True)
            module.write_text("class SignatureGeneratorOEBasicHash(object):\n")
            self.assertFalse(workspace.has_equivalence(parsed, sources), "an old layer")
            module.write_text("class SignatureGeneratorOEEquivHash(object):\n")
            self.assertTrue(workspace.has_equivalence(parsed, sources))
            own = [{"name": "BB_SIGNATURE_HANDLER", "value": "OEBasicHash"}]
            chosen = project.parse(changed("variables", own))
            self.assertFalse(workspace.has_equivalence(chosen, sources))
            lines = changed("local_conf", ['BB_SIGNATURE_HANDLER = "OEBasicHash"'])
            self.assertFalse(workspace.has_equivalence(project.parse(lines), sources))

    def test_values_are_enclosed_in_quotes_that_bitbake_can_read(self):
        for value, line in [
            ("", 'A = ""'),
            ("x", 'A = "x"'),
            ('a "b" c', 'A = "a "b" c"'),
            ('6" disk', "A = '6\" disk'"),
            ("it's", 'A = "it\'s"'),
            ("a\\b", 'A = "a\\b"'),
            ("${@1 + 1}", 'A = "${@1 + 1}"'),
        ]:
            self.assertEqual(project.assignment("A", value), line)
        with self.assertRaisesRegex(ProjectError, "gives A a value with one quote of each kind"):
            project.assignment("A", "6\" and '")

    def test_faults_name_the_thing_and_the_place(self):
        variable = lambda name, value: changed("variables", [{"name": name, "value": value}])
        for document, fault in [
            ([], "project.json is not an object"),
            (changed("version", 2), "has version 2, and this toolchain knows 1: use a newer"),
            (changed("targets", []), "has no targets"),
            (changed("targets", ["-k"]), "has the target '-k', which is not a name"),
            (changed("targets", ["a b"]), "has the target 'a b', which is not a name"),
            (changed("layers", None), "has no list layers"),
            (
                changed("layers", [{"repository": "x", "path": ""}]),
                "names the repository 'x' in layers, but has none",
            ),
            (
                changed("layers", [{"repository": "core", "path": "../meta"}]),
                "has '..' for the path '../meta' in layers, which cannot be the name of a file",
            ),
            (
                changed("repositories", [{"name": "../x", "archive": "a"}]),
                "has '../x' for the name of a repository, which cannot be the name of a file",
            ),
            (
                changed("repositories", DOCUMENT["repositories"] * 2),
                "has two repositories with the name bitbake",
            ),
            (variable("A B", ""), "has the variable 'A B', which is not the name of one"),
            (variable("A", "x\ny"), "has the value of A with an end of line"),
            (variable("A", "x\\"), "has the value of A that ends with a backslash"),
            (variable("A", 1), "has the value of A that is not a text"),
            (changed("local_conf", ["a\nb"]), "has a line of local_conf with an end of line"),
        ]:
            with self.subTest(fault), self.assertRaises(ProjectError) as raised:
                project.parse(document)
            self.assertIn(fault, str(raised.exception))
