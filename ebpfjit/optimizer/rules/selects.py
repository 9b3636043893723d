"""Code -> Code in which a branch around next to nothing is a choice between values.

    before                              after
    b0 pc 0 (v0, v1):                   b0 pc 0 (v0, v1):
      pay 4                               pay 4
      if v0 > v1 goto b2(v0) else b1()    v3 = v0 if v0 > v1 else v1
    b1 pc 3 ():                           v2 = v3                   (for arithmetic.py)
      goto b2(v1)                         pay 2
    b2 pc 4 (v2):                         exit v2
      pay 2
      exit v2

Contract: the same values come to the block where both ways join. An arm is a block that only the branch
leads to; nothing is paid in it (`analysis.costs`), and it holds no more than a few cheap operations, which
are done in either case then, choices that were branches among them. One value differs where the ways join, or
two that need no operation: a branch that is foretold right costs less than more of them. What counts runs is
no part of that: it stops nothing, and where an arm counts, the choice is between so many and 0. Linear: each
branch is looked at once.
"""

from __future__ import annotations

from typing import NamedTuple

from ebpfjit.isa.spec import Kind
from ebpfjit.isa.table import BY_NAME, TABLE
from ebpfjit.isa.unencoded import UNENCODED
from ebpfjit.optimizer.code import COUNT, Block, Code, Op, Way
from ebpfjit.optimizer.flow import homes_of, without

JUMP, COPY, CONSTANT = BY_NAME["JA"], BY_NAME["MOV64_X"], BY_NAME["MOV64_K"]
COUNTING = -1
"""In place of a value that a new one is like: it counts runs."""
BRANCHES = frozenset(row for row in TABLE if row.kind is Kind.BRANCH)
CALLS = frozenset({Kind.CALL_LOCAL, Kind.CALL_REGISTER})
CHEAP = frozenset(
    BY_NAME[name]
    for name in (
        "MOV64_K",
        "MOV32_K",
        "LDDW",
        "MOV32_X",
        "ADD64_K",
        "ADD32_K",
        "ADD64_X",
        "ADD32_X",
        "AND64_K",
        "AND64_X",
        "MOV64_X",
        "SUB64_X",
        "SUB64_K",
        "MUL64_K",
        "LSH64_K",
        "RSH64_K",
        "XOR64_K",
        "XOR64_X",
        "OR64_X",
    )
) | frozenset(row for row in UNENCODED.values() if row.kind in (Kind.SELECT, Kind.COUNT))
"""Rows of what may be done in vain."""
MOST_DONE, MOST = 4, 5
"""Operations of an arm; of both, copies left out, with the choices."""

MOST_JOINED = 256
"""Operations of a block that becomes part of the one in front of it: they are copied."""


class _Arm(NamedTuple):
    """One way from a branch to where both join."""

    ops: tuple[Op, ...]
    way: Way
    block: int | None
    """The block in between, where there is one."""


def select(code: Code, counting: set[int] | None = None) -> Code:
    """Return the code with choices instead of branches around next to nothing.

    `counting` are values that count runs: those that are made here are added.
    """
    return _Selecting(code, set() if counting is None else counting).run()


class _Selecting:
    """Blocks while they grow; those that are part of others are None."""

    def __init__(self, code: Code, counting: set[int]) -> None:
        self.code, self.counting = code, counting
        self.blocks: list[Block | None] = [*code.blocks]
        self.leading = [len(before) for before in code.shape.before]  # ways in, those from outside as well
        self.homes = homes_of(code)

    def run(self) -> Code:
        """Go through all blocks, later ones first: what was a branch may be part of an arm then."""
        is_changed = False
        for number in range(len(self.blocks) - 1, -1, -1):
            block = self.blocks[number]
            if block is None:
                continue
            row = block.end.row
            if row in BRANCHES:
                arms = self.arms(block)
                if arms is None:
                    continue
                self.choose(number, block, *arms)
                is_changed = True
            elif row is not JUMP:
                continue
            is_changed = self.go_on(number) or is_changed
        return without(self.code, self.blocks, self.homes, ways_stay=False) if is_changed else self.code

    def choose(self, number: int, block: Block, taken: _Arm, through: _Arm) -> None:
        """Give a block choices instead of its branch."""
        end, join = block.end, taken.way.block
        ops = [*block.ops]
        row = UNENCODED[f"SELECT_{end.row.name}"]

        def chosen(like: int, one: int, other: int) -> int:
            value = self.new(like)
            ops.append(Op(row, (*end.args, one, other), end.imm, 0, end.pc, (value,)))
            return value

        for arm in (taken, through):
            for op in arm.ops:
                if op.row is COUNT:
                    more = op.args[0] if op.args else self.number(ops, op.imm, op.pc)
                    none = self.number(ops, 0, op.pc)
                    pair = (more, none) if arm is taken else (none, more)
                    op = Op(COUNT, (chosen(COUNTING, *pair),), 0, op.offset, op.pc)
                ops.append(op)
        given = []
        for arg, one, other in zip(
            self.code.blocks[join].args, taken.way.args, through.way.args, strict=True
        ):
            given.append(one if one == other else chosen(arg, one, other))
        jump = Op(JUMP, (), 0, 0, end.pc)
        self.blocks[number] = Block(block.pc, block.args, tuple(ops), jump, (Way(join, tuple(given)),))
        for arm in (taken, through):
            if arm.block is not None:
                self.blocks[arm.block] = None
        self.leading[join] -= 1  # one way instead of two

    def new(self, like: int) -> int:
        """Return a new value, for the register of another; it counts if that one does, or there is none."""
        self.homes.append(self.homes[like] if like >= 0 else 0)
        value = len(self.homes) - 1
        if like < 0 or like in self.counting:
            self.counting.add(value)
        return value

    def number(self, ops: list[Op], number: int, pc: int) -> int:
        """Add the operation that makes a number to count with; return its value."""
        value = self.new(COUNTING)
        ops.append(Op(CONSTANT, (), number, 0, pc, (value,)))
        return value

    def go_on(self, number: int) -> bool:
        """Make what follows a block part of it, where nothing else leads there; return whether it is."""
        block = self.blocks[number]
        assert block is not None  # it was looked at
        if block.end.row is not JUMP or (block.ops and block.ops[-1].row.kind in CALLS):
            return False
        way = block.ways[0]
        following = self.blocks[way.block]
        if following is None or way.block == number or self.leading[way.block] != 1:
            return False
        if len(following.ops) > MOST_JOINED:
            return False
        copies = [
            Op(COPY, (given,), 0, 0, block.end.pc, (arg,))
            for arg, given in zip(following.args, way.args, strict=True)
        ]
        ops = (*block.ops, *copies, *following.ops)
        self.blocks[number] = Block(block.pc, block.args, ops, following.end, following.ways)
        self.blocks[way.block] = None
        return True

    def arms(self, block: Block) -> tuple[_Arm, _Arm] | None:
        """Return both ways from a branch where they join at once; None where they do not."""
        taken, through = [self.arm(way) for way in block.ways]
        if taken is None and through is None:
            return None
        direct_taken, direct_through = [_Arm((), way, None) for way in block.ways]
        for one, other in ((taken, through), (taken, direct_through), (direct_taken, through)):
            if one is not None and other is not None and one.way.block == other.way.block:
                args = zip(self.code.blocks[one.way.block].args, one.way.args, other.way.args, strict=True)
                differ = sum(a != b for arg, a, b in args if arg not in self.counting)
                done = len(self.asked((*one.ops, *other.ops)))
                return (one, other) if differ <= (1 if done else 2) and differ + done <= MOST else None
        return None

    def asked(self, ops: tuple[Op, ...]) -> list[Op]:
        """Return those of some operations that the program asks for: no copies, and nothing that counts."""
        counting, others = self.counting, (COPY, COUNT)
        return [op for op in ops if op.row not in others and op.results[0] not in counting]

    def arm(self, way: Way) -> _Arm | None:
        """Return a way through a block that is next to empty; None through any other."""
        block = self.blocks[way.block]
        if block is None or block.end.row is not JUMP or self.leading[way.block] != 1 or block.args:
            return None
        if block.ways[0].block == way.block or not CHEAP.issuperset([op.row for op in block.ops]):
            return None
        if len(block.ops) > MOST_DONE and len(self.asked(block.ops)) > MOST_DONE:
            return None
        return _Arm(block.ops, block.ways[0], way.block)
