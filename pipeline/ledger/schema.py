"""The tables of the ledger and their version, and what makes those of an earlier version today's.

It must not know connections or records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DefaultClause,
    Double,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    bindparam,
    cast,
    exists,
    func,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from pipeline.ledger import spending
from pipeline.ledger.compiled_statements import SCHEMA_VERSION
from pipeline.ledger.rows import ADDED_COLUMNS, COLUMN_TYPES, COLUMN_VERSIONS, JOB_COLUMNS, STATE_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import ColumnElement, Dialect, Insert
    from sqlalchemy.sql.type_api import TypeEngine

    from pipeline.ledger.compiled_statements import Migration

IN_FLIGHT_SQL: Final[list[ColumnElement[str]]] = [
    literal_column(f"'{state}'", Text) for state in ("submitting", "in_doubt", "generating")
]
"""States in which a row takes one of the account's slots, or may."""

_PENDING: Final[ColumnElement[str]] = literal_column("'pending'", Text)
ZERO: Final[ColumnElement[int]] = literal_column("0", BigInteger)
ONE: Final[ColumnElement[int]] = literal_column("1", BigInteger)

ACTIVE_SQL: Final[list[ColumnElement[str]]] = [*IN_FLIGHT_SQL, literal_column("'ready'", Text)]

_SQL_TYPES: Final[Mapping[str, type[TypeEngine[Any]]]] = {
    "str": Text,
    "State": Text,
    "SubmissionState": Text,
    "int": Integer,
    "float": Double,
    "bool": Boolean,
}

_NESTED_COLUMN_TYPES: Final[Mapping[str, type[TypeEngine[Any]]]] = {
    "failure_retryable": Boolean,
    "artifact_bytes": BigInteger,
    "artifact_mtime_ns": BigInteger,
    "media_duration_s": Double,
    "media_width": Integer,
    "media_height": Integer,
    "media_fps": Double,
    "media_has_audio": Boolean,
}

_metadata: Final = MetaData()


def _column(name: str) -> Column[Any]:
    if name not in COLUMN_TYPES:
        return Column(name, _NESTED_COLUMN_TYPES.get(name, Text)())
    return _typed_column(name, COLUMN_TYPES[name], with_default=name in COLUMN_VERSIONS)


def _typed_column(name: str, annotation: str, *, with_default: bool = False) -> Column[Any]:
    kind, _, nullable = annotation.partition(" | ")
    text = "1" if name == "take" else "" if kind == "str" else "0"
    default = None if nullable or not with_default else DefaultClause(text)
    return Column(name, _SQL_TYPES[kind](), nullable=bool(nullable), server_default=default)


def _records_table(metadata: MetaData, names: Iterable[str]) -> Table:
    return Table(
        "veobatch_records",
        metadata,
        Column("batch", Text, nullable=False),
        *(_column(name) for name in names),
        Column("lease", BigInteger),
        Column("lease_until", Double),
        Column("worker", Text),
        PrimaryKeyConstraint("batch", "key"),
    )


schema_version: Final = Table(
    "veobatch_schema_version",
    _metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("applied_at", Double, nullable=False),
)
"""One row for each version that was ever applied; the highest counts."""

batches: Final = Table(
    "veobatch_batches",
    _metadata,
    Column("batch", Text, primary_key=True),
    Column("identity", Text, nullable=False),
    Column("created_at", Double, nullable=False),
)

records: Final = _records_table(_metadata, (*JOB_COLUMNS, *STATE_COLUMNS))
"""The present state of each job. `lease` and `worker` are for workers on several machines; `lease_until` has
never been written, since numbers fence and times do not, and stays for the sake of older ledgers."""

_records_of_version_1: Final = _records_table(
    MetaData(), [name for name in (*JOB_COLUMNS, *STATE_COLUMNS) if name not in COLUMN_VERSIONS]
)

submissions: Final = Table(
    "veobatch_submissions",
    _metadata,
    Column("batch", Text, nullable=False),
    *(_typed_column(name, annotation) for name, annotation in spending.COLUMN_TYPES.items()),
    PrimaryKeyConstraint("batch", "id"),
    sqlite_with_rowid=False,
)
"""The record of spending (see `pipeline.ledger.spending`). Entries are added and settled, never deleted."""

generations: Final = Table(
    "veobatch_generations",
    _metadata,
    Column("batch", Text, nullable=False),
    Column("generation_id", Text, nullable=False),
    Column("key", Text, nullable=False),
    PrimaryKeyConstraint("batch", "generation_id"),
    sqlite_with_rowid=False,
)
"""Which row each generation is or was: only ever added to, so that no two processes give one to two rows."""

OF_AN_EARLIER_SUBMISSION: Final = exists().where(
    submissions.c.batch == literal_column("excluded.batch", Text),
    submissions.c.generation_id == literal_column("excluded.generation_id", Text),
    submissions.c.submission_no < bindparam("b_submission_no"),
)
"""Whether a generation that is claimed again was bought by an earlier submission than the one that claims it.
Only a conflict of claims looks that up, and it is rare: no index serves it."""

transitions: Final = Table(
    "veobatch_transitions",
    _metadata,
    Column("batch", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("stamp", BigInteger, nullable=False),
    PrimaryKeyConstraint("batch", "key", "version"),
)
"""Every transition ever made, only ever appended to. `stamp` is unique to the call that asked for it,
so that a caller whose connection broke during the commit can find out whether it was made."""

facts: Final = Table(
    "veobatch_facts",
    _metadata,
    Column("batch", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("value", Text, nullable=False),
    PrimaryKeyConstraint("batch", "name"),
)

CLAIM_ORDER: Final = cast(records.c.state == _PENDING, Integer)
"""Rows that are under way are leased before pending ones."""

CLAIMABLE: Final = records.c.worker.is_(None) & (
    ((records.c.state == _PENDING) & (records.c.position >= ZERO)) | records.c.state.in_(ACTIVE_SQL)
)
"""What may be leased. The index and the claim must use the same expression, or the index is of no use."""

_claimable_index: Final = Index(
    "veobatch_records_free", records.c.batch, CLAIM_ORDER, records.c.position, postgresql_where=CLAIMABLE
)
_leased_index: Final = Index(
    "veobatch_records_lent", records.c.batch, records.c.worker, postgresql_where=records.c.worker.is_not(None)
)

identity_update: Final = (
    update(batches)
    .values(identity=bindparam("identity"))
    .where(
        batches.c.batch == bindparam("b_batch"),
        ~select(records.c.key).where(records.c.batch == batches.c.batch).exists(),
    )
)
"""Gives a batch without rows, which has sent nothing, another identity."""

_TABLES_BY_VERSION: Final[Mapping[int, Sequence[Table]]] = {
    1: (schema_version, batches, _records_of_version_1, transitions, facts),
    3: (submissions,),
    4: (generations,),
}

_INDEXES_BY_VERSION: Final[Mapping[int, Sequence[Index]]] = {2: (_claimable_index, _leased_index)}
"""Indices in PostgreSQL. A file has none: each transition of a single machine would have to keep them up,
for claims that it never makes."""
VERSION_TABLE: Final = schema_version.name
"""Where there is none of this name, there is no ledger."""


def migrations(dialect: Dialect, current_version: int) -> list[Migration]:
    """Return the versions that a ledger of `current_version` lacks, oldest first, with their statements."""
    return [(version, _ddl(dialect, version)) for version in range(current_version + 1, SCHEMA_VERSION + 1)]


def _ddl(dialect: Dialect, version: int) -> list[str]:
    statements: list[CreateTable | CreateIndex] = [
        CreateTable(table) for table in _TABLES_BY_VERSION.get(version, ())
    ]
    if dialect.name == "postgresql":
        statements += [CreateIndex(index) for index in _INDEXES_BY_VERSION.get(version, ())]
    texts = [str(statement.compile(dialect=dialect)) for statement in statements]
    for name in ADDED_COLUMNS.get(version, ()):
        column = CreateColumn(records.c[name]).compile(dialect=dialect)
        texts.append(f"ALTER TABLE {records.name} ADD COLUMN {column}")
    if generations in _TABLES_BY_VERSION.get(version, ()):
        # An older ledger may have one generation twice: it opens all the same, and the first row has it.
        filled = _known_generations().compile(dialect=dialect, compile_kwargs={"literal_binds": True})
        texts.append(str(filled))
    return texts


def _known_generations() -> Insert:
    """Fill the table of generations from the records of an earlier version."""
    columns = records.c.batch, records.c.generation_id
    found = select(*columns, func.min(records.c.key)).where(records.c.generation_id != "").group_by(*columns)
    return insert(generations).from_select(generations.c.keys(), found)
