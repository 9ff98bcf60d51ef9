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
    """Return the first key of `KEY_NAMES` that is set.

    Raises `UsageError` for one that no HTTP header can carry, without showing it.
    """
    from pipeline.client import ApiKey

    for name in KEY_VARIABLES:
        secret = environ.get(name, "").strip()
        if secret:
            if not (secret.isascii() and secret.isprintable()) or " " in secret:
                raise UsageError(
                    f"{name} holds something that is no key: it has blanks or unusual characters"
                )
            return ApiKey(secret, name)
    return None


def require_key(environ: Mapping[str, str], *, hint: str) -> ApiKey:
    """Return the key; raises `UsageError` that names the variables and the way to do without."""
    key = find_key(environ)
    if key is None:
        names = ", ".join(KEY_VARIABLES)
        raise UsageError(f"no API key: set {KEY_VARIABLES[0]} (looked for {names}). {hint}")
    return key


def find_base_url(option: str | None, environ: Mapping[str, str]) -> str:
    """Return `--base-url`, else the first of `BASE_NAMES` that is set, else the vendor's."""
    return option or next(
        (environ[name] for name in BASE_URL_VARIABLES if environ.get(name)), DEFAULT_BASE_URL
    )
