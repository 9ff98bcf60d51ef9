"""Files in a folder: whole or absent, never overwritten silently, and trouble in words."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiofiles.threadpool.binary import AsyncFileIO

from pipeline import clocks
from pipeline.download.download_result import Saved
from pipeline.errors import StopReason, StoreError, UsageError
from pipeline.storage import (
    PART_SUFFIX,
    FileStamp,
    LocalStore,
    TransientStoreError,
    files,
    open_store,
    part_files,
)
from pipeline.storage.base import UnreadableFile
from pipeline.storage.part_files import whole_writes
from tests.integration import faulty_file_hosts as hosts
from tests.integration.sample_videos import make_video, padded
from tests.integration.test_download_faults import download_harness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

VIDEO = make_video(seconds=2)


async def publish(store: LocalStore, path: str, data: bytes, *, replaces: bool = True) -> str:
    """Publish `data` under `path`; returns the note."""
    async with store.stage(path.removesuffix(".mp4")) as part:
        await part.restart("tag")
        await part.write([data[:5], data[5:]])
        published = await part.publish(path, replaces=replaces)
    assert published.size_bytes == len(data)
    return published.note


def file_names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


async def test_a_part_is_taken_up_where_it_was_left(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    async with store.stage("videos/a") as part:
        assert (part.staged_bytes, part.tag) == (0, "")
        await part.restart("from somewhere")
        await part.write([b"hello "])
    async with store.stage("videos/a") as part:
        assert (part.staged_bytes, part.tag) == (6, "from somewhere")
        await part.write([b"world"])
        published = await part.publish("videos/a.mp4", replaces=False)
    assert (tmp_path / "videos/a.mp4").read_bytes() == b"hello world"
    assert published.sha256 == "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"
    assert file_names(tmp_path) == ["videos/a.mp4"]


async def test_part_that_was_only_read_leaves_nothing(tmp_path: Path) -> None:
    async with LocalStore(tmp_path).stage("videos/a"):
        pass
    assert file_names(tmp_path) == []


async def test_whoever_lost_its_part_takes_nothing_from_its_heir(tmp_path: Path) -> None:
    """A process that was stopped, and whose part was taken over, closes, discards or begins too late."""
    stopped, heir = LocalStore(tmp_path), LocalStore(tmp_path)
    async with stopped.stage("a") as lost, heir.stage("a") as own:
        await own.restart("tag")
        await own.write([VIDEO])
        for late in (lost.restart("another"), lost.inspect(str), lost.publish("a.mp4", replaces=False)):
            with pytest.raises(
                TransientStoreError, match=r"a\.veobatch-part: another process has taken it over"
            ):
                await late
        await lost.discard()
        assert file_names(tmp_path) == ["a.veobatch-part", "a.veobatch-part.origin"]
        await own.publish("a.mp4", replaces=False)
    assert file_names(tmp_path) == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == VIDEO


async def test_whoever_lost_its_part_while_it_noted_the_origin_leaves_no_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its heir has published already, or goes on with bytes of which such a note knows nothing."""

    def stop_for_long(_: Path) -> None:
        (tmp_path / "a.veobatch-part").unlink()
        (tmp_path / "a.mp4").write_bytes(VIDEO)

    monkeypatch.setattr(part_files, "remove_obstacle", stop_for_long)
    async with LocalStore(tmp_path).stage("a") as lost:
        with pytest.raises(TransientStoreError, match="another process has taken it over"):
            await lost.restart("tag")
    assert file_names(tmp_path) == ["a.mp4"]


async def test_bytes_from_before_the_machine_started_are_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody synced them: a power cut leaves zeros where they were, and the length as it was."""
    boot = tmp_path / "boot_id"
    monkeypatch.setattr(clocks, "BOOT_ID", boot)
    store = LocalStore(tmp_path / "out")
    for staged, started in ((0, "first\n"), (len(VIDEO), "first\n"), (0, "second\n")):
        boot.write_text(started)
        async with store.stage("a") as part:
            assert part.staged_bytes == staged
            await part.restart("tag")
            await part.write([VIDEO])


async def test_bytes_without_a_note_on_their_origin_are_not_used(tmp_path: Path) -> None:
    (tmp_path / "a.veobatch-part").write_bytes(b"who knows")
    async with LocalStore(tmp_path).stage("a") as part:
        assert part.staged_bytes == 0
        await part.restart("t")
        await part.write([b"new"])
        await part.publish("a.mp4", replaces=False)
    assert (tmp_path / "a.mp4").read_bytes() == b"new"


async def test_a_file_that_is_there_and_the_same_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"the same bytes")
    before = (tmp_path / "a.mp4").stat().st_ino
    assert "was there already" in await publish(LocalStore(tmp_path), "a.mp4", b"the same bytes")
    assert (tmp_path / "a.mp4").stat().st_ino == before
    assert file_names(tmp_path) == ["a.mp4"]


async def test_a_file_that_is_there_and_different_is_moved_aside(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"first")
    assert "a.kept-1.mp4" in await publish(store, "a.mp4", b"second")
    assert "a.kept-2.mp4" in await publish(store, "a.mp4", b"third!")
    contents = {name: (tmp_path / name).read_bytes() for name in file_names(tmp_path)}
    assert contents == {"a.mp4": b"third!", "a.kept-1.mp4": b"first", "a.kept-2.mp4": b"second"}


async def test_a_folder_or_a_link_in_the_way_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").mkdir()
    (tmp_path / "elsewhere").write_bytes(b"not ours")
    (tmp_path / "b.mp4").symlink_to(tmp_path / "elsewhere")
    await publish(LocalStore(tmp_path), "a.mp4", b"film a")
    await publish(LocalStore(tmp_path), "b.mp4", b"film b")
    assert (tmp_path / "a.new-1.mp4").read_bytes() == b"film a"
    assert (tmp_path / "b.new-1.mp4").read_bytes() == b"film b"
    assert (tmp_path / "elsewhere").read_bytes() == b"not ours"
    assert (tmp_path / "a.mp4").is_dir()
    assert (tmp_path / "b.mp4").is_symlink()


async def test_a_part_that_is_a_link_is_never_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "a.veobatch-part").symlink_to(tmp_path / "precious")
    await publish(LocalStore(tmp_path), "a.mp4", b"the film")
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert (tmp_path / "a.mp4").read_bytes() == b"the film"


@pytest.mark.parametrize("path", ["../a.mp4", "/etc/a.mp4", "a/../../b", ""])
async def test_no_path_leaves_the_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="not a path"):
        await LocalStore(tmp_path).write_bytes(path, b"x")


@pytest.mark.parametrize("durable", [True, False])
async def test_small_files_are_replaced_at_once(tmp_path: Path, durable: bool) -> None:
    store = LocalStore(tmp_path)
    await store.write_bytes("deep/results.csv", b"one", durable=durable)
    await store.write_bytes("deep/results.csv", b"two", durable=durable)
    assert await store.read_bytes("deep/results.csv") == b"two"
    assert await store.read_bytes("none") is None
    assert file_names(tmp_path) == ["deep/results.csv"]
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "deep/results.csv").stat().st_mode & 0o777 == 0o666 & ~umask


async def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/with%20space")
    await store.write_bytes("a", b"x")
    assert (tmp_path / "with space" / "a").read_bytes() == b"x"


async def test_a_stamp_changes_with_the_file(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    await publish(store, "videos/a.mp4", b"film")
    [stamp] = (await store.stamps(["videos/a.mp4", "videos/b.mp4"])).values()
    assert stamp == FileStamp(4, (tmp_path / "videos/a.mp4").stat().st_mtime_ns)
    (tmp_path / "videos/a.mp4").unlink()
    (tmp_path / "videos/a.mp4").mkdir()
    assert await store.stamps(["videos/a.mp4"]) == {}


async def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    """Neither a video nor a poster takes a name that somebody else's file has; the free name is reused."""
    store = LocalStore(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"the user's")
    (tmp_path / "a.jpg").write_bytes(b"the user's, too")
    assert "saved as a.new-1.mp4" in await publish(store, "a.mp4", b"ours", replaces=False)
    assert "already" in await publish(store, "a.mp4", b"ours", replaces=False)
    assert await store.write_new("a.jpg", b"poster", replaces=False) == "a.new-1.jpg"
    assert await store.write_new("a.jpg", b"poster", replaces=False) == "a.new-1.jpg"
    contents = {name: (tmp_path / name).read_bytes() for name in file_names(tmp_path)}
    assert contents == {
        "a.mp4": b"the user's",
        "a.jpg": b"the user's, too",
        "a.new-1.mp4": b"ours",
        "a.new-1.jpg": b"poster",
    }


async def test_several_that_want_one_name_at_once_all_keep_their_bytes(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    published: list[str] = []

    async def save(number: int) -> None:
        async with store.stage(f"{number}") as part:
            await part.restart("tag")
            await part.write([str(number).encode()])
            published.append((await part.publish(f"{number // 8}.mp4", replaces=False)).path)

    async with anyio.create_task_group() as tasks:
        for number in range(160):
            tasks.start_soon(save, number)
    assert sorted(published) == file_names(tmp_path)
    assert {(tmp_path / path).read_bytes() for path in published} == {
        str(number).encode() for number in range(160)
    }


def put_loop(path: Path) -> None:
    path.symlink_to(path.name)


def put_unreadable(path: Path) -> None:
    path.write_bytes(b"")


ODD_THINGS: dict[str, Callable[[Path], None]] = {
    "a link to itself": put_loop,
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a file of somebody else's": put_unreadable,
}


@pytest.fixture(params=ODD_THINGS)
def put_odd(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Path], None]]:
    """Put something where a file of ours belongs that cannot be read or written as one."""
    put = ODD_THINGS[request.param]
    if put is not put_unreadable:
        yield put
        return
    foreign: list[int] = []
    opens: list[tuple[Any, Callable[..., Any]]] = [(io, io.open), (os, os.open)]

    def forbidden(real: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: Any, *rest: Any, **named: Any) -> Any:
            there = os.lstat(path) if os.path.lexists(path) else None
            if there and any(os.path.samestat(there, os.fstat(file)) for file in foreign):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return real(path, *rest, **named)

        return opened

    def put_foreign(path: Path) -> None:
        put(path)
        foreign.append(os.open(path, os.O_RDONLY))  # for as long as it is open, no other file has its number
        # Whoever tests may be root, who is allowed everything.
        for module, real in opens:
            monkeypatch.setattr(module, "open", forbidden(real))

    yield put_foreign
    for file in foreign:
        os.close(file)


@pytest.mark.parametrize("replaces", [True, False])
async def test_what_cannot_be_read_under_a_final_name_is_left_alone(
    tmp_path: Path, put_odd: Callable[[Path], None], replaces: bool
) -> None:
    store = LocalStore(tmp_path)
    put_odd(tmp_path / "a.mp4")
    before = (tmp_path / "a.mp4").lstat()
    assert "saved as a.new-1.mp4" in await publish(store, "a.mp4", b"ours", replaces=replaces)
    assert os.path.samestat((tmp_path / "a.mp4").lstat(), before)
    assert (tmp_path / "a.new-1.mp4").read_bytes() == b"ours"


async def test_a_poster_beside_what_cannot_be_read_takes_another_name(
    tmp_path: Path, put_odd: Callable[[Path], None]
) -> None:
    put_odd(tmp_path / "a.jpg")
    assert await LocalStore(tmp_path).write_new("a.jpg", b"ours", replaces=False) == "a.new-1.jpg"


@pytest.mark.parametrize("name", ["a.veobatch-part", "a.veobatch-part.origin"])
async def test_what_cannot_be_used_as_a_part_gives_way(
    tmp_path: Path, put_odd: Callable[[Path], None], name: str
) -> None:
    if name.endswith("origin"):
        (tmp_path / "a.veobatch-part").write_bytes(b"left")
    put_odd(tmp_path / name)
    await publish(LocalStore(tmp_path), "a.mp4", b"ours")
    assert (tmp_path / "a.mp4").read_bytes() == b"ours"
    assert file_names(tmp_path) == ["a.mp4"]


async def test_one_path_that_cannot_be_looked_at_has_a_stamp_that_says_why(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    await publish(store, "videos/a.mp4", b"film")
    put_loop(tmp_path / "videos/b.mp4")
    stamps = await store.stamps(["videos/a.mp4", "videos/b.mp4", "videos/c.mp4"])
    assert stamps.keys() == {"videos/a.mp4", "videos/b.mp4"}
    assert not stamps["videos/a.mp4"].error
    assert os.strerror(errno.ELOOP) in stamps["videos/b.mp4"].error
    for look in (store.stamp("videos/b.mp4"), store.fingerprint("videos/b.mp4", 4)):
        with pytest.raises(UnreadableFile, match=os.strerror(errno.ELOOP)):
            await look


def test_a_temporary_file_of_no_process_is_left_alone(tmp_path: Path) -> None:
    odd = [tmp_path / f".{files._host_tag()}-{pid}-1{PART_SUFFIX}" for pid in ("²", "9" * 40)]
    for path in odd:
        path.write_bytes(b"")
    anyio.run(LocalStore(tmp_path).write_bytes, "results.csv", b"whole")
    assert file_names(tmp_path) == sorted(["results.csv", *(path.name for path in odd)])


async def test_partial_files_of_the_user_are_left_alone(tmp_path: Path) -> None:
    names = ["row.mp4.part", "row.mp4.origin.part", ".row.mp4.1.2.part", "row.part"]
    (tmp_path / "videos").mkdir()
    for name in names:
        (tmp_path / "videos" / name).write_bytes(b"the user's")
    async with hosts.FileHost(VIDEO) as host, download_harness(tmp_path) as it:
        assert isinstance(await it.fetch(host.url), Saved)
    assert it.files() == ["posters/row.jpg", *sorted(f"videos/{name}" for name in [*names, "row.mp4"])]
    assert all((tmp_path / "videos" / name).read_bytes() == b"the user's" for name in names)


def test_temporary_files_of_a_killed_process_are_swept(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from pipeline.storage import files\n"
        "files.sync_folder = os.replace = None\n"
        "Path.replace = lambda *_: os._exit(9)\n"
        f"files.replace_file(Path({str(tmp_path)!r}, 'results.csv'), b'half', True)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    [left] = file_names(tmp_path)
    assert left.endswith(".veobatch-part")
    mine = tmp_path / ".0badc0de-1-2.veobatch-part"
    mine.write_bytes(b"of another machine")
    anyio.run(LocalStore(tmp_path).write_bytes, "results.csv", b"whole")
    assert file_names(tmp_path) == [mine.name, "results.csv"]


async def test_what_was_set_aside_comes_back(tmp_path: Path) -> None:
    async with LocalStore(tmp_path).stage("a") as part:
        await part.restart("first")
        await part.write([b"doubtful"])
        assert await part.aside_tag() == ""
        await part.set_aside()
        assert part.staged_bytes == 0
        assert await part.aside_tag() == "first"
        await part.restart("second")
        await part.write([b"half"])
        assert await part.restore()
        assert part.tag == "first"
        assert await part.aside_tag() == ""
        await part.set_aside("first, examined")
        assert await part.aside_tag() == "first, examined"
        assert await part.restore()
        published = await part.publish("a.mp4", replaces=False)
        assert not await part.restore()
    assert published.size_bytes == 8
    assert (tmp_path / "a.mp4").read_bytes() == b"doubtful"
    assert file_names(tmp_path) == ["a.mp4"]


async def test_bytes_whose_note_is_gone_are_set_aside_as_nobodys(tmp_path: Path) -> None:
    async with LocalStore(tmp_path).stage("a") as part:
        for tag in ("first", "second"):
            await part.restart(tag)
            await part.write([b"doubtful"])
            if tag == "second":
                (tmp_path / "a.veobatch-part.origin").unlink()
            await part.set_aside(f"{tag}, examined")
        assert await part.aside_tag() == ""
        assert await part.restore()
        assert part.tag == ""


CALLS: dict[str, tuple[str, int]] = {
    "write, full": ("write", errno.ENOSPC),
    "write, quota": ("write", errno.EDQUOT),
    "write, broken": ("write", errno.EIO),
    "open, read-only": ("open", errno.EROFS),
    "open, forbidden": ("open", errno.EACCES),
    "fsync, full": ("fsync", errno.ENOSPC),
    "rename, forbidden": ("rename", errno.EPERM),
}


@pytest.mark.parametrize(("call", "number"), CALLS.values(), ids=CALLS.keys())
async def test_output_error_stops_run_and_leaves_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    real: Callable[..., object] = getattr(os, call)

    def fails(first: object, *rest: object, **named: object) -> object:
        ours = isinstance(first, int) and first > 2 if call == "fsync" else ".veobatch-part" in str(first)
        if ours:
            raise OSError(number, os.strerror(number), None if call == "fsync" else str(first))
        return real(first, *rest, **named)

    async def fails_to_write(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    async with hosts.FileHost(VIDEO) as host, download_harness(tmp_path) as it:
        with monkeypatch.context() as patch:
            if call == "write":
                patch.setattr(AsyncFileIO, "writelines", fails_to_write)
            else:
                patch.setattr(os, call, fails)
            with pytest.raises(StoreError) as caught:
                await it.fetch(host.url)
        assert "videos/row.mp4" not in it.files()
        assert isinstance(await it.fetch(host.url), Saved)
    assert caught.value.reason is StopReason.DISK
    assert str(tmp_path) in str(caught.value)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB where one may be mounted, else a folder whose writes say that it is full."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)], check=False, capture_output=True
    )
    if mounted.returncode == 0:
        yield place
        subprocess.run(["umount", str(place)], check=True)
        return
    with pytest.MonkeyPatch.context() as patch:
        left = [2**20]

        async def writelines(file: AsyncFileIO, chunks: Iterable[bytes]) -> None:
            for chunk in chunks:
                left[0] -= len(chunk)
                if left[0] < 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.write(file.fileno(), chunk)

        patch.setattr(AsyncFileIO, "writelines", writelines)
        yield place


async def test_a_full_disk_is_left_with_room_for_the_ledger(small_disk: Path) -> None:
    large = padded(VIDEO, 3 * 2**20)
    async with hosts.FileHost(large) as host, download_harness(small_disk) as it:
        with pytest.raises(StoreError, match="free some space"):
            await it.fetch(host.url)
        assert it.files() == []
    async with hosts.FileHost(VIDEO) as host, download_harness(small_disk) as it:
        assert isinstance(await it.fetch(host.url), Saved)


class ShortWrites(io.FileIO):
    """Takes seven bytes of a write, as a disk with little room left does, without an error."""

    def write(self, data: Any, /) -> int:
        return super().write(memoryview(data)[:7])


def test_writes_that_fall_short_are_gone_on_with(tmp_path: Path) -> None:
    chunks: list[bytes | memoryview] = [
        bytes(range(20)),
        memoryview(b""),
        memoryview(b"another that is longer than seven"),
        b"x",
    ]
    with ShortWrites(tmp_path / "a", "w") as file:
        file.write(b"before ")
        file.writelines(whole_writes(file.fileno(), chunks))
    assert (tmp_path / "a").read_bytes() == b"before " + b"".join(chunks)


def test_a_part_whose_write_fell_short_is_begun_anew(tmp_path: Path) -> None:
    """A limit lets 100 of 120 bytes pass, without an error, as a full disk does."""
    code = f"""
import resource, anyio
from pipeline.errors import StoreError
from pipeline.storage import LocalStore

async def main():
    async with LocalStore({str(tmp_path)!r}).stage("a") as part:
        await part.restart("tag")
        await part.write([b"x" * 60])
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        try:
            await part.write([b"y" * 60])
        except StoreError as error:
            print(error)

anyio.run(main)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "File too large" in done.stdout
    assert file_names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
async def test_a_part_that_could_not_be_synced_is_fetched_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Linux reports a failed fsync once: the next one succeeds, and says nothing of the lost bytes."""

    def fails(file: int) -> None:
        raise OSError(number, os.strerror(number))

    async with hosts.FileHost(VIDEO) as host, download_harness(tmp_path) as it:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fails)
            with pytest.raises(StoreError):
                await it.fetch(host.url)
        assert it.files() == []
        asked = len(host.requests)
        assert isinstance(await it.fetch(host.url), Saved)
        assert len(host.requests) > asked


async def test_a_part_whose_write_failed_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with LocalStore(tmp_path).stage("a") as part:
        await part.restart("tag")
        await part.write([VIDEO])
        monkeypatch.setattr(AsyncFileIO, "writelines", fails)
        with pytest.raises(StoreError):
            await part.write([VIDEO])
    assert file_names(tmp_path) == []


async def test_a_part_that_is_shorter_than_what_was_written_is_begun_anew(tmp_path: Path) -> None:
    async with LocalStore(tmp_path).stage("a") as part:
        await part.restart("tag")
        await part.write([VIDEO])
        os.truncate(tmp_path / "a.veobatch-part", len(VIDEO) - 1)
        with pytest.raises(StoreError, match="the disk is full"):
            await part.inspect(str)
    assert file_names(tmp_path) == []


async def test_a_file_where_a_folder_should_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "videos").write_bytes(b"a file")
    async with hosts.FileHost(VIDEO) as host, download_harness(tmp_path) as it:
        with pytest.raises(StoreError, match="videos"):
            await it.fetch(host.url)


async def test_a_small_file_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    await store.write_bytes("results.csv", b"old")

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="the disk is full"):
        await store.write_bytes("results.csv", b"new")
    assert await store.read_bytes("results.csv") == b"old"
    assert file_names(tmp_path) == ["results.csv"]


def test_an_object_store_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pipeline.storage.object_store", None)
    with pytest.raises(UsageError, match=r"pip install ('botocore[^']*' )?'obstore<"):
        open_store("s3://films/x")


async def test_part_that_vanishes_before_probe_is_a_store_error(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    async with store.stage("videos/a") as part:
        await part.restart("tag")
        await part.write([b"bytes"])
        for path in (tmp_path / "videos").iterdir():
            path.unlink()
        with pytest.raises(StoreError):
            await part.inspect(lambda source: Path(str(source)).read_bytes())
    await store.aclose()
