"""Manifests that are wrong, each in its own way: name, file, bytes, where and what the message must say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ROW: Final = "jobs:\n  - image_url: https://a.example/c.jpg\n    prompt: hi\n"
URL: Final = "https://a.example/c.jpg"


@dataclass(frozen=True, slots=True)
class Mistake:
    name: str
    content: bytes
    position: str
    phrases: tuple[str, ...]
    suffix: str = ".yaml"


def _bad(name: str, content: str | bytes, place: str, *words: str, suffix: str = ".yaml") -> Mistake:
    data = content if isinstance(content, bytes) else content.encode()
    return Mistake(name, data, place, words, suffix)


def _field(name: str, line: str, column: int, *words: str) -> Mistake:
    return _bad(name, f"{ROW}    {line}\n", f"4:{column}", *words)


def _prompt(name: str, text: str, place: str, *words: str) -> Mistake:
    return _bad(name, f"jobs:\n  - image_url: {URL}\n    prompt: {text}\n", place, *words)


def _bomb() -> str:
    levels = "".join(
        f"    {chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
    )
    return f"defaults:\n  model: other/x\n  params:\n    a: &a [x, x, x, x, x, x, x, x, x]\n{levels}{ROW}"


MISTAKES: Final = (
    _bad("empty", "", "1:1", "empty"),
    _bad("only a comment", "# nothing\n", "1:1", "empty"),
    _bad("a scalar", "hello\n", "1:1", "not a manifest"),
    _bad("utf-16", ROW.encode("utf-16"), "1:1", "UTF-16", "UTF-8"),
    _bad("latin-1", f'- [{URL}, "café"]\n'.encode("latin-1"), "1:33", "not UTF-8", "0xe9"),
    _bad("a NUL byte", b"jobs:\n - \x00\n", "2:4", "NUL"),
    _bad("binary", bytes(range(256)), "1:1", "NUL"),
    _bad("a control character", f"- [{URL}, \x07]\n", "1:29", "control"),
    _bad("a tab", "jobs:\n\t- x\n", "2:1", "a tab", "spaces"),
    _bad("a second document", f"{ROW}---\n{ROW}", "4:1", "second document"),
    _bad("a duplicate key", f"{ROW}    prompt: again\n", "4:5", '"prompt" is given twice', "line 3"),
    _bad("a duplicate section", ROW + ROW, "4:1", '"jobs" is given twice'),
    _bad("an unclosed list", "jobs:\n  - [a, b\n", "3:1", "not YAML"),
    _bad("an unclosed quote", 'jobs:\n  - ["a, b]\n', "3:1", "not YAML"),
    _bad("bad indentation", "jobs:\n  - prompt: a\n   id: b\n", "3:4", "indentation"),
    _prompt("a colon in a prompt", "one: two", "3:16", "colon", "quotes"),
    _prompt("a prompt that begins with %", "%x", "3:13", "quotes"),
    _prompt("a prompt that begins with *", "*bold* text", "3:18", "quotes"),
    _prompt("a template in braces", "{{x}}", "3:14", "key"),
    _prompt("yes as a prompt", "yes", "3:13", "YAML reads that as true", 'write "yes"'),
    _prompt("a date as a prompt", "2024-01-01", "3:13", "a date"),
    _prompt("a number as a prompt", "42", "3:13", "must be text", '"42"'),
    _prompt("no prompt after the colon", "", "3:12", "no value"),
    _prompt("a blank prompt", '"  "', "3:13", "blank"),
    _prompt("a huge prompt", "x" * 1_000_000, "3:13", "1,000,000 characters"),
    _prompt("a control character by escape", '"a\\0b"', "3:13", "control"),
    _field("16:9 without quotes", "aspect_ratio: 16:9", 19, "969", 'write "16:9"'),
    _field("yes for a switch", "generate_audio: yes", 21, "true or false"),
    _field("text for a switch", 'generate_audio: "true"', 21, "without quotes"),
    _field("an octal number", "duration: 010", 15, "octal"),
    _field("a fraction", "duration: 8.0", 15, "whole number", "4, 6 or 8"),
    _field("a number in quotes", 'duration: "8"', 15, "without quotes"),
    _field("a switch for a number", "duration: true", 15, "whole number"),
    _field("a duration that is not sold", "duration: 7", 15, "4, 6 or 8"),
    _field("infinity", "duration: .inf", 15, "infinity"),
    _field("an endless number", f"duration: {'9' * 6000}", 15, "a number"),
    _field("a resolution without its p", "resolution: 1080", 17, '"1080p"'),
    _field("a provider with a typo", "provider: GOOGEL", 15, 'write "google"'),
    _field("a list for text", "provider: [google]", 15, "must be text"),
    _field("an id that is a number", "id: 7", 9, 'write it in quotes: "7"'),
    _field("a blank id", 'id: ""', 9, "blank"),
    _field("a long id", f"id: {'x' * 300}", 9, "300 characters"),
    _field("an id over two lines", 'id: "a\\nb"', 9, "printed"),
    _field("params for the built-in model", "params: {x: 1}", 14, 'unknown field "x"'),
    _field("params that are text", "params: x", 13, "params"),
    _field("a number as a field's name", "1: 2", 5, 'unknown field "1"'),
    _field("a YAML tag", "duration: !!int '8'", 15, "tag"),
    _field("a model that is a number", "model: 3", 12, "must be text"),
    _bad("an object by tag", "jobs:\n  - !!python/object/apply:os.system [x]\n", "2:5", "tag"),
    _bad(
        "a typo in a field", f"jobs:\n  - image_url: {URL}\n    promt: x\n", "3:5", "did you mean `prompt`?"
    ),
    _bad("no image", "jobs:\n  - prompt: x\n", "2:5", "image_url is missing"),
    _bad("a file that is not there", "jobs:\n  - [./cat.png, x]\n", "2:6", "no such file"),
    _bad("a damaged data URI", "jobs:\n  - ['data:image/png;base64,A', x]\n", "2:6", "Base64"),
    _bad("another scheme", "jobs:\n  - ['ftp://a/b', x]\n", "2:6", "http(s)"),
    _bad("no host", "jobs:\n  - ['https://', x]\n", "2:6", "no host"),
    _bad("a space in a URL", "jobs:\n  - ['https://a.b/my cat.png', x]\n", "2:6", "space", "%20"),
    _bad("a triple", "jobs:\n  - [a, b, c]\n", "2:5", "3 items"),
    _bad("a job that is text", "jobs:\n  - hello\n", "2:5", "hello"),
    _bad("jobs as a mapping", "jobs:\n  prompt: x\n", "2:3", "jobs is no list"),
    _bad("no jobs at all", "jobs: []\n", "1:7", "no jobs"),
    _bad("no jobs section", "defaults: {}\n", "1:1", "`jobs:` is missing"),
    _bad("a field at the top", f"{ROW}prompt: x\n", "4:1", "defaults"),
    _bad("a typo in a section", "job: 3\n", "1:1", "did you mean `jobs`?"),
    _bad("a wrong version", f"version: 2\n{ROW}", "1:10", "version 1"),
    _bad("a setting as text", f'run: {{concurrency: "3"}}\n{ROW}', "1:20", "concurrency"),
    _bad("a setting out of bounds", f"run: {{max_cost: -1}}\n{ROW}", "1:17", "max_cost"),
    _bad("an unknown setting", f"run: {{concurency: 3}}\n{ROW}", "1:7", "did you mean `concurrency`?"),
    _bad("defaults as a list", f"defaults: [a]\n{ROW}", "1:11", "defaults is no mapping"),
    _bad("a default that is wrong", f"defaults: {{duration: 5}}\n{ROW}", "1:22", "4, 6 or 8"),
    _bad(
        "an id twice",
        f"- &a {{id: a, image_url: {URL}, prompt: x}}\n- {{<<: *a, id: a}}\n",
        "2:16",
        "taken",
        "line 1",
    ),
    _bad(
        "an alias of a row that has an id",
        f"- &a {{id: a, image_url: {URL}, prompt: x}}\n- *a\n",
        "2:3",
        'id "a" is taken',
        "line 1",
    ),
    _bad(
        "a merge of a row that has an id",
        f"- &a {{id: a, image_url: {URL}, prompt: x}}\n- <<: *a\n  prompt: y\n",
        "2:3",
        'id "a" is taken',
        "line 1",
    ),
    _bad("an alias of nothing", "jobs:\n  - *x\n", "2:5", "names nothing"),
    _bad("an alias of itself", "jobs: &x\n  - *x\n", "2:5", "inside itself"),
    _bad("aliases that explode", _bomb(), "8:8", "too large"),
    _bad(
        "merges that explode",
        f"x-a: &a {{{', '.join(f'k{i}: 1' for i in range(900))}}}\n{ROW}    <<: *a\n",
        "5:9",
        "merged",
    ),
    _bad("3,000 lists deep", f"jobs: {'[' * 3000}{']' * 3000}\n", "1:46", "nested"),
    _bad("3,000 mappings deep", "".join(" " * i + "a:\n" for i in range(3000)), "41:41", "nested"),
    _bad("a list as a key", "? [a]\n: b\n", "1:3", "key"),
    _bad("a variable that is not there", f"vars: {{a: b}}\njobs:\n  - [{URL}, 'x ${{c}}']\n", "3:31", "${c}"),
    _bad("a variable that is a number", f"vars: {{a: 1}}\n{ROW}", "1:11", "no text"),
    _bad("an empty matrix", "matrix: {images: []}\n", "1:18", "empty"),
    _bad(
        "a matrix too large",
        f"matrix: {{images: [{','.join([URL] * 1000)}], prompts: [{','.join('x' * 1000)}]}}\n",
        "1:9",
        "1,000,000 rows",
    ),
    _bad(
        "a thousand mistakes", "jobs:\n" + "  - {promt: 3, duration: 9}\n" * 1000, "2:5", "image_url", "more"
    ),
    _bad("JSON with a comma too many", f'{{"jobs": [["{URL}", "x"],]}}', "1:44", "not JSON", suffix=".json"),
    _bad("3,000 deep in JSON", "[" * 3000 + "]" * 3000, "1:41", "nested", suffix=".json"),
    _bad("3,000 deep in JSON lines", '{"a":' * 3000 + "1" + "}" * 3000, "1:201", "nested", suffix=".jsonl"),
    _bad("a line that is no JSON", f'["{URL}", "x"]\n{{"image_url": \n', "2:15", "not JSON", suffix=".jsonl"),
    _bad(
        "NaN", f'{{"image_url":"{URL}","prompt":"x","duration":NaN}}\n', "1:64", "not JSON", suffix=".jsonl"
    ),
    _bad(
        "a name twice in JSON",
        f'{{"prompt":"a","prompt":"b","image_url":"{URL}"}}\n',
        "1:15",
        "twice",
        suffix=".jsonl",
    ),
    _bad("half a character", f'["{URL}", "\\ud83d"]\n', "1:29", "half of a character", suffix=".jsonl"),
    _bad("CSV without a header", "a,b\n1,2\n", "1:1", "header", suffix=".csv"),
    _bad("an open quote in CSV", f'image_url,prompt\n{URL},"x\n', "2:1", "not CSV", suffix=".csv"),
    _bad("a comma in CSV", f"image_url,prompt\n{URL},x,y\n", "2:27", "3 cells", suffix=".csv"),
    _bad(
        "a word for a number in CSV",
        f"image_url,prompt,duration\n{URL},x,8s\n",
        "2:27",
        "whole",
        suffix=".csv",
    ),
    _bad("an unknown column", f"image_url,promt\n{URL},x\n", "1:11", "did you mean `prompt`?", suffix=".csv"),
)
