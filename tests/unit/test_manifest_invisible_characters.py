"""Prompts and ids of which nothing can be seen are refused where they stand; those of any language pass."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.manifest import ManifestProblems, load
from pipeline.manifest.invisible_characters import is_blank

if TYPE_CHECKING:
    from pathlib import Path

INVISIBLE = {
    "zero width space": "\u200b",
    "zero width joiner": "\u200d\u200d",
    "non-joiner": "\u200c",
    "byte order mark": "\ufeff",
    "word joiner": "\u2060",
    "soft hyphen": "\u00ad",
    "bidi marks": "\u200e\u202a\u2066\u2069\u061c",
    "variation selector": "\ufe0f",
    "ideographic variation selector": "\U000e0100",
    "tags": "\U000e0041\U000e007f",
    "combining grapheme joiner": "\u034f",
    "a mark on nothing": "\u0301",
    "an enclosing mark on nothing": "\u20dd",
    "hangul filler": "\u3164",
    "halfwidth hangul filler": "\uffa0",
    "hangul jamo fillers": "\u115f\u1160",
    "braille blank": "\u2800",
    "mongolian selectors": "\u180b\u180e",
    "khmer inherent vowels": "\u17b4\u17b5",
    "musical format": "\U0001d173",
    "among blanks": " \u200b\u00a0\u200b\t",
}
VISIBLE = {
    "a letter": "a",
    "a dot": ".",
    "german": "Sie lächelt.",
    "decomposed": "e\u0301",
    "arabic": "إنها تبتسم",
    "hebrew with marks": "\u200fהִיא מְחַיֶּכֶת",
    "persian with a non-joiner": "می\u200cخواهم",
    "hindi": "वह मुस्कुराती है",
    "thai": "เธอยิ้ม",
    "tamil": "அவள் சிரிக்கிறாள்",
    "khmer": "នាងញញឹម",
    "korean": "그녀가 웃는다",
    "old korean with a filler": "\u1112\u1160",
    "japanese": "彼女は微笑む",
    "chinese": "她笑了",
    "mongolian": "ᠢᠨᠢᠶᠡᠮᠦᠢ",
    "an emoji": "🎬",
    "a family": "👩\u200d👩\u200d👧",
    "a heart": "❤\ufe0f",
    "a keycap": "1\ufe0f\u20e3",
    "a flag of tags": "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "braille": "⠓⠊",
    "private use": "\ue000",
    "not assigned yet": "\U0001fbff",
    "wrapped": "\ufeff\u200bshe smiles\u200b",
}


def problem_of(path: Path) -> str:
    with pytest.raises(ManifestProblems) as caught:
        load(path)
    (problem,) = caught.value.problems
    return f"{problem.line}:{problem.column}: {problem.what}, {problem.why}, {problem.instead}"


def write_jsonl(folder: Path, prompt: str) -> Path:
    path = folder / "m.jsonl"
    path.write_text(
        '{"image_url": "https://a.test/a.jpg", "prompt": "fine"}\n'
        f'{{"image_url": "https://a.test/a.jpg", "prompt": {json.dumps(prompt, ensure_ascii=False)}}}\n',
        encoding="utf-8",
    )
    return path


@pytest.mark.parametrize("name", INVISIBLE)
def test_a_prompt_that_nobody_sees_is_refused_where_it_stands(name: str, tmp_path: Path) -> None:
    words = problem_of(write_jsonl(tmp_path, INVISIBLE[name]))
    assert words.startswith("2:49: prompt is blank, it holds only U+"), words
    assert words.endswith(", which nobody sees, write one")
    assert words.isprintable()
    assert words.isascii()


@pytest.mark.parametrize("name", VISIBLE)
def test_a_prompt_in_any_language_passes_as_it_is(name: str, tmp_path: Path) -> None:
    _, job = load(write_jsonl(tmp_path, VISIBLE[name])).jobs
    assert job.prompt == VISIBLE[name]


def test_blanks_are_called_blanks(tmp_path: Path) -> None:
    assert (
        problem_of(write_jsonl(tmp_path, " \u00a0\u3000"))
        == "2:49: prompt is blank, the model needs a prompt, write one"
    )


def test_yaml_escapes_and_substituted_texts_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(
        'vars:\n  nothing: "\\u200B"\njobs:\n  - image_url: https://a.test/a.jpg\n    prompt: "${nothing}"\n'
    )
    assert problem_of(path).startswith("5:13: prompt is blank, it holds only U+200B")


def test_csv_cells_are_checked_for_invisible_text(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("image_url,prompt\nhttps://a.test/a.jpg,\u2060\ufeff\n", encoding="utf-8")
    assert "prompt is blank, it holds only U+2060, U+FEFF" in problem_of(path)


@pytest.mark.parametrize("row_id", ["\u3164", "\u200b", "\u2800\u2800"])
def test_an_id_that_nobody_sees_names_nothing(row_id: str, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    job = {"image_url": "https://a.test/a.jpg", "prompt": "p", "id": row_id}
    path.write_text(json.dumps({"jobs": [job]}, ensure_ascii=False), encoding="utf-8")
    assert "id is blank, it holds only U+" in problem_of(path)


@given(
    st.text(st.sampled_from("".join(INVISIBLE.values())), max_size=9), st.sampled_from(list(VISIBLE.values()))
)
def test_one_character_that_is_seen_is_enough(unseen: str, seen: str) -> None:
    assert is_blank(unseen)
    assert not is_blank(unseen + seen + unseen)
