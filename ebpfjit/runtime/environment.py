"""What helpers see of the world outside the program: clock, randomness, processors, process, sockets."""

from __future__ import annotations

import ctypes
import math
import operator
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ebpfjit.bits import U64_MASK
from ebpfjit.named import brief
from ebpfjit.record import dataclass, field, replace
from ebpfjit.runtime import timers
from ebpfjit.runtime.foreign import stretches_of
from ebpfjit.runtime.given import MAPPING, NUMBER, TEXT, TUPLE, Kind, check, check_each
from ebpfjit.runtime.network import NOTHING_KNOWN, Network, TunnelKey
from ebpfjit.runtime.objects import CURRENT_TASK, KernelObjects, KernelPointer
from ebpfjit.runtime.sockets import Socket
from ebpfjit.runtime.symbols import memory_of


def _random_u32() -> int:
    import random  # few programs ask for it, and it imports much

    return random.getrandbits(32)


_TASK_KINDS = {
    **dict.fromkeys(("pid", "tgid", "uid", "gid", "cgroup_id", "address"), NUMBER),
    "comm": TEXT,
}


@dataclass(frozen=True, slots=True)
class Task:
    """The process that a program runs in: `tgid` names the process, `pid` its thread.

    `uid` and `gid` are whose it is (u32), `cgroup_id` the cgroup it is in (u64). `comm` is its name, of which
    programs see 15 bytes. `address` is what bpf_get_current_task returns (u64),
    0 for a struct task_struct that holds pid, tgid and comm, where the program's types have one.
    That of an environment may be called: see `Environment.task`. Raises TypeError for anything else.
    """

    pid: int = 1
    tgid: int = 1
    uid: int = 0
    gid: int = 0
    comm: str = ""
    cgroup_id: int = 1
    address: int = 0
    _objects: KernelObjects | None = field(default=None, repr=False, compare=False, kw_only=True)
    _is_this: bool = field(default=False, repr=False, compare=False, kw_only=True)

    def __repr__(self) -> str:
        return brief(self)

    def __post_init__(self) -> None:
        check(self, _TASK_KINDS)

    @property
    def name(self) -> bytes:
        """What programs see of `comm`."""
        return self.comm.encode("utf-8", "replace")[:15]

    def __call__(self, **members: Any) -> KernelPointer:
        """Describe a task of the environment that this is the task of; see `Environment.task`."""
        if self._objects is None:
            raise TypeError(
                "a Task by itself cannot be called; environment.task(pid=7) makes a struct of one"
            )
        return self._objects.add("task_struct", _task_members(members))

    @property
    def pointer(self) -> int:
        """The address of its struct task_struct, as programs know it."""
        described = self._objects.current_task if self._is_this and self._objects is not None else None
        return self.address or (CURRENT_TASK if described is None else int(described.pointer))

    @classmethod
    def this(cls) -> Task:
        """Return the process that asks, as the system knows it."""
        return cls(threading.get_native_id(), os.getpid(), os.getuid(), os.getgid(), _comm())


class Identity(NamedTuple):
    """Which process it is, and whose."""

    pid: int
    tgid: int
    uid: int
    gid: int


def _comm() -> str:
    try:
        with open("/proc/self/comm", "rb") as file:
            return file.read().decode("utf-8", "replace").rstrip("\n")
    except OSError:
        return "python"


class Clock:
    """The time of an environment in nanoseconds: the system's (CLOCK_MONOTONIC), or one that stands still.

    `now` is the time at which it stands, None for the system's:

    Clock()        the system's; `advance` lets programs see a later time than it is
    Clock(5)       5 until it is moved on
    """

    def __init__(self, now: int | None = None) -> None:
        self._now = None if now is None else _nanoseconds("now", now)
        self._words = (ctypes.c_uint64 * 2)()
        self._set_ahead(0)

    def _set_ahead(self, ahead: int) -> None:
        self._ahead = ahead
        stands = self._now is not None
        self._words[:] = [((self._now or 0) + ahead) & U64_MASK, 0 if stands else U64_MASK]

    @property
    def address(self) -> int:
        """Where machine code finds what to add to the system's time, and behind it a mask for that time."""
        return ctypes.addressof(self._words)

    def __call__(self) -> int:
        """Return the time."""
        return (time.monotonic_ns() if self._now is None else self._now) + self._ahead

    @property
    def is_usual(self) -> bool:
        """True where it is the system's, and was never moved on."""
        return self._now is None and not self._ahead

    def advance(self, *, s: float = 0, ms: float = 0, us: float = 0, ns: int = 0) -> int:
        """Let so much time pass: `s` seconds, `ms`, `us`, `ns`. Return how many timers of programs fired.

        They do so in order, each at its time.

        Raises ValueError for a time that passes backwards, or has no end, TypeError for what is no number,
        and what a timer's function raises.
        """
        passes = sum(_nanoseconds(*part) for part in (("s", s), ("ms", ms), ("us", us), ("ns", ns)))
        if passes < 0:
            raise ValueError(f"time cannot pass by {passes} ns")
        ahead = self._ahead + passes

        def move(deadline: int) -> None:
            self._set_ahead(min(ahead, max(self._ahead, self._ahead + deadline - self())))

        try:
            return timers.fire(self, lambda: self() + ahead - self._ahead, at=move)
        finally:
            self._set_ahead(max(ahead, self._ahead))  # what a timer called may have moved it further

    def __eq__(self, other: object) -> bool:
        """True for the same clock; those that are just the system's are all the same."""
        return self is other or (isinstance(other, Clock) and self.is_usual and other.is_usual)

    def __hash__(self) -> int:
        return hash(Clock)

    def __reduce__(self) -> tuple[Any, ...]:
        return _clock, (type(self), self._now, self._ahead)

    def __repr__(self) -> str:
        return "Clock()" if self._now is None else f"Clock({self()})"


_UNITS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1, "now": 1}


def _nanoseconds(unit: str, time_: Any) -> int:
    """Return a time as a Python int, for numpy's have no room for it. Raises what `advance` does."""
    if hasattr(time_, "__index__"):
        return operator.index(time_) * _UNITS[unit]
    if not hasattr(time_, "__float__"):
        raise TypeError(f"{unit} is a number, not of type {type(time_).__name__}")
    if not math.isfinite(time_):
        raise ValueError(f"{unit} is a time that ends, not {time_}")
    return round(float(time_) * _UNITS[unit])


def _clock(kind: type[Clock], now: int | None, ahead: int) -> Clock:
    """Return a copy of a clock, which goes its own way from then on."""
    made = kind(now)
    made._set_ahead(ahead)
    return made


def _environment(
    kind: type[Environment], called: Mapping[str, Any], members: Mapping[str, Any]
) -> Environment:
    """Return a copy of an environment, as it was."""
    made = object.__new__(kind)
    for name, value in {**members, **called}.items():
        object.__setattr__(made, name, value)
    return made


THIS_PROCESS = Task(_is_this=True)
"""The process that asks, asked anew each time."""


def _task_members(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a task: a thread's process is its own where nothing else is said."""
    return {"tgid": members["pid"], **members} if "pid" in members else dict(members)


_KINDS = {
    **dict.fromkeys(("cpu", "cpus", "socket_cookie", "netns_cookie", "attach_cookie"), NUMBER),
    **dict.fromkeys(("stack", "sockets"), TUPLE),
    **dict.fromkeys(("memory", "symbols", "socket_options"), MAPPING),
    "network": Kind(Network, "a Network"),
    "tunnel": Kind(TunnelKey, "a TunnelKey").or_none(),
}
"""What fields of an environment are: a wrong one is said here, not where a program asks for it."""
_SOCKET = Kind(Socket, "a Socket")
_OPTION = Kind((int, bytes, str), "a number, bytes or a string")


@dataclass(frozen=True, slots=True)
class Environment:
    """The world of a run; a test replaces what must not change from run to run.

    `clock()` gives nanoseconds (u64), by default those of a `Clock`, which can be moved on; `random()` a
    u32. `cpu` is the number of the processor that programs run on,
    `cpus` how many there are: per-CPU maps have a value for each. `task` is the
    process, None for this one, `stack` the return addresses (u64) of its call stack, innermost
    first. `sockets` are those that lookups find, in this order. `socket_cookie`,
    `netns_cookie` and `attach_cookie` name the packet's socket, its network namespace, and the program's
    attachment (u64). `objects` are the structs that were described.
    `gpl_only` says what becomes of helpers that Linux keeps for GPL programs where the object's license is
    another: True, all engines refuse the program; False, none does; None, the kernel engine does, and the
    others warn (LicenseWarning). `network` is what routes and MTUs are looked up in, `tunnel` the key of
    the tunnel that packets came by.

    `memory` is what lies behind pointers that programs have: buffers by address (u64), a process's below
    0x7ffffffff000, the kernel's from 0xffff800000000000 on. bpf_probe_write_user writes to a process's
    bytearray; nothing else is written, and no byte of this process is ever read through such an address.
    `btf` has the types that structs are laid out by (what `load(btf=)` takes: a path, bytes, a Btf);
    without it, those that the program which runs was made for.
    `symbols` are variables of the kernel (extern ... __ksym) by name: bytes, a number of 8 bytes, or a list
    of these for the processors (bpf_per_cpu_ptr). `load` has to be told of them, as a weak one that nobody
    has is 0.

    `socket_options` are the options of sockets by (level, number), as bpf_setsockopt leaves them and
    bpf_getsockopt finds them; those that are not there are as in a new socket.

    `task` may be called: `environment.task(pid=7, comm="x")` describes one more task, as
    `struct("task_struct", ...)` does. The first of them that no other task points to (as to its real_parent)
    is the process that programs run in, where no other is given.
    Raises TypeError for a field that is something else, as a `clock` that is no function, ValueError where
    `cpu` is not one of the processors, and for memory that is neither a process's nor the kernel's, or twice.
    """

    clock: Callable[[], int] = field(default_factory=Clock)
    random: Callable[[], int] = _random_u32
    cpu: int = 0
    cpus: int = 1
    task: Task = THIS_PROCESS
    stack: tuple[int, ...] = ()
    sockets: tuple[Socket, ...] = ()
    socket_cookie: int = 1
    netns_cookie: int = 1
    attach_cookie: int = 0
    network: Network = NOTHING_KNOWN
    tunnel: TunnelKey | None = None
    gpl_only: bool | None = None
    memory: Mapping[int, Any] = field(default_factory=dict, hash=False)
    btf: Any = field(default=None, hash=False)
    symbols: Mapping[str, Any] = field(default_factory=dict, hash=False)
    socket_options: dict[tuple[int, int], int | bytes | str] = field(default_factory=dict, hash=False)
    objects: KernelObjects = field(default_factory=KernelObjects, repr=False, compare=False)

    def __repr__(self) -> str:
        return brief(self)

    def __reduce__(self) -> tuple[Any, ...]:
        from ebpfjit.pickling import Functions  # few environments travel, and it imports pickle

        members = {each: getattr(self, each) for each in self.__match_args__}
        called = {each: members.pop(each) for each in ("clock", "random")}
        return _environment, (type(self), Functions("the environment's", called), members)

    def fire_timers(self) -> int:
        """Call what timers and work queues of programs have to call by now; return how many did.

        For a clock of one's own; a `Clock` does it in `advance`. Raises what they raise.
        """
        return timers.fire(self.clock, self.clock)

    @property
    def current_task(self) -> Task:
        """The process that the program runs in."""
        if not self.task._is_this:
            return self.task
        first = self.objects.current_task
        if first is None:
            return Task.this()
        pid, comm = first.members.get("pid", 0), first.members.get("comm", "")
        if not isinstance(comm, str):
            comm = bytes(each & 0xFF for each in comm).partition(b"\0")[0].decode("utf-8", "replace")
        return Task(pid, first.members.get("tgid", pid), comm=comm, address=int(first.pointer))

    @property
    def identity(self) -> Identity:
        """The numbers of that process: its name takes a file to read."""
        if self.task._is_this and not self.objects.all:
            return Identity(threading.get_native_id(), os.getpid(), os.getuid(), os.getgid())
        task = self.current_task
        return Identity(task.pid, task.tgid, task.uid, task.gid)

    @property
    def has_memory(self) -> bool:
        """True where something is behind pointers."""
        return bool(self.memory or self.objects.all or self.symbols)

    def struct(self, name: str, /, **members: Any) -> KernelPointer:
        """Describe a struct in the kernel's memory and return its address.

        `members` are values as `Object.globals` takes them: integers, strings, other pointers, a mapping for
        a struct inside; what is not given is zero. Bytes or a string for a pointer are put somewhere, with a
        zero byte behind. It is laid out when a program runs, which raises ExecutionError for a struct or a
        member that the types do not have.
        """
        return self.objects.add(name, members)

    def file(self, path: str, /, **members: Any) -> KernelPointer:
        """Describe a struct file whose f_path bpf_d_path tells as `path`; `members` are as for `struct`."""
        return self.objects.add("file", members, path=path)

    def path(self, path: str, /, **members: Any) -> KernelPointer:
        """Describe a struct path that bpf_d_path tells as `path`; `members` are as for `struct`."""
        return self.objects.add("path", members, path=path)

    def __post_init__(self) -> None:
        check(self, _KINDS)
        check_each("sockets", self.sockets, _SOCKET)
        check_each("stack", self.stack, NUMBER)
        check_each("the addresses of memory", self.memory, NUMBER)
        check_each("the names of symbols", self.symbols, TEXT)
        check_each("the keys of socket_options", self.socket_options, TUPLE)
        for key, value in self.socket_options.items():
            check_each("the key of socket_options, level and number,", key, NUMBER)
            _OPTION.check(f"socket_options: {key}", value)
        if self.cpus < 1 or not 0 <= self.cpu < self.cpus:
            raise ValueError(f"cpu {self.cpu} is not one of {self.cpus} processors, counted from 0")
        for name, function in (("clock", self.clock), ("random", self.random)):
            if not callable(function):
                also = f", or Clock({function}) for one that stands still" if name == "clock" else ""
                raise TypeError(f"{name} is a function that gives a number, not {function!r}{also}")
        task = self.task if self.task is not None else THIS_PROCESS
        if not isinstance(task, Task):
            raise TypeError(f"task is a Task(pid=..., comm=...), not of type {type(task).__name__}")
        object.__setattr__(self, "task", replace(task, _objects=self.objects))
        if self.memory or self.symbols:
            stretches_of({**self.memory, **memory_of(self.symbols, self.cpus)})
