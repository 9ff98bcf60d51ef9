"""An older copy of a ledger whose forgotten rows the vendor's log cannot show buys nothing again unasked."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.integration.test_e2e_reconcile import (
    NEW_KEY,
    assert_once,
    put_back_older_ledger,
    run_beyond_a_backup,
)
from tests.integration.vendor_double import KEY, VendorDouble, vendor_and_workspace

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.vendor_double import Workspace


def set_in_log(vendor: VendorDouble, *, shown: bool) -> None:
    for generation in vendor.generations:
        generation.script.in_log = shown


def come_from_another_machine(desk: Workspace) -> None:
    """Let the folder's marker say that the last run was elsewhere."""
    marker = desk.output / ".veobatch.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"host": "elsewhere"}))


@pytest.mark.parametrize("why", ["rotated key", "log stands still"])
async def test_older_ledger_on_another_machine_buys_nothing_that_the_log_cannot_show(
    tmp_path: Path, why: str
) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        prompts = ["first", "second", "third"]
        backup = await run_beyond_a_backup(desk, tmp_path, prompts)
        shutil.rmtree(desk.output)
        shutil.copytree(backup, desk.output)
        shutil.rmtree(tmp_path / "home")
        if why == "rotated key":
            vendor.other_keys, desk.key = {NEW_KEY}, NEW_KEY
        else:
            set_in_log(vendor, shown=False)
        for _ in range(2):
            result = await desk.run("--reconcile-after", "0")
            assert (result.code, desk.states()) == (3, {"done": 1, "pending": 2}), result.output
        assert ("another key" if why == "rotated key" else "long finished") in result.err
        assert_once(vendor, prompts)
        desk.key = KEY
        set_in_log(vendor, shown=True)
        result = await desk.run("--reconcile-after", "0")
        assert (result.code, desk.states()) == (0, {"done": 3}), result.output
        assert_once(vendor, prompts)


@pytest.mark.parametrize("has_notes", [False, True])
async def test_whoever_has_lost_the_key_goes_on_by_consent(tmp_path: Path, *, has_notes: bool) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        desk.write(["first"])
        assert (await desk.run()).code == 0
        if has_notes:
            come_from_another_machine(desk)
        else:
            shutil.rmtree(tmp_path / "home")  # a machine that has never seen the batch
        vendor.other_keys, desk.key = {NEW_KEY}, NEW_KEY
        prompts = ["first", "second"]
        desk.write(prompts)
        result = await desk.run()
        assert (result.code, "--resubmit-in-doubt" in result.err) == (3, True), result.output
        assert (await desk.run("--resubmit-in-doubt")).code == 0
        desk.write([*prompts, "third"])
        assert (await desk.run()).code == 0, "what was consented to once is not asked again"
        assert_once(vendor, [*prompts, "third"])


async def test_consent_to_a_log_that_never_shows_a_row_is_asked_for_once(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        desk.write(["first"])
        assert (await desk.run()).code == 0
        shutil.rmtree(tmp_path / "home")
        set_in_log(vendor, shown=False)
        prompts = ["first", "second"]
        desk.write(prompts)
        result = await desk.run("--reconcile-after", "0")
        assert (result.code, "--resubmit-in-doubt" in result.err) == (3, True), result.output
        assert (await desk.run("--resubmit-in-doubt", "--reconcile-after", "0")).code == 0
        desk.write([*prompts, "third"])
        assert (await desk.run("--reconcile-after", "0")).code == 0
        assert_once(vendor, [*prompts, "third"])


async def test_what_an_address_has_got_is_asked_for_there(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk), VendorDouble() as other:
        desk.write(["first"])
        assert (await desk.run()).code == 0
        shutil.rmtree(tmp_path / "home")
        desk.write(["first", "second"])
        desk.base_url = other.api.url
        result = await desk.run()
        assert (result.code, f"run again with --base-url {vendor.api.url}" in result.err) == (3, True)
        assert other.generations == []
        desk.base_url = vendor.api.url
        assert (await desk.run()).code == 0
        assert_once(vendor, ["first", "second"])


async def test_key_that_was_rotated_before_a_move_is_no_matter(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        vendor.other_keys = {NEW_KEY}
        prompts = ["first", "second", "third"]
        for key, count in ((KEY, 1), (NEW_KEY, 2)):
            desk.key = key
            desk.write(prompts[:count])
            assert (await desk.run()).code == 0
        shutil.rmtree(tmp_path / "home")
        desk.write(prompts)
        result = await desk.run("--reconcile-after", "0")
        assert result.code == 0, result.output
        assert "older copy" not in result.output
        assert_once(vendor, prompts)


async def test_consent_is_asked_for_where_the_key_may_not_read_the_log(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        desk.write(["first"])
        assert (await desk.run()).code == 0
        shutil.rmtree(tmp_path / "home")
        desk.write(["first", "second"])
        vendor.log_down = 403
        result = await desk.run()
        assert (result.code, "--resubmit-in-doubt" in result.err) == (3, True), result.output
        result = await desk.run("--resubmit-in-doubt")
        assert (result.code, "Open rows are submitted" in result.err) == (0, True), result.output
        assert_once(vendor, ["first", "second"])


async def test_log_that_is_away_is_waited_for_in_spite_of_consent(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        await put_back_older_ledger(desk, vendor, tmp_path)
        shutil.rmtree(tmp_path / "home")
        vendor.log_down = 503
        result = await desk.run("--resubmit-in-doubt")
        assert (result.code, "run again when it can" in result.err) == (3, True), result.output
        assert_once(vendor, ["first", "second"])


async def test_what_came_from_another_machine_is_held_until_the_log_shows_all(tmp_path: Path) -> None:
    """The first run here makes the folder its own, and this machine has notes from before."""
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        desk.write(["first"])
        assert (await desk.run()).code == 0
        shutil.copytree(desk.output, tmp_path / "backup")
        home, prompts = tmp_path / "home", ["first", "second"]
        home.rename(tmp_path / "home of this machine")
        desk.write(prompts)
        assert (await desk.run("--reconcile-after", "0")).code == 0
        shutil.rmtree(home)
        (tmp_path / "home of this machine").rename(home)
        shutil.rmtree(desk.output)
        shutil.copytree(tmp_path / "backup", desk.output)
        come_from_another_machine(desk)
        set_in_log(vendor, shown=False)
        for _ in range(2):
            result = await desk.run("--reconcile-after", "0")
            assert (result.code, desk.states()) == (3, {"done": 1, "pending": 1}), result.output
        set_in_log(vendor, shown=True)
        result = await desk.run("--reconcile-after", "0")
        assert (result.code, desk.states()) == (0, {"done": 2}), result.output
        assert_once(vendor, prompts)


async def test_run_with_nothing_to_do_on_another_machine_says_nothing_of_later_rows(tmp_path: Path) -> None:
    """It begins notes of its own there, which know nothing of what the older copy has forgotten."""
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        await put_back_older_ledger(desk, vendor, tmp_path)
        set_in_log(vendor, shown=True)
        shutil.rmtree(tmp_path / "home")
        desk.write(["first"])
        assert (await desk.run()).code == 0
        desk.write(["first", "second"])
        result = await desk.run("--reconcile-after", "0")
        assert (result.code, desk.states()) == (0, {"done": 2}), result.output
        assert_once(vendor, ["first", "second"])


async def test_consent_buys_nothing_that_is_noted_here(tmp_path: Path) -> None:
    """Such a row is in doubt by this run, and only the next `--resubmit-in-doubt` is about it."""
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        await put_back_older_ledger(desk, vendor, tmp_path)
        come_from_another_machine(desk)
        set_in_log(vendor, shown=False)
        prompts = ["first", "second", "third"]
        desk.write(prompts)
        result = await desk.run("--resubmit-in-doubt", "--reconcile-after", "0", "--reconcile-wait", "0")
        assert (result.code, desk.states()) == (3, {"done": 2, "in_doubt": 1}), result.output
        assert_once(vendor, prompts)
        set_in_log(vendor, shown=True)
        assert (await desk.run()).code == 0
        assert_once(vendor, prompts)
