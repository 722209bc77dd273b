"""The records that the class `buildhost` writes while BitBake runs, and the message of a build."""

import json
import re

# The number of lines of a failed task's log in the message of a build, and their length.
LAST_LINES = 8
LINE_MAX = 300
# The beginning of a line of the host or of BitBake that does not continue the message before it.
LEVEL = re.compile(r"buildhost-progress:|[A-Z]+: |Summary: ")


class Records:
    """The state of a run of BitBake. `parsed` is the number of recipes that its cache did not have."""

    def __init__(self):
        self.parse = self.tasks = "0:1"
        self.parsed = 0
        self.failed = []
        self.revisions = {}
        self.directories = {}

    def add(self, line):
        """Adds a line. Returns the line that reports the progress, or `None` if it is the same."""
        before = self.progress()
        record = json.loads(line)
        if "parse" in record:
            self.parse = _fraction(record["parse"])
            self.parsed = record["parse"]["total"]
        if "tasks" in record:
            self.tasks = _fraction(record["tasks"])
        if "directories" in record:
            self.directories = record["directories"]
            # BitBake counts no recipes if its cache has all of them.
            self.parse = "1:1" if self.parse == "0:1" else self.parse
        if "failed" in record:
            self.failed.append(record["failed"])
        if "revision" in record:
            revision = record["revision"]
            self.revisions[revision["PN"]] = revision
        after = self.progress()
        return after if after != before else None

    def progress(self):
        """Returns the line that reports the progress to the host."""
        return f"buildhost-progress: parse {self.parse} task {self.tasks}"


def error_lines(lines):
    """Returns the lines in which BitBake reported errors: each error with those that belong to it."""
    found, belongs = [], False
    for line in lines:
        # BitBake prints the label of a progress bar without an end of line.
        _, is_error, text = line.partition("ERROR: ")
        if is_error:
            belongs = True
        elif LEVEL.match(line) or not line.strip():
            belongs = False
        if belongs:
            found.append((text if is_error else line).rstrip())
    return found


def message(failed, log, errors, status):
    """Returns the message of a failed build.

    `failed` are the failed tasks, `log` is the text of the first one's log, and `errors` are the
    lines in which BitBake reported errors.
    """
    if not failed:
        # The first line has the subject. A long error is a traceback, whose end has the cause.
        shown = errors[:1] + errors[1:][1 - LAST_LINES :]
        return "\n".join(line[:LINE_MAX] for line in shown) or f"bitbake ended with status {status}"
    first, others = failed[0], len(failed) - 1
    more = {0: "", 1: ", and another task"}.get(others, f", and {others} other tasks")
    lines = [line.rstrip() for line in log.splitlines()]
    shown = [line[:LINE_MAX] for line in lines if line and not line.startswith("DEBUG: ")]
    return "\n".join([f"{first['PF']} {first['task']} failed{more}:", *shown[-LAST_LINES:]])


def _fraction(count):
    return f"{count['done']}:{count['total']}"
