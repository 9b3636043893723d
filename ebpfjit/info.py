"""What works here, and how: which engines, which way into machine code."""

from __future__ import annotations

import importlib.metadata
import platform

from ebpfjit.engines import unavailable
from ebpfjit.literals import ENGINES, EngineName
from ebpfjit.once import load_package
from ebpfjit.record import dataclass


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """What `runtime_info` found.

    `engines` says of each engine "available" or what is missing. `gate` is how Python calls machine
    code: "native" (as its own built-in functions), or "ctypes" where that cannot be, for the reason
    in `gate_reason`; or "none". `cpu_features` are those that the compiler would use.
    `keystone` is the version of the assembler, None where it is not installed.
    """

    python: str
    machine: str
    engines: dict[EngineName, str]
    gate: str
    gate_reason: str
    cpu_features: tuple[str, ...]
    keystone: str | None


def runtime_info() -> RuntimeInfo:
    """Return what works here and how; never raises."""
    load_package("ebpfjit.jit")
    from ebpfjit.jit import cpu

    states = {name: unavailable(name) for name in ENGINES}
    gate, reason = ("none", states["jit"]) if states["jit"] else _gate()
    return RuntimeInfo(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        machine=f"{platform.system()} {platform.machine()}",
        engines={name: states[name] or "available" for name in ENGINES},
        gate=gate,
        gate_reason=reason,
        cpu_features=tuple(sorted(cpu.features())),
        keystone=_version("keystone-engine"),
    )


def _gate() -> tuple[str, str]:
    load_package("ebpfjit.jit")
    from ebpfjit.jit.gate import why_not

    reason = why_not()
    return ("ctypes", reason) if reason else ("native", "")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
