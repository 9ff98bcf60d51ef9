"""What tests of several files stop and start again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.ports import free_port
from tests.small_clips import make_clips_small

if TYPE_CHECKING:
    from collections.abc import Iterator

    from moto.server import ThreadedMotoServer

    from tests.integration.ledger_servers import PostgresServer
    from tests.integration.s3_server import Bucket, HeldRequest, Hold, RefusedRequests


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that the test may stop and start."""
    from tests.integration.ledger_servers import PostgresServer, remove_server  # needs an extra

    made = PostgresServer(free_port())
    made.initialise()
    made.start()
    yield made
    remove_server(made)


@pytest.fixture
def small_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small clips from sandboxes in this process, where nothing looks at their size."""
    make_clips_small(monkeypatch.setattr)


@pytest.fixture(scope="module")
def moto_server() -> Iterator[ThreadedMotoServer]:
    """An S3 for the tests of one file."""
    from moto.server import ThreadedMotoServer  # needs an extra

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def s3_endpoint(moto_server: ThreadedMotoServer) -> str:
    host, port = moto_server.get_host_and_port()
    return f"http://{host}:{port}"


@pytest.fixture
def s3_bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """The bucket `stored`, empty, and the environment that leads to it."""
    from tests.integration.s3_server import Bucket

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    found = Bucket(s3_endpoint)
    found.client.create_bucket(Bucket="stored")
    yield found
    found.remove()


@pytest.fixture
def refused(moto_server: ThreadedMotoServer, monkeypatch: pytest.MonkeyPatch) -> RefusedRequests:
    from tests.integration.s3_server import RefusedRequests

    return RefusedRequests(moto_server, monkeypatch)


@pytest.fixture
def hold(moto_server: ThreadedMotoServer, monkeypatch: pytest.MonkeyPatch) -> Hold:
    """What holds the first request of one kind, until its `let_go` is set."""
    from tests.integration.s3_server import HeldRequest

    def hold_first(method: str, query: str, *, carried_out: bool) -> HeldRequest:
        assert moto_server._server is not None
        held = HeldRequest(moto_server._server.app, method, query, carried_out=carried_out)
        monkeypatch.setattr(moto_server._server, "app", held)
        return held

    return hold_first
