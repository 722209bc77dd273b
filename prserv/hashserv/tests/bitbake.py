#!/usr/bin/env python3
"""Runs BitBake's tests of its hash equivalence service against the program `hashserv`.

usage: BITBAKE=DIR HASHSERV=PROGRAM bitbake.py [arguments of unittest]

The tests start servers by one function, which is replaced here by one that starts the program.
"""

import os
import re
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.environ["BITBAKE"], "lib"))

import hashserv.tests as tests  # noqa: E402


class Process:
    """The part of multiprocessing.Process that the tests use."""

    def __init__(self, child):
        self.child = child

    @property
    def exitcode(self):
        return self.child.poll()

    def terminate(self):
        self.child.terminate()

    def join(self, timeout=None):
        self.child.wait(timeout)


class Server:
    """A server that is started later."""

    def __init__(self, address, arguments):
        self.wanted = address
        self.arguments = arguments

    def serve_as_process(self, *, prefunc=None, args=()):
        with tempfile.NamedTemporaryFile(suffix=".log", delete=False) as log:
            environment = dict(os.environ, RUST_LOG="info", NO_COLOR="1")
            child = subprocess.Popen(self.arguments, stderr=log, env=environment)
        self.process = Process(child)
        while True:
            with open(log.name) as lines:
                found = re.search(r"listening address=(\S+)", lines.read())
            if found:
                break
            if child.poll() is not None:
                with open(log.name) as lines:
                    raise RuntimeError("the server did not start: " + lines.read())
        os.unlink(log.name)
        scheme = "ws://" if self.wanted.startswith("ws://") else ""
        self.address = scheme + found.group(1)


def create_server(
    address,
    database,
    *,
    upstream=None,
    read_only=False,
    anon_perms=None,
    admin_username=None,
    admin_password=None,
):
    arguments = [os.environ["HASHSERV"], "serve", "--listen", address, "--db", database]
    if upstream:
        arguments += ["--upstream", upstream]
    if read_only:
        arguments += ["--read-only"]
    if anon_perms is not None:
        arguments += ["--anonymous", ",".join(anon_perms) or "@none"]
    if admin_username:
        with tempfile.NamedTemporaryFile("w", delete=False) as token:
            token.write(admin_password)
        arguments += ["--admin-user", admin_username, "--admin-token-file", token.name]
    return Server(address, arguments)


tests.create_server = create_server

# It would test a database of Python, which this program does not have.
del tests.TestHashEquivalenceWebsocketsSQLAlchemyServer

if __name__ == "__main__":
    unittest.main(module=tests, verbosity=2)
