"""AWS profiles as users have them: whose keys ask for a bucket, where it is, what a bad one says."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pipeline.errors import StoreError, UsageError
from pipeline.storage import open_store
from pipeline.storage.aws import S3Account
from tests.integration.connect_proxy import ConnectProxy
from tests.integration.raw_server import RawServer, respond_with, response_head, send_and_close

if TYPE_CHECKING:
    from pathlib import Path

CREDENTIALS = """
[default]
aws_access_key_id = AKIDEFAULT
aws_secret_access_key = default/secret%with=signs

[work]
aws_access_key_id=AKIWORK
aws_secret_access_key=work-secret
aws_session_token=work-token

[half]
aws_access_key_id = AKIHALF
"""
CONFIG = """
[default]
region = eu-central-1

[profile work]
region = us-west-2
endpoint_url = https://everything.work.test

[profile minio]
aws_access_key_id = AKIMINIO
aws_secret_access_key = minio-secret
services = near
endpoint_url = https://not-this.test

[services near]
s3 =
  endpoint_url = http://127.0.0.1:9000
"""
URL = "s3://films/night"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / ".aws"
    folder.mkdir()
    (folder / "credentials").write_text(CREDENTIALS, encoding="utf-8")
    (folder / "config").write_text(CONFIG, encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def opened(monkeypatch: pytest.MonkeyPatch, **environ: str) -> tuple[str | None, str, str]:
    """Whose key, which region and which endpoint the bucket is opened with."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    account = S3Account(URL)
    options = account.store_options()
    provide = options.get("credential_provider")
    key_id = None if provide is None else provide()["access_key_id"]
    return key_id, options["config"]["region"], account.endpoint


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ("AKIDEFAULT", "eu-central-1", "")),
        ({"AWS_PROFILE": "work"}, ("AKIWORK", "us-west-2", "https://everything.work.test")),
        ({"AWS_DEFAULT_PROFILE": "work"}, ("AKIWORK", "us-west-2", "https://everything.work.test")),
        ({"AWS_PROFILE": "minio"}, ("AKIMINIO", "us-east-1", "http://127.0.0.1:9000")),
        (
            {"AWS_ACCESS_KEY_ID": "MINE", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "eu-north-1"},
            ("MINE", "eu-north-1", ""),
        ),
        (
            {"AWS_ENDPOINT_URL": "https://all.test", "AWS_ENDPOINT_URL_S3": "https://s3.test"},
            ("AKIDEFAULT", "eu-central-1", "https://s3.test"),
        ),
        ({"AWS_SKIP_SIGNATURE": "true"}, (None, "eu-central-1", "")),
        ({"AWS_SHARED_CREDENTIALS_FILE": "/no/such", "AWS_CONFIG_FILE": "/no/such"}, (None, "us-east-1", "")),
    ],
    ids=["default", "named", "named otherwise", "services", "variables", "endpoints", "unsigned", "no files"],
)
def test_keys_region_and_endpoint_are_those_of_awss_own_tools(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], expected: tuple[str | None, str, str]
) -> None:
    assert opened(monkeypatch, **environ) == expected


def test_keys_that_a_program_hands_out_are_fetched(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"Version": 1, "AccessKeyId": "AKIPROGRAM", "SecretAccessKey": "s", "SessionToken": "t"}
    (home / "keys.json").write_text(json.dumps(keys), encoding="utf-8")
    program = f"{sys.executable} -c \"print(open('{home}/keys.json').read())\""
    (home / ".aws" / "config").write_text(f"[profile p]\ncredential_process = {program}\n", encoding="utf-8")
    assert opened(monkeypatch, AWS_PROFILE="p")[0] == "AKIPROGRAM"


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("wrok", r"\(wrok\) could not be found; there is default, half, minio, work"),
        ("half", "AWS gives no keys: Partial credentials .* missing: aws_secret_access_key"),
    ],
)
def test_a_profile_that_will_not_do_is_said(
    monkeypatch: pytest.MonkeyPatch, profile: str, message: str
) -> None:
    with pytest.raises(UsageError, match=f"^--output {URL}: .*{message}"):
        opened(monkeypatch, AWS_PROFILE=profile)


@pytest.mark.parametrize(
    "data", [b"aws_secret_access_key = s3cr3t\n", b"[a\ns3cr3t", b"[a]\nx = \xff s3cr3t\n"]
)
def test_a_file_that_cannot_be_understood_is_named_and_not_quoted(
    home: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    (home / ".aws" / "credentials").write_bytes(data)
    with pytest.raises(UsageError, match="credentials") as caught:
        opened(monkeypatch)
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__suppress_context__


async def test_a_bucket_is_asked_with_the_keys_of_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """And on this machine directly, whatever proxy there is, by both ways to it."""
    async with RawServer(respond_with(404, b"")) as wire, ConnectProxy(wire.port) as tunnel:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, tunnel.url)
        monkeypatch.setenv("AWS_PROFILE", "work")
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        store = open_store(URL)
        assert await store.read_bytes("results.csv") is None
        await S3Account(URL).abort_uploads("videos/row.part")
    heard, listing = wire.requests
    assert heard.target == "/films/night/results.csv"
    assert listing.target.startswith("/films?uploads")
    for request in (heard, listing):
        assert "Credential=AKIWORK/" in request.headers["authorization"]
        assert "/us-west-2/s3/aws4_request" in request.headers["authorization"]
        assert request.headers["x-amz-security-token"] == "work-token"
    assert tunnel.requests == []


ROLE = {
    "Code": "Success",
    "AccessKeyId": "AKIROLE",
    "SecretAccessKey": "role-secret",
    "Token": "role-token",
    "Expiration": "2099-01-01T00:00:00Z",
}


async def test_uploads_are_looked_for_with_an_instances_role(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only then: to open the bucket nothing asks for a role, which takes seconds elsewhere."""

    async def respond(request: web.Request) -> web.Response:
        asked.append(request.path)
        name = request.path.rpartition("/")[2]
        return web.json_response(ROLE) if name == "films-writer" else web.Response(text="films-writer")

    asked: list[str] = []
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", respond)
    (home / ".aws" / "credentials").unlink()
    async with RawServer(respond_with(404, b"")) as wire, TestServer(app) as machine:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", str(machine.make_url("/")))
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        account = S3Account(URL)
        assert "credential_provider" not in account.store_options()
        assert asked == []
        for _ in range(2):
            await account.abort_uploads("videos/row.part")
        assert asked.count("/latest/meta-data/iam/security-credentials/films-writer") == 1
    assert len(wire.requests) == 2
    for request in wire.requests:
        assert request.target.startswith("/films?uploads")
        assert "Credential=AKIROLE/" in request.headers["authorization"]


async def test_a_bucket_elsewhere_is_asked_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to it: obstore's, and the one that looks for unfinished uploads."""
    async with ConnectProxy(0, send_and_close(response_head(503, {"Content-Length": "0"}))) as tunnel:
        monkeypatch.setenv("HTTPS_PROXY", tunnel.url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", "https://s3.vendor.test")
        await S3Account(URL).abort_uploads("videos/row.mp4.part")
        assert set(tunnel.request_lines) == {"CONNECT s3.vendor.test:443"}
        monkeypatch.setenv("AWS_ENDPOINT_URL", "https://other.vendor.test")
        store = open_store(URL)
        with pytest.raises(StoreError):
            await store.read_bytes("results.csv")
    assert tunnel.request_lines[-1] == "CONNECT other.vendor.test:443"


@pytest.mark.parametrize("output", ["gs://films", "az://films"])
def test_other_clouds_know_no_profile(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "no such")
    if output.startswith("az"):
        with pytest.raises(UsageError, match="az://"):
            open_store(output)
        return
    assert open_store(output).location == output
