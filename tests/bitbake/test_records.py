"""Tests of the records of a run of BitBake, and of the message of a failed build."""

import json
import unittest
from pathlib import Path

import records
from records import Records

RECORDED = Path(__file__).parent / "recorded"


def progress(*lines):
    found = Records()
    return [shown for shown in map(found.add, lines) if shown]


class Progress(unittest.TestCase):
    def test_each_change_is_reported_once(self):
        count = lambda key, done, total: json.dumps({key: {"done": done, "total": total}})
        self.assertEqual(
            progress(
                count("parse", 0, 9),
                count("parse", 0, 9),
                count("parse", 9, 9),
                count("tasks", 1, 16),
            ),
            [
                "buildhost-progress: parse 0:9 task 0:1",
                "buildhost-progress: parse 9:9 task 0:1",
                "buildhost-progress: parse 9:9 task 1:16",
            ],
        )

    def test_recipes_from_the_cache_count_as_parsed(self):
        self.assertEqual(
            progress(json.dumps({"directories": {"DEPLOY_DIR": "/d"}})),
            ["buildhost-progress: parse 1:1 task 0:1"],
        )


class Message(unittest.TestCase):
    FAILED = [{"PF": "hello-1.0-r0", "task": "do_compile"}]

    def test_it_has_the_recipe_the_task_and_the_end_of_the_log(self):
        log = "DEBUG: Executing\nhello.c:1: error: x\n\nmake: *** [hello] Error 1\nDEBUG: y\n"
        expected = "hello-1.0-r0 do_compile failed:\nhello.c:1: error: x\nmake: *** [hello] Error 1"
        self.assertEqual(records.message(self.FAILED, log, ["unused"], 1), expected)
        others = records.message(self.FAILED * 3, "", [], 1)
        self.assertEqual(others, "hello-1.0-r0 do_compile failed, and 2 other tasks:")

    def test_an_error_has_the_lines_that_belong_to_it(self):
        lines = [
            "NOTE: x\n",
            "Parsing recipes...ERROR: ParseError at /l/a.bb:1: unparsed\n",
            "a line of it\n",
            "buildhost-progress: parse 1:2 task 0:1\n",
            "ERROR: Parsing halted\n",
            "\n",
            "Summary: There were 2 ERROR messages.\n",
        ]
        self.assertEqual(
            records.error_lines(lines),
            ["ParseError at /l/a.bb:1: unparsed", "a line of it", "Parsing halted"],
        )

    def test_without_a_failed_task_it_has_the_errors(self):
        self.assertEqual(records.message([], "", ["one", "two"], 1), "one\ntwo")
        self.assertEqual(records.message([], "", [], 2), "bitbake ended with status 2")
        long = records.message([], "", ["x" * 5000] * 50, 1)
        self.assertLess(len(long), 4000)
