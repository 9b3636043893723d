r"""Which registers come into a block as one of several values, and so are arguments of it (phis of SSA).

    block A      writes r1               B: on both ways to it r2 is what came into A, its origin is A's
    / \                                  argument. r1 is A's or C's: it is an argument of B.
    |  C         writes r1
    \ /
    B            reads r1, r2

It is found out for registers, before there is a value: a register that is not written in a block leaves it as
it came. Arguments that only ever are one value have that for their origin, loops included.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ebpfjit.isa.spec import REGISTER_COUNT

Place = int
"""block * width + register: that argument of the block; ~place: the register when it is left."""


def origins(
    ways: Sequence[Sequence[int]],
    live: Sequence[Sequence[int]],
    writes: Sequence[int],
    entered: Collection[int],
    width: int = REGISTER_COUNT,
) -> Mapping[Place, Place]:
    """Return for each register that a block reads, by its place there, where it comes from: that place
    itself where it is an argument of the block.

    Blocks go by number: `ways` are the blocks behind each, `live` the registers that may be read from its
    start on, `writes` those that it writes, as masks. Blocks that are `entered` from outside have all of them
    for arguments. There are `width` registers, slots of frames among them.
    """
    incoming: dict[Place, list[Place]] = {
        block * width + register: [] for block, registers in enumerate(live) for register in registers
    }
    for block, following in enumerate(ways):
        written = writes[block]
        for way in following:
            for register in live[way]:
                here = block * width + register
                incoming[way * width + register].append(~here if written >> register & 1 else here)
    stays = {block * width + register for block in entered for register in live[block]}
    passed: dict[Place, list[Place]] = {}
    for place, sources in incoming.items():
        for source in sources:
            passed.setdefault(source, []).append(place)
    same: dict[Place, Place] = {}
    waiting = [place for place in incoming if place not in stays]
    waiting.reverse()  # those of the first blocks are found first: later ones look through them
    while waiting:
        place = waiting.pop()
        if place in same:
            continue
        only = place
        for source in incoming[place]:
            root = _found(same, source) if source in same else source
            if root != place and root != only:
                if only != place:
                    break
                only = root
        else:
            if only != place:
                same[place] = only
                after = passed.pop(place, ())
                passed.setdefault(only, []).extend(after)
                waiting += [each for each in after if each not in same and each not in stays]
    return {place: _found(same, place) for place in incoming}


def _found(same: dict[Place, Place], place: Place) -> Place:
    """Return what a place is the same as; what is found is remembered along the way."""
    root = place
    while root in same:
        root = same[root]
    while place != root:
        same[place], place = root, same[place]
    return root
