"""The tables of the ledger, their version, and the statements, compiled once for a dialect.

It owns every word of SQL. The texts that come out of it are run straight on the driver: SQLAlchemy's
own execution costs more per row than SQLite does. It must not know connections or records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    null,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.sql.compiler import SQLCompiler

from pipeline.ledger.rows import COLUMN_TYPES, CONTENT_COLUMNS, JOB_COLUMNS, STATE_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ClauseElement, ColumnElement, Dialect, Update
    from sqlalchemy.sql.type_api import TypeEngine

IN_FLIGHT_SQL: Final[list[ColumnElement[str]]] = [
    literal_column(f"'{state}'", Text) for state in ("submitting", "in_doubt", "generating")
]
"""States in which a row takes one of the account's slots, or may."""

_PENDING: Final[ColumnElement[str]] = literal_column("'pending'", Text)
_ZERO: Final[ColumnElement[int]] = literal_column("0", BigInteger)
_ONE: Final[ColumnElement[int]] = literal_column("1", BigInteger)

ACTIVE_SQL: Final[list[ColumnElement[str]]] = [*IN_FLIGHT_SQL, literal_column("'ready'", Text)]

SCHEMA_VERSION: Final = 2
"""The version of the tables that this package writes. A ledger with a higher one is left alone."""

_SQL_TYPES: Final[Mapping[str, type[TypeEngine[Any]]]] = {
    "str": Text,
    "State": Text,
    "int": Integer,
    "float": Double,
    "bool": Boolean,
}

_NESTED_COLUMN_TYPES: Final[Mapping[str, type[TypeEngine[Any]]]] = {
    "failure_retryable": Boolean,
    "artifact_bytes": BigInteger,
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
    kind, _, nullable = COLUMN_TYPES[name].partition(" | ")
    return Column(name, _SQL_TYPES[kind](), nullable=bool(nullable))


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

records: Final = Table(
    "veobatch_records",
    _metadata,
    Column("batch", Text, nullable=False),
    *(_column(name) for name in (*JOB_COLUMNS, *STATE_COLUMNS)),
    Column("lease", BigInteger),
    Column("lease_until", Double),
    Column("worker", Text),
    PrimaryKeyConstraint("batch", "key"),
)
"""The present state of each job. `lease` and `worker` are for workers on several machines; `lease_until` has
never been written, since numbers fence and times do not, and stays for the sake of older ledgers."""

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
"""Every step ever made, only ever appended to. `stamp` is unique to the call that asked for the step,
so that a caller whose connection broke during the commit can find out whether it was made."""

facts: Final = Table(
    "veobatch_facts",
    _metadata,
    Column("batch", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("value", Text, nullable=False),
    PrimaryKeyConstraint("batch", "name"),
)

_CLAIM_ORDER: Final = cast(records.c.state == _PENDING, Integer)
"""Rows that are under way are lent before pending ones."""

_CLAIMABLE: Final = records.c.worker.is_(None) & (
    ((records.c.state == _PENDING) & (records.c.position >= _ZERO)) | records.c.state.in_(ACTIVE_SQL)
)
"""What may be lent. Index and claim must say it in the same words, or the index is of no use."""

_claimable_index: Final = Index(
    "veobatch_records_free", records.c.batch, _CLAIM_ORDER, records.c.position, postgresql_where=_CLAIMABLE
)
_leased_index: Final = Index(
    "veobatch_records_lent", records.c.batch, records.c.worker, postgresql_where=records.c.worker.is_not(None)
)

_TABLES_BY_VERSION: Final[Mapping[int, Sequence[Table]]] = {
    1: (schema_version, batches, records, transitions, facts),
}

_INDEXES_BY_VERSION: Final[Mapping[int, Sequence[Index]]] = {2: (_claimable_index, _leased_index)}
"""Indices in PostgreSQL. A file has none of them: each step of a single machine would have to keep them up,
for claims that it never makes."""


VERSION_TABLE: Final = schema_version.name
"""Where there is none of this name, there is no ledger."""


def migrations(dialect: Dialect, current_version: int) -> list[tuple[int, list[str]]]:
    """Return the versions that a ledger of version `found` lacks, oldest first, with their statements."""
    return [(version, _ddl(dialect, version)) for version in range(current_version + 1, SCHEMA_VERSION + 1)]


def _ddl(dialect: Dialect, version: int) -> list[str]:
    statements: list[CreateTable | CreateIndex] = [
        CreateTable(table) for table in _TABLES_BY_VERSION.get(version, ())
    ]
    if dialect.name == "postgresql":
        statements += [CreateIndex(index) for index in _INDEXES_BY_VERSION.get(version, ())]
    return [str(statement.compile(dialect=dialect)) for statement in statements]


@dataclass(frozen=True, slots=True)
class Statements:
    """SQL texts with positional parameters, in the order given by each comment."""

    record_update: str  # the MOVING values of `after`; batch, key, version and state of `before`
    record_update_content: str  # the CONTENT and MOVING values of `after`; then as `step`
    record_update_fenced: (
        str  # as `step`, with 1 or 0 twice before the batch: whether it ends the lease; then the lease
    )
    record_update_content_fenced: str  # as `step_all`, likewise
    history_add: str  # batch, key, version, before, after, at, stamp
    record_add: str  # batch, the FIXED and MOVING values
    position_set: str  # position, batch, key
    position_and_line_set: str  # position, line, batch, key
    load: str  # batch
    get: str  # batch, key
    history: str  # batch, key
    stamp_get: str  # batch, key, version
    counts: str  # batch, lowest position, highest position
    meta_set: str  # batch, name, value
    meta_get: str  # batch, name
    claim: str  # batch, how many, worker, batch; gives FIXED, MOVING and the lease
    lease_get: str  # batch, key; gives lease and worker, once whoever is changing them is through
    revoke: str  # batch, worker; gives key, state and lease
    revoke_all: str  # batch
    worker_set: str  # worker, batch, key
    unleased_in_flight: str  # batch; of rows that are lent to nobody
    epoch_get: str  # batch, name
    epoch_next: str  # batch, name, "1"; gives the number
    batch_add: str  # batch, identity, created_at
    batch_get: str  # batch
    version_add: str  # version, applied_at
    version_get: str  # nothing


def compile_statements(dialect: Dialect) -> Statements:
    """Compile every statement for `dialect`, whose paramstyle must be positional."""
    record_columns = [records.c[name] for name in (*JOB_COLUMNS, *STATE_COLUMNS)]
    by_key = (records.c.batch == bindparam("b_batch")) & (records.c.key == bindparam("b_key"))
    unchanged = (
        by_key & (records.c.version == bindparam("b_version")) & (records.c.state == bindparam("b_state"))
    )
    in_batch = records.c.batch == bindparam("b_batch")
    job_history = (transitions.c.batch == bindparam("b_batch")) & (transitions.c.key == bindparam("b_key"))
    fact = (facts.c.batch == bindparam("b_batch")) & (facts.c.name == bindparam("b_name"))
    compare_params = ["b_batch", "b_key", "b_version", "b_state"]
    key_params = ["b_batch", "b_key"]
    record_params = ["batch", *JOB_COLUMNS, *STATE_COLUMNS]
    fenced = unchanged & (records.c.lease == bindparam("b_lease"))
    fence_params = ["b_ends", "b_ends", *compare_params, "b_lease"]
    revoke_leases = update(records).values(lease=_next_lease(), worker=null())

    fact_row = _insert(dialect, facts, facts.c.keys())
    upsert = fact_row.on_conflict_do_update(
        index_elements=["batch", "name"], set_={"value": fact_row.excluded.value}
    )
    increment = fact_row.on_conflict_do_update(
        index_elements=["batch", "name"], set_={"value": cast(cast(facts.c.value, BigInteger) + _ONE, Text)}
    ).returning(facts.c.value)

    def text(statement: ClauseElement, order: Sequence[str]) -> str:
        return _compile(statement, dialect, order)

    return Statements(
        record_update=text(
            _update_columns(STATE_COLUMNS).where(unchanged), [*STATE_COLUMNS, *compare_params]
        ),
        record_update_content=text(
            _update_columns((*CONTENT_COLUMNS, *STATE_COLUMNS)).where(unchanged),
            [*CONTENT_COLUMNS, *STATE_COLUMNS, *compare_params],
        ),
        record_update_fenced=text(
            _update_columns(STATE_COLUMNS, _LEASE_END_VALUES).where(fenced), [*STATE_COLUMNS, *fence_params]
        ),
        record_update_content_fenced=text(
            _update_columns((*CONTENT_COLUMNS, *STATE_COLUMNS), _LEASE_END_VALUES).where(fenced),
            [*CONTENT_COLUMNS, *STATE_COLUMNS, *fence_params],
        ),
        claim=text(
            _claim_statement().returning(*record_columns, records.c.lease),
            ["b_batch", "most", "worker", "b_batch"],
        ),
        lease_get=text(select(records.c.lease, records.c.worker).where(by_key).with_for_update(), key_params),
        revoke=text(
            revoke_leases.where(in_batch & (records.c.worker == bindparam("b_worker"))).returning(
                records.c.key, records.c.state, records.c.lease
            ),
            ["b_batch", "b_worker"],
        ),
        revoke_all=text(revoke_leases.where(in_batch & records.c.worker.is_not(None)), ["b_batch"]),
        worker_set=text(
            update(records).values(worker=bindparam("worker")).where(by_key), ["worker", *key_params]
        ),
        unleased_in_flight=text(
            select(records.c.key).where(
                in_batch & _CLAIMABLE & (_CLAIM_ORDER == _ZERO) & records.c.state.in_(IN_FLIGHT_SQL)
            ),
            ["b_batch"],
        ),
        epoch_get=text(select(facts.c.value).where(fact).with_for_update(read=True), ["b_batch", "b_name"]),
        epoch_next=text(increment, ["batch", "name", "value"]),
        history_add=text(_insert(dialect, transitions, transitions.c.keys()), transitions.c.keys()),
        record_add=text(_insert(dialect, records, record_params), record_params),
        position_set=text(_update_columns(["position"]).where(by_key), ["position", *key_params]),
        position_and_line_set=text(
            _update_columns(["position", "line"]).where(by_key), ["position", "line", *key_params]
        ),
        load=text(
            select(*record_columns).where(in_batch).order_by(records.c.position, records.c.key),
            ["b_batch"],
        ),
        get=text(select(*record_columns).where(by_key), key_params),
        history=text(
            select(transitions.c.version, transitions.c.before, transitions.c.after, transitions.c.at)
            .where(job_history)
            .order_by(transitions.c.version),
            key_params,
        ),
        stamp_get=text(
            select(transitions.c.stamp).where(
                job_history & (transitions.c.version == bindparam("b_version"))
            ),
            [*key_params, "b_version"],
        ),
        counts=text(
            select(records.c.state, func.count())
            .where(in_batch & records.c.position.between(bindparam("low"), bindparam("high")))
            .group_by(records.c.state),
            ["b_batch", "low", "high"],
        ),
        meta_set=text(upsert, ["batch", "name", "value"]),
        meta_get=text(select(facts.c.value).where(fact), ["b_batch", "b_name"]),
        batch_add=text(
            _insert(dialect, batches, batches.c.keys()).on_conflict_do_nothing(), batches.c.keys()
        ),
        batch_get=text(
            select(batches.c.identity).where(batches.c.batch == bindparam("b_batch")), ["b_batch"]
        ),
        version_add=text(_insert(dialect, schema_version, schema_version.c.keys()), schema_version.c.keys()),
        version_get=text(select(func.max(schema_version.c.version)), []),
    )


_ENDS_LEASE: Final[ColumnElement[int]] = bindparam("b_ends", type_=BigInteger)
_LEASE_END_VALUES: Final = (
    (records.c.lease, records.c.lease + _ENDS_LEASE),
    (records.c.worker, case((_ENDS_LEASE == _ONE, null()), else_=records.c.worker)),
)
"""A lease ends with its row: then it costs nothing to take back what a worker has done already."""


def _next_lease() -> ColumnElement[int]:
    return func.coalesce(records.c.lease, _ZERO) + _ONE


def _claim_statement() -> Update:
    """Give rows that nobody has to a worker: those under way first, then pending ones, in order.

    They are found in a WITH query, which PostgreSQL evaluates once; as a plain subquery it may be run again
    for each row, and more than `most` be locked and lent (https://www.postgresql.org/docs/current/queries-with.html).
    """
    in_batch = records.c.batch == bindparam("b_batch")
    claimable = (
        select(records.c.key)
        .where(in_batch & _CLAIMABLE)
        .order_by(_CLAIM_ORDER, records.c.position)
        .limit(bindparam("most"))
        .offset(_ZERO)
        .with_for_update()
        .cte("free")
    )
    return (
        update(records)
        .values(worker=bindparam("worker"), lease=_next_lease())
        .where(in_batch & records.c.key.in_(select(claimable.c.key)))
    )


def _insert(dialect: Dialect, table: Table, names: Sequence[str]) -> sqlite.Insert | postgresql.Insert:
    make = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
    return make(table).values({name: bindparam(name) for name in names})


def _update_columns(
    names: Sequence[str], extra: Sequence[tuple[Column[Any], ColumnElement[Any]]] = ()
) -> Update:
    return update(records).ordered_values(*((records.c[name], bindparam(name)) for name in names), *extra)


def _compile(statement: ClauseElement, dialect: Dialect, order: Sequence[str]) -> str:
    compiled = statement.compile(dialect=dialect)
    if not isinstance(compiled, SQLCompiler) or list(compiled.positiontup or ()) != list(order):
        raise AssertionError(f"the parameters are not in the order {order}: {compiled}")
    return compiled.string
