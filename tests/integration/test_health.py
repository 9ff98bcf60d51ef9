"""The container's health check."""

from __future__ import annotations

import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from pipeline.results.live.health import is_answering


class _Answer(BaseHTTPRequestHandler):
    status = 401

    def do_HEAD(self) -> None:  # the name that http.server looks for
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (401, True), (421, True), (503, False)])
def test_an_answer_of_the_page_is_health(status: int, healthy: bool) -> None:
    handler = type("Handler", (_Answer,), {"status": status})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            assert is_answering(f"0.0.0.0:{server.server_port}") is healthy
        finally:
            server.shutdown()


def test_silence_is_not_and_no_page_is() -> None:
    with HTTPServer(("127.0.0.1", 0), _Answer) as server:
        port = server.server_port
    assert not is_answering(str(port))
    check = [sys.executable, "-m", "pipeline.results.live.health"]
    assert subprocess.run(check, env={}, check=False).returncode == 0
    assert subprocess.run(check, env={"VEOBATCH_SERVE": str(port)}, check=False).returncode == 1
