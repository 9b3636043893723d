"""Small functions of the program are done where they are called (inlining).

    before                                       after
    b1 pc 3 (v0):                                b1 pc 3 (v0):
      pay 2                                        pay 2
      v1 = v0 * 3                                  v1 = v0 * 3
      v2, ... = function 9(v1) else leave 4 (...)  pay 2 own 2 or else leave 4 (...)
      goto b2()                                    v10 = v1 + 1
    b2 pc 5 ():                                    v2 = v10
      pay 1                                        goto b2()
      exit v2                                    b2 pc 5 ():
    b3 pc 9 (v8):                                  pay 1
      pay 2 else leave 9 (r1 = v8)                 exit v2
      v9 = v8 + 1                                b3 pc 9 (v8):
      exit v9                                      ...

Contract: such functions do arithmetic only, without a frame, without loops, and call nothing; no chain of
calls is too deep in the program (`analysis.calls`). So nothing can fault between the call and the return but
an instruction limit: where there may be less left than the longest way through the function costs, the run
leaves to the call itself, or to the start of its block where the budget is looked at there; baseline code
then does the call, with its payments one by one. Nothing else in there has an exit. The function stays, for
calls that are not done away with and for those of baseline code.
"""

from __future__ import annotations

from ebpfjit.isa.spec import FRAME_POINTER, Kind
from ebpfjit.isa.table import BY_NAME
from ebpfjit.optimizer.code import PAY, Block, Code, Op, Way
from ebpfjit.optimizer.flow import homes_of, uses_of
from ebpfjit.record import record, replace

JUMP, COPY, CALL = BY_NAME["JA"], BY_NAME["MOV64_X"], BY_NAME["CALL_LOCAL"]
PLAIN = frozenset({Kind.BINARY, Kind.MOVE, Kind.UNARY, Kind.LOAD_IMM64, Kind.PAY, Kind.COUNT})
"""What a function may do that is inlined."""
ENDS = frozenset({Kind.JUMP, Kind.BRANCH, Kind.EXIT})

MOST_OPERATIONS, MOST_BLOCKS = 24, 8
"""Of a function that is inlined, payments and ends of blocks left out."""

MOST_GROWTH = 1
"""All that is inlined has at most so many times as many operations as the program."""


@record
class Callee:
    """A function that can be inlined: its blocks, that it starts with first, each behind those before it.

    It has `size` operations; the longest way through costs `most` instructions; so many `results` leave it at
    each of its `exits`.
    """

    numbers: tuple[int, ...]
    size: int
    most: int
    exits: int
    results: int


def inline(code: Code) -> Code:
    """Return the code with small functions where they are called."""
    called = {op.imm for block in code.blocks for op in block.ops if op.row is CALL}
    if not called:
        return code
    calls = code.verified.calls
    callees: dict[int, Callee] = {}
    for pc in sorted(called):
        callee: Callee | str = "nothing says how deep calls get"
        if calls.bounded:
            callee = _callee(code, pc) if pc in calls.frameless else "it does more than arithmetic"
        if isinstance(callee, str):
            code.leave_alone("inline", pc, callee)
        else:
            callees[pc] = callee
    return _Inlining(code, callees).done() if callees else code


def _callee(code: Code, pc: int) -> Callee | str:
    """Return a function without a frame as one that can be inlined, or why it cannot."""
    entry = code.entries[pc]
    if FRAME_POINTER in entry.registers:
        return "it reads r10"
    order = _acyclic(code, entry.block)
    if isinstance(order, str):
        return order
    size, results, most = 0, list[int](), dict[int, int]()
    for number in reversed(order):
        block = code.blocks[number]
        if block.end.row.kind not in ENDS or any(op.row.kind not in PLAIN for op in block.ops):
            return "it does more than arithmetic"
        if block.end.row.kind is Kind.EXIT:
            results.append(len(block.end.args))
        paid = sum(op.imm for op in block.ops if op.row is PAY)
        size += sum(op.row is not PAY for op in block.ops)
        most[number] = paid + max([most[way.block] for way in block.ways], default=0)
    if size > MOST_OPERATIONS:
        return f"it has more than {MOST_OPERATIONS} operations"
    if len(set(results)) != 1:
        return "it does not return, or not everywhere with as much"
    return Callee(tuple(order), size, most[entry.block], len(results), results[0])


def _acyclic(code: Code, start: int) -> list[int] | str:
    """Return the blocks of a function, each behind those that lead to it; or why it is not inlined."""
    order: list[int] = []
    entered: set[int] = set()
    waiting = [start]
    while waiting:
        number = waiting.pop()
        if number < 0:
            order.append(~number)
        elif number not in entered:
            if len(entered) == MOST_BLOCKS:
                return f"it has more than {MOST_BLOCKS} blocks"
            entered.add(number)
            waiting.append(~number)
            waiting += [way.block for way in code.blocks[number].ways]
    order.reverse()
    place = {number: index for index, number in enumerate(order)}
    if any(place[way.block] <= place[number] for number in order for way in code.blocks[number].ways):
        return "it has a loop"
    return order


class _Inlining:
    """The blocks so far, and how many operations may still be added."""

    def __init__(self, code: Code, callees: dict[int, Callee]) -> None:
        self.code, self.callees = code, callees
        self.blocks = [*code.blocks]
        self.homes = homes_of(code)
        self.uses = uses_of(code)
        self.left = MOST_GROWTH * sum(len(block.ops) + 1 for block in code.blocks)

    def done(self) -> Code:
        """Return the code."""
        for number, block in enumerate(self.code.blocks):
            op = block.ops[-1] if block.ops else block.end
            if op.row.kind is not Kind.CALL_LOCAL or op.imm not in self.callees:
                continue
            callee = self.callees[op.imm]
            self.left -= callee.size
            if self.left < 0:
                self.code.leave_alone("inline", op.pc, "the program would be more than twice as long")
            elif not any(map(self.uses.__getitem__, op.results[callee.results :])):
                self.call(number, block, callee)
        return replace(self.code, blocks=tuple(self.blocks), homes=self.homes)

    def new(self, like: int) -> int:
        """Return a new value, of the register that another one was of."""
        self.homes.append(self.homes[like])
        return len(self.homes) - 1

    def call(self, number: int, block: Block, callee: Callee) -> None:
        """Put a function in place of a call, that a block ends with."""
        *ops, op = block.ops
        blocks, (first, *others) = self.blocks, callee.numbers
        values = dict(zip(self.code.blocks[first].args, op.args, strict=True))
        places = {each: len(blocks) + index for index, each in enumerate(others)}
        behind = Block(op.pc, op.results[: callee.results], (), block.end, block.ways)
        place = len(blocks) + len(others) if callee.exits > 1 else None
        here = self.copy(self.code.blocks[first], values, places, behind, place)
        paid = sum(each.imm for each in here.ops if each.row is PAY)
        kept = [each for each in here.ops if each.row is not PAY]
        leaves, looks = op.exit, 0
        if ops and ops[0].row is PAY and ops[0].exit is not None:  # the budget is looked at: for the call too
            own = ops[0]
            ops[0] = Op(PAY, (), own.imm, own.imm + callee.most, own.pc, (), own.exit, stores=True)
            leaves = None
        else:
            looks = callee.most
        ops.append(Op(PAY, (), paid, looks, self.code.blocks[first].pc, (), leaves, stores=looks > 0))
        blocks[number] = Block(block.pc, block.args, (*ops, *kept), here.end, here.ways)
        for each in others:
            blocks.append(self.copy(self.code.blocks[each], values, places, behind, place))
        if place is not None:
            blocks.append(behind)

    def copy(
        self, block: Block, values: dict[int, int], places: dict[int, int], behind: Block, place: int | None
    ) -> Block:
        """Return a block of a function with new values; in it nobody looks at the budget.

        Where it returns it goes to the block `behind`, which is at a place; or is part of this one.
        """
        args = tuple([values[arg] if arg in values else self.defined(arg, values) for arg in block.args])
        ops = []
        for op in block.ops:
            read = tuple([values[value] for value in op.args])
            results = tuple([self.defined(value, values) for value in op.results])
            ops.append(Op(op.row, read, op.imm, op.offset, op.pc, results))
        end = block.end
        read = tuple([values[value] for value in end.args])
        if end.row.kind is Kind.EXIT and place is not None:
            return Block(block.pc, args, tuple(ops), Op(JUMP, (), 0, 0, end.pc), (Way(place, read),))
        if end.row.kind is Kind.EXIT:
            for result, value in zip(behind.args, read, strict=True):
                ops.append(Op(COPY, (value,), 0, 0, end.pc, (result,)))
            return Block(block.pc, args, tuple(ops), behind.end, behind.ways)
        ways = tuple(
            [Way(places[way.block], tuple([values[value] for value in way.args])) for way in block.ways]
        )
        return Block(block.pc, args, tuple(ops), Op(end.row, read, end.imm, end.offset, end.pc), ways)

    def defined(self, old: int, values: dict[int, int]) -> int:
        """Return a new value for one that is defined in the function."""
        value = values[old] = self.new(old)
        return value
