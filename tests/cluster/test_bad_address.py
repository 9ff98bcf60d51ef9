"""A cluster that is not there: exit 2 within seconds, with words, and nothing is submitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.ledger_servers import shared_postgres
from tests.integration.ports import free_port
from tests.integration.vendor_double import vendor_and_workspace

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.ray


@pytest.mark.parametrize("address", ["nobody", "nonsense", "ray://127.0.0.1:10001"])
async def test_an_address_that_will_not_do(tmp_path: Path, address: str) -> None:
    where = f"127.0.0.1:{free_port()}" if address == "nobody" else address
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        desk.write(["one"])
        result = await desk.run(
            "--engine",
            "ray",
            "--ray-address",
            where,
            "--ledger",
            shared_postgres().url(shared_postgres().new_database()),
        )
        assert result.code == 2, result.output
        assert where in result.err
        assert "Traceback" not in result.err
        assert not vendor.create_counts
