"""Which frames a program may look at in places that it has not written, so that they must hold zeros.

    *(u64 *)(r10 - 8) = r1        written
    r2 = *(u32 *)(r10 - 8)        and read: nobody sees what was there before
    r3 = *(u32 *)(r10 - 12)       read and not written: the frame is zeroed when it is taken

Where a pointer into a frame goes where it is not followed (into memory, into a call, out of a function, into
arithmetic), anybody may look there. So does whatever is checked at run time, in this code or where it leaves
to: the address may be one that the program made up. And so do helpers, where they are given such an address.
"""

from __future__ import annotations

from ebpfjit.analysis.entries import OUTWARD_CALLS
from ebpfjit.isa.spec import Kind
from ebpfjit.optimizer.code import BOUND, Code, Op
from ebpfjit.optimizer.dominators import Dominators
from ebpfjit.optimizer.facts import Facts
from ebpfjit.runtime.memory import STACK_SIZE

NOT_FOLLOWED = frozenset(
    {Kind.CALL_HELPER, Kind.CALL_KFUNC, Kind.CALL_LOCAL, Kind.CALL_REGISTER, Kind.EXIT, Kind.PACKET_LOAD}
)
"""What takes values where they are not followed."""

ACCESSES = frozenset({Kind.LOAD, Kind.STORE, Kind.ATOMIC})


def looked_at(code: Code, facts: Facts, *, checked: bool) -> frozenset[int]:
    """Return the functions, by slot, whose frames are to be zeroed; `facts` are of this code.

    Of code that is not `checked` no access is looked for, and it goes nowhere that its program did not mean.
    """
    verified = code.verified
    program = verified.program
    everybody = frozenset(program.functions)
    if not verified.knows_all:
        return everybody
    if checked:
        is_asked = any(op.row is BOUND and (op.args or op.imm) for block in code.blocks for op in block.ops)
        is_relied = any(proof.rule == "verdict" for proofs in code.proofs.values() for proof in proofs)
        if is_asked or is_relied or not OUTWARD_CALLS.isdisjoint(program.operations):
            return everybody
    found = _Looking(code, facts).found()
    return everybody if found is None else found


class _Looking:
    """A walk over code that keeps account of the bytes of frames that are written."""

    def __init__(self, code: Code, facts: Facts) -> None:
        self.code, self.facts = code, facts
        program = code.verified.program
        starts = {entry.block for pc, entry in code.entries.items() if pc in program.functions}
        self.dominators = Dominators(code.shape, starts)
        self.seen = set[int]()

    def found(self) -> frozenset[int] | None:
        """Return the functions whose frames are looked at; None where it may be any."""
        dominators, blocks = self.dominators, self.code.blocks
        written: dict[int, int] = dict.fromkeys(dominators.entered, 0)
        for number in dominators.order:
            block = blocks[number]
            here = written[number]
            for op in block.ops:
                after = self._operation(op, here)
                if after is None:
                    return None
                here = after
            if any(
                self._is_in_frame(value) for value in block.end.args if block.end.row.kind in NOT_FOLLOWED
            ):
                return None
            for way in block.ways:
                args = zip(blocks[way.block].args, way.args, strict=True)
                if any(
                    self.facts.base[value] != self.facts.base[arg]
                    for arg, value in args
                    if self._is_in_frame(value)
                ):
                    return None
                if not dominators.is_back(number, way.block):
                    written[way.block] = written.get(way.block, here) & here
                elif not dominators.dominates(way.block, number) and written[way.block]:
                    return None  # a loop with two ways in: too rare to be worth the trouble
        return frozenset(self.facts.functions[index] for index in self.seen)

    def _is_in_frame(self, value: int) -> bool:
        return self.facts.base[value] >= self.facts.frame

    def _operation(self, op: Op, written: int) -> int | None:
        """Return what is written behind an operation; None where a pointer goes where it is not followed."""
        kind = op.row.kind
        if kind in ACCESSES:
            return None if any(map(self._is_in_frame, op.args[1:])) else self._access(op, written)
        if kind in NOT_FOLLOWED or op.results:
            kept = kind not in NOT_FOLLOWED and self._is_in_frame(op.results[0])
            if not kept and any(map(self._is_in_frame, op.args)):
                return None
        return written

    def _access(self, op: Op, written: int) -> int | None:
        """Return what is written behind an access."""
        facts, base = self.facts, op.args[0]
        if not self._is_in_frame(base):
            return written
        place = facts.place(base)
        if place is None:
            return None
        region, near, far = place
        low, high = near + op.offset, far + op.offset + op.row.size
        size = self.code.verified.frame_sizes[facts.functions[region - facts.frame]]
        if low < -size or high > 0:
            return None
        mask = (1 << high - low) - 1 << low + STACK_SIZE
        if op.row.kind is Kind.STORE:
            return written | mask if near == far else written
        if near != far or written & mask != mask:
            self.seen.add(region - facts.frame)
        return written
