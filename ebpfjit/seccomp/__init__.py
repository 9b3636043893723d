"""seccomp: filters of system calls as programs; profiles of containers, dumps and bytes; what they allow.

profile (JSON), text, bytes -> load -> SeccompProgram.run(nr="read", args=(0,)) -> "SCMP_ACT_ALLOW"
"""

from __future__ import annotations

import json
import os
import platform
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from ebpfjit import classic
from ebpfjit.classic.check import check
from ebpfjit.classic.code import decode
from ebpfjit.classic.table import Form, Kind
from ebpfjit.classic.translate import OnMemory
from ebpfjit.errors import InputError, LoadError, VerifierError
from ebpfjit.interpreted import for_batches
from ebpfjit.named import absent
from ebpfjit.program import Program
from ebpfjit.record import dataclass
from ebpfjit.runner import Result
from ebpfjit.seccomp.numbers import (
    ARCHITECTURES,
    DATA_MASK,
    IS_LITTLE_ENDIAN,
    action_of,
    architecture,
    named_architecture,
    system_calls,
)
from ebpfjit.seccomp.profile import DOCKER_CAPABILITIES, Where, release, to_classic

if TYPE_CHECKING:
    from ebpfjit.keywords import CallOptions

DATA = struct.Struct("<iIQ6Q")
"""struct seccomp_data: nr, arch, instruction_pointer, args."""
FIELDS = ("nr", "arch", "instruction_pointer", "args")


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
    """Raise VerifierError where Linux does not take `code` as a seccomp filter (seccomp_check_filter)."""
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
        arch: str | int = "",
        args: Sequence[int] = (),
        ip: int = 0,
        context: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> Any:
        """Return the name of the action for a system call: "SCMP_ACT_ALLOW". Without `nr` run as any program.

        `nr` is the call's number, or its name; `arch` "x86_64", "aarch64", ..., by default this machine's;
        `args` are up to six arguments (u64), those that are not given 0; `ip` is where the call is made
        (u64). See `decide` for the action's data. Without `nr` the call is the bytes of a struct
        seccomp_data, or its fields by name, as `context`, and `options` are those of `Program.run`; then it
        returns a Result, with `action` and `context`.

        Raises LoadError for a name that is none, InputError for a field that is none.
        """
        if nr is not None:
            return self.decide(nr=nr, arch=arch, args=args, ip=ip, **options)[0]
        if context is not None:
            unknown = next((name for name in context if name not in FIELDS), None)
            if unknown is not None:
                raise InputError(absent(unknown, "field of struct seccomp_data", FIELDS))
            given = {"nr": 0, "arch": _here(), "args": (), "instruction_pointer": 0, **context}
            data = call_data(given["nr"], given["arch"], given["args"], given["instruction_pointer"])
        result: Result = super().run(data, **options)
        if len(result.data) != DATA.size:
            return result
        number, machine, pointer, *words = DATA.unpack(result.data)
        fields = {"nr": number, "arch": machine, "instruction_pointer": pointer, "args": tuple(words)}
        name: Any = action_of(result.return_value)
        return replace(result, context=fields, action=name)

    def decide(
        self,
        *,
        nr: int | str,
        arch: str | int = "",
        args: Sequence[int] = (),
        ip: int = 0,
        **options: Unpack[CallOptions],
    ) -> tuple[str, int]:
        """Return the action for a call, and its data (16 bits; of SCMP_ACT_ERRNO the error number).

        `nr`, `arch`, `args` and `ip` (the instruction pointer, a u64) are as for `run`; so are other options,
        which are those of `Program.run` but for `context`. Raises LoadError for a name that is none,
        ValueError for numbers that do not fit.
        """
        call = call_data(nr, arch, args, ip)
        value: int = super().run(call, **options).return_value
        return action_of(value), value & DATA_MASK

    def table(self, arch: str = "", args: Sequence[int] = ()) -> dict[str, str]:
        """Return the action for each system call of an architecture, by name, with the arguments that are
        given.

        `arch` is a name ("x86_64", "aarch64"), by default this machine's; `args` are up to six arguments
        (u64). Raises LoadError for an architecture that is not known.
        """
        calls = system_calls(architecture(arch or _here()))
        function = for_batches(self, optimize=False)  # it is called once for each
        return {name: action_of(function(call_data(nr, arch, args))) for name, nr in calls.items()}


def compare(
    one: SeccompProgram, other: SeccompProgram, arch: str = "", args: Sequence[int] = ()
) -> dict[str, tuple[str, str]]:
    """Return the system calls for which `one` and `other` say something else, with both actions, by name.

    `arch` and `args` are as for `SeccompProgram.table`. Raises TypeError for what is no SeccompProgram.
    """
    for each in (one, other):
        if not isinstance(each, SeccompProgram):
            raise TypeError(f"filters are compared that `load` gives, not of type {type(each).__name__}")
    first, second = one.table(arch, args), other.table(arch, args)
    return {name: (action, second[name]) for name, action in first.items() if second[name] != action}


def load(
    source: str | os.PathLike[str] | bytes | Mapping[str, Any],
    *,
    name: str = "seccomp",
    capabilities: Collection[str] = DOCKER_CAPABILITIES,
    kernel: str | None = None,
) -> SeccompProgram:
    """Return a seccomp filter, which messages call `name`.

    `source` is a profile of a container as OCI and Docker have it (JSON text, a mapping, or the path of a
    file), a program of classic BPF as bytes, or its text in any dialect (`tcpdump -dd` and others), or a file
    with one of these. Rules of a profile that are for some containers only (`includes`, `excludes`) count by
    `capabilities` ("CAP_SYS_ADMIN"), by default what Docker gives a container, by the release of the
    `kernel` ("5.15"), by default a new one, and by the architecture: of an entry of archMap its own.

    Raises LoadError for a profile that names what is not there, AssemblyError, VerifierError for what Linux
    does not take as a filter, TypeError for a source that is something else, and OSError.

        program = seccomp.load("profile.json")
        program.run(nr="mount")  # "SCMP_ACT_ERRNO"
    """
    if isinstance(capabilities, str) or not all(isinstance(each, str) for each in capabilities):
        raise TypeError("capabilities are names in a list: ['CAP_SYS_ADMIN']")
    new = None if kernel is None else release(kernel, "kernel: ")
    where = Where(_here(), frozenset(each.upper() for each in capabilities), new)
    return _loaded(source, name, where)


def _loaded(
    source: str | os.PathLike[str] | bytes | Mapping[str, Any], name: str, where: Where
) -> SeccompProgram:
    if isinstance(source, Mapping):
        return _made(to_classic(source, where), name)
    if isinstance(source, os.PathLike) or (isinstance(source, str) and _is_path(source)):
        path = Path(source)
        data = path.read_bytes()
        if path.suffix not in (".json", ".txt"):
            return _loaded(data, path.stem, where)
        try:
            return _loaded(data.decode(), path.stem, where)
        except UnicodeDecodeError as error:
            raise LoadError(f"{path}: no UTF-8: byte {error.start}: {error.reason}") from None
    if isinstance(source, (bytearray, memoryview)):
        source = bytes(source)
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
        return _made(to_classic(profile, where), name)
    return _made(classic.assemble(source), name)


def _is_path(text: str) -> bool:
    names_one = text.endswith((".json", ".txt", ".bin"))  # what is not there is said by the system then
    return "\n" not in text and "\0" not in text and len(text) < 4096 and (names_one or os.path.isfile(text))


def _here() -> str:
    try:
        return architecture(platform.machine())
    except LoadError:
        return "x86_64"


def _made(code: bytes, name: str) -> SeccompProgram:
    check_filter(code)
    program = OnCall().program(code, name, None)
    return SeccompProgram(program.code, name=name, classic=code)


def call_data(nr: int | str, arch: str | int = "", args: Sequence[int] = (), ip: int = 0) -> bytes:
    """Return struct seccomp_data of a call, in this machine's byte order but for the halves of arguments,
    which lie as the architecture has them.

    `nr`, `arch`, `args` and `ip` are those of `SeccompProgram.run`; `arch` may be a number (AUDIT_ARCH_*).

    Raises LoadError for names that are none, ValueError for arguments.
    """
    machine = arch if isinstance(arch, int) else ARCHITECTURES[architecture(arch or _here())]
    if not 0 <= machine < 1 << 32:
        raise ValueError(f"an architecture is a number of 32 bits, not {machine}")
    if isinstance(nr, str):
        name = architecture(arch or _here()) if isinstance(arch, str) else named_architecture(machine)
        calls = system_calls(name)
        if nr not in calls:
            raise LoadError(f"no system call {nr!r} on {name}")
        nr = calls[nr]
    words = [index(each) for each in (nr, ip, *args)]
    if len(args) > 6 or not all(0 <= each < 1 << 64 for each in words[1:]):
        raise ValueError("a call has up to six arguments, and an ip, each of 64 bits")
    wide = [*words[1:], *[0] * (6 - len(args))]
    if not machine & IS_LITTLE_ENDIAN:
        wide = [each >> 32 | (each & 0xFFFFFFFF) << 32 for each in wide]
    if not -(1 << 31) <= words[0] < 1 << 32:
        raise ValueError(f"the number of a call has 32 bits, and {words[0]} has more")
    signed = (words[0] + (1 << 31)) % (1 << 32) - (1 << 31)
    return DATA.pack(signed, machine, *wide)


__all__ = ["SeccompProgram", "call_data", "check_filter", "compare", "load"]
