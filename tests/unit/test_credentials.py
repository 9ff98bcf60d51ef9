"""Keys and addresses, from every name and spelling that users already have."""

from __future__ import annotations

import pytest

from pipeline.client import ApiKey, normalize_base_url
from pipeline.errors import ExitCode, UsageError
from pipeline.runner.credentials import (
    BASE_URL_VARIABLES,
    DEFAULT_BASE_URL,
    KEY_VARIABLES,
    find_base_url,
    find_key,
    require_key,
)

SECRET = "sk-0123456789"


@pytest.mark.parametrize("name", ["AIMLAPI_API_KEY", "AIML_API_KEY", "AIMLAPI_KEY"])
def test_a_key_is_found_under_every_name_and_knows_where_it_was(name: str) -> None:
    assert find_key({name: f" {SECRET}\n"}) == ApiKey(SECRET, name)


def test_the_first_name_that_is_set_wins() -> None:
    environ = {name: f"key-{index}" for index, name in enumerate(KEY_VARIABLES)}
    assert find_key(environ) == ApiKey("key-0", KEY_VARIABLES[0])
    assert find_key(environ | {KEY_VARIABLES[0]: "  "}) == ApiKey("key-1", KEY_VARIABLES[1])


@pytest.mark.parametrize("environ", [{}, {"AIMLAPI_API_KEY": ""}, {"AIML_API_KEY": " \t\n"}, {"OTHER": "x"}])
def test_no_key_is_said_with_every_name_that_was_looked_for(environ: dict[str, str]) -> None:
    assert find_key(environ) is None
    with pytest.raises(UsageError) as caught:
        require_key(environ, hint="To try without: add --sandbox.")
    words = str(caught.value)
    assert all(name in words for name in KEY_VARIABLES)
    assert words.endswith("To try without: add --sandbox.")
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("secret", ["two words", "kéy", "a\nb", "a\x00b", "a\rb: c", "\u2013key", "a\tb"])
def test_what_no_header_can_carry_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(UsageError, match="AIML_API_KEY") as caught:
        find_key({"AIML_API_KEY": secret})
    assert secret not in str(caught.value)


def test_a_key_is_never_shown() -> None:
    key = ApiKey(SECRET, "AIML_API_KEY")
    for shown in (repr(key), str(key), f"{key}", f"{[key]}"):
        assert SECRET not in shown
        assert "AIML_API_KEY" in shown


def test_the_option_wins_over_the_environment_and_that_over_the_vendors() -> None:
    environ = {"AIMLAPI_API_BASE": "http://one", "AIML_API_BASE": "http://two"}
    assert find_base_url("http://option", environ) == "http://option"
    assert find_base_url(None, environ) == "http://one"
    assert find_base_url(None, {"AIMLAPI_API_BASE": "", "AIML_API_BASE": "http://two"}) == "http://two"
    with pytest.raises(UsageError, match="AIMLAPI_API_BASE is set but empty"):
        find_base_url(None, {"AIMLAPI_API_BASE": " "})
    assert find_base_url(None, {}) == DEFAULT_BASE_URL
    assert set(BASE_URL_VARIABLES) == set(environ)


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("https://api.aimlapi.com", "https://api.aimlapi.com"),
        ("https://api.aimlapi.com/", "https://api.aimlapi.com"),
        ("https://api.aimlapi.com/v1", "https://api.aimlapi.com"),
        ("https://api.aimlapi.com/v2", "https://api.aimlapi.com"),
        ("https://api.aimlapi.com/v2/", "https://api.aimlapi.com"),
        ("https://api.aimlapi.com//v2//", "https://api.aimlapi.com"),
        ("https://api.aimlapi.com/V2", "https://api.aimlapi.com"),
        ("https://api.aimlapi.com/v1/v2", "https://api.aimlapi.com"),
        ("https://api.aimlapi.com/v2/v1/", "https://api.aimlapi.com"),
        ("  https://api.aimlapi.com/v1\n", "https://api.aimlapi.com"),
        ("http://127.0.0.1:8080/v2", "http://127.0.0.1:8080"),
        ("http://[::1]:8080/v2", "http://[::1]:8080"),
        ("http://localhost:8080/proxy/v1", "http://localhost:8080/proxy"),
        ("https://host/av2", "https://host/av2"),
        ("https://host/v3", "https://host/v3"),
    ],
)
def test_base_urls_are_taken_as_samples_spell_them(text: str, base: str) -> None:
    assert normalize_base_url(text) == base
    assert normalize_base_url(base) == base


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "/v2",
        "api.aimlapi.com",
        "localhost:8000",
        "ftp://api.aimlapi.com",
        "file:///etc/passwd",
        "https://",
        "https://:80",
        "https:///v2",
        "http://host:99999",
        "http://host:abc",
        "http://[::1",
        "https://me:secret@host",
        "https://host?key=1",
        "https://host/#top",
        "http://a b",
        "http://host\x00",
        "javascript:alert(1)",
    ],
)
def test_what_is_no_base_url_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"https://api\.aimlapi\.com"):
        normalize_base_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://u:hunter2x@h/",
        "https://u:hun@ter2x/hunter2x@h/",
        "https://hunter2x@h",
        "u:hunter2x@h",
        "https:/u:hunter2x@h",
        " ftp://u:hunter2x@h",
        "https://u:hunter2x @h:99999",
        "https://h/?key=hunter2x",
        "https://h/#hunter2x",
        "https://h/?a=b\nhunter2x",
    ],
)
def test_a_base_url_that_is_refused_shows_no_secret_of_it(text: str) -> None:
    with pytest.raises(UsageError, match="cannot be used") as caught:
        normalize_base_url(text)
    assert "hunter2x" not in str(caught.value)
    assert "***" in str(caught.value)
