"""Connections to PostgreSQL: how one is opened, and whether it is lost.

What each error means: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from pipeline.errors import LedgerError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

# psycopg logs follow-up errors to standard error, which say nothing new.
logging.getLogger("psycopg").setLevel(logging.ERROR)

_SESSION_SETTINGS_SQL: Final = (
    "SELECT set_config('tcp_keepalives_idle', '20', false),"
    " set_config('tcp_keepalives_interval', '10', false), set_config('tcp_keepalives_count', '3', false),"
    " set_config('idle_in_transaction_session_timeout', '10s', false),"
    " set_config('lock_timeout', '10s', false)"
)
"""The server, too, notices a vanished machine within a minute and frees the batch that it held. A process
that was stopped within a transaction keeps its rows locked for 10 s; after that the server ends it, or a
client that waits for it does (see `postgres._TERMINATE_SILENT_SQL`)."""

_CONNECTION_LOST_STATES: Final = ("08", "57P", "25P03", "25P04", "25006")
"""The SQLSTATE of an error with which the server ends the connection, or its first characters; at the end,
what a server says to a write when another one has taken over from it."""

_CONNECT_OPTIONS: Final[dict[str, Any]] = {
    "application_name": f"veobatch {os.getpid()} on {socket.gethostname()}"[:63],
    "connect_timeout": 10,
    # A peer that vanished without a word is noticed within a minute, not after the kernel's two hours.
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


def parse_url(text: str) -> URL:
    try:
        return make_url(text)
    except (ArgumentError, ValueError):
        # The driver's own message, and a chained error, may hold a piece of the password.
        message = "the ledger's URL is not of the form postgresql://user:password@host:port/database"
    raise LedgerError(message)


def require_writable(connection: psycopg.Connection[Any]) -> None:
    """Raise what a write would, and close the connection, when the server takes none: it is a replica."""
    if connection.execute("SHOW transaction_read_only").fetchone() == ("on",):
        connection.close()
        raise psycopg.errors.ReadOnlySqlTransaction("the server takes no writes")


def connect(url: URL, *, read_only: bool) -> psycopg.Connection[Any]:
    """Open a connection whose loss either side notices within a minute, and whose commits are durable."""
    conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = psycopg.connect(**(_CONNECT_OPTIONS | conninfo_to_dict(conninfo)), autocommit=True)
    try:
        if read_only:
            connection.execute("SET default_transaction_read_only = on")
        connection.execute(_SESSION_SETTINGS_SQL)
        row = connection.execute("SHOW synchronous_commit").fetchone()
        if row == ("off",):  # a commit that returned must survive the server's power cut
            connection.execute("SET synchronous_commit = on")
    except BaseException:
        connection.close()
        raise
    return connection


def is_connection_loss(error: Exception) -> bool:
    """Return whether the server, or the way to it, is gone: the server's own refusals have an SQLSTATE."""
    match error:
        case psycopg.Error(sqlstate=str(state)):
            return state.startswith(_CONNECTION_LOST_STATES)
        case psycopg.OperationalError() | psycopg.InterfaceError():
            return True
        case _:
            return False


def is_broken(connection: psycopg.Connection[Any]) -> bool:
    """Whether the connection can't be used again; the driver may leave one half way through a batch."""
    return connection.closed or connection.info.pipeline_status != psycopg.pq.PipelineStatus.OFF
