"""What a walk proved of a program's accesses, so that machine code need not check them again.

    walk     at each load, store and atomic that no rule refuses: where its pointer leads   (Reaches.see)
    verdict  an acceptance has all of that, and the very program that it is about           (Proven)
    compile  which of it holds at run time as well                                          (ebpfjit.relied)

A slot's Reach is of all states in which the walk came there. Where a state was covered by one that was kept,
the walk had gone on from that one, and all that mattered of the two is the same: which kind of pointer each
register holds, to which map, field or frame, and that it lies inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ebpfjit.program import Program
from ebpfjit.record import dataclass, field
from ebpfjit.runtime.maps.definition import MapType
from ebpfjit.verifier.arithmetic import PACKET
from ebpfjit.verifier.calls import InnerMap
from ebpfjit.verifier.stack import SIZE
from ebpfjit.verifier.values import Pointer, Value


@dataclass(slots=True)
class Reach:
    """Where the access at one slot leads, in all states.

    `depth` is how far below a frame's end it begins at most (0: in no frame), `fields` are distances from the
    context's start, `maps` those whose values it is in. `in_packet` where it is in a packet or its metadata.
    `others` are kinds of pointers of which nothing more is known here.
    """

    size: int
    stores: bool
    depth: int = 0
    fields: set[int] = field(default_factory=set)
    maps: list[Any] = field(default_factory=list)
    in_packet: bool = False
    others: set[str] = field(default_factory=set)


class Reaches:
    """The accesses of a program, by slot, as a walk comes to them."""

    def __init__(self) -> None:
        self.by_pc: dict[int, Reach] = {}

    def see(self, pc: int, base: Value, offset: int, size: int, *, stores: bool) -> None:
        """Note an access that was found right: of `size` bytes at `base` + `offset`.

        That it lies inside is asked once more here, whatever the rules say.
        """
        reach = self.by_pc.get(pc)
        if reach is None:
            reach = self.by_pc[pc] = Reach(size, stores)
        if not isinstance(base, Pointer):
            reach.others.add("scalar")
            return
        low, high = _span(base, offset, size)
        if base.null:
            reach.others.add(f"{base.kind}_or_null")
        elif base.kind == "stack" and low >= -SIZE and high <= 0:
            reach.depth = max(reach.depth, -low)
        elif base.kind in PACKET and base.lowest >= base.off and 0 <= base.off + offset <= base.range - size:
            reach.in_packet = True
        elif base.kind == "ctx" and base.var is None:
            reach.fields.add(low)
        elif base.kind == "map_value" and low >= 0 and high <= _value_size(base.what):
            if all(map_ is not base.what for map_ in reach.maps):
                reach.maps.append(base.what)
        else:
            reach.others.add(base.kind)


def _span(base: Pointer, offset: int, size: int) -> tuple[int, int]:
    """Return between which distances from the start of what a pointer points to the bytes lie."""
    low = high = base.off + offset
    if base.var is not None:
        low, high = low + base.var.smin, high + base.var.smax
    return low, high + size


def _value_size(map_: Any) -> int:
    """Return the bytes of a map's values, 0 for maps of which only a template is known."""
    size: int = 0 if isinstance(map_, InnerMap) else map_.definition.value_size
    return size


@dataclass(frozen=True, slots=True)
class Proven:
    """What an acceptance stands for: its `program`, and where each access that was walked leads.

    `constants` are the values that were taken for known, of maps that programs only read, in the order of the
    program's maps (b"" for others). `context_size` is what the verdict was given as the memory's size.
    """

    program: Program
    reaches: Mapping[int, Reach]
    constants: tuple[bytes, ...]
    context_size: int | None


def constants_of(program: Program) -> tuple[bytes, ...]:
    """Return the values of a program's maps that are taken for known, as they are now."""
    return tuple(
        b"".join(bytes(region.view) for region in map_.regions)
        if map_.definition.is_readonly and map_.definition.type == MapType.ARRAY
        else b""
        for map_ in program.maps
    )
