"""What routines are told of the host: how its objects and contexts are laid out; which gates there are."""

from __future__ import annotations

from collections.abc import Mapping

from ebpfjit.record import dataclass

SMALL_INTS = 257  # the ints from 0 that CPython has ready


@dataclass(frozen=True, slots=True)
class Ints:
    """What CPython's ints look like: `tag` is the word at `size` of those from 1 to 2**30 - 1, whose
    value is in the four bytes at `digit`. Small ones are `immortal` from 3.12 on: never counted.
    """

    size: int
    digit: int
    tag: int
    immortal: bool


@dataclass(frozen=True, slots=True)
class Structs:
    """Where the fields of contexts are, in bytes from where r1 points; `sock` is where bpf_sock is."""

    xdp_md: Mapping[str, int]
    sk_buff: Mapping[str, int]
    bpf_sock: Mapping[str, int]
    sock: int


@dataclass(frozen=True, slots=True)
class Room:
    """Where a packet of XDP may go, in bytes: so far in front of where it was put, and so far behind that.

    `headroom` is what is zero in front of it at the start, `head` how much of that a program may have, and
    `metadata` how much in front of its packet. With a larger packet it may go as far as that went.
    """

    headroom: int
    head: int
    tail: int
    metadata: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Where CPython keeps things in its objects, in bytes; found out at run time."""

    bytes_data: int
    size: int
    bytearray_start: int
    bytearray_exports: int
    state: int
    max_frames: int
    slice_length: int
    clock: int
    ints: Ints
    lock: int  # of a map: from its header on
    structs: Structs
    room: Room


@dataclass(frozen=True, slots=True)
class Shape:
    """The arguments of a gate: how many buffers, and what r1 points to."""

    buffers: int
    argument: str  # "none", "packet", "mbuff" (the second buffer), "fixed" (made by the gate), "context"
    optional: bool = False


SHAPES = {
    "none": Shape(0, "none"),
    "mem": Shape(1, "packet"),
    "optional": Shape(1, "packet", optional=True),
    "mbuff": Shape(2, "mbuff"),
    "fixed": Shape(1, "fixed"),
    "context": Shape(1, "context"),
}
