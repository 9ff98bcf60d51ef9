"""Picks in the ledger, in `picks/` and in what people see: the command, the folder, an object store."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from click.testing import CliRunner
from obstore.store import MemoryStore

from pipeline.batch.retakes import Retakes, end_retakes, extra_takes, plan_retakes
from pipeline.cli import cli
from pipeline.errors import UsageError
from pipeline.ledger import Ledger
from pipeline.manifest import load
from pipeline.model import PICKED, REJECTED, Artifact, Pick, Record, State
from pipeline.results.csv_writer import ResultsWriter
from pipeline.results.picks import PicksFolder, load_placed, resolve_picks, with_picks
from pipeline.storage.local import LocalStore
from pipeline.storage.object_store import ObjectStore
from tests.unit.test_reel import clip, length

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pipeline.storage import FileStamp

OUTPUT = Path("output/night")


def take(row: str, number: int = 1, fingerprint: str = "f", **facts: Any) -> Record:
    take_id = row if number == 1 else f"{row}.{number}"
    stem = take_id if fingerprint == "f" else f"{take_id}-{fingerprint}"
    data = f"{take_id}@{fingerprint}"
    made = Record(data, take_id, fingerprint, 0, "m", "{}", "", "p", file_stem=stem, take=number)
    return replace(made, state=State.DONE, artifact=_artifact(f"videos/{stem}.mp4", data), **facts)


def _artifact(path: str, data: str) -> Artifact:
    import hashlib

    return Artifact(path, len(data), hashlib.sha256(data.encode()).hexdigest())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a batch of two rows of two takes, one of which was edited since."""
    monkeypatch.chdir(tmp_path)
    records = [take("a"), take("a", 2), take("b"), take("b", 2), take("a", 1, "old", position=-1)]
    records.append(replace(take("c"), state=State.FAILED, artifact=None))

    async def fill() -> None:
        async with await Ledger.open(OUTPUT / "ledger.sqlite3") as ledger:
            await ledger.add(records)
            await ledger.meta_set("manifest", '"night.yaml"')

    anyio.run(fill)
    for record in records:
        if record.artifact is not None:
            path = OUTPUT / record.artifact.path
            path.parent.mkdir(exist_ok=True)
            path.write_text(record.key, encoding="utf-8")
    return tmp_path


def pick(*args: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli, ["pick", "night.yaml", *args])
    if isinstance(result.exception, UsageError):
        assert code == 2
        return str(result.exception)
    assert result.exit_code == code, result.output
    return result.output


def picked_files() -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in (OUTPUT / "picks").glob("*")}


def table() -> dict[str, str]:
    with (OUTPUT / "results.csv").open(newline="", encoding="utf-8") as file:
        return {row["id"]: row["pick"] for row in csv.DictReader(file) if row["pick"]}


def test_a_pick_is_in_the_ledger_the_table_and_the_folder(here: Path) -> None:
    assert "a.2: picked (the best)" in pick("a.2", "--note", "the best")
    assert picked_files() == {"a.mp4": "a.2@f"}
    assert (OUTPUT / "picks/a.mp4").samefile(OUTPUT / "videos/a.2.mp4")
    assert table() == {"a.2": "picked"}
    assert "report.html" in {path.name for path in OUTPUT.iterdir()}
    pick("a", "b.2")
    assert picked_files() == {"a.mp4": "a@f", "b.mp4": "b.2@f"}, "a row has one pick"
    pick("a.2", "b.2", "--reject")
    assert picked_files() == {"a.mp4": "a@f"}
    assert table() == {"a": "picked", "a.2": "rejected", "b.2": "rejected"}
    assert pick().splitlines() == ["rejected  a.2  the best", "  picked  a", "rejected  b.2"]
    pick("a", "--clear")
    assert picked_files() == {}
    assert (OUTPUT / "videos/a.mp4").exists()


def test_the_take_of_a_row_before_its_edit_is_picked_by_its_key(here: Path) -> None:
    pick("a")
    pick("a@old")
    assert picked_files() == {"a.mp4": "a@old"}
    assert pick("a@old", "--reject") == "a: rejected\nThe chosen clips are in output/night/picks\n"
    assert picked_files() == {}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nobody"], "there is no take 'nobody'"),
        (["c"], "c has no clip yet"),
        (["a", "a.2"], "a and a.2 are takes of one row"),
    ],
)
def test_what_cannot_be_picked_changes_nothing(here: Path, args: list[str], words: str) -> None:
    assert words in pick(*args, code=2)
    assert not (OUTPUT / "picks").exists()


def test_a_file_in_the_folder_that_is_not_ours_stays(here: Path) -> None:
    (OUTPUT / "picks").mkdir()
    (OUTPUT / "picks" / "a.mp4").write_text("mine", encoding="utf-8")
    assert "picks/a.mp4 is not ours: a is picks/a.new-1.mp4" in pick("a")
    assert picked_files() == {"a.mp4": "mine", "a.new-1.mp4": "a@f"}
    assert CliRunner().invoke(cli, ["report", "night.yaml", "--only-picks"]).exit_code == 0
    assert '"picks/a.new-1.mp4"' in (OUTPUT / "picks.html").read_text(encoding="utf-8"), (
        "not the other's film"
    )
    (OUTPUT / "picks" / "a.new-1.mp4").unlink()
    (OUTPUT / "picks" / "a.new-1.mp4").write_text("edited by hand", encoding="utf-8")
    pick("a", "--clear")
    assert picked_files() == {"a.mp4": "mine", "a.new-1.mp4": "edited by hand"}


def test_what_a_page_exported_is_taken_over(here: Path) -> None:
    exported = {
        "veobatch": "picks",
        "version": 1,
        "picks": [
            {"key": "a.2@f", "id": "a.2", "pick": PICKED, "note": "warm"},
            {"key": "b@f", "id": "b", "pick": REJECTED, "note": ""},
        ],
    }
    Path("picks.json").write_text(json.dumps(exported), encoding="utf-8")
    pick("--from", "picks.json")
    assert table() == {"a.2": "picked", "b": "rejected"}
    assert picked_files() == {"a.mp4": "a.2@f"}
    assert pick("--from", "picks.json").startswith("nothing changed")
    for wrong in (
        b"[]",
        b"{",
        b"[" * 100_000,
        b"\xff\xfe\x00",
        b'{"veobatch": "picks", "version": 9, "picks": []}',
    ):
        Path("picks.json").write_bytes(wrong)
        assert "no file of picks" in pick("--from", "picks.json", code=2)


def test_a_page_of_picks_says_nothing_of_money(here: Path) -> None:
    def report() -> str:
        result = CliRunner().invoke(cli, ["report", "night.yaml", "--only-picks"])
        return str(result.exception) if result.exception else result.output

    assert "nothing is picked" in report()
    pick("b.2")
    assert report() == "output/night/picks.html\n"
    page = (OUTPUT / "picks.html").read_text(encoding="utf-8")
    assert '"picks/b.mp4"' in page
    for word in ("spent", "b.2", "results.csv", "Timeline"):
        assert word not in page.partition("<body>")[2].partition("<script>")[0], word
    (OUTPUT / "picks.html").write_text("mine", encoding="utf-8")
    assert [report(), report()] == ["output/night/picks.new-1.html\n"] * 2
    assert (OUTPUT / "picks.html").read_text(encoding="utf-8") == "mine"


async def test_a_clip_that_was_moved_away_is_said(tmp_path: Path) -> None:
    async with await Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
        await ledger.add([take("a", pick=PICKED)])
        [note] = await PicksFolder(ledger, LocalStore(tmp_path)).update()
    assert note == "a: its clip was moved away, so it is not in picks/"


async def test_what_cannot_be_looked_at_costs_its_row_alone(tmp_path: Path) -> None:
    """Row a's clip is a link to itself, and so is what has row b's name in the folder."""
    store = LocalStore(tmp_path)
    rows = [take(row, pick=PICKED) for row in "abc"]
    async with await Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
        await ledger.add(rows)
        for row in rows:
            assert row.artifact is not None
            await store.write_bytes(row.artifact.path, row.key.encode())
        (tmp_path / "picks").mkdir()
        for name in ("videos/a.mp4", "picks/b.mp4"):
            (tmp_path / name).unlink(missing_ok=True)
            (tmp_path / name).symlink_to(Path(name).name)
        notes = await PicksFolder(ledger, store).update()
    assert [note.partition(":")[0] for note in notes] == ["a", "picks/b.mp4 is not ours"]
    assert {path.name for path in (tmp_path / "picks").iterdir()} == {"b.mp4", "b.new-1.mp4", "c.mp4"}
    assert (tmp_path / "picks/b.new-1.mp4").read_text() == "b@f"


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LocalStore | ObjectStore:
    return (
        LocalStore(tmp_path / "out")
        if request.param == "folder"
        else ObjectStore(MemoryStore(), "s3://b", None)
    )


@pytest.mark.parametrize("kind", ["folder", "bucket"])
async def test_a_clip_that_is_moved_meanwhile_costs_its_row_alone(tmp_path: Path, kind: str) -> None:
    """Its user moves the clip of row a after it was listed: the page is written, and a note says so."""

    class MovedMeanwhile(LocalStore if kind == "folder" else ObjectStore):  # type: ignore[misc]
        async def stamps(self, paths: Sequence[str]) -> dict[str, FileStamp]:
            found: dict[str, FileStamp] = await super().stamps(paths)
            await self.remove("videos/a.mp4")
            return found

    store = MovedMeanwhile(tmp_path) if kind == "folder" else MovedMeanwhile(MemoryStore(), "s3://b", None)
    rows = [take("a", pick=PICKED), take("b", pick=PICKED)]
    async with await Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
        await ledger.add(rows)
        await ledger.set_picks({row.key: Pick(PICKED) for row in rows})
        for row in rows:
            assert row.artifact is not None
            await store.write_bytes(row.artifact.path, row.key.encode())
        writer = ResultsWriter(store, title="night", manifest="night.yaml", ledger=ledger)
        assert await writer.finish(rows)
        placed = await load_placed(ledger)
    assert writer.pick_notes == ("a: its clip was moved away, so it is not in picks/",)
    assert await store.read_bytes("report.html") is not None
    assert await store.read_bytes("picks/b.mp4") == b"b@f"
    assert placed.keys() == {"b"}


async def test_the_folder_is_kept_true_wherever_it_is(
    store: LocalStore | ObjectStore, tmp_path: Path
) -> None:
    rows = [take("a"), take("a", 2)]
    async with await Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
        await ledger.add(rows)
        for row in rows:
            assert row.artifact is not None
            await store.write_bytes(row.artifact.path, row.key.encode())

        async def after(**picks: str) -> bytes | None:
            await ledger.set_picks({f"{name}@f": Pick(value) for name, value in picks.items()})
            assert await PicksFolder(ledger, store).update() == ()
            return await store.read_bytes("picks/a.mp4")

        assert await after(a=PICKED) == b"a@f"
        await store.remove("picks/a.mp4")
        assert await after() == b"a@f", "what somebody removed is put back"
        await ledger.set_picks({"a.2@f": Pick(PICKED)})
        assert await after(a="") == b"a.2@f"
        await ledger.set_picks({"a.2@f": Pick()})
        assert await after() is None


async def test_a_kill_between_the_claim_and_the_copy_leaves_nothing_behind(tmp_path: Path) -> None:
    """Each write to the store or the ledger is the last one once; the next update makes it right."""
    for fatal in range(6):
        store = _Mortal(tmp_path / str(fatal), fatal)
        async with await Ledger.open(store.root / "ledger.sqlite3") as ledger:
            rows = [take("a", pick=PICKED), take("a", 2)]
            await ledger.add(rows)
            for row in rows:
                assert row.artifact is not None
                await LocalStore(store.root).write_bytes(row.artifact.path, row.key.encode())
            await store.until_killed(lambda: PicksFolder(ledger, store).update())  # noqa: B023 - called at once
            await ledger.set_picks({"a@f": Pick(), "a.2@f": Pick(PICKED)})
            await store.until_killed(lambda: PicksFolder(ledger, store).update())  # noqa: B023 - as above
            await PicksFolder(ledger, LocalStore(store.root)).update()
            files = {path.name: path.read_text() for path in (store.root / "picks").iterdir()}
            assert files == {"a.mp4": "a.2@f"}, fatal
            await ledger.set_picks({"a.2@f": Pick()})
            await PicksFolder(ledger, LocalStore(store.root)).update()
            assert list((store.root / "picks").iterdir()) == []


class _Mortal(LocalStore):
    """A store that fails from its n-th call on, as a killed process does."""

    def __init__(self, root: Path, calls_left: int) -> None:
        super().__init__(root)
        self._calls_left = calls_left

    async def until_killed(self, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except InterruptedError:
            self._calls_left = 10_000

    def _count(self) -> None:
        self._calls_left -= 1
        if self._calls_left < 0:
            raise InterruptedError

    async def copy(self, source: str, target: str) -> None:
        self._count()
        await super().copy(source, target)
        self._count()

    async def remove(self, path: str) -> None:
        self._count()
        await super().remove(path)
        self._count()


async def test_a_retake_that_nobody_agreed_to_pay_for_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    row = '{id: a, image_url: "https://example.com/a.jpg", prompt: p}'
    path.write_text(f"jobs:\n  - {row}\n", encoding="utf-8")
    async with await Ledger.open(tmp_path / "ledger.sqlite3") as ledger:

        async def ids(*retake: str, begins: bool = False) -> list[str]:
            manifest = load(path)
            retakes = await plan_retakes(ledger, manifest.jobs, retake)
            if begins:
                await retakes.save(ledger)
            return [job.id for job in manifest.with_takes(retakes.extra).jobs]

        assert await ids("a") == ["a", "a.2"]
        assert await ids() == ["a"]
        assert await ids("a", begins=True) == ["a", "a.2"]
        assert await ids("a", begins=True) == ["a", "a.2"], "the same wish, after a crash"
        assert await ids() == ["a", "a.2"], "what a run has begun to buy stays"
        await end_retakes(ledger)
        assert await ids("a") == ["a", "a.2", "a.3"]
        assert await ids() == ["a", "a.2"]
        assert list(await extra_takes(ledger, load(path).jobs)) == [load(path).jobs[0].key]
        assert await ids("a", begins=True) == ["a", "a.2", "a.3"], "asked for anew"
        other = row.replace("id: a", "id: a.2").replace("prompt: p", "prompt: q")
        path.write_text(f"jobs:\n  - {row}\n  - {other}\n")
        with pytest.raises(UsageError, match=r"id a\.2 of line 3 is taken"):
            await ids()


async def test_the_takes_of_an_earlier_versions_ledger_are_read(tmp_path: Path) -> None:
    async with await Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
        await ledger.meta_set("retakes", '{"extra": {"a@f": [2]}, "asked": {"a@f": 2}, "latest": {"a@f": 2}}')
        assert (await Retakes.load(ledger)).extra == {"a@f": [2]}


def test_a_note_that_is_too_long_is_refused_and_one_of_any_text_is_kept(here: Path) -> None:
    assert "at most 2,000 characters, not 10,000" in pick("a", "--note", "x" * 10_000, code=2)
    assert not (OUTPUT / "results.csv").exists()
    hostile = "<b>warm</b>\n\x1b[31m" + "y" * 1900
    said = pick("a", "--note", hostile)
    assert "\x1b" not in said
    assert "<b>warm</b>\\n\\x1b[31m" in said
    page = (OUTPUT / "report.html").read_text(encoding="utf-8")
    assert "<b>warm" not in page


def test_a_pick_that_was_taken_back_since_is_none() -> None:
    first, second = take("a"), take("a", 2)
    old = [replace(first, pick=PICKED, pick_note="the hands"), second]
    assert with_picks(old, {}) == [first, second]
    assert with_picks(old, {second.key: Pick(REJECTED)}) == [first, replace(second, pick=REJECTED)]


def test_only_what_changes_is_written() -> None:
    rows = [take("a", pick=PICKED, pick_note="n"), take("a", 2)]
    assert resolve_picks(rows, {"a@f": Pick(PICKED, "n")}) == {}
    assert resolve_picks(rows, {"a.2@f": Pick(PICKED)}) == {"a.2@f": Pick(PICKED), "a@f": Pick("", "n")}
    assert resolve_picks(rows, {"a.2@f": Pick(PICKED), "a@f": Pick(REJECTED)}) == {
        "a.2@f": Pick(PICKED),
        "a@f": Pick(REJECTED),
    }
    with pytest.raises(UsageError, match="neither, not 'best'"):
        resolve_picks(rows, {"a@f": Pick("best")})
    with pytest.raises(UsageError, match="no take x"):
        resolve_picks(rows, {"x": Pick()})


def test_a_reel_of_the_picks_goes_by_the_manifest_and_leaves_others_files(here: Path) -> None:
    def reel(*args: str) -> str:
        result = CliRunner().invoke(cli, ["reel", "night.yaml", *args])
        return str(result.exception) if isinstance(result.exception, UsageError) else result.output

    assert "nothing is picked" in reel()
    pick("b.2", "a")
    assert "a clip cannot be read" in reel(), "the fixture's clips are no videos"
    for name in ("a", "a.2", "b", "b.2", "a-old"):
        clip(OUTPUT / "videos" / f"{name}.mp4", seconds=0.5)
    (OUTPUT / "reel.mp4").write_text("mine", encoding="utf-8")
    assert "output/night/reel.new-1.mp4\noutput/night/contact-sheet.png\n" in reel()
    assert (OUTPUT / "reel.mp4").read_text(encoding="utf-8") == "mine"
    assert length(OUTPUT / "reel.new-1.mp4") == pytest.approx(1.0, abs=0.05)
    (OUTPUT / "contact-sheet.png").write_text("mine now", encoding="utf-8")
    assert "output/night/reel.new-1.mp4\noutput/night/contact-sheet.new-1.png\n" in reel()
    assert (OUTPUT / "reel.mp4").read_text(encoding="utf-8") == "mine", "also when ours is beside it"
    assert (OUTPUT / "contact-sheet.png").read_text(encoding="utf-8") == "mine now"
    (OUTPUT / "reel.mp4").unlink()
    assert "5 clips, pictures copied" in reel("--all")
    assert length(OUTPUT / "reel.mp4") == pytest.approx(2.5, abs=0.05)
    assert "2 clips, pictures encoded at 160x90, 24 fps" in reel("--slates")
    assert length(OUTPUT / "reel.mp4") == pytest.approx(5.0, abs=0.05), "one of ours gives way"
