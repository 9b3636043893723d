"""Which engines are here, and which is the best: whoever wants to know asks here."""

from __future__ import annotations

from collections.abc import Callable

from ebpfjit.arguments import check_engine
from ebpfjit.errors import JitUnavailable
from ebpfjit.literals import EngineName
from ebpfjit.once import import_alone


def unavailable(engine: EngineName) -> str:
    """Return why an engine is not to be had on this machine, in this process; "" where it is.

    Raises ValueError for a name that no engine has.
    """
    check_engine(engine)
    return _REASONS[engine]()


def best_engine() -> EngineName:
    """Return the fastest engine that runs every program here: machine code, or else the interpreter."""
    return "interpreter" if unavailable("jit") else "jit"


def _jit() -> str:
    import_alone("ebpfjit.jit.routines")
    try:
        from ebpfjit.jit import cpu
        from ebpfjit.jit.routines import routines

        cpu.target()
        routines()
    except JitUnavailable as error:
        return str(error)
    return ""


def _kernel() -> str:
    from ebpfjit import kernel

    return kernel.unavailable_reason() or ""


_REASONS: dict[EngineName, Callable[[], str]] = {
    "jit": _jit,
    "interpreter": lambda: "",
    "kernel": _kernel,
}
