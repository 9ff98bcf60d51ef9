"""Few files may be open at once (`ulimit -n`): the batch takes less at a time, and says so."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests import forked_python
from tests.integration.vendor_double import vendor_and_workspace
from tests.integration.vendor_double.workspace import wait_for_exit

if TYPE_CHECKING:
    from pathlib import Path

LIMITED_RUN = """
import resource, runpy, sys
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
sys.argv[0] = "veobatch"
runpy.run_module("pipeline", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(("limit", "rows"), [(256, 130), (64, 4)])
async def test_a_batch_of_more_rows_than_files_may_be_open_ends_well(
    tmp_path: Path, limit: int, rows: int
) -> None:
    prompts = [f"row {number}" for number in range(rows)]
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write(prompts)
        options = ["--base-url", vendor.api.url, "--poll-interval", "0.1", "--yes"]
        options += ["--concurrency", "500", "--downloads", "100"]
        process = await forked_python.start(
            *("-c", LIMITED_RUN, str(limit), "run", "batch.json", *options), cwd=tmp_path, env=desk.environ()
        )
        result = await wait_for_exit(process)
    assert result.code == 0, result.output
    assert f"only {limit} files may be open at once (ulimit -n)" in result.err
    assert "Traceback" not in result.output
    assert desk.states() == {"done": rows}
    assert vendor.paid_counts() == Counter(prompts)
