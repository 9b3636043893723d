"""Small innermost loops do several rounds before they come round.

    before                                   after
    b1 (v3, v4):                             b1 (v3, v4):
      pay 4 else leave 3 (...)                 pay 4 own 8 or else leave 3 (...)
      v5 = *(u8 *)(v3 + 0)                     v5 = *(u8 *)(v3 + 0)
      v6 = v4 + v5                             v6 = v4 + v5
      v7 = v3 + 1                              v7 = v3 + 1
      if v7 != v2 goto b1(v7, v6)              if v7 != v2 goto b3(v7, v6) else b2(v6)
      else b2(v6)                            b3 (v8, v9):                      the second round
                                               pay 4
                                               ...
                                               if v12 != v2 goto b1(v12, v11) else b2(v11)

Of a loop that is counted (`counted.py`) the rounds lie in front, with no test between them; it does the last.
The budget is looked at in the first of the rounds only, which asks for what all of them may cost: where that
is not left the run goes on in baseline code, which looks in each. Loops have one header, call nothing and
have few operations; what is made in them and read outside leaves as an argument of the block that comes next,
so that each round may have its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import chain

from ebpfjit.isa.spec import Kind
from ebpfjit.isa.table import TABLE
from ebpfjit.isa.unencoded import UNENCODED
from ebpfjit.optimizer.code import PAY, Block, Code, Op, Way
from ebpfjit.optimizer.counted import Counted, Making, way_back
from ebpfjit.optimizer.flow import homes_of
from ebpfjit.optimizer.payments import JUMP, SETTLING
from ebpfjit.record import replace

MOST_OPERATIONS = 24
"""Operations of a loop that is unrolled, its payments left out."""
ROUNDS = ((8, 4), (MOST_OPERATIONS, 2))
"""Of so many operations at most: so many rounds."""
MOST_BLOCKS = 4
_ROWS = (*TABLE, *UNENCODED.values())
STOPPING = frozenset(row for row in _ROWS if row.kind in (Kind.LEAVE, Kind.MAY_GOTO))
REDUCING = frozenset(row for row in _ROWS if row.kind is Kind.REDUCE)


def unroll(code: Code) -> Code:
    """Return the code with small loops unrolled."""
    (depths, headers), before = code.shape.loops, code.shape.before
    if code.shape.is_deep:
        code.leave_alone("loop depths", None, "its loops are too deep in each other, so some count as none")
    loops: dict[int, list[int]] = {}
    for header in sorted(headers):
        body = _body(code, header, depths, before)
        if isinstance(body, str):
            code.leave_alone("unroll", code.blocks[header].pc, body)
        elif body:
            loops[header] = body
    if not loops:
        return code
    counted = _Counting(code)
    for header, body in loops.items():
        if counted.loop(header, body):
            loops[header] = []
    code, loops = counted.done(), {header: body for header, body in loops.items() if body}
    if not loops:
        return code
    before = code.shape.before
    unrolling = _Unrolling(code, loops)
    for header, body in loops.items():
        unrolling.loop(header, body, before)
    return unrolling.done()


def _body(code: Code, header: int, depths: Sequence[int], before: Sequence[Sequence[int]]) -> list[int] | str:
    """Return the blocks of a loop, the header first; none of one with loops inside, or why it stays."""
    inside = code.shape.inside(header, MOST_BLOCKS)
    if any(depths[number] > depths[header] for number in inside):
        return []
    if len(inside) > MOST_BLOCKS:
        return f"it is a loop of more than {MOST_BLOCKS} blocks"
    body, waiting, operations = [header], [*code.shape.ways[header]], 0
    while waiting:
        number = waiting.pop()
        if number in inside and number not in body:
            body.append(number)
            waiting += code.shape.ways[number]
    for number in body:
        block, end = code.blocks[number], code.blocks[number].end.row
        rows = [op.row for op in block.ops]
        operations += len(rows) - rows.count(PAY) + (end is not JUMP)
        if operations > MOST_OPERATIONS:
            return f"it is a loop of more than {MOST_OPERATIONS} operations"
        if end in SETTLING or not SETTLING.isdisjoint(rows):
            return "it is a loop with calls, or one that may end the function"
        if end in STOPPING or not REDUCING.isdisjoint(rows):
            return []  # or it does several rounds already
        if number != header and any(each not in body for each in before[number]):
            return "it is a loop with several ways in"
    if -1 in before[header]:
        return "it is a loop that a function starts with"
    if not any(each in body for each in before[header]):
        return []
    return body


class _Counting(Making):
    """The blocks so far: of loops that are counted rounds without a test between them are put in front."""

    def loop(self, header: int, body: Sequence[int]) -> bool:
        """Put rounds in front of a loop, if how many follow can be told; return whether they are."""
        back = way_back(self.code, header, self.code.blocks[header], self.code.shape.before)
        if back is None:
            return False
        loop = Counted(self.code, header, *back)
        if len(body) != (1 if loop.block.ways[loop.index].block == header else 2) or not loop.pays_first():
            return False
        loop.rounds = _rounds_of([loop.block])
        test = loop.enough_rounds()
        if test is None:
            return False
        front, limit = self.front(header, loop, test)
        of = {**front, **{arg: self.new(arg) for arg in loop.varying}}
        first, block = of, _without_steps(loop)
        head, args = len(self.blocks), tuple([of[arg] for arg in loop.varying])
        for round_ in range(loop.rounds):
            values = {**of, **{value: self.new(value) for value in loop.defined}}
            asks = 0 if round_ else loop.rounds * loop.cost
            self.ops += _copy(block, values, {}, (), asks=asks).ops
            if loop.paid:
                self.ops.append(Op(PAY, (), loop.paid, 0, self.pc))
            of = {arg: values.get(value, value) for arg, value in loop.after.items()}
            for arg, op in loop.steps.items():  # from the first of the rounds on: a displacement, mostly
                of[arg] = self.emit(op.row, (first[arg],), (round_ + 1) * op.imm, like=arg)
        self.again(loop, head, args, of, self.enough(test, of[test.counter], limit))
        return True

    def done(self) -> Code:
        """Return the code."""
        if len(self.blocks) == len(self.code.blocks):
            return self.code
        return replace(self.code, blocks=tuple(self.blocks), homes=self.homes)


def _without_steps(loop: Counted) -> Block:
    """Return the block of a loop without the steps that nothing reads but the argument that steps."""
    read: set[int | None] = {value for arg, value in loop.after.items() if arg not in loop.steps}
    for op in loop.block.ops:
        read.update(op.args)
        if op.exit is not None:
            read.update(op.exit.registers)
    made = {op.results[0] for op in loop.steps.values()} - read
    ops = tuple([op for op in loop.block.ops if made.isdisjoint(op.results)])
    return replace(loop.block, ops=ops)


def _rounds_of(blocks: Sequence[Block]) -> int:
    """Return how many rounds a loop of these blocks does before it comes round."""
    size = len([op for block in blocks for op in block.ops if op.row is not PAY])
    return next(count for most, count in ROUNDS if size <= most)


class _Unrolling:
    """The blocks so far; `loops` are those that may be unrolled, by header."""

    def __init__(self, code: Code, loops: Mapping[int, Sequence[int]]) -> None:
        self.code = code
        self.blocks = [*code.blocks]
        self.homes = homes_of(code)
        made = [_defined(code.blocks[number]) for body in loops.values() for number in body]
        self.made = frozenset(chain.from_iterable(made))
        """What is made in these loops."""
        self.readers: dict[int, set[int]] = {value: set() for value in self.made}
        """The blocks that read it."""
        for number, block in enumerate(self.blocks):
            self.reads(number, block)

    def reads(self, number: int, block: Block) -> None:
        """Note what a block reads."""
        read = [op.args for op in block.ops]
        read += [way.args for way in block.ways]
        read += [op.exit.registers for op in block.all_ops if op.exit is not None]  # type: ignore[misc]
        for value in self.made.intersection(chain(block.end.args, *read)):
            self.readers[value].add(number)

    def done(self) -> Code:
        """Return the code."""
        if len(self.blocks) == len(self.code.blocks):
            return self.code
        return replace(self.code, blocks=tuple(self.blocks), homes=self.homes)

    def new(self, like: int) -> int:
        """Return a new value, of the register that another one was of."""
        self.homes.append(self.homes[like])
        return len(self.homes) - 1

    def loop(self, header: int, body: list[int], before: Sequence[Sequence[int]]) -> None:
        """Unroll a loop, if what it leaves can be told apart by round."""
        inside = set(body)
        made = {value for number in body for value in _defined(self.blocks[number])}
        if not self._leave_by_arguments(inside, made, before):
            return
        rounds = _rounds_of([self.blocks[number] for number in body])
        asks = rounds * sum(op.imm for number in body for op in self.blocks[number].ops if op.row is PAY)
        originals = {number: self.blocks[number] for number in body}
        numbers = [{header: header, **dict(zip(body, body, strict=True))}]
        for _ in range(rounds - 1):
            numbers.append({number: len(self.blocks) + index for index, number in enumerate(body)})
            self.blocks += [originals[number] for number in body]
        for round_, places in enumerate(numbers):
            values = {value: self.new(value) for value in sorted(made)} if round_ else {}
            following = numbers[(round_ + 1) % rounds][header]
            for number in body:
                turned = {**places, header: following}
                copy = _copy(originals[number], values, turned, inside, asks=0 if round_ else asks)
                self.blocks[places[number]] = copy
                self.reads(places[number], copy)

    def _leave_by_arguments(self, inside: set[int], made: set[int], before: Sequence[Sequence[int]]) -> bool:
        """Have blocks behind a loop take what was made in it as arguments; False where that cannot be."""
        outside = {way.block for number in inside for way in self.blocks[number].ways} - inside
        readers, wanted = self.readers, dict[int, int]()
        escaping = [value for value in sorted(made) if not readers[value] <= inside]
        if escaping:
            if len(outside) != 1 or any(each not in inside for each in before[next(iter(outside))]):
                return False
            wanted = {value: self.new(value) for value in escaping}
        if not wanted:
            return True
        (target,) = outside
        everywhere = {number for value in wanted for number in readers[value]} - inside
        for value in wanted:
            readers[value] &= inside
        for number in everywhere:
            self.blocks[number] = _copy(self.blocks[number], wanted, {}, set(), asks=None, defines=False)
        block = self.blocks[target]
        self.blocks[target] = replace(block, args=(*block.args, *wanted.values()))
        for number in inside:
            block = self.blocks[number]
            ways = tuple(
                Way(way.block, (*way.args, *wanted)) if way.block == target else way for way in block.ways
            )
            self.blocks[number] = replace(block, ways=ways)
        return True


def _defined(block: Block) -> list[int]:
    return [*block.args, *chain.from_iterable([op.results for op in block.ops])]


def _copy(
    block: Block,
    values: Mapping[int, int],
    turned: Mapping[int, int],
    inside: Collection[int],
    *,
    asks: int | None,
    defines: bool = True,
) -> Block:
    """Return a block with other values, and ways to other blocks.

    Where the budget is looked at it `asks` for so much; 0: nobody looks, None: as before.
    """
    of = values.get

    def op_of(op: Op) -> Op:
        leaves, offset, stores = op.exit, op.offset, op.stores
        if leaves is not None:
            if op.row is PAY and asks is not None:
                offset, stores = asks, asks > 0
                leaves = leaves if asks else None
            if leaves is not None and values:
                leaves = leaves.naming(
                    [None if value is None else of(value, value) for value in leaves.registers]
                )
        args = tuple([of(value, value) for value in op.args]) if op.args else ()
        results = tuple([of(value, value) for value in op.results]) if defines and op.results else op.results
        return Op(op.row, args, op.imm, offset, op.pc, results, leaves, stores, op.region, op.scale)

    ways = [
        Way(
            turned[way.block] if way.block in inside else way.block,
            tuple([of(value, value) for value in way.args]),
        )
        for way in block.ways
    ]
    args = tuple([of(value, value) for value in block.args]) if defines else block.args
    ops = [op_of(op) if values or op.row is PAY else op for op in block.ops]
    return Block(block.pc, args, tuple(ops), op_of(block.end), tuple(ways))
