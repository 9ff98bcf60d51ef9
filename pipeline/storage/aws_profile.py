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

_KEY_VARIABLES: Final = {
    "aws_access_key_id": "AWS_ACCESS_KEY_ID",
    "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "aws_session_token": "AWS_SESSION_TOKEN",
}
_CREDENTIAL_VARIABLES: Final = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE")
"""Variables that settle by themselves who is asking."""
_CONTAINER_VARIABLES: Final = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
"""Where a container gets its keys, unless a profile has some."""

_UNSUPPORTED_SOURCES: Final = {
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
    merged = dict(environ)
    requested = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE") or ""
    name = requested or "default"
    credentials = _read_sections(environ, "AWS_SHARED_CREDENTIALS_FILE", "credentials")
    config = _read_sections(environ, "AWS_CONFIG_FILE", "config")
    credentials_section = credentials.get(name, {})
    config_section = config.get(f"profile {name}") or (config.get("default", {}) if name == "default" else {})
    has_env_credentials = any(environ.get(variable) for variable in _CREDENTIAL_VARIABLES)
    if requested and not has_env_credentials and not (credentials_section or config_section):
        raise UsageError(_unknown_profile_message(name, credentials, config))
    if not has_env_credentials:
        has_container_credentials = not requested and any(
            environ.get(variable) for variable in _CONTAINER_VARIABLES
        )
        merged.update(
            _profile_keys(
                name, credentials_section, config_section, has_container_credentials=has_container_credentials
            )
        )
    _set_default(
        merged,
        ("AWS_REGION", "AWS_DEFAULT_REGION"),
        credentials_section.get("region") or config_section.get("region", ""),
    )
    _set_default(
        merged,
        ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
        _endpoint(credentials_section, config_section, config),
    )
    return merged


def _profile_keys(
    name: str, credentials_section: Section, config_section: Section, *, has_container_credentials: bool
) -> Section:
    """The keys that stand in a profile; none when it has none and does not say where to fetch them."""
    source = next(
        (
            way
            for sign, way in _UNSUPPORTED_SOURCES.items()
            if sign in config_section or sign in credentials_section
        ),
        "",
    )
    section = next(
        (section for section in (credentials_section, config_section) if section.get("aws_access_key_id")),
        None,
    )
    if section is not None and not ("role_arn" in config_section or "role_arn" in credentials_section):
        if not section.get("aws_secret_access_key"):
            raise UsageError(
                f"the AWS profile {name!r} has an aws_access_key_id and no aws_secret_access_key"
            )
        return {variable: section[field] for field, variable in _KEY_VARIABLES.items() if section.get(field)}
    if source and not has_container_credentials:
        raise UsageError(
            f"the AWS profile {name!r} gets its keys by {source}, which AWS's own tools can do: "
            f'eval "$(aws configure export-credentials --profile {name} --format env)" '
            "and then this command again"
        )
    return {}


def _endpoint(credentials_section: Section, config_section: Section, config: Mapping[str, Section]) -> str:
    """The profile's endpoint for S3, else its endpoint for everything."""
    services = credentials_section.get("services") or config_section.get("services") or ""
    for line in config.get(f"services {services}", {}).get("s3", "").splitlines():
        field, _, value = line.partition("=")
        if field.strip() == "endpoint_url":
            return value.strip()
    return credentials_section.get("endpoint_url") or config_section.get("endpoint_url") or ""


def _set_default(merged: Section, variables: tuple[str, ...], value: str) -> None:
    if value and not any(merged.get(variable) for variable in variables):
        merged[variables[0]] = value


def _file_path(environ: Mapping[str, str], variable: str, name: str) -> Path | None:
    given, home = environ.get(variable), environ.get("HOME") or environ.get("USERPROFILE")
    if given:
        return Path(given).expanduser()
    return Path(home) / ".aws" / name if home else None


def _read_sections(environ: Mapping[str, str], variable: str, name: str) -> dict[str, Section]:
    """The sections of a file; none when it is not there or not for us to read."""
    path = _file_path(environ, variable, name)
    parser = configparser.RawConfigParser(default_section="", strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8") if path is not None else "")
    except OSError:
        return {}
    except (configparser.Error, UnicodeDecodeError):
        # Without `from`: the parser's message quotes the line, which may hold a key.
        raise UsageError(
            f"{path} cannot be understood: it is made of [sections] and `name = value`"
        ) from None
    return {" ".join(section.split()): dict(parser.items(section)) for section in parser.sections()}


def _unknown_profile_message(
    name: str, credentials: Mapping[str, Section], config: Mapping[str, Section]
) -> str:
    found = {section.removeprefix("profile ") for section in config if not section.startswith("services ")}
    available = ", ".join(sorted(found | set(credentials))[:20]) or "none at all"
    return (
        f"AWS_PROFILE is {name!r}, and neither ~/.aws/config nor ~/.aws/credentials has it; "
        f"there is {available}"
    )
