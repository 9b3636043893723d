"""What translators of rows without an encoding are given: operations of optimised code."""

from __future__ import annotations

from typing import Protocol

from ebpfjit.isa.spec import Row


class Operation(Protocol):
    """An operation whose values are in registers, by number: 0 to 10 are the homes of r0 to r10.

    `stores` and `region` are of bounds: whether bytes are written; where they are likely to be ("stack",
    "argument", "packet", "" where nothing is known), or must be ("only argument", "only packet"). Where
    `scale` is not 0 the second of `args` is an index, which is added to the first, the base, so many times.
    """

    @property
    def row(self) -> Row:
        """The row."""

    @property
    def results(self) -> tuple[int, ...]:
        """The registers that are written."""

    @property
    def args(self) -> tuple[int, ...]:
        """The registers that are read."""

    @property
    def imm(self) -> int:
        """The row's number."""

    @property
    def offset(self) -> int:
        """The displacement in bytes."""

    @property
    def pc(self) -> int:
        """The slot of the instruction that it was made from."""

    @property
    def stores(self) -> bool:
        """Whether a bound is for writing."""

    @property
    def scale(self) -> int:
        """How often an index is added to the base, 0 where there is none."""

    @property
    def region(self) -> str:
        """Where the bytes of a bound are likely to be."""
