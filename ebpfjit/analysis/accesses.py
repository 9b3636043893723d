"""What is found out about a program's memory accesses, and which of them share a check."""

from __future__ import annotations

from dataclasses import field, replace
from typing import Protocol

from ebpfjit.analysis.values import CONSTANT, Bounds, Origin, Value
from ebpfjit.program import Instruction
from ebpfjit.record import record
from ebpfjit.runtime.rights import Rights

LONGEST_MERGED_SPAN = 4096
WITHIN = "within"
"""The proof, within the analysis, of a store into the argument's memory, which may be read-only."""

READ, ASSUMED, WRITTEN = range(3)
"""What a span is good for: reading; writing, as far as an earlier load was checked as if it stored;
writing."""

EXACT, RIGHTS = 4, 8
"""With a level: good for accesses to these very bytes only, as the struct they may be in has rights. Instead
of a level: the bytes of a struct whose rights say what they are good for."""
LEVELS = 3
"""The mask of levels."""


class Allowing(Protocol):
    """What says of a struct which accesses there may be: `Rights`."""

    def allows(self, offset: int, size: int, *, store: bool) -> bool:
        """True where programs may load, or store, `size` bytes at an offset."""


Span = tuple[int, int, int]
"""First byte, byte behind the last, both from the symbol; READ, ASSUMED or WRITTEN, with EXACT or without, or
RIGHTS."""

Spans = frozenset[Span]
NO_SPANS: Spans = frozenset()


def distance_of(base: Value, insn: Instruction) -> Bounds | None:
    """Return how far behind the argument's start an access begins, None where that is not known."""
    if base.origin is not Origin.ARGUMENT or base.bounds is None:
        return None
    return base.bounds[0] + insn.offset, base.bounds[1] + insn.offset


def likely_region(origin: Origin) -> Origin:
    """What to try first for a base of which nothing is known: the argument's memory."""
    return origin if origin in (Origin.STACK, Origin.ARGUMENT) else Origin.PACKET


@record
class Access:
    """What was found out about the load, store or atomic at one pc.

    `proof` says why it needs no check ("" where it needs one). `origin` is the region to try
    first. `span` is, for the first access of a merged group, the bytes from its own address that
    one check covers (first, behind the last, stores); for the others of a group `leader` is the pc
    of that first one. `frame_size` is that of the running function, 0 where it is not known. Where
    it `asks` a load is checked as a store to the same bytes would be; `assumes` is a store that needs
    no check where such loads have been found good, and one where they have not. A span that is `within`
    the argument's memory need only be asked whether that may be written. `before` is the header of the
    loop before which it is checked, for all rounds.
    """

    pc: int
    size: int
    stores: bool
    proof: str
    origin: Origin
    frame_size: int
    distance: Bounds | None
    span: tuple[int, int, bool] | None = None
    leader: int | None = None
    asks: bool = False
    assumes: bool = False
    within: bool = False
    before: int | None = None

    @property
    def reason(self) -> str:
        """The finding as a listing shows it."""
        if self.proof:
            return f"no check: {self.proof}"
        if self.before is not None:
            return f"no check: made before the loop at pc {self.before}"
        if self.leader is not None:
            return f"no check: one at pc {self.leader} covers it"
        if self.within:
            return "checked: may it be written"
        if self.span is not None:
            return f"checked, {self.origin.value} first: {self.span[1] - self.span[0]} bytes at once"
        return f"checked, {self.origin.value} first"


@record
class Border:
    """A number that must lie on one side of another: `register` + `offset` at most, or at least, `number`."""

    register: int
    offset: int
    is_most: bool
    number: int


@record
class Distance:
    """How far a loop's counter gets, from numbers before its first round.

    `minuend` - `subtrahend` + `plus` (registers, None for nothing) is how far it gets by the last round
    that the comparison lets through, not rounded: a multiple of `unit` that is not above it. Where it is
    `exact` it must be such a multiple itself. `border` is what must hold besides, so that nothing wraps.
    """

    minuend: int | None
    subtrahend: int | None
    plus: int
    unit: int
    exact: bool
    border: Border | None


@record
class Sweep:
    """The bytes that an access touches in all rounds of a loop.

    `terms` are registers with what they are multiplied by: their sum plus `offset` is where the first
    round's bytes start, `size` how many there are. For each byte that the counter gets further there
    are `factor` more: behind them, or before them where it is negative.
    """

    terms: tuple[tuple[int, int], ...]
    offset: int
    size: int
    factor: int
    stores: bool
    origin: Origin


@record
class Predicate:
    """What is asked before the loop at `header` is entered; `blocks` are all of its blocks."""

    header: int
    blocks: frozenset[int]
    distance: Distance
    sweeps: tuple[Sweep, ...]


@record
class Facts:
    """The findings of a program.

    `accesses` by pc. `zeroed` are the functions (by pc) whose frame must be zeroed: a byte of it
    may be read before it is written, or something else may see it. `maps` gives, for calls of
    helpers (by pc) whose r1 is always the same map, its index in `Program.maps`; `in_frame` gives for
    those calls which of r2 and r3 point into the frame, and between which offsets from its top.
    `relying` are the basic blocks (by pc) at whose start a store further on relies on a load that
    asked; `doubtful` are these and those of loops before which accesses are checked; `predicates` says, by
    the loop's header, what is checked there.
    """

    accesses: dict[int, Access]
    zeroed: frozenset[int]
    maps: dict[int, int]
    in_frame: dict[int, dict[int, Bounds]]
    doubtful: frozenset[int] = frozenset()
    predicates: dict[int, Predicate] = field(default_factory=dict)
    relying: frozenset[int] = frozenset()

    def known_map(self, pc: int) -> int | None:
        """Return the index of the map that the helper call at `pc` is given in r1, where it is known."""
        return self.maps.get(pc)


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
    be touched.
    """

    argument_size: int = 0
    argument_writable: bool = True
    moving: frozenset[int] = frozenset()
    lookups: frozenset[int] = frozenset()
    argument_is_measured: bool = False
    calling: frozenset[int] | None = None
    argument_rights: Rights | None = None
    meets_rights: bool = False


class Merger:
    """Collects the accesses of a block, and puts those that can be under one check.

    Those are accesses on one base; those at distances from the argument's start that vary between the
    same bounds, such as look-ups in one table; and those that are asked for nothing but rights.
    """

    def __init__(self, found: dict[int, Access]) -> None:
        self.found = found
        self.groups: dict[int | Bounds | str, list[tuple[Access, Span]]] = {}

    def add(self, access: Access, base: Value, span: Span) -> None:
        """Note an access; `span` counts from the base's symbol."""
        self.found[access.pc] = access
        if access.proof or base.symbol <= CONSTANT:
            return
        key: int | Bounds | str = base.symbol
        distance, bounds = access.distance, base.bounds
        if access.within:
            key, span = WITHIN, (0, access.size, WRITTEN)
        elif distance is not None and bounds is not None and bounds[0] != bounds[1] and distance[0] >= 0:
            start = distance[0] - bounds[0]
            key, span = bounds, (start, start + access.size, span[2])
        self.groups.setdefault(key, []).append((access, span))

    def finish(self) -> None:
        """Give each group of two or more its leader and span."""
        for group in self.groups.values():
            leader, first = group[0]
            low = min(span[0] for _, span in group)
            high = max(span[1] for _, span in group)
            if len(group) < 2 or high - low > LONGEST_MERGED_SPAN:
                for access, _ in group:
                    if access.asks:
                        self.found[access.pc] = replace(access, span=(0, access.size, True))
                continue
            stores = any(access.stores or access.asks for access, _ in group)
            start = first[0]
            self.found[leader.pc] = replace(leader, span=(low - start, high - start, stores))
            for access, _ in group[1:]:
                self.found[access.pc] = replace(access, leader=leader.pc)
        self.groups.clear()
