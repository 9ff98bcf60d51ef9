"""The package stays readable: short functions, modules that fit in the head, folders that fit on a screen."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_MODULE_LINES = 300
MAX_FUNCTION_LINES = 40
MAX_MODULES_PER_FOLDER = 25

ROOT = Path(pipeline.__file__).parent
MODULES = {path: path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py")}


def function_lines(path: Path, source: str) -> Iterator[tuple[str, int]]:
    """Yield the place and the length of each function of a module, its docstring included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


def test_no_function_is_longer_than_a_screen() -> None:
    lengths = dict(entry for path, source in MODULES.items() for entry in function_lines(path, source))
    assert len(lengths) > 1000
    too_long = {place: lines for place, lines in lengths.items() if lines > MAX_FUNCTION_LINES}
    assert too_long == {}


def test_no_module_is_too_long_to_be_read_at_once() -> None:
    lengths = {str(path.relative_to(ROOT)): source.count("\n") for path, source in MODULES.items()}
    too_long = {name: lines for name, lines in lengths.items() if lines > MAX_MODULE_LINES}
    assert too_long == {}


def test_no_folder_holds_more_modules_than_a_glance_takes_in() -> None:
    counts = Counter(str(path.parent.relative_to(ROOT)) for path in MODULES)
    assert {folder: count for folder, count in counts.items() if count > MAX_MODULES_PER_FOLDER} == {}


def test_sessions_are_made_in_one_place_with_room_for_long_heads() -> None:
    """The sandbox imports nothing of ours."""
    makers = {str(path.relative_to(ROOT)) for path, source in MODULES.items() if "ClientSession(" in source}
    assert {name for name in makers if not name.startswith("sandbox/")} == {"net/http_session.py"}
