"""Writes what the pages say of the code: `python -m docs.generate`, or `--check` to change nothing.

A page is written by hand but for what stands between `<!-- generated: NAME -->` and `<!-- /generated -->`;
that comes from the code's own tables, so that it cannot drift. A word for which the code has no meaning to
offer gets it from the tables here, and generating fails when one is missing or too many.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from pipeline import plan
from pipeline.cli import COMMANDS, cli
from pipeline.errors import ExitCode, StopReason
from pipeline.ledger.compiled_statements import SQLITE_FILE
from pipeline.ledger.statements import sqlite_json
from pipeline.manifest.json_schema import manifest_schema
from pipeline.model import State
from pipeline.results.csv_rows import COLUMNS, STATUSES
from pipeline.results.summary_json import summary_schema
from pipeline.runner.credentials import BASE_URL_VARIABLES, DEFAULT_BASE_URL, KEY_VARIABLES
from pipeline.sandbox import FAULTS
from pipeline.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

ROOT: Final = Path(__file__).parents[1]
MARK: Final = re.compile(r"(<!-- generated: ([^>]+?) -->\n).*?(<!-- /generated -->)", re.DOTALL)

COLUMN_MEANING: Final = {
    "id": "the row's `id` in the manifest, or one made of its content",
    "status": "one of the values below",
    "generation_id": "the vendor's name for the generation; what their support asks for",
    "video_path": "the MP4, relative to the CSV; filled in once it is whole and in its place",
    "image_url": "as in the manifest: an address, or a file's path (of a `data:` URI the beginning)",
    "prompt": "as in the manifest, with `${name}` filled in",
    "model": "the model that was asked",
    "bytes": "the file's size",
    "sha256": "the file's checksum",
    "duration_s": "how long the video really is, in seconds",
    "width": "in pixels",
    "height": "in pixels",
    "has_audio": "`true` or `false`: whether there is a sound track",
    "submitted_at": "when the last create request was sent",
    "finished_at": "when a poll first saw the generation finished, or the row failed",
    "downloaded_at": "when the video was saved",
    "polls": "status requests for this row",
    "attempts": "how often the row was submitted, not counting throttled requests",
    "credits_used": "credits that the vendor charged",
    "usd_spent": "what the vendor charged; empty while that is unknown",
    "error_code": "a short, stable word, see below",
    "error_message": "why, mostly in the vendor's words",
    "line": "the row's line in the manifest",
    "correlation_id": "the `X-Client-Request-Id` of the last create, to be found in the vendor's log",
    "fps": "frames a second",
    "poster_path": "a picture of the video, relative to the CSV",
    "warnings": "what is odd about the file, such as sound that was not asked for",
    "request_id": "the vendor's id of the request that failed, for their support",
    "take": "which take of the row this is, from 1",
    "pick": "`picked`, `rejected`, or empty",
    "image_sha256": "the checksum of an image from the disk",
    "sandbox": "`true` when the sandbox made the clip: its figures are no money",
    "seed": "the seed that was sent, where the model takes one",
}
STATUS_MEANING: Final = {
    State.DONE: "the video is saved",
    State.FAILED: "it did not work out; `error_code` and `error_message` say why",
    State.IN_DOUBT: "it was submitted, but no response came: it may be paid, and the vendor's log is asked",
    State.READY: "the vendor has finished it; the download is not done yet",
    State.GENERATING: "the vendor is rendering it",
    State.PENDING: "not submitted yet",
}
ERROR_MEANING: Final = {
    "image": ("the picture, a file, cannot be sent: damaged, or not where it is said to be", "no"),
    "refused": ("the vendor refused the request (400, 422): the row's fields or its image", "no"),
    "not_found": ("404 on create: an unknown model, or a wrong base URL", "no"),
    "not_accepted": (
        "refused again and again (500, 503, 405, ...) while other rows got through, or failed by the log",
        "no",
    ),
    "in_doubt": ("no response came to the create request; `status` is `in_doubt`, too", "perhaps"),
    "content_refused": ("the generation was refused for its content", "no"),
    "generation_refused": ("the generation ended badly: the vendor calls the input invalid", "no"),
    "generation_error": ("the generation ended badly, by a fault that may pass", "no"),
    "generation_unknown": (
        "the vendor answers its id with 404 for minutes; the message says what the log shows",
        "perhaps",
    ),
    "no_video": ("the vendor says completed, but names no video", "perhaps"),
    "not_a_video": ("what was downloaded, several times, is no playable MP4", "yes"),
}
"""What it means, and whether it may have been charged."""
EXIT_MEANING: Final = {
    ExitCode.DONE: "every job is done",
    ExitCode.SOME_FAILED: "finished, but some jobs failed; the others are done",
    ExitCode.USAGE: "the command, its surroundings or the manifest are wrong; nothing was submitted",
    ExitCode.RESUMABLE: "stopped early; the same command goes on. It wins over 1, since there is more to do",
    ExitCode.CRASH: "a bug of veobatch; the traceback is in `run.log`, and the same command goes on",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C; the same command goes on",
    ExitCode.TERMINATED: "ended by SIGTERM or by a closed terminal (SIGHUP); the same command goes on",
}
STOP_MEANING: Final = {
    StopReason.CREDITS: "the account is out of credits; what is paid for was still fetched",
    StopReason.KEY: "the vendor does not take the key",
    StopReason.MODEL: "the vendor has no such model any more; choose another one (`--model NAME`)",
    StopReason.QUOTA: "a quota (so many an hour) is used up; `--wait-for-quota` waits instead",
    StopReason.BUDGET: "`--max-cost` has no room for another row",
    StopReason.DEADLINE: "`--timeout` passed for some generations; they are left for the next run",
    StopReason.UNFINISHED: "some rows could not be finished, mostly their downloads; the summary says why",
    StopReason.DISK: "the output is full, read-only or gone",
    StopReason.LEDGER: "the ledger cannot be used, or another process holds the folder",
    StopReason.IN_DOUBT: "rows are in doubt and the vendor's log does not settle them yet",
    StopReason.UNREACHABLE: "the API cannot be reached",
    StopReason.IMAGE_STORE: "the image store takes no picture, or signs no link",
    StopReason.CRASH: "unexpected errors in several rows, or one outside of them; the log has the traceback",
    StopReason.INTERRUPTED: "Ctrl-C, SIGTERM or a closed terminal",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; a bar in a cell is escaped, a newline becomes a blank."""
    lines = [head, ["---"] * len(head), *rows]
    cells = [[re.sub(r"\s+", " ", cell).replace("|", r"\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def meanings(words: Iterable[Any], known: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    """Pair every word with its meaning; raises `SystemExit` when one has none, or a meaning no word."""
    wanted = list(words)
    if set(wanted) != set(known):
        raise SystemExit(f"docs/generate.py: meanings differ from the code: {set(wanted) ^ set(known)}")
    return [(word, known[word]) for word in wanted]


def command_of(name: str) -> tuple[click.Command, click.Context]:
    """Return the command of that name with a context of its own."""
    parent = click.Context(cli, info_name="veobatch")
    command = cli.get_command(parent, name)
    if command is None:
        raise SystemExit(f"there is no veobatch {name}")
    return command, click.Context(command, info_name=name, parent=parent)


def commands() -> str:
    """Every command: its usage, its words, its options."""
    index = table(["command", "does"], [(f"[`{n}`](#veobatch-{n})", words) for n, words in COMMANDS.items()])
    return "\n\n".join([index, *map(one_command, COMMANDS)])


def one_command(name: str) -> str:
    command, context = command_of(name)
    usage = " ".join(["veobatch", name, *command.collect_usage_pieces(context)])
    options = []
    for option in command.get_params(context):
        if not isinstance(option, click.Option):
            continue
        record = option.get_help_record(context)
        if record is not None and option.name != "help":
            variable = option.envvar if isinstance(option.envvar, str) else ""
            options.append((f"`{record[0]}`", record[1], f"`{variable}`" if variable else ""))
    named = any(variable for _, _, variable in options)
    rows = options if named else [option[:2] for option in options]
    listed = table(["option", "does", "or the variable"][: 3 if named else 2], rows) if options else ""
    parts = [f"## veobatch {name}", f"```console\n$ {usage}\n```", *paragraphs(command.help or ""), listed]
    return "\n\n".join(part for part in parts if part)


def paragraphs(words: str) -> list[str]:
    """Return a command's help; what it keeps from being wrapped becomes a block of code."""
    found = []
    for paragraph in inspect.cleandoc(words).split("\n\n"):
        if paragraph.startswith("\b\n"):
            found.append("```text\n" + paragraph.removeprefix("\b\n") + "\n```")
        else:
            found.append(" ".join(paragraph.split()))
    return found


def fields() -> str:
    """The fields of a job for the model that is built in."""
    row = manifest_schema()["$defs"]["row"]["else"]["properties"]
    return table(
        ["field", "takes", "default", "meaning"],
        [(f"`{name}`", takes(rule), default(rule), rule["description"]) for name, rule in row.items()],
    )


def takes(rule: Mapping[str, Any]) -> str:
    if "enum" in rule:
        return ", ".join(f"`{value}`" for value in rule["enum"])
    if "pattern" in rule and "|" in rule["pattern"]:
        choices = re.sub(r"\[(.)[^\]]\]", r"\1", rule["pattern"].strip("^$()")).split("|")
        return ", ".join(f"`{choice}`" for choice in choices)
    words = {
        "string": "text",
        "object": "a mapping",
        "boolean": "`true`, `false`",
        "array": "a list",
        "integer": "a whole number",
    }
    if rule.get("format") == "uri":
        return "a file, an http(s) URL or a `data:` URI"
    most = f", {rule['maxLength']:,} characters at most" if "maxLength" in rule else ""
    return words[rule["type"]] + most


def default(rule: Mapping[str, Any]) -> str:
    value = rule.get("default")
    return "" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def settings() -> str:
    """Every setting, with the option and the variable that set it too."""
    command, _ = command_of("run")
    options = {option.name: option for option in command.params if isinstance(option, click.Option)}
    schema = manifest_schema()["$defs"]["sections"]["properties"]["run"]["properties"]
    rows = []
    for name in Settings.model_fields:
        option = options.get(name) or options[f"no_{name}"]
        words = (option.help or "").partition("  [default")[0]
        variable = f"`{option.envvar}`" if isinstance(option.envvar, str) else ""
        given = default(schema[name])
        rows.append((f"`{name}`", bounds(schema[name]), given, f"`{option.opts[0]}`", variable, words))
    return table(["setting", "takes", "default", "option", "variable", "meaning"], rows)


def bounds(rule: Mapping[str, Any]) -> str:
    kinds = [kind for kind in rule["type"] if kind != "null"]
    words = {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "`true`, `false`",
        "string": "text",
    }
    limits = [
        f"{word} {rule[key]:,}"
        for key, word in (("exclusiveMinimum", "over"), ("minimum", "from"), ("maximum", "to"))
        if key in rule
    ]
    return " ".join([words[kinds[0]], *limits])


def columns() -> str:
    rows = [(f"`{name}`", words) for name, words in meanings(COLUMNS, COLUMN_MEANING)]
    return table(["column", "says"], rows)


def statuses() -> str:
    rows = [(f"`{word.value}`", words) for word, words in meanings(STATUSES, STATUS_MEANING)]
    return table(["status", "means"], rows)


def error_codes() -> str:
    rows = [(f"`{code}`", *words) for code, words in meanings(codes_in_use(), ERROR_MEANING)]
    return table(["code", "means", "charged?"], rows)


def codes_in_use() -> list[str]:
    """Return every code that some `Failure(...)` of the package is made with, in the order of meanings."""
    found = set()
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id
            if called == "Failure" and isinstance(node, ast.Call) and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    found.add(str(first.value))
                elif isinstance(first, ast.Name) and isinstance(code := vars(plan).get(first.id), str):
                    found.add(code)
    return [*(code for code in ERROR_MEANING if code in found), *sorted(found - ERROR_MEANING.keys())]


def exit_codes() -> str:
    rows = [(str(int(code)), words) for code, words in meanings(ExitCode, EXIT_MEANING)]
    return table(["code", "meaning"], rows)


def summary_fields() -> str:
    """The fields of the `--json` summary, and of a failure in it."""
    properties = summary_schema()["properties"]
    failure = properties["failures"]["items"]["properties"]
    rows = [*properties.items(), *((f"failures[].{name}", rule) for name, rule in failure.items())]
    return table(["field", "holds"], [(f"`{name}`", rule["description"]) for name, rule in rows])


def stop_reasons() -> str:
    rows = [(f"`{reason.value}`", words) for reason, words in meanings(StopReason, STOP_MEANING)]
    return table(["reason", "means"], rows)


def faults() -> str:
    return table(
        ["fault", "acts on", "what happens"],
        [(f"`{kind.name}`", f"{kind.point}".replace("_", " "), kind.description) for kind in FAULTS.values()],
    )


def variables() -> str:
    """The variables of the key and the address, in the order in which they are tried."""
    keys, bases = (
        ", then ".join(f"`{name}`" for name in names) for names in (KEY_VARIABLES, BASE_URL_VARIABLES)
    )
    return table(
        ["what", "read from"],
        [("the key", keys), ("the API's address", f"`--base-url`, then {bases}, else `{DEFAULT_BASE_URL}`")],
    )


BLOCKS: Final[Mapping[str, Callable[[], str]]] = {
    "commands": commands,
    "fields": fields,
    "settings": settings,
    "columns": columns,
    "statuses": statuses,
    "error-codes": error_codes,
    "exit-codes": exit_codes,
    "summary-fields": summary_fields,
    "stop-reasons": stop_reasons,
    "faults": faults,
    "variables": variables,
}
LANGUAGES: Final = {".service": "ini", ".timer": "ini", ".yml": "yaml"}


def block(name: str) -> str:
    """Return what stands under a marker: one of `BLOCKS`, or `file PATH`, that file's own text."""
    if name.startswith("file "):
        path = ROOT / name.removeprefix("file ")
        return f"```{LANGUAGES[path.suffix]}\n{path.read_text(encoding='utf-8').strip()}\n```"
    return BLOCKS[name]()


def rendered(text: str) -> str:
    """Return a page with everything generated in it made anew."""
    return MARK.sub(lambda found: f"{found[1]}{block(found[2])}\n{found[3]}", text)


def pages() -> list[Path]:
    """Return every page that people read."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def files() -> dict[Path, str]:
    """Return everything that is generated, whole: the pages, and SQLite's statements."""
    made = {page: rendered(page.read_text(encoding="utf-8")) for page in pages()}
    return {**made, SQLITE_FILE: sqlite_json()}


def main(arguments: Sequence[str]) -> int:
    """Write what changed; with `--check` only name it, and return 1 if there is any."""
    stale = {
        path: text for path, text in files().items() if not path.exists() or text != path.read_text("utf-8")
    }
    for path, text in stale.items():
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
