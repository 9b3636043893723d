"""The kernels and what they work on: memory filled from a seeded generator, one layout per kernel.

The layouts are stated at the top of each C file in kernels/. `size` is the scale of an input: bytes,
values or rows, whatever counts there.
"""

from __future__ import annotations

import json
import random
import struct
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path

from ebpfjit.record import dataclass

SOURCES = Path(__file__).resolve().parent / "kernels"
"""C text and eBPF objects, by the kernels' names; those of ebpfjit.bench.holdout are in a folder there."""

Fill = Callable[[random.Random, int], bytes]

SEED = 20261122
_MARKUP = ("", "", "é", "ß", "→", "語", "\U0001d6fc", "\U0001f40d")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel and its inputs.

    `kind` is what it stands for. `fill(random, size)` returns its memory. `size` makes a run of
    some milliseconds in machine code; `small` is what the interpreter is asked to do. `folder` has its
    C text and its object.
    """

    name: str
    kind: str
    fill: Fill
    size: int
    small: int
    folder: Path = SOURCES

    @property
    def source(self) -> Path:
        """The C text."""
        return self.folder / f"{self.name}.c"

    @property
    def object(self) -> Path:
        """What it was compiled to."""
        return self.folder / f"{self.name}.o"

    def memory(self, size: int) -> bytes:
        """Return the kernel's memory at a size: always the same bytes."""
        return self.fill(random.Random(f"{SEED} {self.name} {size}"), size)


def _u16(values: Iterable[int]) -> bytes:
    return array("H", values).tobytes()


def u32(values: Iterable[int]) -> bytes:
    """Return numbers of 32 bits as they lie in memory."""
    return array("I", values).tobytes()


def _bytes(source: random.Random, size: int) -> bytes:
    return source.randbytes(size)


def _crc_table(source: random.Random, size: int) -> bytes:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
        table.append(crc)
    return u32(table) + source.randbytes(size)


def _frame(source: random.Random) -> bytes:
    """Return an Ethernet frame: mostly TCP or UDP over IPv4, some with a VLAN tag, some cut short."""
    ethertype = 0x0800 if source.random() < 0.9 else 0x86DD
    frame = source.randbytes(12)
    if source.random() < 0.3:
        frame += struct.pack(">HH", 0x8100, source.randrange(4096))
    frame += struct.pack(">H", ethertype)
    protocol = source.choice((6, 6, 6, 17, 17, 1))
    words = source.choice((5, 5, 5, 5, 6, 8, 15))
    frame += struct.pack(">BBHHHBBH", 0x40 | words, 0, 0, 0, 0, 64, protocol, 0)
    frame += source.randbytes(4 * words - 12) + source.randbytes(8 + source.randrange(32))
    return frame[: source.randrange(len(frame))] if source.random() < 0.05 else frame


def _frames(source: random.Random, size: int) -> bytes:
    frames = (_frame(source) for _ in range(size))
    return b"".join(struct.pack("<H", len(frame)) + frame for frame in frames)


def _numbers(source: random.Random, size: int) -> bytes:
    signed = (source.randrange(-(10 ** source.randrange(1, 13)), 10**9) for _ in range(size))
    return ",".join(map(str, signed)).encode()


def word(source: random.Random) -> str:
    """Return a word of one to eight letters."""
    return "".join(source.choice("etaoinshrdlu") for _ in range(source.randrange(1, 9)))


def _utf8(source: random.Random, size: int) -> bytes:
    text = bytearray(" ".join(word(source) + source.choice(_MARKUP) for _ in range(size)).encode())
    for _ in range(size // 64):
        text[source.randrange(len(text))] = source.randrange(256)
    return bytes(text)


def _json(source: random.Random, size: int) -> bytes:
    def value(depth: int) -> object:
        kind = source.randrange(6 if depth < 4 else 4)
        if kind == 0:
            return source.randrange(-1000, 100000) / source.choice((1, 1, 8))
        if kind == 1:
            return source.choice((True, False, None))
        if kind < 4:
            return word(source) + source.choice(("", ' "q" ', "\\", "\n"))
        if kind == 4:
            return [value(depth + 1) for _ in range(source.randrange(5))]
        return {word(source): value(depth + 1) for _ in range(source.randrange(5))}

    return json.dumps([value(0) for _ in range(size)]).encode()


def _varints(source: random.Random, size: int) -> bytes:
    out = bytearray()
    for _ in range(size):
        value = source.getrandbits(source.choice((7, 7, 14, 28, 56)))
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        out.append(value)
    return bytes(out)


def _base64(source: random.Random, size: int) -> bytes:
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return alphabet + source.randbytes(3 * size) + bytes(4 * size)


def _blocks(source: random.Random, size: int) -> bytes:
    return struct.pack("<Q", 64) + source.randbytes(128 * size)


def _values(source: random.Random, size: int) -> bytes:
    return source.randbytes(4 * size)


def _haystack(source: random.Random, size: int) -> bytes:
    pattern = b"sortie"
    text = b" ".join(word(source).encode() if source.random() < 0.99 else pattern for _ in range(size))
    return bytes([len(pattern)]) + pattern.ljust(63, b"\0") + text


def _near_misses(source: random.Random, size: int) -> bytes:
    pattern = b"aaab"
    text = bytes(source.choice(b"aaaab") for _ in range(size))
    return bytes([len(pattern)]) + pattern.ljust(63, b"\0") + text


def _sha256(source: random.Random, size: int) -> bytes:
    return source.randbytes(256 + 64 * size)


def _two_words(source: random.Random, size: int) -> bytes:
    words = bytes(source.choice(b"acgt") for _ in range(2 * size))
    return (struct.pack("<I", size) + words).ljust(64 + 2 * size, b"\0") + bytes(4 * size + 4)


def _things(source: random.Random, size: int) -> bytes:
    capacity = 32 * size
    items = (source.randrange(1, 100) for _ in range(2 * size))
    return u32((size, capacity)) + u32(items) + bytes(4 * capacity + 4)


def _graph(source: random.Random, size: int) -> bytes:
    distances = (source.randrange(1, 1 << 20) for _ in range(size * size))
    return struct.pack("<Q", size) + u32(distances)


def _matrices(source: random.Random, size: int) -> bytes:
    return struct.pack("<Q", size) + source.randbytes(8 * size * size) + bytes(4 * size * size)


def _zeros(source: random.Random, size: int) -> bytes:
    return bytes(size)


def _sorted(source: random.Random, size: int) -> bytes:
    values = sorted(source.getrandbits(32) for _ in range(size))
    return u32(values) + u32(source.getrandbits(32) for _ in range(size))


def _table(source: random.Random, size: int) -> bytes:
    words = (source.randrange(1, size) * 2654435761 % 2**32 or 1 for _ in range(size))
    return u32(words) + bytes(8 * size)


def _counted(source: random.Random, size: int) -> bytes:
    return bytes(1024) + source.randbytes(size)


def _list(source: random.Random, size: int) -> bytes:
    order = list(range(1, size))
    source.shuffle(order)
    following = [0] * size
    for at, then in zip([0, *order], [*order, 0], strict=True):
        following[at] = then
    return u32(word for node in following for word in (node, source.getrandbits(32)))


def _length(value: int) -> bytes:
    """Return what follows a token's nibble of 15 in LZ4's format."""
    return b"\xff" * ((value - 15) // 255) + bytes([(value - 15) % 255]) if value >= 15 else b""


def pack(data: bytes) -> bytes:
    """Return an LZ4 block that unpacks to `data`; greedy, one candidate per four bytes."""
    out = bytearray()
    seen: dict[bytes, int] = {}
    at = start = 0
    while at + 12 < len(data):
        key = data[at : at + 4]
        found = seen.get(key)
        seen[key] = at
        if found is None or at - found > 65535:
            at += 1
            continue
        size = 4
        while at + size < len(data) - 5 and data[found + size] == data[at + size]:
            size += 1
        literals = data[start:at]
        out.append(min(len(literals), 15) << 4 | min(size - 4, 15))
        out += _length(len(literals)) + literals + struct.pack("<H", at - found) + _length(size - 4)
        at += size
        start = at
    literals = data[start:]
    out.append(min(len(literals), 15) << 4)
    return bytes(out + _length(len(literals)) + literals)


def _lz4(source: random.Random, size: int) -> bytes:
    words = [word(source) for _ in range(200)]
    text = " ".join(source.choice(words) for _ in range(size)).encode()
    packed = pack(text)
    return struct.pack("<II", len(packed), 8 + len(packed)) + packed + bytes(len(text))


def _lines(source: random.Random, size: int) -> bytes:
    return b"\n".join(word(source).encode() * source.randrange(1, 12) for _ in range(size))


#          name              kind             memory        size   small
KERNELS = tuple(Kernel(*row) for row in (
    ("fnv1a",          "hash",          _bytes,       1 << 20,   2000),
    ("murmur64",       "hash",          _bytes,       1 << 20,    517),
    ("xxh64",          "hash",          _bytes,       1 << 20,    512),
    ("siphash",        "hash",          _bytes,       1 << 20,    512),
    ("crc32_table",    "hash, lookup",  _crc_table,   1 << 19,   1500),
    ("crc32_bitwise",  "hash",          _bytes,       1 << 18,    300),
    ("hash_table",     "lookup",        _table,       1 << 17,   1024),
    ("binary_search",  "lookup",        _sorted,      1 << 14,    200),
    ("histogram",      "lookup",        _counted,     1 << 20,    600),
    ("linked_list",    "lookup",        _list,        1 << 12,     20),
    ("checksum",       "parse",         _blocks,      1 << 13,      4),
    ("packet_parse",   "parse",         _frames,      1 << 15,     40),
    ("decimal",        "parse",         _numbers,     1 << 17,    200),
    ("utf8",           "parse",         _utf8,        1 << 17,    200),
    ("json",           "parse",         _json,        1 << 14,     40),
    ("varint",         "parse",         _varints,     1 << 18,    400),
    ("base64",         "bytes, lookup", _base64,      1 << 18,    100),
    ("lz4",            "bytes",         _lz4,         1 << 17,    300),
    ("reverse",        "bytes",         _lines,       1 << 15,     40),
    ("insertion_sort", "sort",          _values,      1 << 17,    128),
    ("shell_sort",     "sort, calls",   _values,      1 << 13,    200),
    ("heap_sort",      "sort",          _values,      1 << 14,    200),
    ("quick_sort",     "sort, stack",   _values,      1 << 14,    300),
    ("horspool",       "search, stack", _haystack,    1 << 18,    400),
    ("substring",      "search",        _near_misses, 1 << 19,   1000),
    ("chacha20",       "crypto",        lambda source, size: _values(source, 16 + 16 * size), 1 << 14, 4),
    ("xtea",           "crypto",        lambda source, size: _values(source, 4 + 2 * size),   1 << 14, 20),
    ("sha256",         "crypto, stack", _sha256,      1 << 13,      3),
    ("rc4",            "crypto, stack", _bytes,       1 << 20,    500),
    ("edit_distance",  "DP",            _two_words,      1024,     40),
    ("knapsack",       "DP",            _things,          320,     16),
    ("floyd",          "DP",            _graph,           128,     12),
    ("matmul",         "arithmetic",    _matrices,        128,     10),
    ("popcount",       "arithmetic",    _bytes,       1 << 20,    512),
    ("sieve",          "arithmetic",    _zeros,       1 << 20,   2000),
    ("gcd",            "arithmetic",    _values,      1 << 15,    100),
    ("collatz",        "arithmetic",    _values,      1 << 13,     10),
))  # fmt: skip
