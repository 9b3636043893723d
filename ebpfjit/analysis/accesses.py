"""What is known of a program's memory accesses, and what is promised of its runs."""

from __future__ import annotations

from enum import Enum

from ebpfjit.record import record
from ebpfjit.runtime.rights import Rights

SUMS = ("ADD", "SUB")
"""The operations that move a pointer."""


class Origin(Enum):
    """What a pointer most likely points to: which region a check looks at first."""

    STACK = "stack"
    ARGUMENT = "argument"  # what r1 points to at the start: the packet, or the metadata buffer
    PACKET = "packet"


@record
class Access:
    """What is known of the load, store or atomic at one pc.

    `proof` says why it needs no check ("" where it needs one). `origin` is the region to try first,
    `frame_size` that of the running function.
    """

    pc: int
    size: int
    stores: bool
    proof: str
    origin: Origin
    frame_size: int

    @property
    def reason(self) -> str:
        """The finding as a listing shows it."""
        return f"no check: {self.proof}" if self.proof else f"checked, {self.origin.value} first"


@record
class Accesses:
    """What is known of the accesses of a program, by pc.

    `zeroed` are the functions (by pc) whose frame must be zeroed: a byte of it may be read before it is
    written, or something else may see it.
    """

    by_pc: dict[int, Access]
    zeroed: frozenset[int]


@record
class Promises:
    """What the caller vouches for.

    `argument_size` bytes behind r1 at the start are readable, and writable where
    `argument_writable`; they stay in place for the whole run. With `argument_rights` they are a struct, and
    these say of each access whether it may be. Where `argument_is_measured`, r2 at the
    start is how many bytes are readable behind r1, and they stay there for the whole run. `moving` are
    the numbers of the helpers that may move other memory, or take it away (a kfunc always may). `lookups` are
    helpers that return the address of a value of the map whose address is in r1, or zero. `calling` are
    helpers that may call functions of the program (None: all; a kfunc always may). Where it `meets_rights`,
    other memory may be structs with rights as well. All maps of the program are there, and their values may
    be touched. The accesses at the slots `proven` lie in memory that may be touched so, as a verdict has
    proven of this program on contexts that the runtime makes.
    """

    argument_size: int = 0
    argument_writable: bool = True
    moving: frozenset[int] = frozenset()
    lookups: frozenset[int] = frozenset()
    argument_is_measured: bool = False
    calling: frozenset[int] | None = None
    argument_rights: Rights | None = None
    meets_rights: bool = False
    proven: frozenset[int] = frozenset()
