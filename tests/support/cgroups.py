"""Programs that Linux calls because they are attached to a cgroup, which is one of their own."""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ebpfjit.difftest.children import run_forked
from ebpfjit.kernel import syscalls, unavailable_reason
from ebpfjit.kernel.maps import KernelMaps
from ebpfjit.program import Program
from ebpfjit.runtime.attach import attachment

_PROG_ATTACH, _PROG_DETACH, _CLONE_NEWNET = 8, 9, 0x4000_0000
_SECONDS = 30
_numbers = itertools.count()


def mounted() -> Path | None:
    """Return where cgroups of version 2 are, None where that is nowhere."""
    mounts = Path("/proc/mounts")
    lines = mounts.read_text().splitlines() if mounts.exists() else []
    return next((Path(line.split()[1]) for line in lines if line.split()[2] == "cgroup2"), None)


def why_not() -> str | None:
    """Return why no program can be attached to a cgroup here, None where one can."""
    where = mounted()
    if where is None or not os.access(where, os.W_OK) or os.geteuid() != 0:
        return "needs root, and cgroups of version 2"
    return unavailable_reason()


def bring_up_loopback() -> None:
    """Let packets go to oneself, in a new network."""
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP


def in_a_cgroup(work: Callable[[Path], Any]) -> Any:
    """Return what a function returns in a child process, in a new cgroup and a network of its own."""
    where = mounted()
    assert where is not None
    group = where / f"ebpfjit-{os.getpid()}-{next(_numbers)}"
    group.mkdir()

    def inside() -> Any:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        (group / "cgroup.procs").write_text(str(os.getpid()))
        bring_up_loopback()
        return work(group)

    try:
        ended = run_forked(inside, _SECONDS)
    finally:
        group.rmdir()
    assert ended.value is not None, f"the child failed: {ended}"
    return ended.value


@contextmanager
def attached(group: Path, program: Program) -> Iterator[None]:
    """Attach a program to a cgroup; afterwards its maps hold what Linux's do."""
    target = os.open(group, os.O_RDONLY)
    kind = attachment(program.type, program.section).type
    try:
        with KernelMaps() as maps, maps.load(program) as loaded:
            attributes = struct.pack("=IIII", target, loaded.fd, kind, 0)
            result, _ = syscalls._call(_PROG_ATTACH, attributes)
            assert result == 0, syscalls.errno_name(-result)
            try:
                yield
            finally:
                syscalls._call(_PROG_DETACH, attributes)
            maps.read_back()
    finally:
        os.close(target)
