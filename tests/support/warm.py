"""Python processes for tests that cost a fork each: of a server that has imported ebpfjit and compiled once.

`run` stands where `subprocess.run` did: what crashes, exits or hangs is a process of its own, with its own
arguments, environment, folder and streams. What is about a process's first moments needs `subprocess`.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import io
import os
import pickle
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import types
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PR_SET_PDEATHSIG = 1


def run(
    command: Sequence[str | Path],
    input: bytes | str = b"",
    *,
    text: bool = False,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
) -> subprocess.CompletedProcess[Any]:
    """Run `[sys.executable, "-c" or "-m" or a file, ...]`; return its exit status and what it wrote."""
    environment = dict(os.environ if env is None else env)
    request = ([str(part) for part in command[1:]], str(cwd or os.getcwd()), environment)
    server = _server(tuple(sorted(item for item in environment.items() if item[0].startswith("EBPFJIT_"))))
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(input.encode() if isinstance(input, str) else input)
        given.seek(0)
        status = server.ask(pickle.dumps(request), [file.fileno() for file in (given, out, err)], timeout)
        written = [_all_of(file) for file in (out, err)]
    if status is None:
        raise subprocess.TimeoutExpired(list(map(str, command)), timeout, *written)
    texts: list[Any] = [io.TextIOWrapper(io.BytesIO(data)).read() if text else data for data in written]
    return subprocess.CompletedProcess(list(map(str, command)), os.waitstatus_to_exitcode(status), *texts)


def _all_of(file: Any) -> bytes:
    file.seek(0)
    return bytes(file.read())


_servers: list[_Server] = []


class _Server:
    """The process that forks; it ends with this one."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("EBPFJIT_")}
        self._own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            command = [sys.executable, "-m", "tests.support.warm", str(other.fileno())]
            paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**kept, **settings, "PYTHONPATH": paths},
                cwd=ROOT,
                pass_fds=[other.fileno()],
            )

        atexit.register(self._end)
        _servers.append(self)

    def _end(self) -> None:
        self._own.close()
        self._process.wait()

    def ask(self, request: bytes, files: list[int], timeout: float) -> int | None:
        """Let it run a request; return the status that wait gave, None where that took too long."""
        with tempfile.TemporaryFile() as long:  # a message has a largest size, source texts have none
            long.write(request)
            long.flush()
            socket.send_fds(self._own, [b"run"], [long.fileno(), *files])
            child = struct.unpack("i", self._own.recv(4))[0]
            late = not select.select([self._own], [], [], timeout)[0]
            if late:
                os.kill(child, signal.SIGKILL)
            status = struct.unpack("i", self._own.recv(4))[0]
        return None if late else int(status)


@cache
def _server(settings: tuple[tuple[str, str], ...]) -> _Server:
    return _Server(dict(settings))


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _warm_up() -> None:
    """What nearly all processes of tests would do for themselves."""
    import pytest  # noqa: F401

    from ebpfjit import Program, load
    from ebpfjit.assembler import assemble
    from ebpfjit.cli import app, full  # noqa: F401

    load(ROOT / "examples" / "block_port.o")
    program = Program(assemble("ldxb r0, [r1]\ncall local more\nexit\nmore: add r0, 1\nexit"))
    for engine in ("jit", "interpreter"):
        program.run(b"a", engine=engine)  # type: ignore[arg-type]
    program.compile(optimize=True)(b"a")
    gc.collect()
    gc.freeze()


def _serve(own: socket.socket) -> tuple[list[str], str, dict[str, str]]:
    """Fork at each request, and return it in the child."""
    while True:
        message, files, _, _ = socket.recv_fds(own, 3, 4)
        if not message:
            sys.exit(0)
        child = os.fork()
        if not child:
            break
        for file in files:
            os.close(file)
        own.send(struct.pack("i", child))
        own.send(struct.pack("i", os.waitpid(child, 0)[1]))
    own.close()
    _die_with_parent()
    with open(files[0], "rb") as request:
        request.seek(0)
        found: tuple[list[str], str, dict[str, str]] = pickle.load(request)
    for number, file in enumerate(files[1:]):
        os.dup2(file, number)
        os.close(file)
    return found


def _become(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Go on as the interpreter does with these arguments."""
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if not arguments[0].startswith("-"):
        sys.path[0], sys.argv = os.path.dirname(arguments[0]), arguments
        runpy.run_path(arguments[0], run_name="__main__")
        return
    kind, what, *rest = arguments
    own = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path not in known]
    sys.path[:1] = ["" if kind == "-c" else folder, *own]
    sys.argv = [kind, *rest]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        return
    assert kind == "-c", kind
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    exec(compile(what, "<string>", "exec"), vars(main))


if __name__ == "__main__":
    _die_with_parent()
    _warm_up()
    _become(*_serve(socket.socket(fileno=int(sys.argv[1]))))
