"""A batch that is killed and started again, and what must be true of it whenever it lies there dead."""

from __future__ import annotations

import asyncio
import csv
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import av

from tests import forked_python

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.sandbox import Sandbox
    from tests.forked_python import Command

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = ("--poll-interval", "0.1", "--reconcile-after", "5")


@dataclass(frozen=True, slots=True)
class Batch:
    """A folder with a manifest of `n_jobs` rows, and the vendor that the command talks to."""

    folder: Path
    sandbox: Sandbox
    n_jobs: int
    options: Sequence[str] = OPTIONS

    def __post_init__(self) -> None:
        rows = [
            {
                "id": f"row-{number}",
                "image_url": f"{self.sandbox.url}/images/a.jpg",
                "prompt": self.prompt(number),
            }
            for number in range(self.n_jobs)
        ]
        shape = {"duration": 4, "resolution": "720p"}
        manifest = {"defaults": shape, "jobs": rows}
        (self.folder / "batch.json").write_text(json.dumps(manifest), encoding="utf-8")

    @staticmethod
    def prompt(number: int) -> str:
        return f"Scene {number} of the night."

    @property
    def output(self) -> Path:
        return self.folder / "output" / "batch"

    async def start(self, *module: str) -> Command:
        """Start the command, or one that will die; what it says goes to a file."""
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TMPDIR")}
        home = {"HOME": str(self.folder / "home"), "XDG_CACHE_HOME": str(self.folder / "home")}
        args = ("-m", *(module or ("pipeline",)), "run", "batch.json", "--base-url", self.sandbox.url)
        env = {**kept, **home, "PYTHONPATH": str(ROOT), "AIMLAPI_API_KEY": "sk-test"}
        with (self.folder / "said.txt").open("ab") as said:
            return await self._start_python(*args, *self.options, env=env, output=said.fileno())

    async def _start_python(self, *args: str, env: dict[str, str], output: int) -> Command:
        return await forked_python.start(*args, cwd=self.folder, env=env, stdout=output, stderr=output)

    async def finish(self, within_s: float = 600.0) -> int:
        """Start it once more, and let it end by itself."""
        process = await self.start()
        try:
            async with asyncio.timeout(within_s):
                return await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise AssertionError(f"not ended within {within_s} s\n{self.output_text()}") from None

    def output_text(self) -> str:
        return (self.folder / "said.txt").read_text(encoding="utf-8")[-6000:]

    def paid_counts(self) -> Counter[str]:
        """How often each row's prompt was accepted by the vendor and will be charged."""
        return Counter(one.prompt for one in self.sandbox.state.generations if not one.fails)

    def assert_consistent(self) -> None:
        """Nothing was paid twice, and whatever has its final name is a whole film."""
        twice = {prompt: count for prompt, count in self.paid_counts().items() if count > 1}
        assert not twice, self.output_text()
        for path in (self.output / "videos").glob("*.mp4"):
            assert prompt_of(path) == self.prompt(int(path.stem.removeprefix("row-")))

    def assert_all_done(self) -> None:
        """Every row was paid exactly once and has its own film."""
        self.assert_consistent()
        assert len(self.paid_counts()) == self.n_jobs
        with (self.output / "results.csv").open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        assert [row["status"] for row in rows] == ["done"] * self.n_jobs
        for row in rows:
            assert prompt_of(self.output / row["video_path"]) == row["prompt"]
        assert not list((self.output / "videos").glob("*veobatch-part*"))
        assert not list((self.output / "videos").glob("*.kept-*"))
        assert not self.sandbox.state.leaked_keys


async def wait_until(
    condition: Callable[[], bool], within_s: float = 600.0, *, interval_s: float = 0.001
) -> None:
    """Wait for something that the vendor sees and cannot announce."""
    async with asyncio.timeout(within_s):
        while True:
            if condition():
                return
            await asyncio.sleep(interval_s)


def prompt_of(path: Path) -> str:
    """Decode a film to its end; return the prompt that its metadata names."""
    with av.open(str(path)) as film:
        assert sum(1 for _ in film.decode(video=0)) > 0
        words = [value for value in film.metadata.values() if value.startswith("Scene ")]
    return words[0]
