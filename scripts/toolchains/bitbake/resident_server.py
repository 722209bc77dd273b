"""The process of the resident BitBake: starts BitBake's server, lets it parse, and waits for a build.

It is the user interface of the server, whose parsed recipes are valid as long as that is connected.
For the build it becomes an ordinary `bitbake`, and ends with it.

usage: resident_server.py BITBAKE SOCKET ARGUMENT...
"""

import logging
import os
import socket
import sys
from pathlib import Path

import resident

# The time without any event of BitBake's server after which it counts as broken, in seconds.
SILENCE_SECONDS_MAX = 600
POLL = 0.25


class Refusal(Exception):
    """The reason for which no resident BitBake serves."""


class Bitbake:
    """BitBake's server and the connection to it."""

    def __init__(self, directory, arguments):
        sys.path.insert(0, str(directory / "lib"))
        # Part of BitBake, so only known here.
        import bb
        import bb.main

        self.bb = bb
        self.arguments = arguments
        parameters = self._parameters(["--parse-only"])
        self.connection, self.interface = bb.main.setup_bitbake(parameters)
        if self.connection is None:
            raise Refusal("BitBake's server does not start")
        self._update(parameters)

    def parse(self):
        """Parses all recipes. All of them must come from the cache of the bootstrap: those that
        BitBake does not keep there depend on more than files."""
        if not self._run("parseFiles"):
            raise Refusal("BitBake's server does not begin to parse")
        bb, seen = self.bb, SILENCE_SECONDS_MAX
        while seen > 0:
            event = self.connection.events.waitEvent(POLL)
            seen = SILENCE_SECONDS_MAX if event else seen - POLL
            if isinstance(event, logging.LogRecord) and event.levelno >= logging.ERROR:
                raise Refusal(event.getMessage())
            if isinstance(event, bb.event.ParseStarted) and event.total:
                raise Refusal(f"{event.total} recipes are not in the cache of the bootstrap")
            if isinstance(event, bb.command.CommandFailed):
                raise Refusal(f"BitBake's server failed: {event.error}")
            if isinstance(event, bb.command.CommandCompleted):
                return
        raise Refusal("BitBake's server does not answer")

    def build(self, arguments, check):
        """Runs BitBake's user interface, as `bitbake` does. Returns the exit status."""
        parameters = self._parameters(arguments)
        if check:
            self._update(parameters)
            # Makes the parsed recipes invalid, so that each is compared with its files.
            self._run("parseConfiguration")
        return self.interface.main(self.connection.connection, self.connection.events, parameters)

    def _parameters(self, arguments):
        sys.argv = ["bitbake", *self.arguments, *arguments]
        parameters = self.bb.main.BitBakeConfigParameters(sys.argv)
        self.bb.msg.init_msgconfig(
            parameters.verbose, parameters.debug, parameters.debug_domains
        )
        return parameters

    def _update(self, parameters):
        parameters.updateToServer(self.connection.connection, os.environ.copy())

    def _run(self, command):
        answer, error = self.connection.connection.runCommand([command])
        if error:
            raise Refusal(f"BitBake's server refuses {command}: {error}")
        return answer


def serve(bitbake, listener):
    """Serves one build. Returns its exit status."""
    connection, _ = listener.accept()
    listener.close()
    request, descriptors = resident.receive(connection)
    for number in (1, 2):
        os.dup2(descriptors[0], number)
    os.close(descriptors[0])
    resident.send(connection, {})
    try:
        status = bitbake.build(request["arguments"], request["check"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        null = os.open(os.devnull, os.O_WRONLY)
        for number in (1, 2):
            os.dup2(null, number)
    resident.send(connection, {"status": status or 0})
    return status


def main(directory, path, *arguments):
    sys.stdout.reconfigure(line_buffering=True)
    try:
        bitbake = Bitbake(Path(directory), arguments)
        bitbake.parse()
    except BaseException as error:
        # Whatever BitBake raises: its threads would keep this process alive.
        print(str(error) or repr(error))
        os._exit(1)
    listener = socket.socket(socket.AF_UNIX, resident.SOCKET)
    listener.bind(path + ".new")
    listener.listen(1)
    os.rename(path + ".new", path)
    status = 1
    try:
        status = serve(bitbake, listener)
    finally:
        sys.stdout.flush()
        # The threads of the connection do not end by themselves.
        os._exit(status or 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
