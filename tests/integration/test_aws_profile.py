"""AWS profiles as users have them, against botocore's own reading of the same files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import botocore.session  # type: ignore[import-untyped]  # ships no types
import pytest

from pipeline.errors import StoreError, UsageError
from pipeline.storage import open_store
from pipeline.storage.aws_profile import with_profile
from pipeline.storage.multipart_uploads import MultipartUploads
from tests.integration.connect_proxy import ConnectProxy
from tests.integration.raw_server import RawServer, respond_with, response_head, send_and_close

if TYPE_CHECKING:
    from pathlib import Path

CREDENTIALS = """
# from the console
[default]
aws_access_key_id = AKIDEFAULT
aws_secret_access_key = default/secret%with=signs

[work]
aws_access_key_id=AKIWORK
aws_secret_access_key=work-secret
aws_session_token=work-token

[half]
aws_access_key_id = AKIHALF

[both]
aws_access_key_id = AKIBOTH
aws_secret_access_key = both-secret
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
sqs =
  endpoint_url = https://queue.test
s3 =
  addressing_style = path
  endpoint_url = http://127.0.0.1:9000

[profile both]
aws_access_key_id = AKIOTHER
aws_secret_access_key = other-secret
aws_session_token = other-token

[profile bare]
region = ap-south-1
"""
FETCHED = {
    "role_arn = arn:aws:iam::1:role/r\nsource_profile = default": "taking on a role",
    "role_arn = arn:aws:iam::1:role/r\ncredential_source = Ec2InstanceMetadata": "taking on a role",
    "role_arn = arn:a\nsource_profile = p\naws_access_key_id = A\naws_secret_access_key = b": "a role",
    "sso_session = corp\nsso_account_id = 1\nsso_role_name = r": "AWS SSO",
    "sso_start_url = https://corp.test\nsso_region = eu-west-1": "AWS SSO",
    "credential_process = /opt/keys --json": "another program",
    "login_session = arn:aws:iam::1:user/me": "a login in the browser",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / ".aws"
    folder.mkdir()
    (folder / "credentials").write_text(CREDENTIALS, encoding="utf-8")
    (folder / "config").write_text(CONFIG, encoding="utf-8")
    return tmp_path


def found(home: Path, **environ: str) -> dict[str, str]:
    """What a profile adds."""
    given = {"HOME": str(home), **environ}
    return {name: value for name, value in with_profile(given).items() if given.get(name) != value}


WORK = {
    "AWS_ACCESS_KEY_ID": "AKIWORK",
    "AWS_SECRET_ACCESS_KEY": "work-secret",
    "AWS_SESSION_TOKEN": "work-token",
}


def test_the_default_profile_is_read_where_none_is_named(home: Path) -> None:
    assert found(home) == {
        "AWS_ACCESS_KEY_ID": "AKIDEFAULT",
        "AWS_SECRET_ACCESS_KEY": "default/secret%with=signs",
        "AWS_REGION": "eu-central-1",
    }


@pytest.mark.parametrize("variable", ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"])
def test_a_named_profile_is_read(home: Path, variable: str) -> None:
    rest = {"AWS_REGION": "us-west-2", "AWS_ENDPOINT_URL": "https://everything.work.test"}
    assert found(home, **{variable: "work"}) == WORK | rest


def test_an_endpoint_for_s3_wins_over_one_for_everything(home: Path) -> None:
    assert found(home, AWS_PROFILE="minio")["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9000"


def test_variables_win_one_by_one_and_keys_as_a_whole(home: Path) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "AKIMINE", "AWS_SECRET_ACCESS_KEY": "mine"}
    got = found(home, AWS_PROFILE="work", AWS_DEFAULT_REGION="eu-north-1", **keys)
    assert got == {"AWS_ENDPOINT_URL": "https://everything.work.test"}, "no token of another's keys"
    assert (
        found(home, AWS_PROFILE="work", AWS_REGION="eu-north-1", AWS_ENDPOINT_URL_S3="https://e.test") == WORK
    )
    assert "AWS_SESSION_TOKEN" not in found(home, AWS_PROFILE="both"), "nor of another file's"


def test_the_files_may_be_elsewhere(home: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "keys.ini"
    elsewhere.write_text("[x]\naws_access_key_id = A\naws_secret_access_key = b\n", encoding="utf-8")
    got = found(home, AWS_SHARED_CREDENTIALS_FILE=str(elsewhere), AWS_PROFILE="x", AWS_CONFIG_FILE="/no/such")
    assert got == {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "b"}


def test_without_files_nothing_is_added(tmp_path: Path) -> None:
    assert found(tmp_path) == {}
    assert with_profile({}) == {}
    assert with_profile({"AWS_PROFILE": "gone", "AWS_ACCESS_KEY_ID": "A"})["AWS_ACCESS_KEY_ID"] == "A"


def test_a_profile_that_does_not_exist_is_said_with_those_that_do(home: Path) -> None:
    with pytest.raises(UsageError, match=r"AWS_PROFILE is 'wrok'.*bare, both, default, half, minio, work"):
        found(home, AWS_PROFILE="wrok")


def test_half_a_key_is_refused(home: Path) -> None:
    with pytest.raises(UsageError, match="'half' has an aws_access_key_id and no aws_secret_access_key"):
        found(home, AWS_PROFILE="half")


@pytest.mark.parametrize("lines", FETCHED)
@pytest.mark.parametrize("name", ["default", "corp"])
def test_keys_that_must_be_fetched_are_refused_with_the_way_to_fetch_them(
    tmp_path: Path, name: str, lines: str
) -> None:
    config = tmp_path / "config"
    section = "default" if name == "default" else f"profile {name}"
    config.write_text(f"[{section}]\nregion = eu-west-1\n{lines}\n", encoding="utf-8")
    environ = {"AWS_CONFIG_FILE": str(config)} | ({} if name == "default" else {"AWS_PROFILE": name})
    with pytest.raises(UsageError, match=FETCHED[lines]) as caught:
        with_profile(environ)
    assert f"aws configure export-credentials --profile {name} --format env" in str(caught.value)
    exported = environ | {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "b"}
    assert with_profile(exported) == exported | {"AWS_REGION": "eu-west-1"}


def test_a_container_has_keys_of_its_own_unless_a_profile_is_named(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("[default]\nsso_session = corp\n[profile corp]\nsso_session = corp\n", encoding="utf-8")
    environ = {"AWS_CONFIG_FILE": str(config), "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/keys"}
    assert with_profile(environ) == environ
    with pytest.raises(UsageError):
        with_profile(environ | {"AWS_PROFILE": "corp"})


@pytest.mark.parametrize(
    "data", [b"aws_secret_access_key = s3cr3t\n", b"[a\ns3cr3t", b"[a]\nx = \xff s3cr3t\n"]
)
def test_a_file_that_cannot_be_understood_is_named_and_not_quoted(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "credentials").write_bytes(data)
    with pytest.raises(UsageError, match="credentials cannot be understood") as caught:
        with_profile({"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials")})
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("profile", ["default", "work", "minio", "both", "bare"])
def test_botocore_reads_the_same(home: Path, profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(home / ".aws" / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(home / ".aws" / "config"))
    session = botocore.session.Session(profile=profile)
    keys = session.get_credentials()
    got = found(home, AWS_PROFILE=profile)
    assert got.get("AWS_REGION") == session.get_config_variable("region")
    if keys is None:
        assert "AWS_ACCESS_KEY_ID" not in got
        return
    assert got["AWS_ACCESS_KEY_ID"] == keys.access_key
    assert got["AWS_SECRET_ACCESS_KEY"] == keys.secret_key
    assert got.get("AWS_SESSION_TOKEN") == keys.token
    if endpoint := got.get("AWS_ENDPOINT_URL"):
        client = session.create_client("s3", region_name="us-east-1")
        assert client.meta.endpoint_url == endpoint
        client.close()


async def test_a_bucket_is_asked_with_the_keys_of_the_profile(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And on this machine directly, whatever proxy there is."""
    async with RawServer(respond_with(404, b"")) as wire, ConnectProxy(wire.port) as tunnel:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, tunnel.url)
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("AWS_PROFILE", "work")
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        store = open_store("s3://films/night")
        assert await store.read_bytes("results.csv") is None
        unfinished = MultipartUploads.from_url(
            "s3://films/night", with_profile({"HOME": str(home), "AWS_PROFILE": "work"})
        )
    (heard,) = wire.requests
    assert heard.target == "/films/night/results.csv"
    assert "Credential=AKIWORK/" in heard.headers["authorization"]
    assert "/us-west-2/s3/aws4_request" in heard.headers["authorization"]
    assert heard.headers["x-amz-security-token"] == "work-token"
    assert tunnel.requests == []
    assert unfinished is not None
    assert (unfinished.key_id, unfinished.region) == ("AKIWORK", "us-west-2")


async def test_a_bucket_elsewhere_is_asked_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to it: obstore's, and the one that looks for unfinished uploads."""
    async with ConnectProxy(0, send_and_close(response_head(503, {"Content-Length": "0"}))) as tunnel:
        monkeypatch.setenv("HTTPS_PROXY", tunnel.url)
        keys = {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "b"}
        unfinished = MultipartUploads.from_url(
            "s3://films/night", keys | {"AWS_ENDPOINT_URL": "https://s3.vendor.test"}
        )
        assert unfinished is not None
        await unfinished.abort_all("videos/row.mp4.part")
        assert tunnel.request_lines == ["CONNECT s3.vendor.test:443"]
        for name, value in keys.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "https://other.vendor.test")
        store = open_store("s3://films/night")
        with pytest.raises(StoreError):
            await store.read_bytes("results.csv")
    assert tunnel.request_lines[1] == "CONNECT other.vendor.test:443"


@pytest.mark.parametrize("output", ["gs://films", "az://films"])
def test_other_clouds_know_no_profile(output: str, home: Path) -> None:
    environ = {"HOME": str(home), "AWS_PROFILE": "no such"}
    if output.startswith("az"):
        with pytest.raises(UsageError, match="az://"):
            open_store(output, environ=environ)
        return
    assert open_store(output, environ=environ).location == output
