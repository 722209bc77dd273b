"""Tests of the list of packages."""

import unittest

import packages
from packages import Package


class Packages(unittest.TestCase):
    def test_packages_are_known_by_the_names_of_their_files(self):
        for file, expected in [
            ("busybox_1.36.1-r0.2_core2-64.ipk", ("busybox", "1.36.1", "r0.2", "core2-64")),
            ("libc6_2.40+git0+626c0-r0.1_amd64.deb", ("libc6", "2.40+git0+626c0", "r0.1", "amd64")),
            ("base-files-3.0.14-r0.qemux86_64.rpm", ("base-files", "3.0.14", "r0", "qemux86_64")),
        ]:
            self.assertEqual(packages.parse_name(file), Package(file, *expected))
        for file in ["Packages", "Packages.gz", "a.deb", "a_1_all.deb", "a-1.rpm", "a.tar"]:
            self.assertIsNone(packages.parse_name(file), file)

    def test_the_list_has_the_revisions_that_bitbake_got(self):
        made = [packages.parse_name(f"{name}-r0.1_all.deb") for name in ("libx1_2.0", "y_1")]
        data = ["PN: x\nPV: 2.0\nPKG:libx: libx1\nSUMMARY: a: b\n", "PKG:ml-x: x\n"]
        revisions = {"x": {"PN": "x", "PR": "r0", "PRAUTO": "1", "hash": "h"}}
        text = packages.manifest(made, packages.recipes(data), revisions, lambda file: file)
        self.assertEqual(
            text,
            ": 1\npackage: libx1\nversion: 2.0\nrecipe-revision: r0\narchitecture: all\n"
            "checksum: h\nrevision: r0.1\nfile: libx1_2.0-r0.1_all.deb\n"
            ":\npackage: y\nversion: 1\nrecipe-revision: r0\narchitecture: all\n"
            "checksum: y_1-r0.1_all.deb\nrevision: r0.1\nfile: y_1-r0.1_all.deb\n",
        )
        self.assertEqual(packages.manifest([], {}, {}, str), "")

    def test_a_revision_without_a_pr_service_is_that_of_the_recipe(self):
        made = [packages.parse_name("a_1-r7_all.deb"), packages.parse_name("b_1-3.fc_all.deb")]
        text = packages.manifest(made, {}, {}, str)
        self.assertIn("recipe-revision: r7\narchitecture: all\nchecksum: a_1-r7_all.deb\nrevision: r7\n", text)
        self.assertIn("recipe-revision: 3.fc\n", text)
