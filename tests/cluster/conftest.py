"""A cluster that tests share, which reach it by its address, and a bucket that its machines may write to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster.ray_clusters import RayCluster
from tests.integration.test_acceptance_object_store import AWS_ENVIRON, Bucket

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def bucket() -> Iterator[Bucket]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    found = Bucket(f"http://{host}:{port}")
    yield found
    found.client.close()
    server.stop()


@pytest.fixture(scope="session")
def head(bucket: Bucket) -> Iterator[RayCluster]:
    made = RayCluster(cpus=4, environment={**AWS_ENVIRON, "AWS_ENDPOINT_URL": bucket.endpoint})
    try:
        made.start()
        yield made
    finally:
        made.end()
