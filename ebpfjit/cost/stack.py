"""How deep the stack of a program may get: what each function uses of its frame, along chains of calls."""

from __future__ import annotations

from collections.abc import Mapping, Set

from ebpfjit.isa.spec import FRAME_POINTER, Kind
from ebpfjit.program import Program
from ebpfjit.record import dataclass


@dataclass
class Chain:
    """Functions that call one another, by name, the bytes that each uses of its frame, and the sum."""

    functions: list[str]
    sizes: list[int]
    is_recursive: bool = False

    @property
    def bytes(self) -> int:
        """The bytes of all of them."""
        return sum(self.sizes)


def deepest(program: Program) -> Chain:
    """Return the chain of calls that uses most; Linux counts the same, each frame rounded up to 8 bytes.

    What a function uses of its frame is told by the offsets from r10 that it names. Calls by address, and of
    functions that helpers call, are no part of a chain.
    """
    names = program.function_names
    starts = sorted(names)
    sizes, callees = dict.fromkeys(starts, 0), {start: set[int]() for start in starts}
    start, copies = 0, set[int]()
    for insn in program.instructions:
        if insn.pc in sizes:
            start, copies = insn.pc, {FRAME_POINTER}
        row = insn.row
        if row is None:
            continue
        base = insn.src_reg if row.kind is Kind.LOAD else insn.dst_reg
        lowest = 0
        if row.kind in (Kind.LOAD, Kind.STORE, Kind.ATOMIC) and base in copies:
            lowest = insn.offset
        elif row.kind is Kind.MOVE and row.uses_src:
            (copies.add if insn.src_reg in copies else copies.discard)(insn.dst_reg)
        elif row.operation == "ADD64" and not row.uses_src and insn.dst_reg in copies:
            lowest = insn.imm
        elif row.kind is Kind.CALL_LOCAL and insn.target in sizes:
            callees[start].add(insn.target)
        sizes[start] = max(sizes[start], -(lowest // 8) * 8)
        copies.add(FRAME_POINTER)
    best = _deepest(callees, sizes)
    chain = []
    place: int | None = 0
    while place is not None and place not in chain:
        chain.append(place)
        place = best[place][1]
    return Chain([names[pc] for pc in chain], [sizes[pc] for pc in chain], is_recursive=place is not None)


def _deepest(callees: Mapping[int, Set[int]], sizes: Mapping[int, int]) -> dict[int, tuple[int, int | None]]:
    """Return for each function what it and the deepest chain below it use, and the first callee of that.

    A call of a function that is being looked at is recursion: it is where the chain ends.
    """
    best: dict[int, tuple[int, int | None]] = {}
    waiting, entered = [0], set[int]()
    while waiting:
        start = waiting[-1]
        below = [callee for callee in sorted(callees[start]) if callee not in best and callee not in entered]
        entered.add(start)
        if below:
            waiting += below[:1]
            continue
        waiting.pop()
        depths = [(best[callee][0], callee) if callee in best else (0, callee) for callee in callees[start]]
        depth, deepest_callee = max(depths, default=(0, None))
        best[start] = sizes[start] + depth, deepest_callee
    return best
