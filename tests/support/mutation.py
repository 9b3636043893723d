"""Object files with something wrong in them: bits, and every table that an object has, at its extremes.

mutate(data, random.Random(7), others)  ->  bytes, the same ones each time
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass

HEADER_SIZE = SECTION_SIZE = 64
WORDS = {1: "<B", 2: "<H", 4: "<I", 8: "<Q"}
EXTREMES = (
    0, 1, 2, 3, 4, 7, 8, 16, 24, 64, 0x7F, 0xFF, 4095, 4096, 0xFFF0, 0xFFFF, 1 << 16, 1 << 20, 1 << 28,
    1 << 30, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF8, 0xFFFFFFFF, 1 << 32, 1 << 63, (1 << 64) - 8, (1 << 64) - 1,
)  # fmt: skip

#  (offset, size) of the fields of ELF's tables
ELF_HEADER = (
    (4, 1),
    (5, 1),
    (16, 2),
    (18, 2),
    (0x20, 8),
    (0x28, 8),
    (0x34, 2),
    (0x3A, 2),
    (0x3C, 2),
    (0x3E, 2),
)
SECTION = ((0, 4), (4, 4), (8, 8), (16, 8), (24, 8), (32, 8), (40, 4), (44, 4), (48, 8), (56, 8))
SYMBOL = ((0, 4), (4, 1), (5, 1), (6, 2), (8, 8), (16, 8))
RELOCATION = ((0, 8), (8, 4), (12, 4))
INSTRUCTION = ((0, 1), (1, 1), (2, 2), (4, 4))
BTF_HEADER = ((0, 2), (2, 1), (4, 4), (8, 4), (12, 4), (16, 4), (20, 4))
EXTRA_WORDS = {
    1: (1, 0), 3: (3, 0), 4: (0, 3), 5: (0, 3), 6: (0, 2), 13: (0, 2), 14: (1, 0), 15: (0, 3), 17: (1, 0),
    19: (0, 3),
}  # fmt: skip
"""Words of a BTF type by its kind, after the first three; and of each of its parts."""
SYMTAB, REL, NOBITS = 2, 9, 8
EXECUTABLE = 4
ARRAY = 3


@dataclass(frozen=True, slots=True)
class Place:
    """A section: where its header is in the file, and its contents."""

    name: bytes
    header: int
    type: int
    flags: int
    offset: int
    size: int


def places(data: bytes) -> list[Place]:
    """Return the sections of a sound object."""
    (table,), (count, names) = struct.unpack_from("<Q", data, 0x28), struct.unpack_from("<HH", data, 0x3C)
    (start,) = struct.unpack_from("<Q", data, table + SECTION_SIZE * names + 24)
    found: list[Place] = []
    for at in range(table, table + SECTION_SIZE * count, SECTION_SIZE):
        name, type_, flags, _, offset, size = struct.unpack_from("<IIQQQQ", data, at)
        end = data.index(b"\0", start + name)
        found.append(
            Place(data[start + name : end], at, type_, flags, offset, 0 if type_ == NOBITS else size)
        )
    return found


class Mutation:
    """One object while it is made wrong; what it was before says where things are."""

    def __init__(self, original: bytes, chance: random.Random, others: tuple[bytes, ...]) -> None:
        self.data = bytearray(original)
        self.chance = chance
        self.others = others
        self.places = places(original)

    def value(self) -> int:
        """Return a number that may hurt."""
        if self.chance.random() < 0.2:
            return self.chance.randrange(1 << self.chance.choice((3, 6, 10, 16, 32)))
        return self.chance.choice((*EXTREMES, len(self.data), len(self.data) - 1))

    def write(self, at: int, size: int, value: int) -> None:
        """Write a number where the object has it."""
        if at + size <= len(self.data):
            struct.pack_into(WORDS[size], self.data, at, value % (1 << 8 * size))

    def field(self, at: int, fields: tuple[tuple[int, int], ...]) -> None:
        """Change a field of the entry at `at`: a bit, a bit more or less, or to an extreme."""
        offset, size = self.chance.choice(fields)
        if at + offset + size > len(self.data):
            return
        (old,) = struct.unpack_from(WORDS[size], self.data, at + offset)
        bit = 1 << self.chance.randrange(8 * size)
        self.write(
            at + offset, size, self.chance.choice((self.value(), self.value(), old ^ bit, old + 1, old - 1))
        )

    def pick(self, *types: int, flags: int = 0, names: tuple[bytes, ...] = ()) -> Place | None:
        """Return a section of these types, or flags, or names."""
        fitting = [
            place
            for place in self.places
            if place.size >= 8
            and (
                place.type in types
                or (flags and place.flags & flags)
                or any(map(place.name.startswith, names))
            )
        ]
        return self.chance.choice(fitting) if fitting else None

    def entry(self, place: Place | None, size: int, fields: tuple[tuple[int, int], ...]) -> None:
        """Change a field of an entry of a section that is a table."""
        if place is not None and place.size >= size:
            self.field(place.offset + size * self.chance.randrange(place.size // size), fields)

    # What goes wrong

    def some_bytes(self) -> None:
        position = self.chance.randrange(len(self.data))
        size = self.chance.choice((1, 1, 2, 4, 8))
        self.field(position, ((0, size),))

    def elf_header(self) -> None:
        self.field(0, ELF_HEADER)

    def section_header(self) -> None:
        self.field(self.chance.choice(self.places).header, SECTION)

    def swapped_sections(self) -> None:
        first, second = (self.chance.choice(self.places).header for _ in range(2))
        start, stop = self.chance.choice(((0, 4), (4, 16), (24, 40), (40, 64)))
        self.data[first + start : first + stop], self.data[second + start : second + stop] = (
            self.data[second + start : second + stop], self.data[first + start : first + stop],
        )  # fmt: skip

    def symbol(self) -> None:
        self.entry(self.pick(SYMTAB), 24, SYMBOL)

    def relocation(self) -> None:
        self.entry(self.pick(REL), 16, RELOCATION)

    def instruction(self) -> None:
        self.entry(self.pick(flags=EXECUTABLE), 8, INSTRUCTION)

    def legacy_map(self) -> None:
        self.entry(self.pick(names=(b"maps",)), 4, ((0, 4),))

    def btf_header(self) -> None:
        place = self.pick(names=(b".BTF",))
        if place is not None:
            self.field(place.offset, BTF_HEADER)

    def btf_ext(self) -> None:
        self.entry(self.pick(names=(b".BTF.ext",)), 4, ((0, 4),))

    def btf_words(self) -> list[tuple[int, int, int]]:
        """Return (position, kind, words) of each type of .BTF."""
        place = next((place for place in self.places if place.name == b".BTF" and place.size >= 24), None)
        if place is None:
            return []
        if place.offset + 24 > len(self.data):
            return []
        size, offset, length = struct.unpack_from("<III", self.data, place.offset + 4)
        at, end = place.offset + size + offset, place.offset + size + offset + length
        found: list[tuple[int, int, int]] = []
        while at + 12 <= min(end, len(self.data)):
            info = struct.unpack_from("<I", self.data, at + 4)[0]
            kind, count = info >> 24 & 31, info & 0xFFFF
            fixed, each = EXTRA_WORDS.get(kind, (0, 0))
            found.append((at, kind, 3 + fixed + each * count))
            at += 4 * (3 + fixed + each * count)
        return found

    def btf_type(self) -> None:
        types = self.btf_words()
        if types:
            at, _, words = self.chance.choice(types)
            word = self.chance.randrange(words)
            # A number of another type is what a word of a type is in most cases.
            value = self.chance.choice((self.value(), self.chance.randrange(len(types) + 2)))
            self.write(at + 4 * word, 4, value)

    def btf_info(self) -> None:
        types = self.btf_words()
        if types:
            at = self.chance.choice(types)[0]
            kind, count = self.chance.randrange(32), self.chance.choice((0, 1, 2, 5, 100, 0xFFFF))
            self.write(at + 4, 4, self.chance.randrange(2) << 31 | kind << 24 | count)

    def btf_array(self) -> None:
        """What a map's definition says is the length of an array."""
        arrays = [at for at, kind, _ in self.btf_words() if kind == ARRAY]
        if arrays:
            at = self.chance.choice(arrays)
            self.write(at + 20, 4, self.chance.choice((self.value(), self.chance.randrange(34))))

    def splice(self) -> None:
        """The contents of another object's section, over one of ours."""
        other = self.chance.choice(self.others)
        theirs = self.chance.choice(places(other))
        ours = self.pick(names=(theirs.name,)) or self.chance.choice(self.places)
        size = min(ours.size, theirs.size)
        self.data[ours.offset : ours.offset + size] = other[theirs.offset : theirs.offset + size]

    def truncation(self) -> None:
        del self.data[self.chance.randrange(len(self.data)) :]

    def insertion(self) -> None:
        position = self.chance.randrange(len(self.data))
        self.data[position:position] = bytes(self.chance.randrange(1, 17))


#  how often, of 100
KINDS: dict[Callable[[Mutation], None], int] = {
    Mutation.some_bytes: 10,
    Mutation.elf_header: 3,
    Mutation.section_header: 12,
    Mutation.swapped_sections: 3,
    Mutation.symbol: 10,
    Mutation.relocation: 8,
    Mutation.instruction: 10,
    Mutation.legacy_map: 3,
    Mutation.btf_header: 3,
    Mutation.btf_ext: 8,
    Mutation.btf_type: 12,
    Mutation.btf_info: 5,
    Mutation.btf_array: 8,
    Mutation.splice: 3,
    Mutation.truncation: 1,
    Mutation.insertion: 1,
}


def mutate(data: bytes, chance: random.Random, others: tuple[bytes, ...]) -> bytes:
    """Return an object with one to four things wrong; sections are taken from `others`."""
    mutation = Mutation(data, chance, others)
    for kind in chance.choices(list(KINDS), list(KINDS.values()), k=chance.choice((1, 1, 1, 2, 2, 4))):
        if len(mutation.data) > HEADER_SIZE:
            kind(mutation)
    return bytes(mutation.data)
