"""Which rows' pictures are prepared ahead, and when a picture may go."""

from __future__ import annotations

from pipeline.images.lookahead import Lookahead
from pipeline.model import Job, Record
from pipeline.plan import new_record


def row(number: int, *files: int) -> Record:
    """A row whose body stands for these files."""
    body = {"images": [f"sha256:{file:064x}" for file in files]}
    return new_record(Job(f"row-{number}", f"f{number}", number, "m", body), f"row-{number}")


def taken(ahead: Lookahead) -> list[str]:
    """The ids of all rows that may be prepared for now."""
    found = []
    while (record := ahead.next()) is not None:
        found.append(record.id)
    return found


def test_preparing_stays_as_many_rows_ahead_of_the_row_that_was_begun_last() -> None:
    rows = [row(number, number) for number in range(10)]
    ahead = Lookahead(3)
    ahead.expect(rows)
    assert taken(ahead) == ["row-0", "row-1", "row-2"]
    ahead.begin(rows[0])
    assert taken(ahead) == ["row-3"]
    ahead.begin(rows[4])  # what was overtaken is not prepared for again
    assert taken(ahead) == ["row-5", "row-6", "row-7"]
    ahead.begin(rows[1])  # a create that comes back moves nothing
    assert taken(ahead) == []


def test_rows_that_never_begin_do_not_hold_preparing_up() -> None:
    rows = [row(number, number) for number in range(6)]
    ahead = Lookahead(2)
    ahead.expect(rows)
    taken(ahead)
    ahead.begin(rows[3])
    assert taken(ahead) == ["row-2", "row-4", "row-5"]


def test_a_picture_is_needed_until_its_last_row_was_sent() -> None:
    file = f"{7:064x}"
    rows = [row(0, 7), row(1, 7, 7), row(2, 8)]
    ahead = Lookahead(1)
    ahead.expect(rows)
    ahead.expect(rows)  # a row that comes in again counts once
    assert not ahead.is_needed_soon(file)
    ahead.begin(rows[0])
    assert ahead.is_needed_soon(file)
    assert ahead.finish(rows[0]) == []
    assert ahead.is_needed(file)
    assert not ahead.is_needed_soon(file)
    ahead.begin(rows[1])
    assert set(ahead.finish(rows[1])) == {file}
    assert not ahead.is_needed(file)
    assert set(ahead.finish(rows[1])) == {file}, "sent a second time"


def test_rows_without_files_are_left_alone() -> None:
    ahead = Lookahead(1)
    ahead.expect([row(0), row(1, 1)])
    assert taken(ahead) == ["row-1"]
