"""What helpers see of the world outside the program: clock, randomness, processors, process, sockets."""

from __future__ import annotations

import os
import random as _random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ebpfjit.runtime import timers
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


class Clock:
    """The time of an environment in nanoseconds: the system's (CLOCK_MONOTONIC), or one that stands still.

    Clock()        the system's; `advance` lets programs see a later time than it is
    Clock(5)       5 until it is moved on
    """

    def __init__(self, now: int | None = None) -> None:
        self._now = now
        self._ahead = 0

    def __call__(self) -> int:
        """Return the time."""
        return (time.monotonic_ns() if self._now is None else self._now) + self._ahead

    @property
    def is_usual(self) -> bool:
        """True where it is the system's, and was never moved on."""
        return self._now is None and not self._ahead

    def advance(self, *, s: float = 0, ms: float = 0, us: float = 0, ns: int = 0) -> int:
        """Let so much time pass; timers of programs fire in order, each at its time. Return how many did.

        Raises ValueError for a time that passes backwards, and what a timer's function raises.
        """
        passes = ns + round(us * 1_000 + ms * 1_000_000 + s * 1_000_000_000)
        if passes < 0:
            raise ValueError(f"time cannot pass by {passes} ns")
        ahead = self._ahead + passes

        def move(deadline: int) -> None:
            self._ahead = min(ahead, max(self._ahead, self._ahead + deadline - self()))

        try:
            return timers.fire(self, lambda: self() + ahead - self._ahead, at=move)
        finally:
            self._ahead = ahead

    def __eq__(self, other: object) -> bool:
        """True for the same clock; those that are just the system's are all the same."""
        return self is other or (isinstance(other, Clock) and self.is_usual and other.is_usual)

    def __hash__(self) -> int:
        return hash(Clock)

    def __repr__(self) -> str:
        return "Clock()" if self._now is None else f"Clock({self()})"


@dataclass(frozen=True, slots=True)
class Environment:
    """The world of a run; a test replaces what must not change from run to run.

    `clock()` gives nanoseconds (u64), by default those of a `Clock`, which can be moved on; `random()` a
    u32. `cpu` is the number of the processor that programs run on,
    `cpus` how many there are: per-CPU maps have a value for each. `task` is the
    process, None for this one, `stack` the return addresses (u64) of its call stack, innermost
    first. `sockets` are those that lookups find, in this order. The cookies
    name the packet's socket, its network namespace, and the program's attachment (u64).
    `network` is what routes and MTUs are looked up in, `tunnel` the key of the tunnel that packets
    came by.
    Raises ValueError where `cpu` is not one of them.
    """

    clock: Callable[[], int] = field(default_factory=Clock)
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

    def fire_timers(self) -> int:
        """Call what timers and work queues of programs have to call by now; return how many did.

        For a clock of one's own; a `Clock` does it in `advance`. Raises what they raise.
        """
        return timers.fire(self.clock, self.clock)

    @property
    def current_task(self) -> Task:
        """The process that the program runs in."""
        return self.task if self.task is not None else Task.this()

    def __post_init__(self) -> None:
        if self.cpus < 1 or not 0 <= self.cpu < self.cpus:
            raise ValueError(f"cpu {self.cpu} is not one of {self.cpus} processors, counted from 0")
