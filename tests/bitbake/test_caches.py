"""Tests of the cache of the host, with a server that keeps what is put."""

import tempfile
import threading
import unittest
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import caches
from caches import CacheError


class Server(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer(200 if self.key() in self.server.files else 404)

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.is_full:
            return self.answer(507)
        self.server.files[self.key()] = content
        self.answer(201)

    def key(self):
        return urllib.parse.unquote(self.path)

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


class Caches(unittest.TestCase):
    def setUp(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
        self.server.files, self.server.is_full = {"/downloads/old.tar": b""}, False
        threading.Thread(target=self.server.serve_forever).start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.place = Path(place.name)
        self.environment = {
            "BUILDHOST_CACHE": f"http://127.0.0.1:{self.server.server_port}/",
            "BUILDHOST_CACHE_MODE": "write",
        }
        for name in [
            "d/old.tar", "d/new.tar", "d/new.tar.done", "d/git2/repository/HEAD",
            "s/a1/b2/sstate:x:y.tar.zst", "s/a1/b2/sstate:x:y.tar.zst.siginfo", "s/a1/part.tmp",
        ]:
            path = self.place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)

    def upload(self):
        directories = {"DL_DIR": f"{self.place}/d", "SSTATE_DIR": f"{self.place}/s"}
        return caches.upload(self.environment, directories)

    def test_what_is_new_and_complete_is_put(self):
        self.assertEqual(self.upload(), 3)
        self.assertEqual(
            sorted(self.server.files),
            [
                "/downloads/new.tar",
                "/downloads/old.tar",
                "/sstate-cache/a1/b2/sstate:x:y.tar.zst",
                "/sstate-cache/a1/b2/sstate:x:y.tar.zst.siginfo",
            ],
        )
        self.assertEqual(self.server.files["/downloads/new.tar"], b"d/new.tar")
        self.assertEqual(self.upload(), 0)

    def test_a_cache_that_is_only_read_gets_nothing(self):
        self.environment["BUILDHOST_CACHE_MODE"] = "read"
        self.assertEqual(self.upload(), 0)
        del self.environment["BUILDHOST_CACHE"]
        self.assertEqual(self.upload(), 0)

    def test_a_refusal_names_the_file_and_the_status(self):
        self.server.is_full = True
        with self.assertRaisesRegex(CacheError, "refuses new.tar with status 507"):
            self.upload()
        self.environment["BUILDHOST_CACHE"] = "http://127.0.0.1:1"
        with self.assertRaisesRegex(CacheError, "cannot put new.tar into the cache"):
            self.upload()
