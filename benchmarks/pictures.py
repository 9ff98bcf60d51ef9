"""Thousands of rows over hundreds of camera pictures: the memory they take, and whether slots wait for them.

    python -m benchmarks.pictures                        1,000 rows over 50 pictures of 12 megapixels
    python -m benchmarks.pictures --rows 10000 --pictures 500
    python -m benchmarks.pictures --megapixels 100 --pictures 4 --rows 40 --kind png

The pictures are real files, turned as a phone writes them, so that each is decoded, turned and encoded again.
The stand-in vendor runs in a process of its own and takes pictures by value; what is measured is the command
alone. Prints, last, one line of JSON: the largest resident set, and the longest time that a row with a free
slot waited for its picture, after the slots were full for the first time and before.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from benchmarks.live import HERE, temp_folder
from benchmarks.memory import start_sandbox

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MODEL: Final = "google/veo-3.0-i2v-fast"
TURNED: Final = 6
"""The EXIF orientation of a phone that is held upright."""


def make_pictures(folder: Path, count: int, megapixels: float, kind: str) -> list[str]:
    """Write pictures that differ in a few bytes only, which is all that makes them different pictures."""
    folder.mkdir()
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    width = round(height * 4 / 3)
    small = np.random.default_rng(1).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)
    exif = Image.Exif()
    exif[0x0112] = TURNED
    first = folder / f"first.{kind}"
    if kind == "jpg":
        image.save(first, exif=exif, quality=90)
    else:
        image.save(first, exif=exif, compress_level=1)
    data = first.read_bytes()
    first.unlink()
    names = [f"{number:04d}.{kind}" for number in range(count)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(with_comment(data, number, kind))
    return names


def with_comment(data: bytes, number: int, kind: str) -> bytes:
    """Return the file with a comment at its end's marker, or behind its beginning, that no decoder shows."""
    text = f"picture {number:09d}".encode()
    if kind == "jpg":  # ITU T.81, B.2.4.5: a comment segment; its length counts itself
        return data[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + data[2:]
    return data + text  # what comes behind a PNG's end is not read


def write_manifest(path: Path, names: Sequence[str], rows: int, *, interleaved: bool) -> None:
    """Write rows over the pictures: all rows of one after the other, or one row of each in turns."""
    lines = []
    for number in range(rows):
        name = names[number % len(names) if interleaved else number * len(names) // rows]
        row = {"id": f"row-{number}", "model": MODEL, "image": f"stills/{name}", "prompt": f"Take {number}."}
        lines.append(json.dumps({**row, "duration": 4, "resolution": "720p"}))
    path.write_text("\n".join(lines) + "\n")


def measure(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    names = make_pictures(folder / "stills", asked.pictures, asked.megapixels, asked.kind)
    write_manifest(folder / "batch.jsonl", names, asked.rows, interleaved=asked.interleaved)
    process, url = start_sandbox(asked.render_s)
    words = [sys.executable, "-m", "benchmarks.pictures_child", str(folder / "notes.json"), "run"]
    words += [str(folder / "batch.jsonl"), "--output", str(folder / "out"), "--base-url", url, "--yes"]
    words += ["--concurrency", str(asked.concurrency), "--poll-interval", "1", "--no-media", "--quiet"]
    words += ["--limit", str(asked.limit)] if asked.limit else []
    began = time.monotonic()
    try:
        environ = {**os.environ, "AIMLAPI_API_KEY": "any-key", "XDG_CACHE_HOME": str(folder / "cache")}
        code = subprocess.run(words, cwd=HERE.parent, env=environ, check=False).returncode
    finally:
        process.terminate()
        process.wait()
    notes = [json.loads(line) for line in (folder / "notes.json").read_text().splitlines()]
    size_mb = (folder / "stills" / names[0]).stat().st_size / 1e6
    facts = {"exit_code": code, "wall_s": round(time.monotonic() - began, 1), "picture_mb": round(size_mb, 1)}
    return facts | summary(notes, asked.concurrency)


def summary(notes: Sequence[dict[str, Any]], slots: int) -> dict[str, Any]:
    """Return the figures: waits of the rows that fill the slots for the first time stand apart."""
    waits = [wait for _, wait in sorted(note["wait"] for note in notes)]
    prepared = [seconds for note in notes for seconds in note["prepared_s"]]
    later = waits[slots:] or [0.0]
    return {
        "submissions": len(waits),
        "prepared": len(prepared),
        "prepare_median_s": median(prepared or [0.0]),
        "longest_wait_s": max(later),
        "waits_over_0.1_s": sum(wait > 0.1 for wait in later),
        "longest_wait_while_filling_s": max(waits[:slots] or [0.0]),
        "peak_rss_mb": round(max(note["peak_mb"] for note in notes), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--pictures", type=int, default=50)
    parser.add_argument("--megapixels", type=float, default=12.0)
    parser.add_argument("--kind", choices=["jpg", "png"], default="jpg")
    parser.add_argument("--concurrency", type=int, default=20)
    parser.add_argument("--render-s", type=float, default=4.0, help="how long each generation renders")
    parser.add_argument("--limit", type=int, help="submit only so many of the rows")
    parser.add_argument("--interleaved", action="store_true", help="one row of each picture, in turns")
    asked = parser.parse_args()
    with temp_folder() as folder:
        print(json.dumps(measure(asked, folder)))


if __name__ == "__main__":
    main()
