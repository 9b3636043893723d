"""Architectures, system calls and actions of seccomp, by name and number.

Source: Linux include/uapi/linux/audit.h (AUDIT_ARCH_*), seccomp.h (SECCOMP_RET_*); syscalls.txt is
libseccomp's, with what Linux has had since.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType

from ebpfjit.errors import LoadError
from ebpfjit.once import once

ARCHITECTURES = MappingProxyType(
    {
        "x86_64": 0xC000003E, "x86": 0x40000003, "x32": 0xC000003E, "aarch64": 0xC00000B7, "arm": 0x40000028,
        "loongarch64": 0xC0000102, "mips": 0x00000008, "mipsel": 0x40000008, "mips64": 0x80000008,
        "mipsel64": 0xC0000008, "mips64n32": 0xA0000008, "mipsel64n32": 0xE0000008, "parisc": 0x0000000F,
        "parisc64": 0x8000000F, "ppc": 0x00000014, "ppc64": 0x80000015, "ppc64le": 0xC0000015,
        "riscv64": 0xC00000F3, "s390": 0x00000016, "s390x": 0x80000016,
    }
)  # fmt: skip
"""The numbers that struct seccomp_data has for architectures (AUDIT_ARCH_*), by libseccomp's names.

x32 has that of x86_64, and bit 30 in the numbers of its system calls.
"""
ALIASES = MappingProxyType(
    {
        "amd64": "x86_64", "i386": "x86", "i686": "x86", "386": "x86", "arm64": "aarch64", "loong64":
        "loongarch64", "mipsle": "mipsel", "mips64le": "mipsel64", "mips64p32": "mips64n32", "mips64p32le":
        "mipsel64n32", "mips3l64n32": "mipsel64n32", "armv7l": "arm",
    }
)  # fmt: skip
"""What else they are called: by Go, Docker, uname."""

_SOCKET_CALLS = (
    "socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send",
    "recv", "sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4",
    "recvmmsg", "sendmmsg",
)  # fmt: skip
MULTIPLEXED = MappingProxyType(
    {
        **{name: ("socketcall", number) for number, name in enumerate(_SOCKET_CALLS, 1)},
        "semop": ("ipc", 1), "semget": ("ipc", 2), "semctl": ("ipc", 3), "semtimedop": ("ipc", 4),
        "msgsnd": ("ipc", 11), "msgrcv": ("ipc", 12), "msgget": ("ipc", 13), "msgctl": ("ipc", 14),
        "shmat": ("ipc", 21), "shmdt": ("ipc", 22), "shmget": ("ipc", 23), "shmctl": ("ipc", 24),
    }
)  # fmt: skip
"""Calls that some architectures have as another one's first argument too, or only so (linux/net.h, ipc.h)."""

IS_64_BIT, IS_LITTLE_ENDIAN = 0x80000000, 0x40000000
"""Bits of an architecture's number."""

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


def architecture(name: object) -> str:
    """Return the name of an architecture as ARCHITECTURES has it, given that or another name
    (SCMP_ARCH_X86_64, amd64). Raises LoadError.
    """
    plain = name.removeprefix("SCMP_ARCH_").lower() if isinstance(name, str) else ""
    plain = ALIASES.get(plain, plain)
    if plain not in ARCHITECTURES:
        raise LoadError(f"no architecture {name!r}; there are {', '.join(ARCHITECTURES)}")
    return plain


def named_architecture(number: int) -> str:
    """Return the name of an architecture with a number (of x86_64 and x32 the first). Raises LoadError."""
    found = next((name for name, each in ARCHITECTURES.items() if each == number), None)
    if found is None:
        raise LoadError(f"no architecture has the number {number:#x}")
    return found


@once
def _table() -> tuple[list[str], list[list[str]]]:
    """Return the architectures of the table, and its rows."""
    text = resources.files("ebpfjit.seccomp").joinpath("syscalls.txt").read_text()
    _, head, *rows = text.splitlines()
    return head.split()[1:], [row.split() for row in rows]


@once
def system_calls(name: str) -> Mapping[str, int]:
    """Return the system calls of an architecture, which ARCHITECTURES has, by name."""
    names, rows = _table()
    column = names.index(name) + 1
    return MappingProxyType({row[0]: int(row[column]) for row in rows if row[column] != "-"})


@once
def known_calls() -> frozenset[str]:
    """Return the names of all system calls, of any architecture."""
    return frozenset(row[0] for row in _table()[1])


def error_number(value: object) -> int:
    """Return an error number given as that or by name ("EPERM"). Raises LoadError."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= DATA_MASK:
        return value
    found = getattr(errno, value, None) if isinstance(value, str) and value.startswith("E") else None
    if not isinstance(found, int):
        raise LoadError(f"{value!r} is no error number")
    return found
