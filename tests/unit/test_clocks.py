"""Nothing in the package reads a clock, or takes chance, past `pipeline.clocks`."""

from __future__ import annotations

import ast
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pipeline
from pipeline import clocks
from pipeline.ledger.migrate import new_identity

if TYPE_CHECKING:
    from collections.abc import Iterator

FORBIDDEN = {
    *(f"time.{name}{unit}" for name in ("time", "monotonic", "perf_counter") for unit in ("", "_ns")),
    *(f"datetime.{name}" for name in ("now", "today", "utcnow")),
    *(f"uuid.uuid{number}" for number in (1, 4)),
    "date.today",
    "os.urandom",
    "secrets",
    "random.",
}
EXCEPTED = {"clocks.py", "sandbox"}
"""The seam itself, and the stand-in for the vendor, whose clock is another machine's."""


def names_in(source: str) -> Iterator[str]:
    """Yield what is called or handed on, and what is imported by name, as `module.name`.

    `Random(seed)` is no chance, and neither is the type.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
            if node.func.id == "Random":
                yield "random.Random()"
            elif node.func.id in ("gmtime", "localtime"):
                yield "time.time"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.args:
            yield "time.time" if node.func.attr in ("gmtime", "localtime") else ""


def offences(source: str) -> list[str]:
    found = [name for name in names_in(source) if name != "random.Random"]
    return [name for name in found if name in FORBIDDEN or name.startswith(("random.", "secrets."))]


def test_the_package_asks_only_the_system_module() -> None:
    root = Path(pipeline.__file__).parent
    files = [path for path in root.rglob("*.py") if path.relative_to(root).parts[0] not in EXCEPTED]
    found = {str(path.relative_to(root)): offences(path.read_text(encoding="utf-8")) for path in files}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import time\nt = time.time()",
        "from time import monotonic",
        "clock = time.perf_counter",
        "datetime.now(UTC)",
        "import secrets",
        "from secrets import token_hex",
        "random.random()",
        "from random import choice",
        "rng = Random()",
        "uuid.uuid4()",
        "os.urandom(8)",
        "time.gmtime()",
    ],
)
def test_the_lint_finds(source: str) -> None:
    assert offences(source)


@pytest.mark.parametrize(
    "source", ["from random import Random", "Random(7)", "time.gmtime(0)", "clocks.wall()"]
)
def test_the_lint_lets_pass(source: str) -> None:
    assert not offences(source)


class Fixed:
    """A source that is told what to say."""

    def monotonic(self) -> float:
        return 1.0

    def thread_cpu(self) -> float:
        return 4.0

    def wall(self) -> float:
        return 2.0

    def new_random(self) -> random.Random:
        return random.Random(3)

    def token_hex(self, n_bytes: int) -> str:
        return "0f" * n_bytes

    def boot_id(self) -> str:
        return "boot"


def test_a_source_replaces_time_and_chance_while_it_is_used() -> None:
    with clocks.use(Fixed()):
        assert (
            clocks.monotonic(),
            clocks.thread_cpu(),
            clocks.wall(),
            clocks.token_hex(2),
            clocks.boot_id(),
        ) == (
            1.0,
            4.0,
            2.0,
            "0f0f",
            "boot",
        )
        assert clocks.new_random().random() == random.Random(3).random()
        assert new_identity() == new_identity()
    assert clocks.wall() > 2.0
    assert clocks.monotonic() <= clocks.monotonic()


def test_an_identity_is_ten_small_letters_and_digits() -> None:
    found = {new_identity() for _ in range(50)}
    assert len(found) == 50
    assert all(len(name) == 10 and name.isalnum() and name == name.lower() for name in found)
