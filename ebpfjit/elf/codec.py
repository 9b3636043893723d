"""How the bytes of a value read as Python values, as its BTF type says.

int, enum, pointer   int            struct, union   dict; members of anonymous ones stand in it
bool                 bool           char[16]        bytes (arrays of any integers of one byte)
float, double        float          int[4]          list

Types whose values Python has no room for are bytes too: an int[1 << 24], a union of 1,000 large structs.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ebpfjit.elf.btf import MAX_DEPTH, Btf, Kind, Type
from ebpfjit.named import cut
from ebpfjit.record import dataclass
from ebpfjit.runtime.maps.definition import Codec

FLOAT_FORMATS = {2: "<e", 4: "<f", 8: "<d"}
MAX_INTEGER = 16
"""Bytes of the largest integer that C has."""
BOOL = 4
"""BTF_INT_BOOL."""

MAX_FIELDS = 1 << 16
"""Members of a struct, those of anonymous members included; C has no need of so many."""

MAX_WEIGHT = 64 << 20
"""Bytes that a value may take as Python values; a value of more is read as its own bytes."""
NUMBER_WEIGHT, ELEMENT_WEIGHT, FIELD_WEIGHT = 40, 10, 120
FIELD_SIZE = 256
"""Bytes that the codec of a struct keeps for each of its members, at most."""


def signed_range(bits: int, signed: bool) -> tuple[int, int]:
    """Return the smallest and the largest integer of so many bits."""
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)


def whole(value: Any) -> int:
    """Return an integer as a plain one. Raises TypeError for what is none."""
    try:
        return operator.index(value)
    except TypeError:
        shown = isinstance(value, str | float)  # others may be deep
        told = repr(value) if shown else f"a {type(value).__name__}"
        raise TypeError(f"{cut(told)} is no whole number") from None


def check_range(value: Any, bits: int, signed: bool) -> int:
    """Return an integer modulo 2**bits; raises TypeError or ValueError where it does not fit."""
    number = whole(value)
    low, high = signed_range(bits, signed)
    if not low <= number <= high:
        raise ValueError(f"{number} is not from {low} to {high}")
    return number & (1 << bits) - 1


@dataclass(frozen=True, slots=True)
class Integer:
    """An integer, enum or pointer of `size` bytes."""

    size: int
    signed: bool = False

    def decode(self, data: bytes) -> int:
        """Return the integer."""
        return int.from_bytes(data, "little", signed=self.signed)

    def encode(self, value: Any) -> bytes:
        """Return the bytes of an integer in range."""
        return check_range(value, 8 * self.size, self.signed).to_bytes(self.size, "little")


@dataclass(frozen=True, slots=True)
class Converted(Integer):
    """An integer that takes numbers of either sign, as C converts them."""

    def encode(self, value: Any) -> bytes:
        """Return the bytes of an integer of so many bits."""
        number, bits = whole(value), 8 * self.size
        if not -(1 << bits - 1) <= number < 1 << bits:
            raise ValueError(f"takes numbers of {bits} bits, not {number}")
        return (number & (1 << bits) - 1).to_bytes(self.size, "little")


@dataclass(frozen=True, slots=True)
class Boolean:
    """A bool: any other byte than 0 is True."""

    size: int

    def decode(self, data: bytes) -> bool:
        """Return True where any bit is set."""
        return any(data)

    def encode(self, value: Any) -> bytes:
        """Return the bytes of a bool, or of the integers 0 and 1."""
        if value not in (0, 1):
            raise ValueError(f"{value!r} is neither False nor True")
        return int(value).to_bytes(self.size, "little")


@dataclass(frozen=True, slots=True)
class Float:
    """A float or double."""

    size: int

    def decode(self, data: bytes) -> float:
        """Return the number."""
        number: float = struct.unpack(FLOAT_FORMATS[self.size], data)[0]
        return number

    def encode(self, value: Any) -> bytes:
        """Return the bytes of a number."""
        try:
            return struct.pack(FLOAT_FORMATS[self.size], value)
        except (struct.error, OverflowError) as error:
            raise ValueError(f"{value!r} does not fit a float of {self.size} bytes") from error


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes as they are: arrays of characters, and what Python has no value for."""

    size: int

    def decode(self, data: bytes) -> bytes:
        """Return the bytes, all of them."""
        return bytes(data)

    def encode(self, value: Any) -> bytes:
        """Return bytes, a string's UTF-8, or numbers of a byte each, with zeros behind."""
        if isinstance(value, list | tuple):
            data = b"".join(check_range(each, 8, signed=each < 0).to_bytes(1, "little") for each in value)
        else:
            data = value.encode() if isinstance(value, str) else bytes(memoryview(value))
        if len(data) > self.size:
            raise ValueError(f"{len(data)} bytes do not fit {self.size}")
        return data.ljust(self.size, b"\0")


@dataclass(frozen=True, slots=True)
class Array:
    """`count` elements, as a list."""

    element: Codec
    count: int

    @property
    def size(self) -> int:
        """Bytes of all elements."""
        return self.element.size * self.count

    def decode(self, data: bytes) -> list[Any]:
        """Return the elements."""
        step = self.element.size
        return [self.element.decode(data[at : at + step]) for at in range(0, self.size, step)] if step else []

    def encode(self, value: Any) -> bytes:
        """Return the bytes of a sequence of exactly `count` elements."""
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != self.count:
            raise ValueError(f"{value!r} is not a sequence of {self.count} elements")
        return b"".join(self.element.encode(element) for element in value)


class Place(Protocol):
    """Where a member of a struct stands, and how it reads."""

    def get(self, data: bytes) -> Any:
        """Return the member's value from the struct's bytes."""

    def put(self, data: bytearray, value: Any) -> None:
        """Write the member into the struct's bytes."""


@dataclass(frozen=True, slots=True)
class Field:
    """A member that starts at a byte."""

    offset: int
    codec: Codec

    def get(self, data: bytes) -> Any:
        """Return the member's value."""
        return self.codec.decode(data[self.offset : self.offset + self.codec.size])

    def put(self, data: bytearray, value: Any) -> None:
        """Write the member."""
        data[self.offset : self.offset + self.codec.size] = self.codec.encode(value)


@dataclass(frozen=True, slots=True)
class BitField:
    """A member of `bit_size` bits, from bit `bit_offset` on, the lowest bit first."""

    bit_offset: int
    bit_size: int
    signed: bool

    @property
    def _range(self) -> tuple[slice, int]:
        first, last = self.bit_offset // 8, (self.bit_offset + self.bit_size - 1) // 8
        return slice(first, last + 1), self.bit_offset % 8

    def get(self, data: bytes) -> int:
        """Return the member's value."""
        where, shift = self._range
        value = int.from_bytes(data[where], "little") >> shift & (1 << self.bit_size) - 1
        return value - (1 << self.bit_size) if self.signed and value >> self.bit_size - 1 else value

    def put(self, data: bytearray, value: Any) -> None:
        """Write the member, and leave the bits around it."""
        where, shift = self._range
        bits = check_range(value, self.bit_size, self.signed) << shift
        mask = (1 << self.bit_size) - 1 << shift
        old = int.from_bytes(data[where], "little")
        data[where] = (old & ~mask | bits).to_bytes(where.stop - where.start, "little")


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct or union as a dict; what `encode` is not given is zero, as in a C initializer.

    Of a union `decode` gives every member; `encode` writes those it is given, in their order.
    """

    name: str
    size: int
    fields: Mapping[str, Place]

    def decode(self, data: bytes) -> dict[str, Any]:
        """Return the members by name."""
        return {name: field.get(data) for name, field in self.fields.items()}

    def encode(self, value: Any) -> bytes:
        """Return the bytes of a mapping from the members' names to their values."""
        if not isinstance(value, Mapping):
            raise TypeError(f"{value!r} is not a mapping with the members of {self.name}")
        data = bytearray(self.size)
        for name, member in value.items():
            field = self.fields.get(name)
            if field is None:
                raise ValueError(f"{self.name} has no member {name!r}; it has {', '.join(self.fields)}")
            try:
                field.put(data, member)
            except (TypeError, ValueError) as error:
                raise told(error, name) from error
        return bytes(data)


def told(error: TypeError | ValueError, name: str) -> TypeError | ValueError:
    """Return an error that names a member or variable: one of a kind that takes any text."""
    kind = TypeError if isinstance(error, TypeError) else ValueError
    return kind(f"{name}: {error}")


def codec_of(btf: Btf, id: int, integer: type[Integer] = Integer) -> Codec:
    """Return the codec of a type (of a variable's, where `id` is a VAR), made once.

    `integer` is the class of integers in it. Raises LoadError for types without a size, or that contain
    themselves.
    """
    return _Codecs(btf, integer).of(id, MAX_DEPTH).codec


@dataclass(frozen=True, slots=True)
class _Weighed:
    """A codec, and how many bytes decoding a value takes at most: the value's, and slices on the way."""

    codec: Codec
    weight: int


def _weigh(codec: Codec, weight: int) -> _Weighed:
    """Return a codec with its weight; in its place one for raw bytes where the weight is too large."""
    return _Weighed(codec, weight) if weight <= MAX_WEIGHT else _Weighed(Raw(codec.size), codec.size)


class _Codecs:
    """Makes codecs of one BTF, each type's once."""

    def __init__(self, btf: Btf, integer: type[Integer]) -> None:
        self.btf = btf
        self.integer = integer
        self.known: dict[int, _Weighed] = btf.codecs.setdefault(integer, {})
        self.budget = MAX_FIELDS

    def of(self, id: int, depth: int) -> _Weighed:
        type_ = self.btf.resolve(id)
        if type_.kind is Kind.VAR:
            type_ = self.btf.resolve(type_.target)
        codec = self.known.get(type_.id)
        if codec is None:
            if not depth:
                raise self.btf.error(f"type {id}, {self.btf.describe(id)}, is nested too deep")
            codec = self.known[type_.id] = self._make(type_, depth - 1)
        return codec

    def _make(self, type_: Type, depth: int) -> _Weighed:
        size = self.btf.size_of(type_.id)
        match type_.kind:
            case Kind.INT if type_.encoding & BOOL:
                return _weigh(Boolean(size), size)
            case Kind.INT | Kind.ENUM | Kind.ENUM64 | Kind.PTR if 0 < size <= MAX_INTEGER:
                return _Weighed(self.integer(size, type_.is_signed), NUMBER_WEIGHT)
            case Kind.FLOAT if size in FLOAT_FORMATS:
                return _Weighed(Float(size), NUMBER_WEIGHT)
            case Kind.ARRAY:
                return self._array(type_, depth)
            case Kind.STRUCT | Kind.UNION:
                fields: dict[str, Place] = {}
                weight = FIELD_WEIGHT + self._add_fields(type_, 0, 8 * size, fields, depth)
                return _weigh(Struct(self.btf.describe(type_.id), size, fields), weight)
            case _:
                return _Weighed(Raw(size), size)

    def _array(self, type_: Type, depth: int) -> _Weighed:
        element = self.of(type_.target, depth)
        if isinstance(element.codec, Integer) and element.codec.size == 1:
            return _Weighed(Raw(type_.count), type_.count)
        each = ELEMENT_WEIGHT + element.codec.size + element.weight
        return _weigh(Array(element.codec, type_.count), FIELD_WEIGHT + each * type_.count)

    def _add_fields(self, type_: Type, base: int, end: int, fields: dict[str, Place], depth: int) -> int:
        """Add the members of a struct that starts at bit `base`, those of anonymous ones among them.

        Returns what they weigh.
        """
        count, weight = len(type_.members), 0
        self.budget -= count
        if not depth or self.budget < 0:
            raise self.btf.error(f"type {type_.id}, {self.btf.describe(type_.id)}, has too many members")
        self.btf.budget.spend(FIELD_SIZE * count, "the members of types")
        for member in type_.members:
            inner = self.btf.resolve(member.type)
            offset = base + member.bit_offset
            if not member.name:
                if inner.is_composite:
                    weight += self._add_fields(inner, offset, end, fields, depth - 1)
                continue
            if inner.kind is Kind.ARRAY and not inner.count:
                continue  # a flexible array is no part of the struct's size
            bits = member.bit_size
            if not bits and inner.kind is Kind.INT and 0 < inner.bits < 8 * inner.size:
                bits = inner.bits  # how clang before 8 wrote bit-fields
            found = self.of(inner.id, depth)
            if offset + (bits or 8 * found.codec.size) > end:
                raise self.btf.error(
                    f"member {member.name!r} is outside of type {type_.id}, {self.btf.describe(type_.id)}"
                )
            weight += FIELD_WEIGHT + found.codec.size + found.weight
            place = BitField(offset, bits, inner.is_signed) if bits else Field(offset // 8, found.codec)
            fields[member.name] = place
        return weight
