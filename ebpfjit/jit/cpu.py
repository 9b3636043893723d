"""What the processor under us can do: asked, never assumed."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ebpfjit.errors import JitUnavailable
from ebpfjit.once import once
from ebpfjit.translators import FEATURES, MACHINES, machine_of

if TYPE_CHECKING:
    from ebpfjit.translators.machine import Machine


@once
def features() -> frozenset[str]:
    """Return those CPU features that translators know to use, by Linux's names."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as cpuinfo:
            for line in cpuinfo:
                name, _, value = line.partition(":")
                if name.strip() == "flags":
                    return FEATURES[target()] & frozenset(value.split())
    except OSError:
        pass
    return frozenset()


def target() -> str:
    """Return the name of the machine to translate for.

    Raises JitUnavailable where there is no translator for it, or its calling convention is not
    the System V one.
    """
    name = os.uname().machine.lower() if hasattr(os, "uname") else ""
    if name not in MACHINES:
        raise JitUnavailable(
            f"there is no translator for this machine ({name or 'unknown'}), only for "
            f"{', '.join({*MACHINES.values()})}; "
            f"the interpreter runs everywhere"
        )
    if sys.platform not in ("linux", "darwin", "freebsd"):
        raise JitUnavailable(f"machine code is not supported on {sys.platform}; the interpreter is")
    return MACHINES[name]


@once
def machine() -> Machine:
    """Return the machine to translate for. Raises JitUnavailable as `target`."""
    return machine_of(target())
