"""Integers of a fixed width: wrapping, signed reading, sign extension."""

from __future__ import annotations

from ebpfjit.record import dataclass, field


@dataclass(frozen=True, slots=True)
class Width:
    """A register or memory width in bits.

    Values are unsigned Python integers, 0 <= x < 2**bits; `signed` reads one as two's complement.
    Any width works, which lets tests run every meaning exhaustively at 4 bits.
    """

    bits: int
    mask: int = field(init=False, compare=False, repr=False)
    """All bits set: the largest unsigned value."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", (1 << self.bits) - 1)

    @property
    def int_min(self) -> int:
        """The most negative signed value, as its unsigned pattern."""
        return 1 << (self.bits - 1)

    @property
    def bytes(self) -> int:
        """The width in bytes."""
        return self.bits // 8

    def wrap(self, value: int) -> int:
        """Return `value` modulo 2**bits."""
        return value & self.mask

    def signed(self, value: int) -> int:
        """Return the low bits of `value` read as a two's complement number."""
        value &= self.mask
        return value - (1 << self.bits) if value >> (self.bits - 1) else value


W8 = Width(8)
W16 = Width(16)
W32 = Width(32)
W64 = Width(64)

U64_MASK = W64.mask

WIDTH_OF_SIZE = {1: W8, 2: W16, 4: W32, 8: W64}
