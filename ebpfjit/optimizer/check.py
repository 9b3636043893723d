"""What holds of Code at every stage; asked after each pass, in tests and by the fuzzer."""

from __future__ import annotations

from collections.abc import Iterator

from ebpfjit.isa.spec import Kind, Reg
from ebpfjit.optimizer.code import CALL_RESULTS, ENDS, MAY_LEAVE, ONLY, PAY, Block, Code, Exit, Op, used_by
from ebpfjit.optimizer.shape import Shape
from ebpfjit.record import record

WAYS = {Kind.JUMP: 1, Kind.BRANCH: 2, Kind.BRANCH_LOAD: 2, Kind.MAY_GOTO: 2, Kind.EXIT: 0, Kind.LEAVE: 0}
ARGUMENTS = {
    Kind.PAY: 0,
    Kind.ALIGNED: 1,
    Kind.LEAVE: 0,
    Kind.BINARY: 1,
    Kind.UNARY: 1,
    Kind.SUM: 1,
    Kind.SELECT: 3,
    Kind.LOAD: 1,
    Kind.STORE: 1,
    Kind.INDEXED_LOAD: 1,
    Kind.INDEXED_STORE: 1,
    Kind.BINARY_LOAD: 2,
    Kind.UPDATE: 1,
    Kind.BRANCH: 1,
    Kind.BRANCH_LOAD: 1,
    Kind.REDUCE: 1,
}
"""What operations of a kind read, besides the src of a row that has one for its operand, and an index."""
SOURCES = frozenset(
    {Kind.BINARY, Kind.SELECT, Kind.STORE, Kind.INDEXED_STORE, Kind.UPDATE, Kind.BRANCH}
    | {Kind.BRANCH_LOAD}
    | {Kind.REDUCE}
)
"""Kinds whose src, where they have one, is an operand."""
SCALED = frozenset(
    {Kind.BOUND, Kind.SUM, Kind.INDEXED_LOAD, Kind.INDEXED_STORE, Kind.BINARY_LOAD, Kind.UPDATE}
    | {Kind.BRANCH_LOAD}
)
"""Kinds that may have an index."""


@record
class Look:
    """What is seen of a block by itself: what is `wrong`, and which values it needs and makes."""

    block: Block
    wrong: tuple[str, ...]
    needs: frozenset[int]
    made: tuple[int, ...]


class Seen:
    """What was looked at before: most passes hand on most blocks and operations as they are."""

    def __init__(self) -> None:
        self.code: Code | None = None
        self.blocks: dict[int, Look] = {}
        self.ops: dict[int, Op] = {}  # those with nothing wrong; by `id`, so they are kept

    def look(self, block: Block) -> Look:
        """Look at a block, if that is a new one."""
        look = self.blocks.get(id(block))
        if look is None:
            look = self.blocks[id(block)] = Look(block, (*self._wrong(block),), *_flow(block))
        return look

    def _wrong(self, block: Block) -> Iterator[str]:
        ops = self.ops
        for op in block.all_ops:
            if id(op) not in ops:
                wrong = [f" pc {op.pc}: {op.row.name}: {text}" for text in _of_op(op)]
                yield from wrong
                if not wrong:
                    ops[id(op)] = op
        kind = block.end.row.kind
        if kind not in ENDS or not ENDS.isdisjoint([op.row.kind for op in block.ops]):
            yield ": it does not end where it ends"
        elif len(block.ways) != WAYS[kind]:
            yield f": {block.end.row.name} has {len(block.ways)} ways out"


def _flow(block: Block) -> tuple[frozenset[int], tuple[int, ...]]:
    """Return the values that a block needs, and those that it makes."""
    made = [*block.args]
    needs: set[int | None] = set()
    for way in block.ways:
        needs.update(way.args)
    for op in reversed(block.all_ops):
        needs.difference_update(op.results)
        needs.update(op.args)
        if op.exit is not None:
            needs.update(op.exit.registers)
    for op in block.ops:
        made += op.results
    needs.difference_update(block.args)
    return frozenset([value for value in needs if value is not None]), tuple(made)


def check(code: Code, seen: Seen | None = None) -> None:
    """Raise AssertionError with all that is wrong, a line each; `seen` is of stages before this one."""
    seen = seen or Seen()
    if code is not seen.code:
        looks = [seen.look(block) for block in code.blocks]
        wrong = [*_shapes(code, looks)]  # what has no shape has no ways
        wrong = wrong or [*_definitions(code, looks), *_endless(code)]
        assert not wrong, "\n".join(wrong)
        seen.code = code


def _shapes(code: Code, looks: list[Look]) -> Iterator[str]:
    """Yield what is wrong with single operations, ways and entries."""
    for number, (block, look) in enumerate(zip(code.blocks, looks, strict=True)):
        yield from (f"b{number}{text}" for text in look.wrong)
        for way in block.ways:
            if not 0 <= way.block < len(code.blocks):
                yield f"b{number}: there is no b{way.block}"
            elif len(way.args) != len(code.blocks[way.block].args):
                yield f"b{number}: b{way.block} does not take {len(way.args)} arguments"
    for pc, entry in code.entries.items():
        if len(entry.registers) != len(code.blocks[entry.block].args):
            yield f"entry at pc {pc}: b{entry.block} does not take {len(entry.registers)} registers"


def _of_op(op: Op) -> Iterator[str]:
    kind = op.row.kind
    if kind is not Kind.PAY and (op.exit is not None) is not (kind in MAY_LEAVE):
        yield "an exit too many or too few"
    if op.exit is not None and not _is_whole(op.exit):
        yield "an exit without all registers"
    if len(op.results) != results_of(op):
        yield f"{len(op.results)} results"
    wanted = ARGUMENTS.get(kind)
    if wanted is not None:
        wanted += (kind in SOURCES and op.row.uses_src) + (op.scale != 0)
        if len(op.args) != wanted:
            yield f"{len(op.args)} arguments, not {wanted}"
    if kind is Kind.BOUND and len(op.args) not in ((2,) if op.scale else (0, 1, 2)):
        yield f"{len(op.args)} arguments"
    if kind is Kind.COUNT and (len(op.args) > 1 or bool(op.args) is (op.imm != 0)):
        yield "it counts a number and a value, or none"
    if op.region in ONLY.values() and (kind is not Kind.BOUND or not op.args):
        yield f"it asks for {op.region}"
    must = kind is Kind.SUM or op.row.name.startswith("INDEXED")
    if op.scale not in ((1, 2, 4, 8) if must else (0, 1, 2, 4, 8) if kind in SCALED else (0,)):
        yield f"a scale of {op.scale}"


def _is_whole(leaves: Exit) -> bool:
    """True for an exit that names as many values as it has places and values that count."""
    counting = len(leaves.registers) - leaves.places
    if not leaves.counts:
        return not counting
    lengths = {len(factors) for _, _, factors in leaves.counts}
    return None not in leaves.registers[leaves.places :] and lengths == {counting}


def results_of(op: Op) -> int:
    """Return how many values an operation defines."""
    row = op.row
    match row.kind:
        case Kind.CALL_LOCAL | Kind.CALL_REGISTER:
            return CALL_RESULTS
        case Kind.CALL_HELPER | Kind.CALL_KFUNC | Kind.PACKET_LOAD:
            return 1
        case Kind.ATOMIC:
            return int(row.fetch)
        case _:
            return int(row.dst in (Reg.WRITE, Reg.UPDATE))


def _definitions(code: Code, looks: list[Look]) -> Iterator[str]:
    """Yield values that are defined twice, and those that are read where they need not be defined."""
    if len(set[int]().union(*[look.made for look in looks])) != sum([len(look.made) for look in looks]):
        yield "a value is defined twice"
    for number, known in enumerate(_defined_before(code, looks)):
        if known is None or looks[number].needs <= known:
            continue  # nothing comes there, or all is there
        block, here = code.blocks[number], {*known, *code.blocks[number].args}
        for op in block.all_ops:
            missing = [f"v{value}" for value in used_by(op) if value not in here]
            if missing:
                yield f"b{number} pc {op.pc}: {op.row.name}: {', '.join(missing)} is not defined before it"
            here.update(op.results)
        for way in block.ways:
            if not here.issuperset(way.args):
                yield f"b{number}: on the way to b{way.block} something is not defined"


def _endless(code: Code) -> Iterator[str]:
    """Yield a block that control may come round to without the budget being looked at, of code that looks."""
    asking = {
        number
        for number, block in enumerate(code.blocks)
        if any(op.row is PAY and op.exit is not None for op in block.ops)
    }
    ways = [() if number in asking else each for number, each in enumerate(code.shape.ways)]
    if asking:
        headers = Shape([[*each] for each in ways], [*range(len(ways))]).headers
        yield from (f"b{number}: nobody looks at the budget in its rounds" for number in sorted(headers))


def _defined_before(code: Code, looks: list[Look]) -> list[frozenset[int] | None]:
    """Return for each block the values that are defined on every way to it, None where there is none."""
    known: list[frozenset[int] | None] = [None] * len(code.blocks)
    waiting = []
    for entry in code.entries.values():
        known[entry.block] = frozenset()
        waiting.append(entry.block)
    while waiting:
        number = waiting.pop()
        before = known[number]
        assert before is not None  # something came there
        after = before.union(looks[number].made)
        for way in code.blocks[number].ways:
            now = known[way.block]
            then = after if now is None else now & after
            if then != now:
                known[way.block] = then
                waiting.append(way.block)
    return known
