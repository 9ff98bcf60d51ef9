"""What an AWS profile adds to the variables: keys, region and endpoint, as `~/.aws` holds them.

Variables win over the profile, and keys are taken whole from one place, never an id from here and a secret
from there. Profiles whose keys have to be fetched (SSO, a role, a process) are named as such and refused:
fetching them is the work of AWS's own tools. Nothing of these files may be shown but names.

Source: AWS SDKs and Tools Reference Guide, "Shared config and credentials files" and "Service-specific
endpoints".
"""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipeline.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

Section = dict[str, str]

_KEYS: Final = {
    "aws_access_key_id": "AWS_ACCESS_KEY_ID",
    "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "aws_session_token": "AWS_SESSION_TOKEN",
}
_OWN: Final = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE")
"""Variables that settle by themselves who is asking."""
_LENT: Final = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
"""Where a container gets its keys, unless a profile has some."""

_FETCHED: Final = {
    "role_arn": "taking on a role",
    "sso_session": "AWS SSO",
    "sso_start_url": "AWS SSO",
    "credential_process": "another program",
    "web_identity_token_file": "a web identity",
    "login_session": "a login in the browser",
}


def with_profile(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` with what its AWS profile adds, under the names of variables.

    The profile is that of `AWS_PROFILE`, else `default`. Raises `UsageError` when one was named and does
    not exist, when a file cannot be understood, and for a profile whose keys would have to be fetched while
    no variable has others.
    """
    whole = dict(environ)
    chosen = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE") or ""
    name = chosen or "default"
    credentials = _file(environ, "AWS_SHARED_CREDENTIALS_FILE", "credentials")
    config = _file(environ, "AWS_CONFIG_FILE", "config")
    kept = credentials.get(name, {})
    said = config.get(f"profile {name}") or (config.get("default", {}) if name == "default" else {})
    own = any(environ.get(variable) for variable in _OWN)
    if chosen and not own and not (kept or said):
        raise UsageError(_unknown(name, credentials, config))
    if not own:
        lent = not chosen and any(environ.get(variable) for variable in _LENT)
        whole.update(_keys(name, kept, said, lent=lent))
    _fill(whole, ("AWS_REGION", "AWS_DEFAULT_REGION"), kept.get("region") or said.get("region", ""))
    _fill(whole, ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"), _endpoint(kept, said, config))
    return whole


def _keys(name: str, kept: Section, said: Section, *, lent: bool) -> Section:
    """The keys that stand in a profile; none when it has none and does not say where to fetch them."""
    way = next((way for sign, way in _FETCHED.items() if sign in said or sign in kept), "")
    holder = next((section for section in (kept, said) if section.get("aws_access_key_id")), None)
    if holder is not None and not ("role_arn" in said or "role_arn" in kept):
        if not holder.get("aws_secret_access_key"):
            raise UsageError(
                f"the AWS profile {name!r} has an aws_access_key_id and no aws_secret_access_key"
            )
        return {variable: holder[field] for field, variable in _KEYS.items() if holder.get(field)}
    if way and not lent:
        raise UsageError(
            f"the AWS profile {name!r} gets its keys by {way}, which AWS's own tools can do: "
            f'eval "$(aws configure export-credentials --profile {name} --format env)" '
            "and then this command again"
        )
    return {}


def _endpoint(kept: Section, said: Section, config: Mapping[str, Section]) -> str:
    """The profile's endpoint for S3, else its endpoint for everything."""
    services = kept.get("services") or said.get("services") or ""
    for line in config.get(f"services {services}", {}).get("s3", "").splitlines():
        field, _, value = line.partition("=")
        if field.strip() == "endpoint_url":
            return value.strip()
    return kept.get("endpoint_url") or said.get("endpoint_url") or ""


def _fill(whole: Section, variables: tuple[str, ...], value: str) -> None:
    if value and not any(whole.get(variable) for variable in variables):
        whole[variables[0]] = value


def _path(environ: Mapping[str, str], variable: str, name: str) -> Path | None:
    given, home = environ.get(variable), environ.get("HOME") or environ.get("USERPROFILE")
    if given:
        return Path(given).expanduser()
    return Path(home) / ".aws" / name if home else None


def _file(environ: Mapping[str, str], variable: str, name: str) -> dict[str, Section]:
    """The sections of a file; none when it is not there or not for us to read."""
    path = _path(environ, variable, name)
    parser = configparser.RawConfigParser(default_section="", strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8") if path is not None else "")
    except OSError:
        return {}
    except (configparser.Error, UnicodeDecodeError):
        # Without `from`: the parser's own words quote the line, which may be a key's.
        raise UsageError(
            f"{path} cannot be understood: it is made of [sections] and `name = value`"
        ) from None
    return {" ".join(section.split()): dict(parser.items(section)) for section in parser.sections()}


def _unknown(name: str, credentials: Mapping[str, Section], config: Mapping[str, Section]) -> str:
    found = {section.removeprefix("profile ") for section in config if not section.startswith("services ")}
    there = ", ".join(sorted(found | set(credentials))[:20]) or "none at all"
    return (
        f"AWS_PROFILE is {name!r}, and neither ~/.aws/config nor ~/.aws/credentials has it; there is {there}"
    )
