"""`adopt MANIFEST JOB GENERATION`: the row that a run has takes it over, and no other row moves."""

from __future__ import annotations

import json
import unicodedata
from typing import TYPE_CHECKING

from pipeline.ledger import Ledger
from pipeline.sandbox import Sandbox
from tests.integration.raw_client import instant_render_options
from tests.integration.vendor_double import Workspace, vendor_and_workspace

if TYPE_CHECKING:
    from pathlib import Path

OTHER_MODEL = ("--model", "google/veo-3.0-i2v-fast")


async def rows_in(desk: Workspace) -> dict[str, tuple[int, int, str, str]]:
    """Return each row's place, state and generation, by its key."""
    async with await Ledger.open(desk.output / "ledger.sqlite3", read_only=True) as ledger:
        return {
            row.key: (row.position, row.line, row.state.value, row.generation_id)
            for row in await ledger.load()
        }


async def generate_elsewhere(desk: Workspace, prompt: str) -> str:
    """Pay for a clip that the batch does not know of, and return its generation."""
    desk.write([prompt], name="elsewhere.json")
    result = await desk.run(*OTHER_MODEL, "--output", "output/elsewhere", manifest="elsewhere.json")
    assert result.code == 0, result.output
    async with await Ledger.open(
        desk.folder / "output" / "elsewhere" / "ledger.sqlite3", read_only=True
    ) as ledger:
        [row] = await ledger.load()
    return row.generation_id


async def test_a_row_of_another_model_adopts_and_is_not_paid_for(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write([{"id": "a", "prompt": "a"}, {"id": "b", "prompt": "b"}])
        assert (await desk.run(*OTHER_MODEL, "--limit", "1")).code in (0, 3)
        generation = await generate_elsewhere(desk, "b")
        before = await rows_in(desk)
        adopt = ("adopt", "batch.json", "b", generation, "--base-url", vendor.api.url)

        refused = await desk.command(*adopt)
        assert refused.code == 2, refused.output
        assert "give --model google/veo-3.0-i2v-fast" in refused.err
        assert await rows_in(desk) == before

        result = await desk.command(*adopt, *OTHER_MODEL)
        assert result.code == 0, result.output
        after = await rows_in(desk)
        assert {key: row[:2] for key, row in after.items()} == {key: row[:2] for key, row in before.items()}
        result = await desk.run(*OTHER_MODEL)
        assert result.code == 0, result.output
        assert desk.states() == {"done": 2}
        assert vendor.create_counts == {"a": 1, "b": 1}


async def test_an_edited_row_is_refused_and_a_new_one_adopts_without_moving_others(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write([{"id": "a", "prompt": "a"}, {"id": "b", "prompt": "b"}])
        assert (await desk.run("--limit", "1")).code in (0, 3)
        before = await rows_in(desk)
        desk.write([{"id": "new", "prompt": "new"}, {"id": "b", "prompt": "b, edited"}])
        for row in ("b", "a"):
            refused = await desk.command("adopt", "batch.json", row, "g-1")
            assert refused.code == 2, refused.output
            assert "another row in the ledger" in refused.err
        assert await rows_in(desk) == before
        result = await desk.command("adopt", "batch.json", "new", "g-2")
        assert result.code == 0, result.output
        after = await rows_in(desk)
        [added] = after.keys() - before.keys()
        assert after.pop(added)[2:] == ("generating", "g-2")
        assert after == before
        assert vendor.create_counts == {"a": 1}


async def test_a_take_that_only_runs_are_asked_for_adopts_with_takes(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (_, desk):
        desk.write([{"id": "a", "prompt": "a"}])
        assert (await desk.run("--takes", "2", "--limit", "1")).code in (0, 3)
        refused = await desk.command("adopt", "batch.json", "a.2", "g-2")
        assert refused.code == 2, refused.output
        assert "give --takes" in refused.err
        result = await desk.command("adopt", "batch.json", "a.2", "g-2", "--takes", "2")
        assert result.code == 0, result.output
        assert sorted(row[0] for row in (await rows_in(desk)).values()) == [0, 1]


async def test_a_row_that_only_the_catalogue_understands_is_the_runs_own(tmp_path: Path) -> None:
    """Its list of seeds is a seed a take by the model's schema, and a text of no meaning without it."""
    async with Sandbox(instant_render_options()) as sandbox:
        desk = Workspace(tmp_path, str(sandbox.url), key="sk-test")
        row = {"id": "a", "prompt": "a", "model": "sandbox/sketch-t2v", "takes": 2}
        (tmp_path / "batch.json").write_text(json.dumps([{**row, "params": {"seed": [7, 21]}}]))
        assert (await desk.run("--limit", "1")).code in (0, 3)
        before = await rows_in(desk)
        assert len(before) == 2
        result = await desk.command("adopt", "batch.json", "a.2", "g-2", "--base-url", str(sandbox.url))
        assert result.code == 0, result.output
        assert {key: row[:2] for key, row in (await rows_in(desk)).items()} == {
            key: row[:2] for key, row in before.items()
        }


async def test_an_id_is_given_in_whatever_form_the_terminal_types_it(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write([{"id": decomposed, "prompt": "a"}])
        generation = await generate_elsewhere(desk, "a")
        adopt = ("adopt", "batch.json", composed, generation, "--base-url", vendor.api.url, *OTHER_MODEL)
        result = await desk.command(*adopt)
        assert result.code == 0, result.output
        assert [row[2:] for row in (await rows_in(desk)).values()] == [("generating", generation)]


async def test_no_second_batch_is_begun_by_adopting(tmp_path: Path) -> None:
    """Rows that are paid for in another folder are not paid for in this one, whatever made a ledger here."""
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write([{"id": name, "prompt": name} for name in "abc"])
        assert (await desk.run("--output", "big", "--limit", "2")).code == 0
        adopt = ("adopt", "batch.json", "c", "g-1")
        refused = await desk.command(*adopt)
        assert refused.code == 2, refused.output
        assert f"2 rows of batch.json are paid for in {tmp_path / 'big'} already" in refused.err
        assert "--output" in refused.err
        assert not desk.output.exists()

        # An earlier version refused nothing, and whoever names the folder is not asked.
        assert (await desk.command(*adopt, "--output", "output/batch")).code == 0
        before = await rows_in(desk)
        for command in ((*adopt[:2], "b", "g-2"), ("run", "batch.json", "--base-url", vendor.api.url)):
            refused = await desk.command(*command)
            assert refused.code == 2, refused.output
            assert "2 rows of batch.json are paid for in" in refused.err
        assert await rows_in(desk) == before
        assert vendor.create_counts == {"a": 1, "b": 1}


async def test_a_row_of_another_manifest_of_the_same_name_does_not_adopt(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (_, desk):
        desk.write(["a"])
        assert (await desk.run()).code == 0
        before = await rows_in(desk)
        (tmp_path / "other").mkdir()
        desk.write([{"id": "b", "prompt": "b"}], name="other/batch.json")
        refused = await desk.command("adopt", "other/batch.json", "b", "g-1")
        assert refused.code == 2, refused.output
        assert "this name belongs to the batch of another manifest" in refused.err
        assert await rows_in(desk) == before
