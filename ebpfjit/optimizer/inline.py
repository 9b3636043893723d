"""Small functions of the program are done where they are called (inlining).

    before                                       after
    b1 pc 3 (v0):                                b1 pc 3 (v0):
      pay 2                                        pay 2
      v1 = v0 * 3                                  v1 = v0 * 3
      v2, ... = call 9(v1) else leave 4 (...)      goto b4(v1)
      goto b2()                                  b2 pc 5 ():
    b2 pc 5 ():                                    pay 1
      pay 1                                        exit v2
      exit v2                                    b4 pc 9 (v10):
    b3 pc 9 (v8):                                  pay 2 own 2 or else leave 4 (...)
      pay 2 else leave 9 (r1 = v8)                 v11 = v10 + 1
      v9 = v8 + 1                                  goto b5(v11)
      exit v9                                    b5 pc 4 (v2):
                                                   goto b2()

Contract: such functions do arithmetic only, without a frame, without loops, and call nothing; no chain of
calls is too deep in the program (`analysis.calls`). So nothing can fault between the call and the return but
an instruction limit: where there may be less left than the longest way through the function costs, the run
leaves to the call itself, or to the start of its block where the budget is looked at there; baseline code
then does the call, with its payments one by one. Nothing else in there has an exit. The function stays, for
calls that are not done away with and for those of baseline code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ebpfjit.isa.spec import FRAME_POINTER, Kind
from ebpfjit.isa.table import BY_NAME
from ebpfjit.optimizer.code import PAY, Block, Code, Op, Way
from ebpfjit.optimizer.flow import homes_of, uses_of
from ebpfjit.record import record

JUMP = BY_NAME["JA"]
PLAIN = frozenset({Kind.BINARY, Kind.MOVE, Kind.UNARY, Kind.LOAD_IMM64, Kind.PAY})
"""What a function may do that is inlined."""
ENDS = frozenset({Kind.JUMP, Kind.BRANCH, Kind.EXIT})

MOST_OPERATIONS, MOST_BLOCKS = 24, 8
"""Of a function that is inlined, payments and ends of blocks left out."""

MOST_GROWTH = 1
"""All that is inlined has at most so many times as many operations as the program."""


@record
class Callee:
    """A function that can be inlined: its blocks, that it starts with first, each behind those before it.

    It has `size` operations; the longest way through costs `most` instructions; `results` values leave it.
    """

    numbers: tuple[int, ...]
    size: int
    most: int
    results: int


def inline(code: Code) -> Code:
    """Return the code with small functions where they are called."""
    called = {op.imm for block in code.blocks for op in block.ops if op.row.kind is Kind.CALL_LOCAL}
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
    size, results, most = 0, set[int](), dict[int, int]()
    for number in reversed(order):
        block = code.blocks[number]
        if block.end.row.kind not in ENDS or any(op.row.kind not in PLAIN for op in block.ops):
            return "it does more than arithmetic"
        if block.end.row.kind is Kind.EXIT:
            results.add(len(block.end.args))
        paid = sum(op.imm for op in block.ops if op.row is PAY)
        size += sum(op.row is not PAY for op in block.ops)
        most[number] = paid + max([most[way.block] for way in block.ways], default=0)
    if size > MOST_OPERATIONS:
        return f"it has more than {MOST_OPERATIONS} operations"
    if len(results) != 1:
        return "it does not return, or not everywhere with as much"
    return Callee(tuple(order), size, most[entry.block], results.pop())


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
        blocks = self.blocks
        behind = len(blocks) + len(callee.numbers)
        places = {each: len(blocks) + index for index, each in enumerate(callee.numbers)}
        jump = Op(JUMP, (), 0, 0, op.pc)
        ways = (Way(places[callee.numbers[0]], op.args),)
        values: dict[int, int] = {}
        for each in callee.numbers:
            blocks.append(self.copy(self.code.blocks[each], values, places, behind))
        if ops and ops[0].row is PAY and ops[0].exit is not None:
            own = ops[0]  # the budget is looked at there: for the call too
            asks = own.imm + callee.most
            ops[0] = Op(PAY, (), own.imm, asks, own.pc, (), own.exit, stores=True)
        else:
            first = blocks[places[callee.numbers[0]]]
            paid = sum(each.imm for each in first.ops if each.row is PAY)
            pay = Op(PAY, (), paid, callee.most, first.pc, (), op.exit, stores=True)
            kept = [each for each in first.ops if each.row is not PAY]
            blocks[places[callee.numbers[0]]] = replace(first, ops=(pay, *kept))
        blocks[number] = Block(block.pc, block.args, tuple(ops), jump, ways)
        blocks.append(Block(op.pc, op.results[: callee.results], (), block.end, block.ways))

    def copy(self, block: Block, values: dict[int, int], places: dict[int, int], behind: int) -> Block:
        """Return a block of a function with new values; in it nobody looks at the budget."""
        args = self.defined(block.args, values)
        ops = []
        for op in block.ops:
            read = tuple([values[value] for value in op.args])
            results = self.defined(op.results, values)
            ops.append(Op(op.row, read, op.imm, op.offset, op.pc, results))
        end = block.end
        read = tuple([values[value] for value in end.args])
        if end.row.kind is Kind.EXIT:
            return Block(block.pc, args, tuple(ops), Op(JUMP, (), 0, 0, end.pc), (Way(behind, read),))
        ways = tuple(
            [Way(places[way.block], tuple([values[value] for value in way.args])) for way in block.ways]
        )
        return Block(block.pc, args, tuple(ops), Op(end.row, read, end.imm, end.offset, end.pc), ways)

    def defined(self, old: Sequence[int], values: dict[int, int]) -> tuple[int, ...]:
        """Return new values for those that are defined in the function."""
        for value in old:
            values[value] = self.new(value)
        return tuple([values[value] for value in old])
