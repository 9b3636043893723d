"""What helpers see of the world outside the program: clock, randomness, processors, process, sockets."""

from __future__ import annotations

import os
import random as _random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ebpfjit.runtime.network import NOTHING_KNOWN, Network, TunnelKey
from ebpfjit.runtime.sockets import Socket


def _random_u32() -> int:
    return _random.getrandbits(32)


@dataclass(frozen=True, slots=True)
class Task:
    """The process that a program runs in: `tgid` names the process, `pid` its thread.

    `comm` is its name, of which programs see 15 bytes. `address` is what bpf_get_current_task
    returns (u64): it points to nothing that a program can read.
    """

    pid: int = 1
    tgid: int = 1
    uid: int = 0
    gid: int = 0
    comm: str = ""
    cgroup_id: int = 1
    address: int = 0

    @classmethod
    def this(cls) -> Task:
        """Return the process that asks, as the system knows it."""
        return cls(threading.get_native_id(), os.getpid(), os.getuid(), os.getgid(), _comm())


def _comm() -> str:
    try:
        with open("/proc/self/comm", "rb") as file:
            return file.read().decode("utf-8", "replace").rstrip("\n")
    except OSError:
        return "python"


@dataclass(frozen=True, slots=True)
class Environment:
    """The world of a run; a test replaces what must not change from run to run.

    `clock()` gives nanoseconds (u64), `random()` a u32. `cpu` is the number of the processor that
    programs run on, `cpus` how many there are: per-CPU maps have a value for each. `task` is the
    process, None for this one, `stack` the return addresses (u64) of its call stack, innermost
    first. `sockets` are those that lookups find, in this order. The cookies
    name the packet's socket, its network namespace, and the program's attachment (u64).
    `gpl_only` says what becomes of helpers that Linux keeps for GPL programs where the object's license is
    another: True, all engines refuse the program; False, none does; None, the kernel engine does, and the
    others warn (LicenseWarning). `network` is what routes and MTUs are looked up in, `tunnel` the key of
    the tunnel that packets came by.
    Raises ValueError where `cpu` is not one of them.
    """

    clock: Callable[[], int] = time.monotonic_ns
    random: Callable[[], int] = _random_u32
    cpu: int = 0
    cpus: int = 1
    task: Task | None = None
    stack: tuple[int, ...] = ()
    sockets: tuple[Socket, ...] = ()
    socket_cookie: int = 1
    netns_cookie: int = 1
    attach_cookie: int = 0
    network: Network = NOTHING_KNOWN
    tunnel: TunnelKey | None = None
    gpl_only: bool | None = None

    @property
    def current_task(self) -> Task:
        """The process that the program runs in."""
        return self.task if self.task is not None else Task.this()

    def __post_init__(self) -> None:
        if self.cpus < 1 or not 0 <= self.cpu < self.cpus:
            raise ValueError(f"cpu {self.cpu} is not one of {self.cpus} processors, counted from 0")
