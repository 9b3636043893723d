r"""Which registers come into a block as one of several values, and so are arguments of it (phis of SSA).

    block A      writes r1               B: on both ways to it r2 is what came into A, its origin is A's
    / \                                  argument. r1 is A's or C's: it is an argument of B.
    |  C         writes r1
    \ /
    B            reads r1, r2

It is found out for registers, before there is a value: a register that is not written in a block leaves it as
it came. Arguments that only ever are one value have that for their origin, loops included. Most blocks have
one way in: what comes there is what left the block before, the same list of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

Place = int
"""block * width + register: that argument of the block; ~place: the register when it is left."""


def origins(
    ways: Sequence[Sequence[int]],
    live: Sequence[Sequence[int]],
    writes: Sequence[int],
    entered: Collection[int],
    order: Sequence[int],
    width: int,
) -> tuple[list[list[Place]], dict[Place, Place]]:
    """Return where each register comes from that a block reads: for each block a list by register, and what
    places in these lists are the same as, where they are not what they say. An argument is its own place.

    Blocks go by number: `ways` are the blocks behind each, `live` the registers that may be read from its
    start on, `writes` those that it writes, as masks. Blocks that are `entered` from outside have all of them
    for arguments. There are `width` registers, slots of frames among them. `order` is a reverse postorder of
    the blocks that control comes to; the others have an empty list.
    """
    before: list[list[int]] = [[] for _ in ways]
    for block in order:
        for way in ways[block]:
            before[way].append(block)
    came: list[list[Place]] = [[]] * len(ways)
    left: list[list[Place]] = [[]] * len(ways)
    joined: list[Place] = []  # what may be an argument
    fixed = frozenset(entered)
    for block in order:
        sources, start = before[block], block * width
        if block in fixed:
            here = list(range(start, start + width))
        elif len(sources) == 1:
            here = left[sources[0]]
        else:
            here = list(range(start, start + width))
            known = [left[source] for source in sources]
            is_known = all(known)  # else some of it comes round in a loop
            for register in live[block]:
                roots = {each[register] for each in known} if is_known else ()
                if len(roots) == 1:
                    (here[register],) = roots
                else:
                    joined.append(start + register)
        came[block] = here
        written = writes[block]
        if written:
            here = here.copy()
            while written:
                lowest = written & -written
                register = lowest.bit_length() - 1
                here[register] = ~(start + register)
                written ^= lowest
        left[block] = here
    return came, _superfluous(joined, before, left, width)


def _superfluous(
    joined: Sequence[Place],
    before: Sequence[Sequence[int]],
    left: Sequence[Sequence[Place]],
    width: int,
) -> dict[Place, Place]:
    """Return which of the arguments only ever are one value besides themselves.

    Of one that is several, two are noted: it is looked at again where one of them turns out to be another's.
    """
    same: dict[Place, Place] = {}
    readers: dict[Place, dict[Place, None]] = {}
    waiting = [*reversed(joined)]  # those of the first blocks are found first: later ones look through them
    while waiting:
        place = only = waiting.pop()
        if place in same:
            continue
        block, register = divmod(place, width)
        for source in before[block]:
            root = left[source][register]
            if root in same:
                root = found(same, root)
            if root != place and root != only:
                if only != place:
                    readers.setdefault(only, {})[place] = None
                    readers.setdefault(root, {})[place] = None
                    break
                only = root
        else:
            if only != place:
                same[place] = only
                waiting += readers.pop(place, ())
    return same


def found(same: dict[Place, Place], place: Place) -> Place:
    """Return what a place is the same as; what is found is remembered along the way."""
    root = place
    while root in same:
        root = same[root]
    while place != root:
        same[place], place = root, same[place]
    return root
