"""Values of BTF types, drawn at random: integers near the ends of their ranges, members one by one.

Without a type a value is bytes: zeros, ones, small numbers, numbers about to overflow, anything.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from ebpfjit.elf import codec as codecs
from ebpfjit.runtime.maps.definition import Codec

LETTERS = b"abcdefghijklmnopqrstuvwxyz0123456789_./"


def value_bytes(rng: random.Random, codec: Codec | None, size: int) -> bytes:
    """Return the `size` bytes of a value of a type, None where nothing tells it."""
    if codec is None or codec.size != size or rng.random() < 0.1:
        return _bytes(rng, size)
    return codec.encode(value_of(rng, codec))


def value_of(rng: random.Random, codec: Codec) -> Any:
    """Return a value that a codec encodes."""
    make = _MAKERS.get(type(codec))
    return _bytes(rng, codec.size) if make is None else make(rng, codec)


def integer(rng: random.Random, bits: int, signed: bool) -> int:
    """Return an integer of so many bits: an edge, a small one, any."""
    low, high = codecs.signed_range(bits, signed)
    kind = rng.randrange(4)
    if kind == 0:
        return max(low, min(high, rng.randrange(17)))
    if kind == 1:
        return max(low, min(high, rng.choice((low, low + 1, high, high - 1, (low + high) // 2))))
    if kind == 2:
        return max(low, min(high, 1 << rng.randrange(bits)))
    return rng.randint(low, high)


def _bytes(rng: random.Random, size: int) -> bytes:
    kind = rng.randrange(5)
    if kind == 0:
        return bytes(size)
    if kind == 1:
        return b"\xff" * size
    if kind == 2:
        return rng.randrange(16).to_bytes(1, "little") + bytes(size - 1) if size else b""
    return rng.randbytes(size) if kind == 3 else (b"\xfe" + b"\xff" * 3) * (size // 4) + bytes(size % 4)


def _text(rng: random.Random, codec: codecs.Raw) -> bytes:
    if rng.random() < 0.5:
        return _bytes(rng, codec.size)
    length = rng.randrange(min(codec.size, 64) + 1)
    return bytes(rng.choice(LETTERS) for _ in range(length))


def _members(rng: random.Random, codec: codecs.Struct) -> dict[str, Any]:
    return {name: _member(rng, place) for name, place in codec.fields.items()}


def _member(rng: random.Random, place: codecs.Place) -> Any:
    if isinstance(place, codecs.BitField):
        return integer(rng, place.bit_size, place.signed)
    assert isinstance(place, codecs.Field)  # there are no others
    return value_of(rng, place.codec)


_MAKERS: dict[type[Any], Callable[[random.Random, Any], Any]] = {
    codecs.Integer: lambda rng, codec: integer(rng, 8 * codec.size, codec.signed),
    codecs.Boolean: lambda rng, codec: rng.random() < 0.5,
    codecs.Float: lambda rng, codec: rng.choice((0.0, 1.0, -1.5, float("inf"))),
    codecs.Raw: _text,
    codecs.Array: lambda rng, codec: [value_of(rng, codec.element) for _ in range(codec.count)],
    codecs.Struct: _members,
}
