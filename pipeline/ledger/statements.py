"""The statements of the ledger, compiled once for a dialect.

The texts that come out of it are run straight on the driver: SQLAlchemy's own execution costs more per
row than SQLite does. It must not know connections or records.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    DefaultClause,
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
from sqlalchemy.sql.compiler import SQLCompiler

from pipeline.ledger import spending
from pipeline.ledger.compiled_statements import SCHEMA_VERSION, Statements
from pipeline.ledger.rows import COLUMN_VERSIONS, CONTENT_COLUMNS, JOB_COLUMNS, STATE_COLUMNS
from pipeline.ledger.schema import (
    CLAIM_ORDER,
    CLAIMABLE,
    IN_FLIGHT_SQL,
    OF_AN_EARLIER_SUBMISSION,
    ONE,
    ZERO,
    batches,
    facts,
    generations,
    identity_update,
    migrations,
    records,
    schema_version,
    submissions,
    transitions,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ClauseElement, ColumnElement, Dialect, Table, Update


SQLITE: Final = sqlite.dialect(paramstyle="qmark")


def compile_statements(dialect: Dialect, version: int = SCHEMA_VERSION) -> Statements:
    """Compile every statement for `dialect`, whose paramstyle must be positional.

    A ledger of an earlier `version` can be read, not written, by its statements.
    """

    def text(statement: ClauseElement, order: Sequence[str]) -> str:
        return _compile(statement, dialect, order)

    return Statements(
        **_update_statements(text),
        **_read_statements(text, version),
        **_lease_statements(text),
        **_insert_statements(text, dialect),
        **_fact_statements(text, dialect),
    )


def sqlite_json() -> str:
    """Return the content of `sql.SQLITE_FILE`: all statements for SQLite, by version where they differ."""
    today = asdict(compile_statements(SQLITE))
    older = {version: asdict(compile_statements(SQLITE, version)) for version in range(1, SCHEMA_VERSION)}
    to_read = {
        version: {name: text for name, text in texts.items() if text != today[name]}
        for version, texts in older.items()
    }
    found = {"statements": today, "to_read": to_read, "migrations": migrations(SQLITE, 0)}
    return json.dumps(found, indent=1) + "\n"


_Text = Callable[["ClauseElement", "Sequence[str]"], str]

_IN_BATCH: Final = records.c.batch == bindparam("b_batch")
_BY_KEY: Final = _IN_BATCH & (records.c.key == bindparam("b_key"))
_KEY_PARAMS: Final = ["b_batch", "b_key"]


_ENDS_LEASE: Final[ColumnElement[int]] = bindparam("b_ends", type_=BigInteger)
_LEASE_END_VALUES: Final = (
    (records.c.lease, records.c.lease + _ENDS_LEASE),
    (records.c.worker, case((_ENDS_LEASE == ONE, null()), else_=records.c.worker)),
)
"""A lease ends with its row: then it costs nothing to take back what a worker has done already."""


def _update_statements(text: _Text) -> dict[str, str]:
    unchanged = (
        _BY_KEY & (records.c.version == bindparam("b_version")) & (records.c.state == bindparam("b_state"))
    )
    compare_params = [*_KEY_PARAMS, "b_version", "b_state"]
    fenced = unchanged & (records.c.lease == bindparam("b_lease"))
    fence_params = ["b_ends", "b_ends", *compare_params, "b_lease"]
    everything = (*CONTENT_COLUMNS, *STATE_COLUMNS)
    fenced_update = _update_columns(STATE_COLUMNS, _LEASE_END_VALUES).where(fenced)
    fenced_content_update = _update_columns(everything, _LEASE_END_VALUES).where(fenced)
    plain_updates = {
        "record_update": (STATE_COLUMNS, unchanged, compare_params),
        "record_update_content": (everything, unchanged, compare_params),
        "position_set": (("position",), _BY_KEY, _KEY_PARAMS),
        "position_and_line_set": (("position", "line"), _BY_KEY, _KEY_PARAMS),
        "pick_set": (("pick", "pick_note"), _BY_KEY, _KEY_PARAMS),
        "upgrade": (("completed_at", "earlier_usd"), _BY_KEY, _KEY_PARAMS),
    }
    return {
        "record_update_fenced": text(fenced_update, [*STATE_COLUMNS, *fence_params]),
        "record_update_content_fenced": text(fenced_content_update, [*everything, *fence_params]),
        **{
            name: text(_update_columns(columns).where(condition), [*columns, *params])
            for name, (columns, condition, params) in plain_updates.items()
        },
    }


def _read_statements(text: _Text, version: int) -> dict[str, str]:
    columns = [_readable(name, version) for name in (*JOB_COLUMNS, *STATE_COLUMNS)]
    of_job = (transitions.c.batch == bindparam("b_batch")) & (transitions.c.key == bindparam("b_key"))
    stamped = of_job & (transitions.c.version == bindparam("b_version"))
    in_range = records.c.position.between(bindparam("low"), bindparam("high"))
    counted = select(records.c.state, func.count()).where(_IN_BATCH & in_range).group_by(records.c.state)
    entries = (
        select(*(submissions.c[name] for name in spending.COLUMNS))
        .where(submissions.c.batch == bindparam("b_batch"))
        .order_by(submissions.c.submitted_at, submissions.c.id)
    )
    pick, note = _readable("pick", version), _readable("pick_note", version)
    nothing = literal_column("''", Text)
    picks = select(records.c.key, pick, note).where(_IN_BATCH & ((pick != nothing) | (note != nothing)))
    return {
        "picks": text(picks, ["b_batch"]),
        "load": text(select(*columns).where(_IN_BATCH), ["b_batch"]),
        "load_all": text(select(*columns, records.c.batch), []),
        "get": text(select(*columns).where(_BY_KEY), _KEY_PARAMS),
        "stamp_get": text(select(transitions.c.stamp).where(stamped), [*_KEY_PARAMS, "b_version"]),
        "counts": text(counted, ["b_batch", "low", "high"]),
        "submissions": text(entries, ["b_batch"]),
        **_money_statements(text),
    }


def _money_statements(text: _Text) -> dict[str, str]:
    """The sums over all entries: what is alike together, and entries that are no sum (see `Spending`)."""
    entry, in_batch = submissions.c, submissions.c.batch == bindparam("b_batch")
    alike = (entry.state, entry.usd, entry.credits, entry.reserved_usd)
    named = in_batch & (entry.generation_id != literal_column("''", Text))
    several = (
        select(entry.generation_id).where(named).group_by(entry.generation_id).having(func.count() > ONE)
    )
    shared = select(*(entry[name] for name in spending.COLUMNS)).where(
        in_batch & entry.generation_id.in_(several)
    )
    return {
        "money": text(select(*alike, func.count()).where(in_batch).group_by(*alike), ["b_batch"]),
        "shared_generations": text(shared, ["b_batch", "b_batch"]),
    }


def _readable(name: str, version: int) -> ColumnElement[Any]:
    """Return a column, or its default where the tables are of a version that lacks it."""
    column = records.c[name]
    if COLUMN_VERSIONS.get(name, 0) <= version:
        return column
    default = column.server_default
    text = f"'{default.arg}'" if isinstance(default, DefaultClause) else "NULL"
    return cast(literal_column(text, Text), column.type) if text != "NULL" else literal_column(text)


def _lease_statements(text: _Text) -> dict[str, str]:
    columns = [records.c[name] for name in (*JOB_COLUMNS, *STATE_COLUMNS)]
    claimed = _claim_statement().returning(*columns, records.c.lease)
    leased = select(records.c.lease, records.c.worker).where(_BY_KEY).with_for_update()
    revoke = update(records).values(lease=_next_lease(), worker=null())
    of_worker = _IN_BATCH & (records.c.worker == bindparam("b_worker"))
    revoked = revoke.where(of_worker).returning(records.c.key, records.c.state, records.c.lease)
    unleased = _IN_BATCH & CLAIMABLE & (CLAIM_ORDER == ZERO) & records.c.state.in_(IN_FLIGHT_SQL)
    set_worker = update(records).values(worker=bindparam("worker")).where(_BY_KEY)
    return {
        "claim": text(claimed, ["b_batch", "most", "worker", "b_batch"]),
        "lease_get": text(leased, _KEY_PARAMS),
        "revoke": text(revoked, ["b_batch", "b_worker"]),
        "revoke_all": text(revoke.where(_IN_BATCH & records.c.worker.is_not(None)), ["b_batch"]),
        "worker_set": text(set_worker, ["worker", *_KEY_PARAMS]),
        "unleased_in_flight": text(select(records.c.key).where(unleased), ["b_batch"]),
    }


def _insert_statements(text: _Text, dialect: Dialect) -> dict[str, str]:
    record_params = ["batch", *JOB_COLUMNS, *STATE_COLUMNS]
    new_batch = _insert(dialect, batches, batches.c.keys()).on_conflict_do_nothing()
    new_version = _insert(dialect, schema_version, schema_version.c.keys())
    row = _insert(dialect, generations, generations.c.keys())
    key, own = {"key": row.excluded.key}, (generations.c.key == row.excluded.key) & ~OF_AN_EARLIER_SUBMISSION
    claim = row.on_conflict_do_update(index_elements=["batch", "generation_id"], set_=key, where=own)
    return {
        "history_add": text(_insert(dialect, transitions, transitions.c.keys()), transitions.c.keys()),
        "record_add": text(_insert(dialect, records, record_params), record_params),
        "batch_add": text(new_batch, batches.c.keys()),
        "version_add": text(new_version, schema_version.c.keys()),
        "submission_put": text(_submission_upsert(dialect), submissions.c.keys()),
        "generation_claim": text(claim, [*generations.c.keys(), "b_submission_no"]),
    }


def _submission_upsert(dialect: Dialect) -> ClauseElement:
    """Add an entry, or bring it up to date: what is known stays known, and what is spent stays spent."""
    row = _insert(dialect, submissions, submissions.c.keys())
    spent = literal_column("'spent'", Text)
    values: dict[str, ColumnElement[Any]] = {
        name: func.coalesce(row.excluded[name], submissions.c[name]) for name in spending.KEPT_COLUMNS
    }
    values |= {
        name: func.coalesce(func.nullif(row.excluded[name], literal_column("''", Text)), submissions.c[name])
        for name in spending.KEPT_TEXT_COLUMNS
    }
    values["state"] = case((submissions.c.state == spent, spent), else_=row.excluded.state)
    return row.on_conflict_do_update(index_elements=["batch", "id"], set_=values)


def _fact_statements(text: _Text, dialect: Dialect) -> dict[str, str]:
    fact = (facts.c.batch == bindparam("b_batch")) & (facts.c.name == bindparam("b_name"))
    row = _insert(dialect, facts, facts.c.keys())
    key = ["batch", "name"]
    upsert = row.on_conflict_do_update(index_elements=key, set_={"value": row.excluded.value})
    incremented = cast(cast(facts.c.value, BigInteger) + ONE, Text)
    increment = row.on_conflict_do_update(index_elements=key, set_={"value": incremented})
    fact_get = select(facts.c.value).where(fact)
    of_batch = select(batches.c.identity).where(batches.c.batch == bindparam("b_batch"))
    return {
        "epoch_get": text(fact_get.with_for_update(read=True), ["b_batch", "b_name"]),
        "epoch_next": text(increment.returning(facts.c.value), ["batch", "name", "value"]),
        "meta_set": text(upsert, ["batch", "name", "value"]),
        "meta_get": text(fact_get, ["b_batch", "b_name"]),
        "batch_get": text(of_batch, ["b_batch"]),
        "identity_set": text(identity_update, ["identity", "b_batch"]),
        "version_get": text(select(func.max(schema_version.c.version)), []),
    }


def _next_lease() -> ColumnElement[int]:
    return func.coalesce(records.c.lease, ZERO) + ONE


def _claim_statement() -> Update:
    """Lease free rows to a worker: those under way first, then pending ones, in order.

    They are found in a WITH query, which PostgreSQL evaluates once; as a plain subquery it may be run again
    for each row, and more than `most` be locked and lent (https://www.postgresql.org/docs/current/queries-with.html).
    """
    in_batch = records.c.batch == bindparam("b_batch")
    claimable = (
        select(records.c.key)
        .where(in_batch & CLAIMABLE)
        .order_by(CLAIM_ORDER, records.c.position)
        .limit(bindparam("most"))
        .offset(ZERO)
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
