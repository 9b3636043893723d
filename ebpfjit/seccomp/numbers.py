"""Architectures, system calls and actions of seccomp, by name and number.

Source: Linux include/uapi/linux/audit.h (AUDIT_ARCH_*), seccomp.h (SECCOMP_RET_*); syscalls.txt is
libseccomp's.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType

from ebpfjit.errors import LoadError
from ebpfjit.once import once

ARCHITECTURES = MappingProxyType(
    {"x86_64": 0xC000003E, "x86": 0x40000003, "aarch64": 0xC00000B7, "arm": 0x40000028, "riscv64": 0xC00000F3}
)
"""The numbers that struct seccomp_data has for architectures (AUDIT_ARCH_*)."""

X32_BIT = 0x40000000
"""Set in numbers of system calls of x32, which has the architecture of x86_64."""

ACTIONS = MappingProxyType(
    {
        "SCMP_ACT_KILL_PROCESS": 0x80000000,
        "SCMP_ACT_KILL": 0x00000000,
        "SCMP_ACT_TRAP": 0x00030000,
        "SCMP_ACT_ERRNO": 0x00050000,
        "SCMP_ACT_NOTIFY": 0x7FC00000,
        "SCMP_ACT_TRACE": 0x7FF00000,
        "SCMP_ACT_LOG": 0x7FFC0000,
        "SCMP_ACT_ALLOW": 0x7FFF0000,
    }
)
"""Actions by libseccomp's names; the low 16 bits of a result are the action's data: an error number, say."""

SAME = MappingProxyType({"SCMP_ACT_KILL_THREAD": "SCMP_ACT_KILL"})
ACTION_MASK, DATA_MASK = 0xFFFF0000, 0xFFFF
_NAMES = {value: name for name, value in ACTIONS.items()}


def action_of(result: int) -> str:
    """Return the name of the action that a result is: unknown ones are SCMP_ACT_KILL_PROCESS to Linux."""
    return _NAMES.get(result & ACTION_MASK, "SCMP_ACT_KILL_PROCESS")


def architecture(name: str) -> int:
    """Return the number of an architecture: "x86_64", libseccomp's SCMP_ARCH_X86_64 too. Raises LoadError."""
    plain = name.removeprefix("SCMP_ARCH_").lower() if isinstance(name, str) else ""
    if plain not in ARCHITECTURES:
        raise LoadError(f"no architecture {name!r}; there are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[plain]


@once
def system_calls(arch: int) -> Mapping[str, int]:
    """Return the system calls of an architecture, by name."""
    text = resources.files("ebpfjit.seccomp").joinpath("syscalls.txt").read_text()
    _, head, *rows = text.splitlines()
    column = head.split().index(next(name for name, number in ARCHITECTURES.items() if number == arch))
    fields = (row.split() for row in rows)
    return MappingProxyType({row[0]: int(row[column]) for row in fields if row[column] != "-"})


def error_number(value: object) -> int:
    """Return an error number given as that or by name ("EPERM"). Raises LoadError."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= DATA_MASK:
        return value
    found = getattr(errno, value, None) if isinstance(value, str) and value.startswith("E") else None
    if not isinstance(found, int):
        raise LoadError(f"{value!r} is no error number")
    return found
