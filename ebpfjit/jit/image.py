"""A program's machine code in place, and the addresses of its host put into it."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Mapping

from ebpfjit.errors import TranslationError
from ebpfjit.record import field, record
from ebpfjit.translators.block import NO_PC, Limit

SLOT_SIZE = 8


@record
class Image:
    """Machine code in place, position-independent, its slots still to be filled.

    `entry` is the offset to call, `callback` that of the routine of this name, None where the
    program has none. `slots` maps a symbol to the offset of its 8 bytes. `pc_starts` and `pc_owners`
    say which pc the code from an offset on belongs to (NO_PC: to none). `limits` are the words that
    the host puts behind the block, in order. `resumes` are the offsets, by pc, where runs of baseline code go
    on, `returns` those where functions return to baseline code, by the pc that calls them; none where the
    image was loaded.
    """

    code: bytes
    entry: int
    callback: int | None
    slots: Mapping[str, int]
    limits: tuple[Limit, ...]
    pc_starts: array[int]
    pc_owners: array[int]
    resumes: Mapping[int, int] = field(default_factory=dict)
    returns: Mapping[int, int] = field(default_factory=dict)

    def pc_at(self, offset: int) -> int | None:
        """Return the pc whose code holds the byte at `offset`."""
        owner = self.pc_owners[bisect_right(self.pc_starts, offset) - 1]
        return None if owner == NO_PC else owner


def relocate(image: Image, symbols: Mapping[str, int]) -> bytes:
    """Return the image's bytes with every slot filled.

    Slots are 8 bytes, little-endian; `symbols` maps a name to an absolute host address (u64).
    Raises TranslationError naming the first missing symbol.
    """
    code = bytearray(image.code)
    for symbol, offset in image.slots.items():
        if symbol not in symbols:
            raise TranslationError(f"nothing says where {symbol} is")
        code[offset : offset + SLOT_SIZE] = symbols[symbol].to_bytes(SLOT_SIZE, "little")
    return bytes(code)
