"""BTF as Linux takes it from a loader: what clang leaves open, filled in, as libbpf does.

    DATASEC .data    size 0, offsets 0     ->  the section's size, where its variables are
    DATASEC .ksyms   and others that are   ->  an enum of the same length: Linux has nothing
                     no section of the file    to hold them against
    DATASEC .rodata  with variables that   ->  the same: constants that ELF has in .rodata.cst16
                     are in another
    FUNC, VAR        linkage extern        ->  global; parameters without a name get one
    VAR              without a size        ->  an int (extern const void x __ksym)
    FUNC             of hidden visibility  ->  static: verified with its caller

Ids and strings stay, so that .BTF.ext goes with both. Source: bpf_object__sanitize_btf and
btf_fixup_datasec in libbpf.c; what Linux asks for is in kernel/bpf/btf.c.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise

from ebpfjit.elf.btf import EXTRA_WORDS, HEADER, Btf, Kind
from ebpfjit.elf.budget import OverBudget
from ebpfjit.elf.externs import KCONFIG, KSYMS
from ebpfjit.elf.reader import ObjectFile, Section
from ebpfjit.errors import LoadError

STATIC, GLOBAL, EXTERN = 0, 1, 2
"""Linkage of functions and variables (enum btf_func_linkage, BTF_VAR_*)."""

ENUM64_SIZE = 8
MAX_WORD = 0xFFFFFFFF


def for_linux(file: ObjectFile, btf: Btf | None) -> bytes | None:
    """Return an object's BTF with what compilers leave open filled in; None for an object without.

    Types that are wrong stay as they are: Linux refuses such BTF, and programs are loaded without. Raises
    LoadError for names that are not there.
    """
    section = file.section(".BTF")
    if btf is None or section is None:
        return None
    data = bytearray(section.data)
    file.budget.spend(2 * len(data), "the types that Linux is given")
    header_size, start, size = HEADER.unpack_from(data)[3:6]
    start += header_size
    words = array("I", bytes(data[start : start + size]))
    _Fixer(file, btf, words).fix()
    data[start : start + size] = words.tobytes()
    return bytes(data)


class _Fixer:
    """Changes the words of types in place."""

    def __init__(self, file: ObjectFile, btf: Btf, words: array[int]) -> None:
        self.btf = btf
        self.words = words
        self.sections = {section.name: section for section in file.sections if section.is_data}
        self.hidden = {s.name for s in file.symbols if s.section is not None and s.is_hidden}
        self.offsets: dict[tuple[int, str], int] = {}
        for symbol in file.symbols:
            if symbol.section is not None and symbol.name and symbol.type in ("STT_OBJECT", "STT_NOTYPE"):
                self.offsets[symbol.section.index, symbol.name] = symbol.value

    def fix(self) -> None:
        """Fix all types."""
        fixes = {Kind.DATASEC: self._section, Kind.FUNC: self._function, Kind.VAR: self._variable}
        for id in range(1, len(self.btf)):
            fix = fixes.get(Kind(self.btf.kind(id)))
            if fix is not None:
                fix(id, self.btf.offset_of(id))

    def _name(self, at: int) -> str:
        return self.btf.string(self.words[at])

    def _variable(self, id: int, at: int) -> None:
        if self.words[at + 3] != EXTERN:
            return
        self.words[at + 3] = GLOBAL
        if self.integer and self._has_no_size(self.words[at + 2]):
            self.words[at + 2] = self.integer

    @cached_property
    def integer(self) -> int:
        """The id of an integer type, 0 where there is none: what libbpf makes of symbols of the kernel."""
        return next((id for id in range(1, len(self.btf)) if self.btf.kind(id) == Kind.INT), 0)

    def _has_no_size(self, type_: int) -> bool:
        """True for `extern const void x __ksym`, and for structs that are only declared."""
        try:
            self.btf.size_of(type_)
        except OverBudget:
            raise
        except LoadError:
            return True
        return False

    def _function(self, id: int, at: int) -> None:
        linkage = self.words[at + 1] & 0xFFFF
        if linkage == EXTERN:
            self._set_linkage(at, GLOBAL)
            self._name_parameters(self.words[at + 2], self.words[at])
        elif linkage == GLOBAL and self.hidden and self._name(at) in self.hidden:
            self._set_linkage(at, STATIC)

    def _set_linkage(self, at: int, linkage: int) -> None:
        self.words[at + 1] = self.words[at + 1] & ~0xFFFF | linkage

    def _name_parameters(self, prototype: int, name: int) -> None:
        """Give the parameters of an extern function a name, any: clang writes none for declarations."""
        if not 0 < prototype < len(self.btf) or self.btf.kind(prototype) != Kind.FUNC_PROTO:
            return
        at = self.btf.offset_of(prototype)
        for parameter in range(self.words[at + 1] & 0xFFFF):
            place = at + 3 + 2 * parameter
            if self.words[place + 1] and not self.words[place]:
                self.words[place] = name

    def _section(self, id: int, at: int) -> None:
        section = self.sections.get(self._name(at))
        entries = self._entries(at)
        if section is None or not section.size or not self._lay_out(at, section, entries):
            self._as_enum(at, entries)

    def _entries(self, at: int) -> list[tuple[int, int, int]]:
        """Return (type, offset, size) of each entry of a DATASEC."""
        words = self.words[at + 3 : at + 3 + 3 * (self.words[at + 1] & 0xFFFF)]
        return [(words[i], words[i + 1], words[i + 2]) for i in range(0, len(words), 3)]

    def _lay_out(self, at: int, section: Section, entries: list[tuple[int, int, int]]) -> bool:
        """Write sizes and offsets, in order; False where one does not fit, or an entry is no variable."""
        placed: list[tuple[int, int, int]] = []
        for type_, offset, size in entries:
            if not 0 < type_ < len(self.btf) or self.btf.kind(type_) != Kind.VAR:
                return False
            name = self._name(self.btf.offset_of(type_))
            placed.append((self.offsets.get((section.index, name), offset), type_, size))
        ends = sorted((offset, offset + size) for offset, _, size in placed)
        overlap = any(end > start for (_, end), (start, _) in pairwise(ends))
        if overlap or (ends and ends[-1][1] > section.size):
            return False
        if not placed or max(section.size, *(offset for offset, _, _ in placed)) > MAX_WORD:
            return False
        self.words[at + 2] = section.size
        for number, (offset, type_, size) in enumerate(sorted(placed)):
            place = at + 3 + 3 * number
            self.words[place : place + 3] = array("I", (type_, offset, size))
        return True

    def _as_enum(self, at: int, entries: list[tuple[int, int, int]]) -> None:
        """Turn a DATASEC into an enum of its entries' names: three words for each, like its own."""
        assert EXTRA_WORDS[Kind.DATASEC] == EXTRA_WORDS[Kind.ENUM64]
        self.words[at : at + 3] = array("I", (0, Kind.ENUM64 << 24 | len(entries), ENUM64_SIZE))
        for number, (type_, _, _) in enumerate(entries):
            name = self.words[self.btf.offset_of(type_)] if 0 < type_ < len(self.btf) else 0
            place = at + 3 + 3 * number
            self.words[place : place + 3] = array("I", (name, number, 0))


def section_types(btf: Btf | None, linux_btf: bytes | None) -> Mapping[str, int]:
    """Return the ids of the DATASECs by the name of their section, without those that Linux is not told.

    `linux_btf` is what `for_linux` made of the types.
    """
    if btf is None or linux_btf is None:
        return {}
    header_size, start, size = HEADER.unpack_from(linux_btf)[3:6]
    words = array("I", linux_btf[header_size + start : header_size + start + size])
    ids = (id for id in range(1, len(btf)) if words[btf.offset_of(id) + 1] >> 24 & 0x1F == Kind.DATASEC)
    found = {btf.type(id).name: id for id in ids}
    return {name: id for name, id in found.items() if name not in (KCONFIG, KSYMS)}
