"""File names: safe everywhere, unique everywhere, the same tomorrow."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.filenames import MAX_STEM_BYTES, assign_stems, check_template, file_stem, image_stem, safe_stem

ODD = [
    ("take-two", "take-two"),
    ("../../x:a/b?c=%2e#d", "x_a_b_c__2e_d"),
    ("-V1StGXR8_Z5", "V1StGXR8_Z5"),
    (".hidden", "hidden"),
    ("CON", "_CON"),
    ("con.backup", "_con.backup"),
    ("LPT¹", "_LPT¹"),
    ("com0", "_com0"),
    ("console", "console"),
    ("trailing. . ", "trailing"),
    ("a\tb\nc\0d", "a_b_c_d"),
    ("Мона Лиза", "Мона_Лиза"),
    ("モナ・リザ", "モナ_リザ"),
    ("हिन्दी", "हिन्दी"),
    ("é", "é"),
    ("e\u0301", "é"),
    ("🎬", "_"),
    ("a\u200bb\u202ec", "abc"),
    ('a*b|c<d>e"f\\g', "a_b_c_d_e_f_g"),
    ("tilde~1 & $HOME `x`", "tilde_1____HOME__x_"),
]


@pytest.mark.parametrize(("text", "stem"), [pair for pair in ODD if pair[0] != "🎬"])
def test_odd_ids(text: str, stem: str) -> None:
    assert safe_stem(text) == stem


@pytest.mark.parametrize("text", ["", ".", "..", "...", "-", "_", "🎬", "\u200b", "/", " "])
def test_what_leaves_no_name_gets_one(text: str) -> None:
    assert safe_stem(text).startswith("row-")
    assert len({safe_stem(text), safe_stem(text + "🎬🎬"), safe_stem(text + "//")}) == 3


def test_a_long_id_is_cut_to_bytes_and_stays_its_own() -> None:
    one, two = safe_stem("ж" * 300 + "1"), safe_stem("ж" * 300 + "2")
    assert one != two
    assert len(one.encode()) <= MAX_STEM_BYTES
    assert one.startswith("жж")


@given(st.text())
def test_any_text_is_safe(text: str) -> None:
    stem = safe_stem(text)
    assert stem
    assert len(stem.encode()) <= MAX_STEM_BYTES
    assert stem[0] not in ".-_ " or stem.startswith("_")
    assert stem[-1] not in ". "
    assert not set(stem) & set('/\\:*?"<>|#%&{}$@`+=~ \0')
    assert all(unicodedata.category(char)[0] != "C" for char in stem)
    assert stem == unicodedata.normalize("NFC", stem)
    assert safe_stem(text) == stem


def fold(stem: str) -> str:
    return unicodedata.normalize("NFD", stem).casefold()


def test_clashes_of_case_and_unicode_form_are_resolved() -> None:
    wanted = [("k1", "Mona"), ("k2", "mona"), ("k3", "é"), ("k4", "e\u0301"), ("k5", "other"), ("k6", "MONA")]
    stems = assign_stems(wanted, {})
    assert stems["k1"] == "Mona"
    assert stems["k5"] == "other"
    assert stems["k2"].startswith("mona-")
    assert len({fold(stem) for stem in stems.values()}) == 6


def test_what_was_given_stays_whatever_comes() -> None:
    first = assign_stems([("k1", "a"), ("k2", "a")], {})
    again = assign_stems([("k0", "a"), ("k2", "a"), ("k1", "a"), ("k3", "A")], first)
    assert {key: again[key] for key in ("k1", "k2")} == first
    assert len({fold(stem) for stem in again.values()}) == 4


def test_a_removed_row_keeps_its_name_to_itself() -> None:
    assert assign_stems([("new", "a")], {"gone": "a"})["new"] != "a"


def test_a_suffix_does_not_depend_on_who_else_clashes() -> None:
    few = assign_stems([("k1", "a"), ("k9", "a")], {})
    many = assign_stems([("k1", "a"), ("k2", "a"), ("k3", "a"), ("k9", "a")], {})
    assert few["k9"] == many["k9"]


def test_a_suffix_fits_into_a_long_name() -> None:
    long = "x" * MAX_STEM_BYTES
    stems = assign_stems([("k1", long), ("k2", long)], {})
    assert all(len(stem.encode()) <= MAX_STEM_BYTES for stem in stems.values())
    assert stems["k1"] != stems["k2"]


@given(
    st.lists(st.text(alphabet="aAbé-1", max_size=3), max_size=12),
    st.dictionaries(st.integers(100, 110), st.text(alphabet="aAb", min_size=1, max_size=3)),
)
def test_no_two_rows_ever_share_a_file(texts: list[str], taken: dict[int, str]) -> None:
    unique: dict[int, str] = {}
    for key, stem in taken.items():
        if fold(stem) not in {fold(other) for other in unique.values()}:
            unique[key] = stem
    stems = assign_stems([(key, safe_stem(text)) for key, text in enumerate(texts)], unique)
    together = [*unique.values(), *stems.values()]
    assert len({fold(stem) for stem in together}) == len(together)
    assert all(safe_stem(stem) == stem for stem in stems.values())


def test_templates() -> None:
    assert file_stem("{id}", id="a/b", index=3) == "a_b"
    assert file_stem("{index:04d}-{id}", id="a", index=3) == "0003-a"
    assert file_stem("{model} {prompt:.6}", id="a", index=0, model="g/v", prompt="She laughs") == "g_v_She_la"
    assert file_stem("{{x}}-{fingerprint}", id="a", index=0, fingerprint="f00") == "x_-f00"


def test_a_template_may_use_every_field_of_the_row_and_the_image() -> None:
    fields = {"duration": 4, "seed": 7, "prompt": "not this one", "tags": ["no", "scalar"]}
    assert (
        file_stem("{image}-{duration:02d}-{seed}", id="a", index=0, image="cat", fields=fields) == "cat-04-7"
    )
    assert file_stem("{prompt}", id="a", index=0, prompt="this", fields=fields) == "this"
    check_template("{anything_that_some_model_has}")
    for unknown in ("{nothing}", "{tags}"):
        with pytest.raises(UsageError, match="is unknown; there are"):
            file_stem(unknown, id="a", index=0, fields=fields)


@pytest.mark.parametrize(
    ("image_url", "stem"),
    [
        ("stills/cat 1.final.jpg", "cat 1.final"),
        ("C:\\stills\\cat.jpg", "cat"),
        ("https://example.com/a/my%20cat.jpg?x=1", "my cat"),
        ("data:image/png;base64,AAAA", ""),
        ("", ""),
    ],
)
def test_the_stem_of_an_image(image_url: str, stem: str) -> None:
    assert image_stem(image_url) == stem


@pytest.mark.parametrize(
    "template",
    ["{}", "{id.__class__}", "{id[0]}", "{id!r}", "{index:{id}}", "{id", "{index:zz}", "{0}"],
)
def test_templates_that_cannot_be_filled_say_so(template: str) -> None:
    with pytest.raises(UsageError, match="--name"):
        check_template(template)
