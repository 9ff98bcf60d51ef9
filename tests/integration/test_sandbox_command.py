"""`veobatch sandbox` as a process: its first line, its options, its end."""

from __future__ import annotations

import asyncio
import signal
import sys

import pytest
from click.testing import CliRunner

from pipeline.cli.sandbox import command, parse_fault
from pipeline.sandbox import FAULTS, Fault
from tests.integration.raw_client import send_request

SERVE = (sys.executable, "-c", "from pipeline.cli.sandbox import command; command()", "--port", "0")


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
async def test_it_prints_its_url_first_serves_and_stops_cleanly(end: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        *SERVE, "--key", "k1", "--speed", "50", "--small",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    assert (await send_request(url + "/v2/billing", headers={"Authorization": "Bearer k1"})).status == 200
    assert (await send_request(url + "/v2/billing", headers={"Authorization": "Bearer k2"})).status == 401
    process.send_signal(end)
    rest, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
    assert f"AIMLAPI_API_KEY=k1 veobatch run MANIFEST --base-url {url}" in rest.decode()


async def test_a_taken_port_is_reported_in_one_line() -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = str(server.sockets[0].getsockname()[1])
        process = await asyncio.create_subprocess_exec(
            *SERVE[:-1], port, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await process.communicate()
    assert process.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in errors.decode()
    assert len(errors.splitlines()) == 1


def test_all_faults_are_listed() -> None:
    result = CliRunner().invoke(command, ["--list-faults"])
    assert result.exit_code == 0
    for name in FAULTS:
        assert name in result.output


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("throttled", Fault("throttled")),
        ("throttled:0.1", Fault("throttled", share=0.1)),
        ("error:cat", Fault("error", match="cat")),
        ("error:cat*1", Fault("error", match="cat", times=1)),
        ("cdn-cut*2=0.3", Fault("cdn-cut", times=2, value="0.3")),
        ("throttled:a dog=date:5", Fault("throttled", match="a dog", value="date:5")),
        ("error:12", Fault("error", match="12")),
        ("server-error/problem", Fault("server-error", shape="problem")),
        (
            "gateway-accepted:cat*1=504/id",
            Fault("gateway-accepted", "cat", times=1, value="504", with_inference_id=True),
        ),
        (
            "cdn-redirect-private=http://10.0.0.1/id/x",
            Fault("cdn-redirect-private", value="http://10.0.0.1/id/x"),
        ),
    ],
)
def test_a_fault_is_read_from_the_command_line(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    "arguments",
    [
        ["--fault", "sunny"],
        ["--fault", "error*x"],
        ["--speed", "0"],
        ["--durations", "soon"],
        ["--key", "a b"],
        ["--key", "k1,limit=much"],
        ["--key", "k1,scope=model:song"],
        ["--retire", "google/veo-3.1-i2v-fast=gone"],
        ["--retire", "withdrawn"],
    ],
)
def test_a_wrong_option_is_usage(arguments: list[str]) -> None:
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2
    assert "Error" in result.output
