"""BTF.ext, what BTF says of instructions: their source lines, functions and CO-RE relocations.

    header | record size | section, count | record | record ... | section, count | record ...
             each of the three parts looks like this; every record starts with the offset of its
             instruction, in bytes from the start of the section

Source: the kernel's Documentation/bpf/btf.rst, struct btf_ext_header.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator
from functools import cached_property

from ebpfjit.elf.btf import MAGIC, Btf
from ebpfjit.elf.budget import text_size
from ebpfjit.errors import LoadError
from ebpfjit.program import SourceLine
from ebpfjit.record import dataclass

HEADER = struct.Struct("<HBBI")
RANGE = struct.Struct("<II")
PARTS = ("function info", "line info", "CO-RE relocations")
#                 the words of a record
FUNCTION_RECORD = struct.Struct("<II")
LINE_RECORD = struct.Struct("<IIII")
RELOCATION_RECORD = struct.Struct("<IIII")
RECORD_SIZE = 400
"""Bytes that a record takes at most once it is read."""
RAW_RECORD_SIZE = 250
"""The same for one whose words are kept as they are."""


@dataclass(frozen=True, slots=True)
class CoreRelocation:
    """One CO-RE relocation of the instruction at `offset` bytes of its section.

    `type` is the id of the local type, `access` the path into it ("0:1:2"), `kind` a
    BPF_CORE_* number.
    """

    offset: int
    type: int
    access: str
    kind: int


def has_core_relocations(data: bytes | memoryview) -> bool:
    """True where the header of a .BTF.ext section says that there are some; for one without .BTF."""
    start = HEADER.size + RANGE.size * PARTS.index("CO-RE relocations")
    return len(data) >= start + RANGE.size and bool(RANGE.unpack_from(data, start)[1])


class BtfExt:
    """The .BTF.ext section of an object; `btf` holds its strings and types.

    Raises LoadError where its ranges are wrong, here or when a part is first asked for.
    """

    def __init__(self, data: bytes | memoryview, btf: Btf, name: str) -> None:
        self.btf = btf
        self.name = name
        self._data = bytes(data)
        self._ranges = self._read_header()

    def error(self, message: str) -> LoadError:
        """Return a LoadError about this section."""
        return LoadError(f"{self.name}: {message}")

    def _read_header(self) -> list[tuple[int, int]]:
        """Return where each part starts and ends; a part that is not there is empty."""
        data = self._data
        if len(data) < HEADER.size:
            raise self.error(f"truncated header: {len(data)} of {HEADER.size} bytes")
        magic, version, _, size = HEADER.unpack_from(data)
        if magic != MAGIC or version != 1:
            raise self.error(f"magic number {magic:#x} and version {version}, not {MAGIC:#x} and 1")
        if size > len(data):
            raise self.error(f"truncated header: {len(data)} of {size} bytes")
        ranges: list[tuple[int, int]] = []
        for number, part in enumerate(PARTS):
            at = HEADER.size + RANGE.size * number
            offset, length = RANGE.unpack_from(data, at) if at + RANGE.size <= size else (0, 0)
            start, end = size + offset, size + offset + length
            if end > len(data):
                raise self.error(f"{part} are truncated: bytes {start:#x} to {end:#x} of {len(data):#x}")
            ranges.append((start, end))
        return ranges

    def _records(
        self, part: int, layout: struct.Struct, cost: int = RECORD_SIZE
    ) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield (section, words) of each record of a part; what a record has behind is skipped.

        What is made of one takes `cost` bytes at most.
        """
        data, (at, end) = self._data, self._ranges[part]
        what = PARTS[part]
        if at == end:
            return
        if at + 4 > end:
            raise self.error(f"{what} are truncated")
        (size,) = struct.unpack_from("<I", data, at)
        at += 4
        if size < layout.size or size % 4:
            raise self.error(f"records of {size} bytes in {what}, at least {layout.size} are needed")
        while at < end:
            if at + RANGE.size > end:
                raise self.error(f"{what} are truncated")
            section_name, count = RANGE.unpack_from(data, at)
            at += RANGE.size
            section = self.btf.string(section_name)
            if at + count * size > end:
                raise self.error(f"{what} of section {section!r} are truncated")
            self.btf.budget.spend(cost * (1 + count), what)
            for position in range(at, at + count * size, size):
                yield section, layout.unpack_from(data, position)
            at += count * size

    @cached_property
    def functions(self) -> dict[str, dict[int, int]]:
        """For each section, the type id of the function that starts at an offset in bytes."""
        found: dict[str, dict[int, int]] = {}
        for section, (offset, type_) in self._records(0, FUNCTION_RECORD):
            found.setdefault(section, {})[offset] = type_
        return found

    @cached_property
    def _lines(self) -> dict[str, tuple[list[int], list[SourceLine]]]:
        """For each section, offsets in bytes in order, and the line that starts at each."""
        texts: dict[int, str] = {}
        found: dict[str, dict[int, SourceLine]] = {}
        for section, (offset, file, text, position) in self._records(1, LINE_RECORD):
            if text not in texts:
                texts[text] = self._line_text(text)
            line = SourceLine(self.btf.string(file), position >> 10, position & 0x3FF, texts[text])
            found.setdefault(section, {})[offset] = line
        ordered = {section: sorted(lines.items()) for section, lines in found.items()}
        return {
            section: ([offset for offset, _ in lines], [line for _, line in lines])
            for section, lines in ordered.items()
        }

    def line_records(self, section: str, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield (offset, file, text, position) as they stand in the section, in order of offset.

        `file` and `text` are offsets of strings; `position` is line << 10 | column.
        """
        offsets, rows = self._raw_lines.get(section, ([], []))
        first, last = bisect_left(offsets, start), bisect_left(offsets, end)
        return ((offset, *row) for offset, row in zip(offsets[first:last], rows[first:last], strict=True))

    @cached_property
    def _raw_lines(self) -> dict[str, tuple[list[int], list[tuple[int, int, int]]]]:
        """For each section, offsets in bytes in order, and the words of the record of each."""
        found: dict[str, dict[int, tuple[int, int, int]]] = {}
        for section, (offset, file, text, position) in self._records(1, LINE_RECORD, RAW_RECORD_SIZE):
            found.setdefault(section, {})[offset] = file, text, position
        ordered = {section: sorted(rows.items()) for section, rows in found.items()}
        return {
            section: ([offset for offset, _ in rows], [row for _, row in rows])
            for section, rows in ordered.items()
        }

    def _line_text(self, offset: int) -> str:
        """Return the text of a line without the blanks around it."""
        text = self.btf.string(offset)
        self.btf.budget.spend(text_size(text.encode()), "the texts of source lines")
        return text.strip()

    def lines(self, section: str, start: int, end: int) -> Iterator[tuple[int, SourceLine]]:
        """Yield (offset, line) of what starts from byte `start` to before `end` of a section."""
        offsets, lines = self._lines.get(section, ([], []))
        first, last = bisect_left(offsets, start), bisect_left(offsets, end)
        return zip(offsets[first:last], lines[first:last], strict=True)

    def check(self) -> None:
        """Read all that programs are linked with. Raises LoadError where something is wrong with it."""
        assert self.functions is not None
        assert self._lines is not None
        assert self.relocations is not None

    def line_at(self, section: str, offset: int) -> SourceLine | None:
        """Return the line of the instruction at `offset` bytes of a section, where it is known."""
        offsets, lines = self._lines.get(section, ([], []))
        index = bisect_left(offsets, offset + 1)
        return lines[index - 1] if index else None

    @cached_property
    def relocations(self) -> dict[str, tuple[CoreRelocation, ...]]:
        """The CO-RE relocations of each section."""
        found: dict[str, list[CoreRelocation]] = {}
        for section, (offset, type_, access, kind) in self._records(2, RELOCATION_RECORD):
            relocation = CoreRelocation(offset, type_, self.btf.string(access), kind)
            found.setdefault(section, []).append(relocation)
        return {section: tuple(relocations) for section, relocations in found.items()}
