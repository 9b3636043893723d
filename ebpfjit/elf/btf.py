"""BTF, the types of an object file or of a kernel: parsed one type at a time, when asked for.

    +--------+-----------------------------------+---------------------------+
    | header | types 1, 2, 3 ...                 | strings, each ends in a 0 |
    +--------+-----------------------------------+---------------------------+
               12 bytes each, and what its kind adds

Source: the kernel's Documentation/bpf/btf.rst. Type 0 is void. A kernel has 100,000 types and more, so
only their offsets are found in advance.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable, Iterator
from enum import IntEnum
from functools import cache, cached_property
from typing import Any

from ebpfjit.elf.budget import Budget, text_size
from ebpfjit.errors import LoadError
from ebpfjit.named import cut
from ebpfjit.record import dataclass

MAGIC = 0xEB9F
HEADER = struct.Struct("<HBBIIIII")
MAX_DEPTH = 32
"""How many typedefs and qualifiers may stand before a type, and how deep types may nest (libbpf's limit)."""
MAX_SCANS = 16
"""How often the strings are searched for a name, before all names are put into an index."""
TYPE_SIZE, MEMBER_SIZE = 400, 200
"""Bytes that a type, and each of its members, takes at most once it is parsed."""


class Kind(IntEnum):
    """The kinds of types (BTF_KIND_*)."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


#  kind             words after the first three, and for each of its vlen entries
EXTRA_WORDS: dict[int, tuple[int, int]] = {
    Kind.INT: (1, 0),
    Kind.PTR: (0, 0),
    Kind.ARRAY: (3, 0),
    Kind.STRUCT: (0, 3),
    Kind.UNION: (0, 3),
    Kind.ENUM: (0, 2),
    Kind.FWD: (0, 0),
    Kind.TYPEDEF: (0, 0),
    Kind.VOLATILE: (0, 0),
    Kind.CONST: (0, 0),
    Kind.RESTRICT: (0, 0),
    Kind.FUNC: (0, 0),
    Kind.FUNC_PROTO: (0, 2),
    Kind.VAR: (1, 0),
    Kind.DATASEC: (0, 3),
    Kind.FLOAT: (0, 0),
    Kind.DECL_TAG: (1, 0),
    Kind.TYPE_TAG: (0, 0),
    Kind.ENUM64: (0, 3),
}
QUALIFIERS = frozenset((Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG))
COMPOSITES = frozenset((Kind.STRUCT, Kind.UNION))
ENUMS = frozenset((Kind.ENUM, Kind.ENUM64))
SIZED = frozenset((Kind.INT, Kind.FLOAT, Kind.DATASEC)) | COMPOSITES | ENUMS
POINTER_SIZE = 8


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a struct or union; `bit_size` is 0 where it is no bit-field."""

    name: str
    type: int
    bit_offset: int
    bit_size: int


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of a data section: the id of its VAR, `offset` and `size` in bytes."""

    type: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Type:
    """One type. What a kind does not have is 0 or empty.

    `size` counts bytes. `target` is the id of the type that it refers to: of a pointer, a typedef,
    an array's element, a variable, a function's prototype, what a prototype returns. `count` is
    the number of an array's elements, `index` the type of its index (a declaration tag: which member it is
    of, or NO_MEMBER), `encoding` an integer's BTF_INT_* (1 signed, 2 char, 4 bool),
    `bits` its bits, `linkage` that of a variable or function (2: extern). `is_flagged` is
    kind_flag: a signed enum, a forward declaration of a union.
    """

    id: int
    kind: Kind
    name: str = ""
    size: int = 0
    target: int = 0
    count: int = 0
    index: int = 0
    encoding: int = 0
    bits: int = 0
    linkage: int = 0
    is_flagged: bool = False
    members: tuple[Member, ...] = ()
    enumerators: tuple[tuple[str, int], ...] = ()
    variables: tuple[Variable, ...] = ()
    parameters: tuple[tuple[str, int], ...] = ()

    @property
    def is_composite(self) -> bool:
        """True for a struct or a union."""
        return self.kind in COMPOSITES

    @property
    def is_enum(self) -> bool:
        """True for an enum of 32 or 64 bits."""
        return self.kind in ENUMS

    @property
    def is_signed(self) -> bool:
        """True for a signed integer or enum."""
        return bool(self.encoding & 1) or (self.is_enum and self.is_flagged)


NO_MEMBER = 0xFFFFFFFF
"""The component_idx of a declaration tag that is not of one member."""

VOID = Type(0, Kind.VOID, "void")


class Btf:
    """The types of one .BTF section or BTF file; `name` is what error messages call it.

    `data` is little-endian BTF. Raises LoadError where its ranges or kinds are wrong; a wrong type
    is a LoadError when it is looked at. `budget` pays for what is made of the types, each time
    only once: that of the file they are from, else one by the size of the data. `codecs` are
    those of `ebpfjit.elf.codec`, by the class of their integers and the type's id, `members` what
    `ebpfjit.elf.objects` has found in structs, by the id.
    """

    def __reduce__(self) -> tuple[type[Btf], tuple[bytes, str]]:
        return Btf, (self._bytes(), self.name)

    def __repr__(self) -> str:
        return cut(f"<types of {self.name}: {len(self._bytes())} bytes of BTF>")

    def __deepcopy__(self, memo: object) -> Btf:
        """Itself: what changes in it is only what was found already."""
        return self

    def __init__(self, data: bytes | memoryview, name: str = "BTF", budget: Budget | None = None) -> None:
        self.name = name
        data = bytes(data)
        self.budget = budget if budget is not None else Budget(name, len(data))
        if len(data) < HEADER.size:
            raise self.error(f"truncated header: {len(data)} of {HEADER.size} bytes")
        magic, version, _, header_size, type_offset, type_size, string_offset, string_size = (
            HEADER.unpack_from(data)
        )
        if magic != MAGIC:
            swapped = magic == MAGIC >> 8 | (MAGIC & 0xFF) << 8
            order = ": types of big-endian machines; make them for this byte order (clang -target bpfel)"
            raise self.error(f"the magic number is {magic:#x}, not {MAGIC:#x}{order if swapped else ''}")
        if version != 1:
            raise self.error(f"version {version} is not supported, version 1 is")
        for what, offset, size in (
            ("types", type_offset, type_size),
            ("strings", string_offset, string_size),
        ):
            if header_size < HEADER.size or header_size + offset + size > len(data):
                raise self.error(
                    f"truncated: {what} are bytes {header_size + offset:#x} to"
                    f" {header_size + offset + size:#x} of {len(data):#x}"
                )
        if type_size % 4:
            raise self.error(f"{type_size} bytes of types are no multiple of 4")
        start = header_size + string_offset
        self.strings = data[start : start + string_size]
        start = header_size + type_offset
        self._words = array("I", data[start : start + type_size])
        if sys.byteorder == "big":
            self._words.byteswap()
        self._types: dict[int, Type] = {0: VOID}
        self._strings: dict[int, str] = {0: ""}
        self._resolved: dict[int, Type] = {}
        self._sizes: dict[int, int] = {}
        self._scans = 0
        self.codecs: dict[type, dict[int, Any]] = {}
        self.members: dict[int, tuple[tuple[Member, int], ...]] = {}

    def _bytes(self) -> bytes:
        """Return what it was made of."""
        words = array("I", self._words)
        if sys.byteorder == "big":
            words.byteswap()
        types = words.tobytes()
        sizes = 0, len(types), len(types), len(self.strings)
        return HEADER.pack(MAGIC, 1, 0, HEADER.size, *sizes) + types + self.strings

    def error(self, message: str) -> LoadError:
        """Return a LoadError about this BTF."""
        return LoadError(f"{self.name}: {message}")

    @cached_property
    def _offsets(self) -> list[int]:
        """Where each type starts, in words; type 0 has none."""
        words, offsets, position = self._words, [0], 0
        extra = {kind: (3 + fixed, each) for kind, (fixed, each) in EXTRA_WORDS.items()}
        end = len(words)
        try:
            while position < end:
                offsets.append(position)
                info = words[position + 1]
                fixed, each = extra[info >> 24 & 0x1F]
                position += fixed + each * (info & 0xFFFF)
        except (IndexError, KeyError) as error:
            what = "is truncated" if isinstance(error, IndexError) else f"has an unknown kind {error}"
            raise self.error(f"type {len(offsets) - 1} {what}") from None
        if position != end:
            raise self.error(f"type {len(offsets) - 1} is truncated")
        return offsets

    def __len__(self) -> int:
        """The number of types, void among them: ids are below it."""
        return len(self._offsets)

    def string(self, offset: int) -> str:
        """Return the string at `offset` of the strings, the same one each time."""
        found = self._strings.get(offset)
        if found is None:
            data = self._raw(offset)
            self.budget.spend(text_size(data), "the strings of BTF")
            found = self._strings[offset] = data.decode("utf-8", "backslashreplace")
        return found

    def _raw(self, offset: int) -> bytes:
        """Return the bytes of the string at `offset`."""
        end = self.strings.find(b"\0", offset)
        if offset >= len(self.strings) or end < 0:
            raise self.error(f"the string at {offset:#x} is outside of {len(self.strings):#x} bytes")
        return self.strings[offset:end]

    def type(self, id: int) -> Type:
        """Return the type of that id."""
        found = self._types.get(id)
        if found is None:
            found = self._types[id] = self._parse(id)
        return found

    def types(self) -> Iterator[Type]:
        """Yield every type but void, in order of id."""
        return (self.type(id) for id in range(1, len(self)))

    def offset_of(self, id: int) -> int:
        """Return where a type starts, in words from the first one."""
        return self._offsets[id]

    def kind(self, id: int) -> int:
        """Return the kind of a type, without parsing it."""
        return self._words[self._offsets[id] + 1] >> 24 & 0x1F if id else 0

    def _parse(self, id: int) -> Type:
        if not 0 <= id < len(self):
            raise self.error(f"there is no type {id}, there are {len(self)}")
        words, at = self._words, self._offsets[id]
        name_offset, info, third = words[at : at + 3]
        kind, vlen, flag = Kind(info >> 24 & 0x1F), info & 0xFFFF, bool(info >> 31)
        fixed, each = EXTRA_WORDS[kind]
        self.budget.spend(TYPE_SIZE + MEMBER_SIZE * (vlen if each else 0), "the types of BTF")
        name = self.string(name_offset)
        rest = words[at + 3 : at + 3 + fixed + each * vlen]
        rows = [rest[i : i + each] for i in range(0, each * vlen, each)] if each else []
        size, target = (third, 0) if kind in SIZED else (0, third)
        match kind:
            case Kind.INT:
                return Type(id, kind, name, size, encoding=rest[0] >> 24 & 15, bits=rest[0] & 0xFF)
            case Kind.ARRAY:
                return Type(id, kind, name, target=rest[0], index=rest[1], count=rest[2])
            case Kind.STRUCT | Kind.UNION:
                members = tuple(
                    Member(self.string(row[0]), row[1], row[2] & 0xFFFFFF, row[2] >> 24)
                    if flag
                    else Member(self.string(row[0]), row[1], row[2], 0)
                    for row in rows
                )
                return Type(id, kind, name, size, members=members, is_flagged=flag)
            case Kind.ENUM | Kind.ENUM64:
                return Type(id, kind, name, size, is_flagged=flag, enumerators=self._values(rows, flag))
            case Kind.FUNC_PROTO:
                parameters = tuple((self.string(row[0]), row[1]) for row in rows)
                return Type(id, kind, name, target=target, parameters=parameters)
            case Kind.VAR:
                return Type(id, kind, name, target=target, linkage=rest[0])
            case Kind.FUNC:
                return Type(id, kind, name, target=target, linkage=vlen)
            case Kind.DATASEC:
                variables = tuple(Variable(*row) for row in rows)
                return Type(id, kind, name, size, variables=variables)
            case Kind.DECL_TAG:
                return Type(id, kind, name, target=target, index=rest[0])
            case Kind.PTR:
                return Type(id, kind, name, POINTER_SIZE, target)
            case _:
                return Type(id, kind, name, size, target, is_flagged=flag)

    def _values(self, rows: list[array[int]], signed: bool) -> tuple[tuple[str, int], ...]:
        """Return the names and values of an enum: one word each, or a low and a high one."""
        values: list[tuple[str, int]] = []
        for name, low, *high in rows:
            width = 64 if high else 32
            value = low | high[0] << 32 if high else low
            if signed and value >> width - 1:
                value -= 1 << width
            values.append((self.string(name), value))
        return tuple(values)

    def resolve(self, id: int) -> Type:
        """Return the type behind typedefs and qualifiers."""
        found = self._resolved.get(id)
        if found is None:
            found = self._resolved[id] = self._resolve(id)
        return found

    def _resolve(self, id: int) -> Type:
        type_ = self.type(id)
        for _ in range(MAX_DEPTH):
            if type_.kind not in QUALIFIERS:
                return type_
            type_ = self.type(type_.target)
        raise self.error(f"type {id} has more than {MAX_DEPTH} typedefs and qualifiers, or refers to itself")

    def size_of(self, id: int) -> int:
        """Return how many bytes a value of the type takes; raises LoadError where it has no size."""
        found = self._sizes.get(id)
        if found is None:
            found = self._sizes[id] = self._size_of(id)
        return found

    def _size_of(self, id: int) -> int:
        type_, count = self.resolve(id), 1
        for _ in range(MAX_DEPTH):
            if type_.kind is Kind.ARRAY:
                count *= type_.count
                type_ = self.resolve(type_.target)
            elif type_.kind is Kind.VAR:
                type_ = self.resolve(type_.target)
            elif type_.kind in SIZED or type_.kind is Kind.PTR:
                return count * type_.size
            else:
                break
        advice = ""
        if type_.kind is Kind.FWD:
            advice = (
                ": the object only declares it (clang leaves out what only pointers lead to): "
                "declare a variable of it"
            )
        raise self.error(f"type {id}, {self.describe(id)}, has no size{advice}")

    @cached_property
    def _ids_of_names(self) -> dict[int, list[int]]:
        """The types of each name that has any, by the name's offset."""
        words, found = self._words, dict[int, list[int]]()
        for id, offset in enumerate(self._offsets[1:], 1):
            found.setdefault(words[offset], []).append(id)
        found.pop(0, None)
        return found

    @cached_property
    def contained(self) -> dict[tuple[int, int], tuple[str, str]]:
        """What "contains:STRUCT:MEMBER" says: by type and number of the member, or variable and NO_MEMBER."""
        parts: Callable[[str], tuple[str, str, str]] = cache(lambda rest: rest.partition(":"))
        found: dict[tuple[int, int], tuple[str, str]] = {}
        for tag, rest in self.tags("contains:"):
            struct, _, member = parts(rest)
            if member:
                found[tag.target, tag.index] = struct, member
        return found

    def tags(self, prefix: str) -> Iterator[tuple[Type, str]]:
        """Yield the declaration tags whose names begin so, with the rest: the same string for the same name.

        Thousands may share a name, and this may have a megabyte: who takes it apart does so once (`cache`).
        """
        rests: dict[str, str] = {}
        for id in range(1, len(self)) if prefix.encode() in self.strings else ():
            if self.kind(id) != Kind.DECL_TAG:
                continue
            tag = self.type(id)
            if tag.name not in rests and tag.name.startswith(prefix):
                rests[tag.name] = tag.name.removeprefix(prefix)
            if tag.name in rests:
                yield tag, rests[tag.name]

    def named(self, name: str, kinds: frozenset[Kind] | set[Kind], *, flavors: bool = False) -> list[int]:
        """Return the ids of the types of that name and one of those kinds, in order.

        With `flavors`, types called `name___anything` too: libbpf takes these for the same type.
        """
        self._scans += 1
        find = self._search if self._scans <= MAX_SCANS else self._look_up
        found = [id for id in find(name) if self.kind(id) in kinds]
        wanted = essential_name if flavors else str
        return [id for id in found if wanted(self.type(id).name) == name]

    def _search(self, name: str) -> list[int]:
        """Return the ids of the types that are called `name`, or a flavor of it, in order."""
        wanted, ids = name.encode("utf-8", "replace"), self._ids_of_names
        found: list[int] = []
        for suffix in (b"\0", b"___"):
            position = self.strings.find(wanted + suffix)
            while position >= 0:
                found += ids.get(position, ())
                position = self.strings.find(wanted + suffix, position + 1)
        return sorted(found)

    def _look_up(self, name: str) -> list[int]:
        """Return what `_search` does, from an index of all names."""
        return self._index.get(essential_name(name), [])

    @cached_property
    def _index(self) -> dict[str, list[int]]:
        """The ids of the types of each name without its flavor, in order."""
        found: dict[str, list[int]] = {}
        for offset, ids in self._ids_of_names.items():
            found.setdefault(essential_name(self.string(offset)), []).extend(ids)
        for ids in found.values():
            ids.sort()
        return found

    def describe(self, id: int) -> str:
        """Return a type as C names it, for a message: "struct task", "int *", "__u8[6]"."""
        return self._describe(id, MAX_DEPTH)

    def _describe(self, id: int, depth: int) -> str:
        if not depth:
            return "..."
        type_ = self.type(id)
        match type_.kind:
            case Kind.PTR:
                return f"{self._describe(type_.target, depth - 1)} *"
            case Kind.ARRAY:
                return f"{self._describe(type_.target, depth - 1)}[{type_.count}]"
            case Kind.CONST | Kind.VOLATILE | Kind.RESTRICT | Kind.TYPE_TAG:
                word = "" if type_.kind is Kind.TYPE_TAG else f"{type_.kind.name.lower()} "
                return f"{word}{self._describe(type_.target, depth - 1)}"
            case Kind.STRUCT | Kind.UNION:
                return f"{type_.kind.name.lower()} {type_.name or '<anonymous>'}"
            case Kind.ENUM | Kind.ENUM64:
                return f"enum {type_.name or '<anonymous>'}"
            case Kind.FWD:
                return f"{'union' if type_.is_flagged else 'struct'} {type_.name}"
            case Kind.FUNC_PROTO:
                return "function"
            case _:
                return type_.name


def essential_name(name: str) -> str:
    """Return a type's name without its flavor: "task_struct" of "task_struct___old"."""
    position = name.rfind("___")
    return name[:position] if position > 0 and position + 3 < len(name) else name
