"""A row that takes less memory is told from one that does not by nothing but that."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from sys import getsizeof

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.compact_rows import (
    Derived,
    changed,
    column,
    compact,
    pack,
    pack_end,
    row_maker,
    slot_constructor,
    unpack,
    unpack_end,
)
from pipeline.model import Artifact, Failure, Record, State
from tests.unit.sample_rows import done, failed, row

WORDS = st.text(alphabet='ab"', max_size=4)


@compact(
    ("note", "count"),
    derived={
        "body": Derived(("key", "name"), pack, unpack),
        "end": Derived(("key", "name"), pack_end, unpack_end),
    },
)
@dataclass(frozen=True)
class Compact:
    key: str
    name: str
    end: str
    body: str
    count: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Plain:
    key: str
    name: str
    end: str
    body: str
    count: int = 0
    note: str = ""


VALUES = st.tuples(WORDS, WORDS, WORDS, st.lists(WORDS, max_size=5).map("".join), st.integers(0, 2), WORDS)
CHANGES = st.fixed_dictionaries(
    {}, optional={"key": WORDS, "name": WORDS, "body": WORDS, "count": st.just(1)}
)


@given(WORDS.map("".join), WORDS, WORDS)
def test_what_was_packed_comes_back(text: str, first: str, second: str) -> None:
    for whole in (text, f"{text}{first}x{second}{text}", f"{second}{first}", first + second):
        assert unpack(pack(whole, first, second), first, second) == whole


@given(VALUES, CHANGES)
def test_a_compact_row_is_what_a_plain_one_is(
    values: tuple[str, str, str, str, int, str], changes: dict[str, str]
) -> None:
    row, plain = Compact(*values), Plain(*values)
    names = [one.name for one in fields(plain)]
    assert [getattr(row, name) for name in names] == list(values)
    for after in (changed(row, changes), replace(row, **changes)):  # type: ignore[arg-type]
        expected = replace(plain, **changes)  # type: ignore[arg-type]
        assert [getattr(after, name) for name in names] == [getattr(expected, name) for name in names]
        assert after == Compact(**{name: getattr(expected, name) for name in names})
        assert repr(after) == repr(expected).replace("Plain", "Compact")
    assert [getattr(row, name) for name in names] == list(values)


def test_a_row_is_made_as_any_dataclass_is_and_stays_as_it_is() -> None:
    row = Compact("k", "n", end="e", body="b", note="x")
    assert (row.count, row.note) == (0, "x")
    with pytest.raises(TypeError):
        Compact("k", "n", end="e")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Compact("k", "n", "e", "b", other=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        changed(row, {"other": 1})
    for name in ("key", "note"):
        with pytest.raises(FrozenInstanceError):
            setattr(row, name, "y")


@given(VALUES)
def test_a_row_made_of_a_sequence_is_the_one_that_the_class_makes(
    values: tuple[str, str, str, str, int, str],
) -> None:
    names = [one.name for one in fields(Plain)]
    make = row_maker(Compact, {name: number for number, name in enumerate(reversed(names), 1)})
    made, expected = make(("other", *reversed(values))), Compact(*values)
    assert made == expected
    assert hash(made) == hash(expected)
    assert [getattr(made, slot) for slot in ("_body", "_end", "_group_0")] == [
        getattr(expected, slot) for slot in ("_body", "_end", "_group_0")
    ]


def test_what_is_made_of_its_slots_is_an_instance_like_any_other() -> None:
    make = slot_constructor(Artifact)
    expected = Artifact("videos/a.mp4", 1, "0f")
    made = make(*(getattr(expected, one.name) for one in fields(Artifact)))
    assert type(made) is Artifact
    assert (made, hash(made), repr(made)) == (expected, hash(expected), repr(expected))
    assert pickle.loads(pickle.dumps(made)) == replace(made) == expected  # noqa: S301 - our own
    assert getsizeof(made) == getsizeof(expected)
    with pytest.raises(FrozenInstanceError):
        made.path = "b"  # type: ignore[misc]


def test_records_survive_being_sent_to_another_process() -> None:
    for record in (row(1), done(2), failed(3)):
        again = pickle.loads(pickle.dumps(record))  # noqa: S301 - our own
        assert again == record
        assert again.body == record.body


def test_a_record_in_flight_shares_its_body_and_what_it_does_not_have_yet() -> None:
    record = Record(
        key="a@0f",
        id="a",
        fingerprint="0f",
        position=0,
        model="m",
        body='{"model":"m","image_url":"https://x/a.jpg","prompt":"She laughs."}',
        manifest_image="https://x/a.jpg",
        prompt="She laughs.",
    )
    sent = record.evolve(State.SUBMITTING, submission_no=1)
    other = replace(record, manifest_image="https://x/b.jpg", body=record.body.replace("/a.jpg", "/b.jpg"))
    assert sent.body == record.body != other.body
    assert getattr(sent, "_body") is getattr(other, "_body")  # noqa: B009
    assert getattr(sent, "_group_0") is getattr(record, "_group_0")  # noqa: B009
    assert getsizeof(sent) < 8 * len(fields(Record))
    failed = sent.evolve(State.FAILED, failure=Failure("refused", ""))
    assert (failed.failure, sent.failure) == (Failure("refused", ""), None)


@given(st.lists(VALUES, max_size=3))
def test_a_column_has_the_values_of_one_field(values: list[tuple[str, str, str, str, int, str]]) -> None:
    rows = [Compact(*each) for each in values]
    for number, one in enumerate(fields(Plain)):
        assert list(column(Compact, one.name)(rows)) == [each[number] for each in values]
