"""The key of a row: its id and its content, however an editor or a spreadsheet has stored the id."""

from __future__ import annotations

import unicodedata


def row_id(job_id: str, take: int) -> str:
    """Return the id of the manifest's row, which take 1 has itself; the others add `.2`, `.3`, ... to it."""
    return job_id.removesuffix(f".{take}") if take > 1 else job_id


def canonical_id(text: str) -> str:
    """Return an id without blanks around it, its accents composed (NFC)."""
    return (text if text.isascii() else unicodedata.normalize("NFC", text)).strip()


def row_key(job_id: str, take: int, fingerprint: str) -> str:
    """Return the ledger's key of a job."""
    if take == 1:
        return f"{canonical_id(job_id)}@{fingerprint}"
    row = row_id(job_id, take)
    return f"{canonical_id(row)}{job_id[len(row) :]}@{fingerprint}"


def canonical_key(key: str) -> str:
    """Return what the key of a row's first take is now; earlier versions took its id as it was written."""
    job_id, _, fingerprint = key.rpartition("@")
    return row_key(job_id, 1, fingerprint)
