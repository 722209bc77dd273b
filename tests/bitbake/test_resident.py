"""Tests of the resident BitBake: when a build uses it, and the protocol between them."""

import fcntl
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path

import resident
from resident import Changes, Use

# Holds a lock as BitBake's server does, in a process group of its own.
SERVER = """
import fcntl, os, sys, time
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
lock.write(f"{os.getpid()}\\n")
lock.flush()
print("ready", flush=True)
time.sleep(100)
"""


def use(*paths, configuration=()):
    return resident.decide(Changes(list(paths), list(configuration)), "poky/bitbake")


class Decisions(unittest.TestCase):
    def test_the_same_layers_need_no_check(self):
        self.assertEqual(use(), Use())

    def test_recipes_classes_and_sources_are_checked(self):
        for path in [
            "core/recipes/a/a_1.0.bb",
            "core/recipes/a/a_1.0.bbappend",
            "core/classes/b.bbclass",
            "core/recipes/c.inc",
            "core/recipes/a/files/a.c",
            "core/recipes/conf",
        ]:
            self.assertEqual(use(path), Use(check=True), path)

    def test_code_and_configuration_let_bitbake_start_anew(self):
        for path in [
            "poky/bitbake/lib/bb/cooker.py",
            "poky/LICENSE",
            "core/lib/oe/path.py",
            "core/lib/oe/data.txt",
            "core/scripts/tool.py",
            "core/conf/layer.conf",
            "core/conf/machine/include/arm.inc",
            "core/local.conf",
        ]:
            self.assertEqual(use("core/recipes/a.bb", path), Use(f"{path} differs"))

    def test_another_configuration_of_the_project_lets_bitbake_start_anew(self):
        found = use("core/recipes/a.bb", configuration=["local.conf"])
        self.assertEqual(found, Use("local.conf differs"))


class Runs(unittest.TestCase):
    def setUp(self):
        self.client, self.server = socket.socketpair(socket.AF_UNIX, resident.SOCKET)
        self.addCleanup(self.client.close)
        self.addCleanup(self.server.close)

    def answer(self, *messages):
        """Accepts a run, writes a line, and sends the messages."""

        def serve():
            self.request, descriptors = resident.receive(self.server)
            with open(descriptors[0], "w") as output:
                output.write("NOTE: a task\n")
            for message in messages:
                resident.send(self.server, message)
            self.server.close()

        thread = threading.Thread(target=serve)
        thread.start()
        self.addCleanup(thread.join)

    def test_a_run_has_output_and_a_status(self):
        self.answer({}, {"status": 3})
        run = resident.Run(self.client, [Path("/o/events.json"), "target"], check=True)
        with run.stdout:
            self.assertEqual(run.stdout.read(), "NOTE: a task\n")
        self.assertEqual(run.wait(), 3)
        self.assertEqual(
            self.request, {"arguments": ["/o/events.json", "target"], "check": True}
        )

    def test_a_run_whose_end_is_not_reported_has_failed(self):
        self.answer({})
        run = resident.Run(self.client, [], check=False)
        with run.stdout:
            self.assertEqual(run.stdout.read(), "NOTE: a task\n")
        self.assertEqual(run.wait(), 1)

    def test_a_run_that_does_not_begin_is_an_error(self):
        self.answer()
        with self.assertRaisesRegex(resident.ResidentError, "it does not answer"):
            resident.Run(self.client, [], check=False)

    def test_what_is_no_message_is_refused(self):
        for data in [b'{"status"', b""]:
            self.client.send(data) if data else self.client.close()
            with self.assertRaises(ValueError):
                resident.receive(self.server)


class Ends(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.build = Path(directory.name)

    def test_without_a_server_nothing_ends(self):
        resident.end_server(self.build)
        (self.build / "bitbake.lock").touch()
        resident.end_server(self.build)

    def test_the_server_of_the_build_directory_is_killed(self):
        lock = self.build / "bitbake.lock"
        command = [sys.executable, "-c", SERVER, lock]
        with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as server:
            server.stdout.readline()
            resident.end_server(self.build)
            self.assertEqual(server.wait(), -9)
        with open(lock) as free:
            fcntl.flock(free, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_a_connection_needs_a_listener(self):
        path = self.build / "resident.sock"
        self.assertIsNone(resident.connect(path))
        with socket.socket(socket.AF_UNIX, resident.SOCKET) as listener:
            listener.bind(str(path))
            self.assertIsNone(resident.connect(path))
            listener.listen(1)
            resident.connect(path).close()


if __name__ == "__main__":
    unittest.main()
