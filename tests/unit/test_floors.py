"""Imports go down only: each room may know the rooms on the floors below its own, never above."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parents[2] / "pipeline"

FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "model"),
    ("events", "names", "proxies"),
    ("settings",),
    ("manifest", "plan", "retry", "polling", "pacing", "pricing", "budget"),
    ("api", "ledger", "storage", "media", "cdn", "images", "lock", "memory"),
    ("stages",),
    ("engine",),
    ("cluster",),
    ("results", "costs", "report", "logbook", "live"),
    ("cli",),
)
SAME_FLOOR_ALLOWED = {
    ("manifest", "pricing"),
    ("results", "costs"),
    ("results", "report"),
    ("results", "logbook"),
    ("report", "live"),
    ("results", "live"),
}
STAGES_ALONE = {"submit", "poll", "download"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> Iterator[tuple[str, ...]]:
    """Yield the dotted path, below `pipeline`, of every import of ours in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "pipeline" else [module]
        else:
            continue
        for name in names:
            if name.startswith("pipeline."):
                yield tuple(name.split(".")[1:])


def floor_of(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


FILES = sorted(path for path in PACKAGE.rglob("*.py") if room_of(path) not in ("__init__", "__main__"))


def test_every_room_has_its_floor() -> None:
    rooms = {room_of(path) for path in FILES} - {"sandbox"}
    assert rooms <= {room for floor in FLOORS for room in floor}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    room = room_of(path)
    for target, *_ in imports_of(path):
        if target in (room, "__version__"):
            continue
        assert room != "sandbox", f"{path}: the sandbox imports {target}"
        if target == "sandbox":
            assert room == "cli", f"{path}: only the doors know the sandbox"
            continue
        allowed = floor_of(target) < floor_of(room) or (target, room) in SAME_FLOOR_ALLOWED
        assert allowed, f"{path}: {room} must not know {target}"


def test_stages_do_not_know_each_other() -> None:
    for path in (PACKAGE / "stages").glob("*.py"):
        if path.stem in STAGES_ALONE:
            known = {parts[1] for parts in imports_of(path) if parts[0] == "stages" and len(parts) > 1}
            assert not known & STAGES_ALONE - {path.stem}, f"{path} knows {known}"


def test_rules_know_no_clock_no_loop_and_no_network() -> None:
    forbidden = {"asyncio", "anyio", "aiohttp", "socket", "time", "threading", "sqlite3"}
    for room in next(floor for floor in FLOORS if "plan" in floor):
        for path in [PACKAGE / f"{room}.py", *(PACKAGE / room).rglob("*.py")]:
            if not path.exists():
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else [node.module or ""]
                    if isinstance(node, ast.ImportFrom)
                    else []
                )
                found = {name.split(".")[0] for name in names} & forbidden
                assert not found, f"{path} imports {found}"
