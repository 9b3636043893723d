"""Things that a process makes once, whoever asks first, and keeps to its end; locks that live through fork.

Machine code holds the addresses of such things: two of them, of which one goes away, are a crash.
`functools.cache` calls a function twice where two threads ask at once, and keeps the second result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from functools import update_wrapper
from importlib import import_module
from threading import RLock
from types import ModuleType
from typing import Any, Generic, ParamSpec, TypeVar
from weakref import WeakSet

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 30.0
"""Seconds that a thread waits for another to make something, before it does so as well."""


class ForkLock:
    """A lock that a thread may take again while it has it, and that is free in a child process.

    With `waits_at_fork` a fork waits for the lock, so that a child finds whole what it guards. For locks
    that are there once: they stay known to the system. `with lock.held:` takes it.
    """

    def __init__(self, *, waits_at_fork: bool = False) -> None:
        self.lock = RLock()
        if not hasattr(os, "register_at_fork"):
            return
        if waits_at_fork:
            os.register_at_fork(
                before=self.acquire, after_in_parent=self.release, after_in_child=self.release
            )
        else:
            os.register_at_fork(after_in_child=self._renew)

    def acquire(self, timeout: float = -1) -> bool:
        """Take the lock; False where that takes longer than `timeout` seconds (-1: for ever)."""
        return self.lock.acquire(timeout=timeout)

    def release(self) -> None:
        """Give the lock back."""
        self.lock.release()

    def _renew(self) -> None:
        """In a child process: another thread that held the lock is not there; this one goes on holding it."""
        if not self.lock._is_owned():  # type: ignore[attr-defined] # as threading.Condition asks
            self.lock = RLock()

    @property
    def held(self) -> AbstractContextManager[object]:
        """What `with` takes: of C, so that no signal handler raises between taking it and the block."""
        return self.lock


class OwnLock(ForkLock):
    """A ForkLock of one thing among many, which goes when that goes: the system knows all as one."""

    def __init__(self) -> None:
        self.lock = RLock()
        _own_locks.add(self)


_own_locks: WeakSet[OwnLock] = WeakSet()


def _renew_own_locks() -> None:
    for lock in list(_own_locks):
        lock._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_own_locks)

_making = ForkLock()
"""One for all: what makes a thing may ask for others, in any order.

Taken inside of `try` and given back without a call of Python: wherever a signal handler raises, no thread
keeps it, for which all others would wait.
"""


class once(Generic[P, T]):  # noqa: N801 - it is used as `functools.cache` is
    """A function whose result, for the same arguments, is one object for the whole process and for ever.

    The lock only saves work. What counts is that the first result to be there is everybody's: so a function
    may be entered again while it runs (by a signal handler, a finalizer), and nobody waits without end.
    What it raises is not kept. Arguments are by position and hashable.
    """

    def __init__(self, make: Callable[P, T]) -> None:
        self._make = make
        self._made: dict[Hashable, T] = {}
        update_wrapper(self, make)

    def __call__(self, *key: P.args, **none: P.kwargs) -> T:
        """Return the result, which is made where it is not there yet."""
        made = self._made.get(key, _NOTHING)
        return self._first(*key, **none) if made is _NOTHING else made

    def _first(self, *key: P.args, **none: P.kwargs) -> T:
        assert not none, "arguments are by position"
        try:
            _making.lock.acquire(timeout=PATIENCE)
            if key in self._made:
                return self._made[key]
            made = self._made.setdefault(key, self._make(*key))  # type: ignore[call-arg] # there are no others
            _keep_for_ever(made)
            return made
        finally:
            try:  # noqa: SIM105 - `suppress` is Python: a signal handler may raise there
                _making.lock.release()
            except RuntimeError:  # it was not to be had
                pass

    @property
    def is_made(self) -> bool:
        """True where there is a result, for whichever arguments."""
        return bool(self._made)


_NOTHING: Any = object()


def import_alone(name: str) -> ModuleType:
    """Import a module while no other thread does so through here.

    Two threads that enter a package by different modules wait for each other, and CPython gives one of them
    half a module (_DeadlockError, or "cannot import name").
    """
    try:
        _making.lock.acquire(timeout=PATIENCE)
        return import_module(name)
    finally:
        try:  # noqa: SIM105 - `suppress` is Python: a signal handler may raise there
            _making.lock.release()
        except RuntimeError:  # it was not to be had
            pass


@once
def load_package(name: str) -> ModuleType:
    """Import a package and all of its modules, in one thread; what imports them later finds them whole.

    But for those that it names as LATER: whoever wants one imports it by `import_alone`.
    """
    package = import_module(name)
    later = getattr(package, "LATER", ())
    for module in modules_of(package):
        if module not in later:
            import_module(f"{name}.{module}")
    return package


def modules_of(package: ModuleType) -> list[str]:
    """Return the names of a package's modules, and of the packages in it, in order."""
    try:
        entries = [entry for folder in package.__path__ for entry in os.scandir(folder)]
    except OSError:  # it is in an archive
        from pkgutil import iter_modules  # which imports what reads source code

        return [module.name for module in iter_modules(package.__path__)]
    files = (os.path.splitext(entry.name) for entry in entries)
    found = {name for name, suffix in files if suffix in (".py", ".pyc")}
    found |= {entry.name for entry in entries if os.path.exists(os.path.join(entry.path, "__init__.py"))}
    return sorted(found - {"__init__"})


def _keep_for_ever(value: object) -> None:
    """Let an object outlive the interpreter: threads may be in machine code when everything else goes."""
    import ctypes  # this module is read by `import ebpfjit`, which is to be quick

    api = getattr(ctypes, "pythonapi", None)
    if api is not None:
        api.Py_IncRef(ctypes.py_object(value))
