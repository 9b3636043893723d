from __future__ import annotations

import pytest

from ebpfjit.bits import W8, W32, W64, Width


@pytest.mark.parametrize("bits", [4, 8, 16, 32, 64])
def test_edges_of_a_width(bits: int) -> None:
    w = Width(bits)
    assert w.mask == 2**bits - 1
    assert w.wrap(2**bits) == 0
    assert w.wrap(-1) == w.mask
    assert w.signed(w.mask) == -1
    assert w.signed(w.int_min) == -(2 ** (bits - 1))
    assert w.signed(w.int_min - 1) == 2 ** (bits - 1) - 1


def test_signed_reads_only_the_low_bits() -> None:
    assert W8.signed(0x1FF) == -1
    assert W32.signed(0xFFFFFFFF_7FFFFFFF) == 0x7FFFFFFF
    assert W64.bytes == 8
