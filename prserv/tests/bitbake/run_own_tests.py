#!/usr/bin/env python3
"""Runs the tests of BitBake's own PR service with another program as the server.

usage: run_own_tests.py BITBAKE PROGRAM

BITBAKE is a checkout of BitBake, whose clients run unchanged. PROGRAM is prserv, or bitbake-prserv to
check this script. Some answers of prserv differ on purpose; docs/prserv.md says why.
"""

import os
import re
import subprocess
import sys
import tempfile
import types
import unittest
from pathlib import Path

# The client, the checksum and the answer of prserv where BitBake's test expects "3" or "3.0".
DEVIATIONS = {
    ("client1", "checksum7"): "2.0",
    ("client_ro", "checksum0"): "2.0.0",
    ("client_ro", "checksum3"): "2.0.0",
    ("client_ro", "checksum7"): "2.0",
    ("client_ro", "checksum10"): "2.0.0",
    ("client_ro", "checksum9"): "2.0.0",
}


class Server:
    """A server process with the interface of BitBake's class of that name."""

    def __init__(self, program, dbfile, upstream, read_only):
        command = [program, "serve", "--listen", "127.0.0.1:0", "--db", dbfile]
        command += ["--upstream", upstream] if upstream else []
        command += ["--read-only"] if read_only else []
        self.command = command

    def serve_as_process(self, prefunc=None, args=()):
        environment = os.environ | {"RUST_LOG": "info", "NO_COLOR": "1"}
        environment.pop("PRSERV_UPSTREAM", None)
        child = subprocess.Popen(
            self.command, stderr=subprocess.PIPE, text=True, env=environment
        )
        for line in child.stderr:
            if "listening address=" in line:
                self.address = line.split("address=")[1].split()[0]
                break
        else:
            raise RuntimeError("the server did not start")
        self.process = Process(child)


class Process:
    """A child process with the interface of multiprocessing.Process."""

    def __init__(self, child):
        self.child = child

    @property
    def exitcode(self):
        return self.child.poll()

    def terminate(self):
        self.child.terminate()

    def join(self):
        self.child.wait()
        self.child.stderr.close()


def with_deviations(source):
    """Replaces the expected values, each of which must be in the source once."""
    for (client, checksum), value in DEVIATIONS.items():
        call = rf"(self\.{client}\.getPR\(version, pkgarch, {checksum}\), )\"3(?:\.0)?\""
        source, count = re.subn(call, rf'\1"{value}"', source)
        if count != 1:
            sys.exit(f"{count} places expect the deviation of {client} and {checksum}")
    return source


def load(bitbake, program):
    """Loads the tests with our server and our command line."""
    import prserv

    path = Path(bitbake, "lib", "prserv", "tests.py")
    source = path.read_text()
    create_server = prserv.create_server
    if Path(program).name == "prserv":
        source = with_deviations(source)

        def create_server(address, dbfile, upstream=None, read_only=False):
            return Server(program, dbfile, upstream, read_only)

    tests = types.ModuleType("prserv.tests")
    tests.__file__ = str(path)
    tests.__package__ = "prserv"
    sys.modules["prserv.tests"] = tests
    exec(compile(source, path, "exec"), tests.__dict__)
    tests.create_server = create_server
    return tests


def main(bitbake, program):
    sys.path.insert(0, os.path.join(bitbake, "lib"))
    tests = load(bitbake, os.path.realpath(program))
    with tempfile.TemporaryDirectory(prefix="prserv-tests-") as directory:
        os.chdir(directory)
        os.symlink(os.path.realpath(program), "bitbake-prserv")
        tests.BIN_DIR = Path(directory)
        suite = unittest.defaultTestLoader.loadTestsFromModule(tests)
        result = unittest.TextTestRunner(verbosity=2).run(suite)
        os.chdir("/")
    sys.exit(not result.wasSuccessful())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
