"""Where the key and the base URL come from: every name that users already have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.client import ApiKey

KEY_VARIABLES: Final = ("AIMLAPI_API_KEY", "AIML_API_KEY", "AIMLAPI_KEY")
BASE_URL_VARIABLES: Final = ("AIMLAPI_API_BASE", "AIML_API_BASE")
DEFAULT_BASE_URL: Final = "https://api.aimlapi.com"


def find_key(environ: Mapping[str, str]) -> ApiKey | None:
    """Return the first key of `KEY_VARIABLES` that is set.

    Raises `UsageError` for one that no HTTP header can carry, without showing it.
    """
    from pipeline.client import ApiKey

    for name in KEY_VARIABLES:
        secret = environ.get(name, "").strip()
        if secret:
            if not (secret.isascii() and secret.isprintable()) or " " in secret:
                raise UsageError(f"{name} does not hold an API key: it contains blanks or unusual characters")
            return ApiKey(secret, name)
    return None


def require_key(environ: Mapping[str, str], *, hint: str) -> ApiKey:
    """Return the key, else raise `UsageError` with the names of the variables and `hint`."""
    key = find_key(environ)
    if key is None:
        names = ", ".join(KEY_VARIABLES)
        empty = [name for name in KEY_VARIABLES if name in environ]
        reason = f"{empty[0]} is set but empty" if empty else f"set {KEY_VARIABLES[0]}"
        raise UsageError(f"no API key: {reason} (looked for {names}). {hint}")
    return key


def find_base_url(option: str | None, environ: Mapping[str, str]) -> str:
    """Return `--base-url`, else the first of `BASE_URL_VARIABLES` that is set, else the vendor's.

    Raises `UsageError` for a variable that is set but empty: going to the real API instead may cost money.
    """
    if option:
        return option
    names = [name for name in BASE_URL_VARIABLES if name in environ]
    filled = [name for name in names if environ[name].strip()]
    if names and not filled:
        raise UsageError(f"{names[0]} is set but empty: give it a value, or unset it")
    return environ[filled[0]] if filled else DEFAULT_BASE_URL
