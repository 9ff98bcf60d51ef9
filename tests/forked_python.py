"""Processes of a Python that has the package already imported: they start in 10 ms instead of 700.

They are forked from a server that has done the imports, so signals, exit codes, streams, files and
`kill -9` are those of any process. What a start itself does (its imports, an early signal, a terminal)
is tested with real ones. Clips of an embedded sandbox are small (see `small_clips`).
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import gc
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from tests.small_clips import make_clips_small

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]
_LENGTH_BYTES = 8
_PID_BYTES = 32
"""Always as many: behind it comes the exit code of a process that has ended before its pid was read."""

SLOW_TO_IMPORT = "assistant.server"
"""With the SDK behind it, it takes as long as all the others together, and only `veobatch mcp` needs it."""

_lock = threading.Lock()


class ForkedPython:
    """A running one; as much of `asyncio.subprocess.Process` as tests use."""

    def __init__(self, status: socket.socket, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._status = status
        self._ended = asyncio.ensure_future(self._read_status())

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    async def communicate(self) -> tuple[bytes, bytes]:
        """Read what it says to its end, and wait for it."""
        streams = [stream.read() for stream in (self.stdout, self.stderr) if stream is not None]
        out, err, *_ = [*await asyncio.gather(*streams), b"", b""]
        await self.wait()
        return out, err

    async def _read_status(self) -> int:
        with self._status as status:
            line = await asyncio.get_running_loop().sock_recv(status, 32)
        self.returncode = int(line or -signal.SIGKILL)  # without a line: its parent was killed with it
        return self.returncode


Command = asyncio.subprocess.Process | ForkedPython


async def start(
    *args: str, cwd: Path, env: Mapping[str, str], stdout: int | None = None, stderr: int | None = None
) -> ForkedPython:
    """Start `python *args`, where `args` are a module's or a code's; streams that are not given are pipes."""
    out, err = stdout or os.pipe(), stderr or os.pipe()
    status, pid = _fork(args, cwd, env, *(end if isinstance(end, int) else end[1] for end in (out, err)))
    process = ForkedPython(status, pid)
    process.stdout = None if isinstance(out, int) else await _pipe_reader(*out)
    process.stderr = None if isinstance(err, int) else await _pipe_reader(*err)
    return process


async def run(*args: str, cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `python *args` to its end."""
    process = await start(*args, cwd=cwd, env=env)
    async with asyncio.timeout(60):
        out, err = await process.communicate()
        return subprocess.CompletedProcess(args, await process.wait(), out.decode(), err.decode())


async def _pipe_reader(reading: int, writing: int) -> asyncio.StreamReader:
    os.close(writing)
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(reading, "rb", 0))
    return reader


def _fork(
    args: Sequence[str], cwd: Path, env: Mapping[str, str], out: int, err: int
) -> tuple[socket.socket, int]:
    """Let the server fork; return the socket that will say how the process ended, and its pid."""
    ours, theirs = socket.socketpair()
    request = json.dumps([args, str(cwd), dict(env)]).encode()
    with _lock, theirs:
        server = _server()
        socket.send_fds(server, [len(request).to_bytes(_LENGTH_BYTES)], [theirs.fileno(), out, err])
        server.sendall(request)
        pid = int(ours.recv(_PID_BYTES, socket.MSG_WAITALL))
    ours.setblocking(False)
    return ours, pid


@functools.cache
def _server() -> socket.socket:
    """The server of this process; it ends when this does, however that comes."""
    ours, theirs = socket.socketpair()
    environ = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.forked_python", str(theirs.fileno())],
        cwd=ROOT,
        env={**environ, "PYTHONPATH": str(ROOT)},
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _serve(control: socket.socket) -> tuple[list[str], str, dict[str, str]]:
    """Fork a process for each request and say how each ended; return the request in that process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    running: dict[int, tuple[int, int]] = {}  # by what becomes readable at its end: a pid, and whom to tell
    waiting = select.poll()
    waiting.register(control, select.POLLIN)
    while True:
        for descriptor, _ in waiting.poll():
            if descriptor != control.fileno():
                waiting.unregister(descriptor)
                _tell_end(descriptor, *running.pop(descriptor))
                continue
            head, descriptors, *_ = socket.recv_fds(control, _LENGTH_BYTES, 3)
            if not head:
                sys.exit()
            args, cwd, environ = json.loads(control.recv(int.from_bytes(head), socket.MSG_WAITALL))
            status, out, err = descriptors
            pid = os.fork()
            if pid == 0:
                _become(
                    out, err, [control.detach(), *descriptors, *running, *(to for _, to in running.values())]
                )
                return args, cwd, environ
            os.close(out)
            os.close(err)
            os.write(status, str(pid).ljust(_PID_BYTES).encode())
            ended = os.pidfd_open(pid)
            running[ended] = pid, status
            waiting.register(ended, select.POLLIN)


def _tell_end(ended: int, pid: int, status: int) -> None:
    os.close(ended)
    _, code = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):  # a test that waits for it no more
        os.write(status, str(os.waitstatus_to_exitcode(code)).encode())
    os.close(status)


def _become(out: int, err: int, others: list[int]) -> None:
    """Be the process that is wanted: with its streams, and nothing of the server's."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(out, 1)
    os.dup2(err, 2)
    for descriptor in others:
        os.close(descriptor)
    # New ones: those of the server still believe to be at a place in /dev/null.
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", 1, closefd=False)


def _import_all() -> None:
    """Import the package and what it imports late; what an extra needs may not be there."""
    import pipeline
    from pipeline.errors import UsageError

    late = (
        *(
            "PIL.Image",
            "PIL.BmpImagePlugin",
            "PIL.GifImagePlugin",
            "PIL.JpegImagePlugin",
            "PIL.PngImagePlugin",
        ),
        *("PIL.PpmImagePlugin", "anyio._backends._asyncio", "anyio._core._sockets", "av.subtitles.stream"),
        *("importlib.resources.readers", "jinja2", "obstore", "psycopg", "sqlalchemy.dialects.sqlite"),
        *("tqdm", "yaml"),
    )
    names = [found.name for found in pkgutil.walk_packages(pipeline.__path__, "pipeline.")]
    for name in [*names, *late]:
        if not name.endswith(("__main__", SLOW_TO_IMPORT)):
            try:
                import_module(name)
            except (ImportError, UsageError):
                continue


def _make_clip() -> None:
    """Encode once what each embedded sandbox would encode for its first clip, which it then keeps."""
    from pipeline.sandbox.video.clip import make_clip
    from pipeline.sandbox.video.shape import ClipLabel, ClipShape

    for seconds in (4.0, 8.0):
        shape = ClipShape.for_request("1080p", "16:9", seconds, audio=True, small=True)
        make_clip(shape, ClipLabel("", "", ""))


def _load_page() -> None:
    """Compile once what each run compiles for its page: an eighth of the CPU of a small one."""
    from pipeline.results.report import load_templates

    load_templates()


def _main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    _import_all()
    make_clips_small()
    _make_clip()
    _load_page()
    gc.collect()
    gc.freeze()  # or each process would copy all of it when it ends
    args, cwd, environ = _serve(control)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(cwd)
    kind, what, *rest = args
    sys.argv, sys.path[0] = [what, *rest], cwd
    try:
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(what, {"__name__": "__main__"})  # noqa: S102 - a test's own code
    except SystemExit as end:
        _exit(end.code)
    _exit(0)


def _exit(code: object) -> None:
    """End as the interpreter does, but leave its memory to the kernel: tidying it takes 0.2 s."""
    if code is None or isinstance(code, int):
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)
    sys.exit(str(code))


if __name__ == "__main__":
    _main()
