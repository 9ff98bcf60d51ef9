"""Mutated manifests end in jobs or in problems, never in a traceback; set FUZZ_EXAMPLES for a long run."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.manifest import ManifestProblems, load
from tests.unit.manifest_mistakes import MISTAKES

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))
WHOLE = """version: 1
x-base: &base {duration: 4, params: {resolution: 720p}}
defaults: {model: google/veo-3.1-i2v-fast, aspect_ratio: "16:9"}
run: {concurrency: 20, max_cost: 50.00, name: "{id}"}
vars: {style: oil on canvas}
jobs:
  - &one
    id: take-two
    image_url: https://example.com/mona.jpg
    prompt: "She laughs, ${style}."
    <<: *base
  - [https://example.com/cat.jpg, "The cat yawns."]
  - {model: other/model, prompt: >-
      folded text, params: {seed: 1, list: [1, 2.5, ~]}}
matrix:
  images: [https://example.com/a.jpg, https://example.com/b.jpg]
  prompts: [one, "two"]
  exclude: [{prompt: two}]
"""
LINES = """{"image_url": "https://example.com/a.jpg", "prompt": "x", "duration": 8}
["https://example.com/a.jpg", "\\u00e9"]
{"model": "other/x", "params": {"a": [1, {"b": null}]}}
"""
TABLE = """id,image_url,prompt,duration,params
a,https://example.com/a.jpg,"x, y",8,
b,https://example.com/a.jpg,x,,{}
"""
SEEDS = [
    (".yaml", WHOLE),
    (".jsonl", LINES),
    (".csv", TABLE),
    (".json", '{"jobs": [["https://a.b/c", "x"]]}'),
]
SEEDS += [(m.suffix, m.content.decode("utf-8", "replace")) for m in MISTAKES if len(m.content) < 2000]
MARKS = [
    ":",
    "-",
    "[",
    "]",
    "{",
    "}",
    ",",
    "#",
    "&",
    "*",
    "!",
    "|",
    ">",
    "'",
    '"',
    "%",
    "@",
    "`",
    "?",
    "~",
    "<<",
    "---",
    "...",
    "\t",
    "\n",
    "\r",
    "\x00",
    "\x85",
    "\ufeff",
    "�",
    "\u2028",
]
WORDS = [
    "&a",
    "*a",
    "!!int",
    "16:9",
    "yes",
    "null",
    "0o7",
    "1e999",
    "NaN",
    "jobs:",
    "matrix:",
    "vars:",
    "defaults:",
    "params:",
    "id:",
    "model:",
    "\\u0000",
]
BITS = st.sampled_from([*MARKS, *WORDS, "  ", ": ", "- ", "${", "$${", "<<: *a", "9" * 50, "[" * 60])


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, bytes]:
    suffix, text = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 20)))
        match draw(st.sampled_from(["insert", "replace", "delete", "repeat", "move"])):
            case "insert":
                text = text[:start] + draw(BITS) + text[start:]
            case "replace":
                text = text[:start] + draw(BITS | st.text(max_size=5)) + text[end:]
            case "delete":
                text = text[:start] + text[end:]
            case "repeat":
                text = text[:end] + text[start:end] * draw(st.integers(1, 30)) + text[end:]
            case _:
                at = draw(st.integers(0, len(text)))
                text = text[:at] + text[start:end] + text[at:]
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-16", "latin-1"]))
    return suffix, text.encode(encoding, "surrogatepass" if encoding != "latin-1" else "replace")


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutated())
def test_no_traceback(manifest: tuple[str, bytes]) -> None:
    suffix, content = manifest
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"batch{suffix}"
        path.write_bytes(content)
        try:
            jobs = load(path).jobs
        except ManifestProblems as found:
            check_problems(found)
        else:
            assert jobs
            assert len({job.id for job in jobs}) == len(jobs)
            for job in jobs:
                json.dumps(job.body, allow_nan=False, ensure_ascii=False).encode("utf-8")


def check_problems(found: ManifestProblems) -> None:
    assert found.problems
    assert len(str(found)) <= 4000
    assert all(problem.line >= 1 and problem.column >= 1 for problem in found.problems)
