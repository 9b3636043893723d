"""Options of sockets: on both engines, and as those of this system's sockets."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import Environment, load
from ebpfjit.bits import W32
from ebpfjit.runtime.helpers.socket_options import BUFFER_MOST, CONGESTION, OPTIONS, SOL_IPV6

OBJECT = Path(__file__).parent.parent / "elf" / "socket_options.o"
ENGINES = pytest.mark.parametrize("engine", ["interpreter", "jit"])
VALUES = (
    0,
    1,
    2,
    3,
    87,
    88,
    127,
    128,
    255,
    256,
    1000,
    32767,
    32768,
    1 << 20,
    (1 << 31) - 1,
    -1,
    -2,
    -(1 << 31),
)
EINVAL = -errno.EINVAL


class Socket:
    """The socket of a program."""

    def __init__(self, engine: str, **context: Any) -> None:
        self.engine, self.context = engine, {"family": 10, "is_fullsock": 1, **context}
        self.obj, self.environment = load(OBJECT), Environment()

    def run(self, name: str = "options", **variables: Any) -> tuple[int, int, bytes]:
        """Run a program on these variables; return what the two helpers said, and what was read."""
        seen = self.obj.globals
        for variable, given in variables.items():
            seen[variable] = given
        context = self.context if name in ("options", "flags") else {"user_family": 2}
        self.obj.program(name).run(b"", engine=self.engine, context=context, environment=self.environment)
        return seen["set"], seen["got"], bytes(seen["value"])

    def option(self, level: int, number: int, value: int) -> tuple[int, int, int]:
        """Set an option of 4 bytes and get it; what the helpers said, and the value."""
        data = (value & 0xFFFFFFFF).to_bytes(4, "little").ljust(64, b"\0")
        set_, got, read = self.run(level=level, number=number, size=4, value=data)
        return set_, got, W32.signed(int.from_bytes(read[:4], "little"))


def in_system(made: socket.socket, level: int, number: int, value: int) -> tuple[int, int] | None:
    """Return what this system says of an option, and its value; None where one may not ask."""
    try:
        made.setsockopt(level, number, value)
        said = 0
    except PermissionError:
        return None
    except OSError as error:
        said = -(error.errno or 0)
    return said, made.getsockopt(level, number)


SYSTEMS = [key for key, option in OPTIONS.items() if option.reads and key[1] < 1000]


@pytest.mark.parametrize("key", SYSTEMS, ids=lambda key: OPTIONS[key].name)
def test_options_are_those_of_this_systems_sockets(key: tuple[int, int]) -> None:
    most = min(BUFFER_MOST, *(int(Path(f"/proc/sys/net/core/{name}mem_max").read_text()) for name in "rw"))
    ours = Socket("jit")
    compared = 0
    family = socket.AF_INET6 if key[0] == SOL_IPV6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as theirs:
        for value in VALUES:
            if OPTIONS[key].name in ("SO_SNDBUF", "SO_RCVBUF", "SO_RCVLOWAT") and not 0 <= value < most:
                continue
            if OPTIONS[key].name == "SO_BINDTOIFINDEX" and value > 0:
                continue  # there may be no such interface
            said = in_system(theirs, *key, value)
            if said is None:
                continue
            mine = ours.option(*key, value)
            assert (mine[0], mine[1]) == (said[0], 0), value
            if not said[0] or value == VALUES[0]:
                assert mine[2] == said[1], value
            compared += 1
    if not compared:
        pytest.skip("this process may not set it")


@ENGINES
def test_what_linux_does_not_let_programs_have(engine: str) -> None:
    made = Socket(engine)
    assert made.option(1, 999, 1)[:2] == (EINVAL, EINVAL)
    assert made.option(99, 1, 1)[:2] == (EINVAL, EINVAL)
    assert made.option(6, 1001, 10) == (0, EINVAL, 0)
    assert made.run(level=1, number=12, size=8)[:2] == (EINVAL, EINVAL)
    assert Socket(engine, is_fullsock=0).option(1, 12, 1)[:2] == (EINVAL, EINVAL)
    assert Socket(engine, family=2).option(41, 67, 1)[:2] == (EINVAL, EINVAL)


@ENGINES
def test_the_name_of_congestion_control(engine: str) -> None:
    made = Socket(engine)
    name = b"reno".ljust(64, b"\0")
    set_, got, read = made.run(level=6, number=13, size=16, value=name)
    assert (set_, got, read[:16]) == (0, 0, b"reno".ljust(16, b"\0"))
    assert made.environment.socket_options[CONGESTION] == b"reno"
    assert made.run(level=6, number=13, size=3, value=name)[2][:3] == b"re\0"
    assert made.run(level=6, number=13, size=4, value=b"cdg".ljust(64, b"\0"))[0] == -524


@ENGINES
def test_flags_of_sock_ops_programs(engine: str) -> None:
    made = Socket(engine)
    assert made.run("flags", wanted=5)[:2] == (0, 5)
    assert made.run("flags", wanted=0x181)[:2] == (0x180, 1)
    assert made.option(6, 1008, 6) == (0, 0, 6)


@ENGINES
@pytest.mark.parametrize(
    ("family", "size", "said"),
    [
        (2, 16, 0),
        (2, 15, EINVAL),
        (10, 24, 0),
        (10, 23, EINVAL),
        (1, 16, -errno.EAFNOSUPPORT),
        (2, 1, EINVAL),
    ],
)
def test_addresses_that_linux_binds_to(engine: str, family: int, size: int, said: int) -> None:
    address = {"family": family, "port": 0, "address": 0, "more": [0] * 5}
    assert Socket(engine).run("bound", address=address, size=size)[0] == said


def test_options_that_the_environment_has_already() -> None:
    made = Socket("jit")
    made.environment.socket_options[1, 12] = 6
    made.environment.socket_options[6, 28] = b"saved"
    assert made.run(level=1, number=77, size=4)[1] == EINVAL
    set_, got, read = made.run(level=6, number=28, size=5)
    assert (set_, got, read[:5]) == (EINVAL, 0, b"saved")
