"""Kernels that nobody tuned for: other people's kinds of work, measured beside the others, and apart.

They were written before the optimizer was, so that its passes can be judged by what they were not made with.
Their layouts are stated at the top of each C file in kernels/holdout/.
"""

from __future__ import annotations

import random
import struct

from ebpfjit.bench.inputs import SOURCES, Kernel, u32, word


def _program_text(source: random.Random, size: int) -> bytes:
    def token() -> str:
        kind = source.randrange(10)
        if kind < 4:
            return word(source) + source.choice(("", "_", "7", "_x2"))
        if kind < 6:
            return str(source.randrange(10 ** source.randrange(1, 7)))
        if kind == 6:
            return '"' + word(source) + source.choice(("", "\\n", '\\"')) + '"'
        if kind == 7:
            return source.choice(("// " + word(source) + "\n", "\n", "\t"))
        return source.choice(("+", "==", "(", ")", ";", "<=", "*", "{", "}"))

    return "".join(token() + source.choice((" ", "", " ")) for _ in range(size)).encode()


def _pattern(source: random.Random, size: int) -> bytes:
    """Return [a-z]+(ing|ed)?[.,]?[0-9]* as places that follow each other, and text."""
    sets = [b"abcdefghijklmnopqrstuvwxyz", *(bytes([c]) for c in b"ing"), b"e", b"d", b".,", b"0123456789"]
    takes = [sum(1 << place for place, one in enumerate(sets) if byte in one) for byte in range(256)]
    ends = 0b1100_0000  # [.,] and digits, which may follow every end
    follows = [0b1101_0011, 0b100, 0b1000, ends, 0b10_0000, ends, 0b1000_0000, 0b1000_0000]
    text = " ".join(word(source) + source.choice(("", "ing", "ed", ".", "7")) for _ in range(size)).encode()
    words = (0b1, 0b1110_1001, *takes, *follows, *[0] * (64 - len(follows)))
    return struct.pack(f"<{len(words)}Q", *words) + text


def _cache(source: random.Random, size: int) -> bytes:
    buckets = 1 << size.bit_length()
    queries = [min(int(source.paretovariate(0.2)), 1 << 20) for _ in range(16 * size)]
    return u32((size, len(queries), buckets, 0)) + bytes(4 * buckets + 16 * size) + u32(queries)


def _base32(source: random.Random, size: int) -> bytes:
    return b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567" + source.randbytes(5 * size) + bytes(8 * size)


def _bloom(source: random.Random, size: int) -> bytes:
    return struct.pack("<QQ", size // 4, size) + bytes(2 * size) + source.randbytes(8 * size)


def _vocabulary(source: random.Random, size: int) -> bytes:
    pattern = b"interpretation"
    equal = [sum(1 << at for at, one in enumerate(pattern) if one == byte) for byte in range(256)]
    words = b"\0".join((word(source) + word(source)).encode() for _ in range(size))
    return struct.pack("<257Q", len(pattern), *equal) + words + b"\0"


def _points(source: random.Random, size: int) -> bytes:
    return source.randbytes(8 * size) + bytes(8 * size)


def _machine(source: random.Random, size: int) -> bytes:
    """Return a program of three loops, one in the other, over the machine's 256 cells."""
    code = [
        (7, 0, 0, 1, 40), (7, 0, 0, 2, 0),                                    # r1 = 40, r2 = 0
        (8, 2, 0, 3, 0), (2, 3, 1, 4, 0), (3, 4, 5, 5, 0), (6, 5, 0, 5, 77),  # mixes a cell into r5
        (9, 2, 5, 0, 0), (6, 2, 0, 2, 1), (7, 0, 0, 6, 256), (10, 2, 6, 0, -8),
        (5, 5, 1, 7, 0), (0, 7, 5, 5, 0), (6, 1, 0, 1, -1), (11, 1, 0, 0, -13), (12, 0, 0, 0, -15),
    ]  # fmt: skip
    header = u32((len(code), size)) + bytes(64)
    return header + b"".join(struct.pack("<4Bi", *step) for step in code) + source.randbytes(2048)


def _runs(source: random.Random, size: int) -> bytes:
    data = b"".join(
        source.randbytes(1) * (source.randrange(3, 200) if source.random() < 0.2 else 1) for _ in range(size)
    )
    return struct.pack("<Q", len(data)) + data + bytes(2 * len(data) + 2)


def _leaves(source: random.Random, size: int) -> bytes:
    return source.randbytes(32 * size)


def _layer(source: random.Random, size: int) -> bytes:
    weights = (source.randrange(-128, 128) % 2**32 for _ in range(size * size))
    vector = (source.randrange(256) for _ in range(size))
    return u32((size, size, 32, 7)) + u32(weights) + u32(vector) + bytes(4 * size)


def _timers(source: random.Random, size: int) -> bytes:
    timers = ((0, source.randrange(64), source.randrange(1, 2000), 0) for _ in range(size))
    rows = (word for one in ((0, 0, 0, 0), *timers) for word in one)
    return u32((256, size, 8 * size, 0)) + bytes(4 * 256) + u32(rows)


#          name              kind             memory          size   small
HELD_OUT = tuple(Kernel(*row, SOURCES / "holdout") for row in (
    ("tokenizer",      "parse",         _program_text, 1 << 16,    60),
    ("regex",          "search",        _pattern,      1 << 15,    40),
    ("lru_list",       "lookup",        _cache,        1 << 13,    20),
    ("base32",         "bytes, lookup", _base32,       1 << 18,    30),
    ("bloom",          "lookup",        _bloom,        1 << 17,    64),
    ("levenshtein",    "DP",            _vocabulary,   1 << 15,    30),
    ("morton",         "arithmetic",    _points,       1 << 18,    40),
    ("small_vm",       "interpreter",   _machine,      1 << 19,   600),
    ("run_length",     "bytes",         _runs,         1 << 15,    60),
    ("merkle",         "hash",          _leaves,       1 << 16,    16),
    ("matvec",         "arithmetic",    _layer,            256,    16),
    ("timer_ring",     "lookup",        _timers,          2000,    50),
))  # fmt: skip
