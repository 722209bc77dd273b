"""The resident BitBake: a server that has parsed the project of the toolchain, and waits for a build.

A checkpoint has it, so the builds that are restored from the checkpoint parse nothing. A build uses
it only if what was parsed is what it builds; see `decide`.
"""

import array
import fcntl
import json
import os
import signal
import socket
import time
from dataclasses import dataclass, field

# The times in which the resident BitBake begins a run, and in which its server ends.
ANSWER_SECONDS_MAX = 30
END_SECONDS_MAX = 30
PAUSE = 0.05
MESSAGE_BYTES_MAX = 1 << 20
# Keeps the bounds of messages.
SOCKET = socket.SOCK_SEQPACKET

# What BitBake's server has executed or imported, and cannot load again: its own programs, modules
# of layers, and configuration.
CODE_SUFFIXES = (".py", ".conf")
CODE_DIRECTORIES = ("conf", "lib")


class ResidentError(Exception):
    """The resident BitBake does not follow the protocol."""


@dataclass
class Changes:
    """What differs from the workspace as the bootstrap has left it: the paths in the repositories,
    which begin with the name of one, and the files of the configuration."""

    repositories: list = field(default_factory=list)
    configuration: list = field(default_factory=list)


@dataclass(frozen=True)
class Use:
    """The use of the resident BitBake by a build: none with a reason, or with all recipes checked."""

    reason: str = ""
    check: bool = False


def decide(changes, bitbake):
    """Returns the use of the resident BitBake by a build with these changes.

    `bitbake` is the path of BitBake in the repositories. Recipes and classes are read again by
    BitBake, which then parses what depends on a changed file.
    """
    if changes.configuration:
        return Use(f"{changes.configuration[0]} differs")
    repository = bitbake.split("/")[0]
    for path in changes.repositories:
        parts = path.split("/")
        is_code = path.endswith(CODE_SUFFIXES) or set(parts[:-1]) & set(CODE_DIRECTORIES)
        if parts[0] == repository or is_code:
            return Use(f"{path} differs")
    return Use(check=bool(changes.repositories))


def connect(path):
    """Returns a connection to the resident BitBake; `None` if there is none."""
    connection = socket.socket(socket.AF_UNIX, SOCKET)
    try:
        connection.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    return connection


class Run:
    """A run of the resident BitBake, with the interface of `subprocess.Popen`."""

    def __init__(self, connection, arguments, check):
        reader, writer = os.pipe()
        try:
            request = {"arguments": [str(it) for it in arguments], "check": check}
            connection.settimeout(ANSWER_SECONDS_MAX)
            send(connection, request, [writer])
            receive(connection)
        except (OSError, ValueError) as error:
            os.close(reader)
            raise ResidentError(f"it does not answer: {error}") from error
        finally:
            os.close(writer)
        self.connection = connection
        self.stdout = open(reader, encoding="utf-8", errors="replace")

    def wait(self):
        """Returns the exit status."""
        self.connection.settimeout(ANSWER_SECONDS_MAX)
        try:
            answer, _ = receive(self.connection)
            return answer["status"]
        except (OSError, ValueError, KeyError):
            return 1
        finally:
            self.connection.close()


def send(connection, message, descriptors=()):
    """Sends a message of JSON, with file descriptors."""
    rights = array.array("i", descriptors)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
    connection.sendmsg([json.dumps(message).encode()], ancillary)


def receive(connection):
    """Returns a message and its file descriptors. Raises `ValueError` at the end."""
    descriptors = array.array("i")
    space = socket.CMSG_SPACE(descriptors.itemsize)
    data, ancillary, _, _ = connection.recvmsg(MESSAGE_BYTES_MAX, space)
    for level, kind, rights in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(rights[: len(rights) - len(rights) % descriptors.itemsize])
    if not data:
        raise ValueError("the connection has ended")
    return json.loads(data), list(descriptors)


def end_server(build):
    """Ends the BitBake server of a build directory, with its processes, so that another can start."""
    try:
        lock = open(build / "bitbake.lock", "r+")
    except FileNotFoundError:
        return
    with lock:
        deadline = time.monotonic() + END_SECONDS_MAX
        while not _is_free(lock):
            if time.monotonic() > deadline:
                raise ResidentError("its server does not end")
            _kill(lock)
            time.sleep(PAUSE)


def _is_free(lock):
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(lock, fcntl.LOCK_UN)
    return True


def _kill(lock):
    """Kills the process group of the server, whose number is in the lock file once it serves."""
    lock.seek(0)
    words = lock.read(100).split()
    try:
        group = os.getpgid(int(words[0]))
        if group != os.getpgrp():
            os.killpg(group, signal.SIGKILL)
    except (IndexError, ValueError, ProcessLookupError):
        # It is about to begin, or has just ended.
        pass
