"""What an object refers to and does not define: kernel configuration, kernel symbols, weak symbols.

extern int LINUX_KERNEL_VERSION __kconfig;     a variable of the map ".kconfig", filled at load
extern const void x __ksym __weak;             0, as on a kernel that has no x
extern int f(void) __ksym;                     a kfunc: refused by name when it is run, where nobody has it
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from ebpfjit.elf.btf import Btf, Kind, Type, essential_name
from ebpfjit.elf.budget import OverBudget
from ebpfjit.elf.codec import BOOL, codec_of
from ebpfjit.elf.reader import ObjectFile, Symbol
from ebpfjit.errors import LoadError
from ebpfjit.program import Kfunc, Number
from ebpfjit.record import dataclass
from ebpfjit.runtime.maps.definition import Codec, MapDefinition, MapType

KCONFIG, KSYMS = ".kconfig", ".ksyms"
KERNEL_VERSION = "LINUX_KERNEL_VERSION"
VIRTUAL = ("LINUX_HAS_SYSCALL_WRAPPER", "LINUX_HAS_BPF_COOKIE")
"""What libbpf answers for itself, beside the version: both are so on today's x86-64 kernels."""

MAX_SIZE = 4096
"""Bytes of one variable; a line of a kernel's configuration has no more."""

MAX_ARGUMENTS = 5
"""What a kernel function takes in registers: r1 to r5."""

TRISTATE = {"n": 0, "y": 1, "m": 2}
"""enum libbpf_tristate."""


@dataclass(frozen=True, slots=True)
class ConfigVariable:
    """A variable of .kconfig, with its bytes; `type` is a BTF id.

    `refusal` says that nobody gave it a value; the bytes are zeros then.
    """

    name: str
    offset: int
    data: bytes
    type: int
    refusal: LoadError | None = None


class Externs:
    """The undefined symbols of an object; `kconfig` has values for those of .kconfig.

    Raises LoadError naming the symbol where a value does not fit. A missing one is kept with its variable.
    """

    def __init__(self, file: ObjectFile, btf: Btf | None, kconfig: Mapping[str, Any]) -> None:
        self.file = file
        self.btf = btf
        self.kconfig = kconfig
        self.weak = {s.name for s in file.symbols if s.section is None and s.is_weak}
        self.damage: LoadError | None = None
        self._refused: dict[str, LoadError] = {}
        self._kfuncs: dict[tuple[str, bool], tuple[int, Kfunc] | None] = {}
        self._names: dict[str, str] = {}
        self._may_be_missing: dict[str, str] = {}
        self._sections = self._section_of_each()
        self.variables = self._lay_out()

    def _section_of_each(self) -> dict[str, tuple[str, Type]]:
        """Return the section and the BTF type (VAR or FUNC) of each extern; none where BTF is damaged."""
        try:
            return self._read_sections()
        except OverBudget:
            raise
        except LoadError as error:
            self.damage = error
            return {}

    def _read_sections(self) -> dict[str, tuple[str, Type]]:
        found: dict[str, tuple[str, Type]] = {}
        if self.btf is None:
            return found
        for name in (KCONFIG, KSYMS):
            for id in self.btf.named(name, {Kind.DATASEC}):
                for variable in self.btf.type(id).variables:
                    type_ = self.btf.type(variable.type)
                    found[type_.name] = (name, type_)
        return found

    def _lay_out(self) -> dict[str, ConfigVariable]:
        found: dict[str, ConfigVariable] = {}
        end = 0
        for name, (section, type_) in self._sections.items():
            if section == KCONFIG and type_.kind is Kind.VAR:
                try:
                    size, codec = self._shape(name, type_)
                except OverBudget:
                    raise
                except LoadError as error:
                    self._refused[name] = error
                    continue
                self.file.budget.spend(size, "variables of the configuration")
                data = self._value(name, type_, size, codec)
                refusal = None
                if data is None:
                    refusal = self._error(name, "has no value: give it with load(..., kconfig={...})")
                offset = -(-end // 8) * 8
                found[name] = ConfigVariable(name, offset, data or bytes(size), type_.target, refusal)
                end = offset + size
        return found

    def _shape(self, name: str, type_: Type) -> tuple[int, Codec]:
        """Return how many bytes a variable has, and how they are read."""
        assert self.btf is not None  # the variable is there because of it
        size = self.btf.size_of(type_.target)
        if not 0 < size <= MAX_SIZE:
            raise self._error(name, f"has {size} bytes, 1 to {MAX_SIZE} are possible")
        if name == KERNEL_VERSION and _kernel_version() >> 8 * size:
            raise self._error(name, f"has {size} bytes, the version of the kernel takes more")
        return size, codec_of(self.btf, type_.target)

    def _value(self, name: str, type_: Type, size: int, codec: Codec) -> bytes | None:
        """Return the bytes of a variable's value, None where nobody says what it is."""
        assert self.btf is not None
        if name not in self.kconfig:
            if name == KERNEL_VERSION:
                return _kernel_version().to_bytes(size, "little")
            if name in VIRTUAL or name in self.weak:
                return int(name in VIRTUAL).to_bytes(size, "little")
            return None
        value = self.kconfig[name]
        try:
            if isinstance(value, str) and value in TRISTATE and size <= 8:
                resolved = self.btf.resolve(type_.target)
                is_bool = resolved.kind is Kind.INT and bool(resolved.encoding & BOOL)
                if is_bool and value == "m":  # libbpf: "implies tristate or char type"
                    raise ValueError("it is a bool, which is 'y' or 'n'")
                character = resolved.kind is Kind.INT and size == 1 and not is_bool
                return (ord(value) if character else TRISTATE[value]).to_bytes(size, "little")
            if isinstance(value, str) and self._is_text(type_):
                return value.encode()[: size - 1].ljust(size, b"\0")  # as libbpf: cut, and always ended
            if isinstance(value, str):
                raise TypeError("give a number, or 'y', 'm' or 'n'")
            return codec.encode(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise self._error(name, f"cannot be {value!r}: {error}") from error

    def _is_text(self, type_: Type) -> bool:
        """True for an array of characters."""
        assert self.btf is not None
        array = self.btf.resolve(type_.target)
        element = self.btf.resolve(array.target) if array.kind is Kind.ARRAY else array
        return array.kind is Kind.ARRAY and (element.kind, element.size) == (Kind.INT, 1)

    def _error(self, name: str, message: str) -> LoadError:
        return LoadError(f"{self.file.name}: extern {name!r} in section {KCONFIG!r} {message}")

    @property
    def definition(self) -> MapDefinition | None:
        """The map of .kconfig, None where nothing is in it."""
        if not self.variables:
            return None
        last = list(self.variables.values())[-1]
        size = last.offset + len(last.data)
        places = tuple((variable.offset, variable.name) for variable in self.variables.values())
        return MapDefinition(
            KCONFIG, MapType.ARRAY, 4, size, 1, is_readonly=True, section=KCONFIG, variables=places
        )

    def kfunc(self, symbol: Symbol) -> tuple[int, Kfunc] | None:
        """Return the BTF id of a kernel function and what it is, None for another symbol.

        What stands behind three underscores is the program's own, as libbpf has it. It is the same at each
        call: thousands may use one, whose name has thousands of characters.
        """
        key = symbol.name, symbol.is_weak
        if key not in self._kfuncs:
            self._kfuncs[key] = self._make_kfunc(symbol)
        return self._kfuncs[key]

    def name_of(self, symbol: Symbol) -> str:
        """Return what the kernel calls a symbol, the same string at each call."""
        return self._names.setdefault(symbol.name, essential_name(symbol.name))

    def may_be_missing(self, symbol: Symbol) -> str:
        """Return what to say where a weak symbol that is not there is called, always the same string."""
        text = f"{symbol}, which is weak and may be missing: ask for its address first"
        return self._may_be_missing.setdefault(symbol.name, text)

    def _make_kfunc(self, symbol: Symbol) -> tuple[int, Kfunc] | None:
        section, type_ = self._sections.get(symbol.name, ("", None))
        if self.btf is None or section != KSYMS or type_ is None or type_.kind is not Kind.FUNC:
            return None
        prototype = self.btf.resolve(type_.target)
        if prototype.kind is not Kind.FUNC_PROTO:
            return None
        arguments = [self._number(id) for _, id in prototype.parameters[:MAX_ARGUMENTS]]
        return type_.id, Kfunc(
            self.name_of(symbol),
            tuple(number for number in arguments if number is not None),
            self._number(prototype.target),
            symbol.is_weak,
        )

    def _number(self, id: int) -> Number | None:
        """Return how a value of a type stands in a register; None for void."""
        assert self.btf is not None
        type_ = self.btf.resolve(id)
        if type_.kind is Kind.VOID:
            return None
        is_number = type_.kind is Kind.INT or type_.is_enum
        size = type_.size if is_number and type_.size in (1, 2, 4) else 8
        is_pointer = type_.kind is Kind.PTR
        to_struct = is_pointer and self.btf.resolve(type_.target).kind in (Kind.STRUCT, Kind.UNION, Kind.FWD)
        return Number(size, is_number and type_.is_signed, is_pointer, to_struct)

    def is_kernel_symbol(self, symbol: Symbol) -> bool:
        """True for a kfunc or a variable of the kernel (__ksym)."""
        return self._sections.get(symbol.name, ("",))[0] == KSYMS

    def describe(self, symbol: Symbol) -> str:
        """Return what to say of a symbol that nothing defines, after "calls" or "refers to"."""
        if symbol.name in self._refused:
            return f"{symbol}: {self._refused[symbol.name]}"
        section, type_ = self._sections.get(symbol.name, ("", None))
        if section == KSYMS:
            if type_ is not None and type_.kind is Kind.FUNC:
                return (
                    f"kfunc {symbol.name!r}, which is not there: give it with kfuncs={{{symbol.name!r}: f}}"
                )
            return (
                f"kernel symbol {symbol.name!r}, which is not there; only a weak one may be missing: give it "
                f"with load(..., environment=Environment(symbols={{{essential_name(symbol.name)!r}: ...}}))"
            )
        common = ", a common symbol; compile with -fno-common" if symbol.is_common else ""
        return f"{symbol}, which is not defined in this file{common}"


def _kernel_version() -> int:
    """Return KERNEL_VERSION(major, minor, patch) of the running kernel."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", os.uname().release)
    major, minor, patch = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    return major << 16 | minor << 8 | min(patch, 255)
