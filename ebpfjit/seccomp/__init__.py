"""seccomp: filters of system calls as programs; profiles of containers, dumps and bytes; what they allow.

profile (JSON), text, bytes -> load -> SeccompProgram.run(nr="read", args=(0,)) -> "SCMP_ACT_ALLOW"
"""

from __future__ import annotations

import json
import os
import platform
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any

from ebpfjit import classic
from ebpfjit.classic.check import check
from ebpfjit.classic.code import decode
from ebpfjit.classic.table import Form, Kind
from ebpfjit.classic.translate import OnMemory
from ebpfjit.errors import LoadError, VerifierError
from ebpfjit.program import Program
from ebpfjit.runner import Result
from ebpfjit.seccomp.numbers import (
    ARCHITECTURES,
    DATA_MASK,
    action_of,
    architecture,
    system_calls,
)
from ebpfjit.seccomp.profile import to_classic

DATA = struct.Struct("<iIQ6Q")
"""struct seccomp_data: nr, arch, instruction_pointer, args."""


class OnCall(OnMemory):
    """On struct seccomp_data, whose words are in the machine's own order."""

    what = "a seccomp filter"

    def length(self, register: str) -> list[str]:
        """Load the size of the struct."""
        return [f"mov32 {register}, {DATA.size}"]

    def load(self, size: int, place: int, register: str) -> None:
        """Emit a load of a word, which is inside: that was checked."""
        self.check_once()
        self.emit(f"ldxw {register}, [r6+{place}]")

    def check_once(self) -> None:
        """End the program where it is given less than the struct."""
        if self.asked < DATA.size:
            self.emit(*self.check(DATA.size))
            self.asked = DATA.size


def check_filter(code: bytes) -> None:
    """Raise VerifierError for what Linux does not take as a seccomp filter (seccomp_check_filter)."""
    check(code)
    for each in decode(code):
        row = each.row
        assert row is not None  # it was checked
        if row.form in (Form.INDIRECT, Form.HEADER) or row.name in ("ldh", "ldb", "mod"):
            what = f"instruction {each.pc}: seccomp has no {row.name} {row.form.value}".rstrip()
            raise VerifierError(what, each.pc, "seccomp")
        if row.kind is Kind.LOAD and row.form is Form.ABSOLUTE and (each.k >= DATA.size or each.k % 4):
            what = f"a word at {each.k:#x}, and struct seccomp_data has {DATA.size} bytes"
            raise VerifierError(f"instruction {each.pc}: {what}", each.pc, "seccomp")


@dataclass(frozen=True, repr=False)
class SeccompProgram(Program):
    """A seccomp filter: a program over struct seccomp_data; `classic` is it as prctl(2) takes it."""

    classic: bytes = b""

    def run(
        self,
        data: Any = b"",
        *,
        nr: int | str | None = None,
        arch: str = "",
        args: Sequence[int] = (),
        ip: int = 0,
        **options: Any,
    ) -> Any:
        """Return the name of the action for a system call: "SCMP_ACT_ALLOW". Without `nr` run as any program.

        `nr` is the call's number, or its name; `arch` "x86_64", "aarch64", ..., by default this machine's;
        `args` are up to six arguments (u64), those that are not given 0. See `decide` for the action's data.
        Raises LoadError for a name that is none.
        """
        if nr is None:
            result: Result = super().run(data, **options)
            return result
        return self.decide(nr=nr, arch=arch, args=args, ip=ip, **options)[0]

    def decide(
        self, *, nr: int | str, arch: str = "", args: Sequence[int] = (), ip: int = 0, **options: Any
    ) -> tuple[str, int]:
        """Return the action for a call, and its data (of SCMP_ACT_ERRNO the error number); see `run`."""
        call = call_data(nr, arch, args, ip)
        value: int = super().run(call, **options).return_value
        return action_of(value), value & DATA_MASK

    def table(self, arch: str = "", args: Sequence[int] = ()) -> dict[str, str]:
        """Return the action for each system call of an architecture, by name, with the arguments that are
        given.
        """
        number = architecture(arch or _here())
        calls = system_calls(number)
        function = self.compile()
        return {name: action_of(function(call_data(nr, arch, args))) for name, nr in calls.items()}


def compare(
    one: SeccompProgram, other: SeccompProgram, arch: str = "", args: Sequence[int] = ()
) -> dict[str, tuple[str, str]]:
    """Return the system calls for which two filters say something else, with both actions, by name."""
    first, second = one.table(arch, args), other.table(arch, args)
    return {name: (action, second[name]) for name, action in first.items() if second[name] != action}


def load(
    source: str | os.PathLike[str] | bytes | Mapping[str, Any], *, name: str = "seccomp"
) -> SeccompProgram:
    """Return a seccomp filter.

    `source` is a profile of a container as OCI and Docker have it (JSON text, a mapping, or the path of a
    file), a program of classic BPF as bytes, or its text in any dialect (`tcpdump -dd` and others), or a file
    with one of these. Raises LoadError for a profile that names what is not there, AssemblyError,
    VerifierError for what Linux does not take as a filter, and OSError.

        program = seccomp.load("profile.json")
        program.run(nr="mount")  # "SCMP_ACT_ERRNO"
    """
    if isinstance(source, Mapping):
        return _made(to_classic(source, _here()), name)
    if isinstance(source, os.PathLike) or (isinstance(source, str) and _is_path(source)):
        path = Path(source)
        data = path.read_bytes()
        if path.suffix not in (".json", ".txt"):
            return load(data, name=path.stem)
        try:
            return load(data.decode(), name=path.stem)
        except UnicodeDecodeError as error:
            raise LoadError(f"{path}: no UTF-8: byte {error.start}: {error.reason}") from None
    if isinstance(source, bytes):
        try:
            text = source.decode()
        except UnicodeDecodeError:
            return _made(source, name)
        if not text.isprintable() and not text.replace("\n", "").replace("\t", "").isprintable():
            return _made(source, name)
        source = text
    if not isinstance(source, str):
        raise TypeError(f"a filter is a path, text, bytes or a mapping, not of type {type(source).__name__}")
    source = source.removeprefix("\ufeff")  # as some editors begin files
    stripped = source.lstrip()
    if stripped.startswith("{") and '"' in stripped.split("\n", 2)[0] + stripped[:200]:
        try:
            profile = json.loads(source)
        except (ValueError, RecursionError) as error:  # nested too deeply, a number of too many digits
            raise LoadError(f"a seccomp profile is JSON: {error}") from None
        return _made(to_classic(profile, _here()), name)
    return _made(classic.assemble(source), name)


def _is_path(text: str) -> bool:
    return "\n" not in text and len(text) < 4096 and os.path.isfile(text)


def _here() -> str:
    machine = platform.machine().lower()
    named = {"amd64": "x86_64", "arm64": "aarch64", "i386": "x86", "i686": "x86"}.get(machine, machine)
    return named if named in ARCHITECTURES else "x86_64"


def _made(code: bytes, name: str) -> SeccompProgram:
    check_filter(code)
    program = OnCall().program(code, name, None)
    return SeccompProgram(program.code, name=name, classic=code)


def call_data(nr: int | str, arch: str = "", args: Sequence[int] = (), ip: int = 0) -> bytes:
    """Return struct seccomp_data of a call. Raises LoadError for names that are none, ValueError for
    arguments.
    """
    number = architecture(arch or _here())
    if isinstance(nr, str):
        calls = system_calls(number)
        if nr not in calls:
            raise LoadError(f"no system call {nr!r} on {arch or _here()}")
        nr = calls[nr]
    words = [index(each) for each in (nr, ip, *args)]
    if len(args) > 6 or not all(0 <= each < 1 << 64 for each in words[1:]):
        raise ValueError("a call has up to six arguments, and an ip, each of 64 bits")
    signed = (words[0] + (1 << 31)) % (1 << 32) - (1 << 31)
    return DATA.pack(signed, number, *words[1:], *[0] * (6 - len(args)))


__all__ = ["SeccompProgram", "call_data", "check_filter", "compare", "load"]
