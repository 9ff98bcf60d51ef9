"""Every kind of mistake is found at its place, in few words, quickly, and all of a file's at once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from pipeline.manifest import ManifestProblems, load
from tests.unit.manifest_mistakes import MISTAKES, ROW, Mistake

if TYPE_CHECKING:
    from pathlib import Path

FAR_TOO_LONG_S = 5.0


def problems_of(path: Path, content: bytes) -> ManifestProblems:
    path.write_bytes(content)
    with pytest.raises(ManifestProblems) as caught:
        load(path)
    return caught.value


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_mistake(mistake: Mistake, tmp_path: Path) -> None:
    began = time.process_time()
    path = tmp_path / f"batch{mistake.suffix}"
    words = str(problems_of(path, mistake.content))
    assert words.startswith(f"{path}:{mistake.position}: "), words
    for word in mistake.phrases:
        assert word in words
    assert len(words) <= 4000
    assert time.process_time() - began < FAR_TOO_LONG_S


def test_all_mistakes_of_a_file_at_once(tmp_path: Path) -> None:
    text = f"""defaults: {{aspect_ratio: 16:9}}
run: {{concurrency: no}}
vesion: 1
jobs:
  - image_url: cat.png
    promt: x
  - [a]
  - {{image_url: https://a.b/c, prompt: "x", duration: 5, generate_audio: on}}
{ROW.replace("jobs:", "").strip(chr(10))}
    resolution: 720
"""
    found = problems_of(tmp_path / "batch.yaml", text.encode())
    assert [problem.line for problem in found.problems] == [1, 2, 3, 5, 6, 7, 8, 8, 11]


def test_what_stands_before_a_syntax_error_is_checked_too(tmp_path: Path) -> None:
    row = "{image_url: https://a.b/c, prompt: x, duration: 7}"
    sections = f"defaults: {{duration: 5}}\njobs:\n  - [https://a.b/c, x]\n  - {row}\n  - prompt: one: two\n"
    found = problems_of(tmp_path / "batch.yaml", sections.encode())
    assert [(p.line, p.what) for p in found.problems] == [
        (1, "duration is 5"),
        (4, "duration is 7"),
        (5, "a second `: ` in one line"),
    ]
    found = problems_of(tmp_path / "batch.yaml", f"- {row}\n- [a, b\n".encode())
    assert [p.line for p in found.problems] == [1, 3]
    found = problems_of(tmp_path / "batch.yaml", f"- {row}\n---\n- {row}\n".encode())
    assert [p.line for p in found.problems] == [1, 2]


def test_a_wrong_default_is_told_once(tmp_path: Path) -> None:
    rows = "".join(f"  - [https://a.b/{n}, x]\n" for n in range(50))
    found = problems_of(tmp_path / "batch.yaml", f"defaults: {{duration: 5}}\njobs:\n{rows}".encode())
    assert len(found.problems) == 1


@pytest.mark.parametrize("name", ["missing.yaml", "folder", "two\nlines.yaml", "x" * 300, "/dev/zero"])
def test_files_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ManifestProblems) as caught:
        load(tmp_path / name)
    assert ":1:1: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_message_cannot_disturb_a_terminal(tmp_path: Path) -> None:
    found = problems_of(tmp_path / "batch.yaml", b'- {"\\e[31mred\\u202e": 1}\n')
    assert str(found).isprintable() or all(line.isprintable() for line in str(found).splitlines())
