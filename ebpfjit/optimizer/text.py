"""Code as text, in the Linux dialect, and back: what tests of passes are written in.

    entry 0: b0 (r1, r10)
    b0 pc 0 (v0, v1):
      pay 3 else leave 0 (r1 = v0, r10 = v1)
      bound load v0 + 0..4 else leave 0 (r1 = v0, r10 = v1) refund 3
      v2 = *(u32 *)(v0 + 0)
      w3 = w2 + 5
      exit v3

A value is w where an operation of 32 bits reads it or makes it: `v3` and `w3` are one value. The pc of an
operation stands behind it (`; 12`) where it is not that of the one before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from ebpfjit.analysis.verified import Verified
from ebpfjit.isa.spec import REGISTER_COUNT, Kind, Row
from ebpfjit.isa.table import BY_NAME, TABLE
from ebpfjit.isa.unencoded import UNENCODED
from ebpfjit.optimizer.check import results_of
from ebpfjit.optimizer.code import ALIGNED, BOUND, COUNT, LEAVE, PAY, Block, Code, Entry, Exit, Op, Way

_PLACE = "$a{offset}"
_POINTER = f"($type *)({_PLACE})"
_INDEXED = "($type *)(v$a{index}{offset})"


def template(row: Row) -> str:
    """Return how an operation of a row is written.

    `$r` is the result, `$a` and `$b` the first arguments, `$c` and `$d` those behind; `$i`, inside of
    `{index}`, is an index, which is not counted. `{imm}` and `{offset}` are numbers.
    """
    word = row.meaning.lower()
    source = "$b" if row.uses_src else "{imm}"
    match row.kind:
        case Kind.BINARY:
            return f"$r = $a {row.symbol.removesuffix('=')} {source}"
        case Kind.MOVE if row.offset:
            return f"$r = (s{row.offset})$a"
        case Kind.MOVE:
            return "$r = $a" if row.uses_src else "$r = {imm}"
        case Kind.UNARY:
            return "$r = -$a" if row.symbol == "-" else f"$r = {row.symbol} $a"
        case Kind.LOAD_IMM64:
            return "$r = {imm} ll"
        case Kind.LOAD:
            return f"$r = *{_POINTER}" if row.symbol == "=" else f"$r = {row.symbol}({_POINTER})"
        case Kind.STORE:
            return f"*{_POINTER} = {source}" if row.symbol == "=" else f"{row.symbol}({_POINTER}, $b)"
        case Kind.ATOMIC if row.meaning == "CMPXCHG":
            return f"$r = cmpxchg({_POINTER}, $c, $b)"
        case Kind.ATOMIC if row.fetch:
            return f"$r = {'xchg' if word == 'xchg' else f'atomic_fetch_{word}'}({_POINTER}, $b)"
        case Kind.ATOMIC:
            return f"lock *{_POINTER} {_OPERATORS[row.meaning]} $b"
        case Kind.PACKET_LOAD:
            return "$r = *($type *)skb[$a + {imm}]" if row.uses_src else "$r = *($type *)skb[{imm}]"
        case Kind.BRANCH:
            return f"if $a {row.symbol} {source}"
        case _:
            return _of_code(row)


def _of_code(row: Row) -> str:
    """Return how an operation is written that only Code has."""
    source, swapped = "$b" if row.uses_src else "{imm}", f"{row.symbol} " if row.symbol != "=" else ""
    match row.kind:
        case Kind.SUM:
            return "$r = $a{index}{offset}"
        case Kind.SELECT:
            chosen, other = ("v$c", "v$d") if row.uses_src else ("v$b", "v$c")
            return f"v$r = {chosen} if $a {row.symbol} {source} else {other}"
        case Kind.INDEXED_LOAD:
            return f"$r = {swapped}*{_INDEXED}"
        case Kind.INDEXED_STORE:
            return f"*{_INDEXED} = {swapped}{source}"
        case Kind.BINARY_LOAD:
            return f"$r = $b {row.symbol.removesuffix('=')} *{_INDEXED}"
        case Kind.UPDATE:
            return f"*{_INDEXED} {row.symbol} {source}"
        case Kind.REDUCE:
            others = ", *($type *)v$b" if row.uses_src else ""
            return f"$r = reduce {row.symbol} {{imm}} *{_POINTER}{others}"
        case Kind.BRANCH_LOAD:
            return f"if *{_INDEXED} {row.symbol} {source}"
        case _:
            raise AssertionError(row)


_OPERATORS = {row.meaning: row.symbol for row in TABLE if row.kind is Kind.BINARY}
_CALLS = {"call": "CALL", "kfunc": "CALL_KFUNC", "function": "CALL_LOCAL", "callx": "CALLX"}
"""How calls are written: the word in front of their number and arguments."""


_OF_WHOLE_VALUES = frozenset(
    {Kind.LOAD, Kind.STORE, Kind.PACKET_LOAD, Kind.INDEXED_LOAD, Kind.INDEXED_STORE, Kind.UPDATE}
    | {Kind.BRANCH_LOAD}
)
"""Kinds whose width is that of memory."""


def _index(row: Row) -> str:
    return f" + {'w' if row.name == 'SUM32' else 'v'}$i * {{scale}}"


@cache
def _shape(row: Row) -> str:
    """Return a row's template with its type, and the letter of its values."""
    letter = "v" if row.width.bits == 64 or row.kind in _OF_WHOLE_VALUES else "w"
    shape = template(row).replace("$type", f"{'s' if row.signed else 'u'}{8 * row.size}")
    # The base of an address is a whole value.
    shape = re.sub(r"\$a(?=\{offset\})", "v$a", shape)
    return re.sub(r"(?<!v)\$(?=[rabcd])", f"{letter}$", shape)


# -- writing --------------------------------------------------------------------------------------------


def to_text(code: Code) -> str:
    """Return code as text, a line for each operation."""
    return "\n".join(_lines(code)) + "\n"


def _lines(code: Code) -> Iterator[str]:
    for pc, entry in code.entries.items():
        yield f"entry {pc}: b{entry.block} ({', '.join(f'r{number}' for number in entry.registers)})"
    for number in code.laid_out:
        block = code.blocks[number]
        yield f"b{number} pc {block.pc} ({_values(block.args)}):"
        pc = block.pc
        for op in block.ops:
            yield f"  {_op(op)}{'' if op.pc == pc else f' ; {op.pc}'}"
            pc = op.pc
        yield f"  {_end(block)}{'' if block.end.pc == pc else f' ; {block.end.pc}'}"


def _values(values: tuple[int, ...]) -> str:
    return ", ".join(f"v{value}" for value in values)


def _exit(leaves: Exit) -> str:
    places = [f"r{number}" for number in range(REGISTER_COUNT)]
    places += [f"u{8 * size}[{offset}]" for offset, size in leaves.slots]
    pairs = zip(places, leaves.registers, strict=not leaves.counts)
    named = (f"{place} = v{value}" for place, value in pairs if value is not None)
    return (
        f"leave {'inside ' if leaves.inside else ''}{leaves.pc} ({', '.join(named)})"
        f"{f' refund {leaves.refund}' if leaves.refund else ''}"
        f"{' count ' if leaves.counts else ''}{', '.join(_counts(leaves))}"
    )


def _counts(leaves: Exit) -> Iterator[str]:
    """Yield each word that an exit adds to: `12 += 1 + v5 - v6`."""
    values = leaves.registers[leaves.places :]
    for word, number, factors in leaves.counts:
        pairs = zip(values, factors, strict=True)
        terms = [f"{'+' if by > 0 else '-'} v{value}" for value, by in pairs if by]
        yield " ".join([f"{word} += {number}", *terms])


def _op(op: Op) -> str:
    row, leaves = op.row, f" else {_exit(op.exit)}" if op.exit is not None else ""
    match row.kind:
        case Kind.PAY:
            own = f" own {op.offset}" if op.offset else ""
            return f"pay {op.imm}{own}{' or' if op.stores else ''}{leaves}"
        case Kind.COUNT:
            return f"count {op.offset} += {f'v{op.args[0]}' if op.args else op.imm}"
        case Kind.BOUND:
            access = "store" if op.stores else "load"
            values = " .. ".join(f"v{value}" for value in op.args[: 1 if op.scale else 2])
            index = f" + v{op.args[1]} * {op.scale}" if op.scale else ""
            base = f"{op.region} {values}".strip()
            return f"bound {access} {base}{index} + {op.offset}..{op.offset + op.imm}{leaves}"
        case Kind.ALIGNED:
            return f"aligned v{op.args[0]} + {op.offset}, {op.imm}{leaves}"
        case Kind.CALL_HELPER | Kind.CALL_KFUNC | Kind.CALL_LOCAL | Kind.CALL_REGISTER:
            (word,) = [word for word, name in _CALLS.items() if name == row.name]
            number = f" {op.imm}{f':{op.offset}' if op.offset else ''}"
            return f"{_values(op.results)} = {word}{number}({_values(op.args)}){leaves}"
    return _filled(op) + leaves


def _filled(op: Op) -> str:
    text = _shape(op.row).replace("{index}", _index(op.row) if op.scale else "")
    names = "aibcd" if op.scale else "abcd"
    numbers = dict(zip(names, op.args, strict=False), r=op.results[0] if op.results else "")
    text = re.sub(r"\$([rabcdi])", lambda found: str(numbers[found[1]]), text)
    sign = "-" if op.offset < 0 else "+"
    text = text.replace("{imm}", str(op.imm)).replace("{offset}", f" {sign} {abs(op.offset)}")
    return text.replace("{scale}", str(op.scale))


def _way(way: Way) -> str:
    return f"b{way.block}({_values(way.args)})"


def _end(block: Block) -> str:
    end, ways = block.end, block.ways
    match end.row.kind:
        case Kind.LEAVE:
            assert end.exit is not None  # as every LEAVE has
            return _exit(end.exit)
        case Kind.EXIT:
            return f"exit {_values(end.args)}"
        case Kind.JUMP:
            return f"goto {_way(ways[0])}"
        case Kind.MAY_GOTO:
            return f"may_goto {_way(ways[0])} else {_way(ways[1])}"
    return f"{_filled(end)} goto {_way(ways[0])} else {_way(ways[1])}"


# -- reading --------------------------------------------------------------------------------------------

_NUMBER = r"-?\d+"
_BRANCHES = (Kind.BRANCH, Kind.BRANCH_LOAD)
_TAIL = r"(?: else (?P<leave>leave .*))?"


@cache
def _patterns() -> tuple[tuple[Row, re.Pattern[str]], ...]:
    """Return each row with what its lines look like."""
    found = []
    for row in (*TABLE, *UNENCODED.values()):
        try:
            shape = re.escape(_shape(row))
        except AssertionError:
            continue  # calls and ends have words of their own
        may = "" if row.kind is Kind.SUM or row.name.startswith("INDEXED") else "?"
        shape = shape.replace(re.escape("{index}"), f"(?:{re.escape(_index(row))}){may}")
        shape = re.sub(r"\\\$([rabcdi])", r"(?P<\1>\\d+)", shape)
        shape = shape.replace(re.escape("{imm}"), f"(?P<imm>{_NUMBER})")
        shape = shape.replace(re.escape("{scale}"), r"(?P<scale>[1248])")
        shape = shape.replace(re.escape("{offset}"), r" (?P<offset>[+-] \d+)")
        found.append((row, re.compile(shape + ("" if row.kind in _BRANCHES else _TAIL))))
    return tuple(found)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(value) for value in re.findall(r"v(\d+)", text))


def _read_exit(text: str | None) -> Exit | None:
    if text is None:
        return None
    found = re.fullmatch(r"leave (inside )?(\d+) \((.*?)\)(?: refund (\d+))?(?: count (.*))?", text)
    if found is None:
        raise ValueError(f"no exit: {text!r}")
    registers: list[int | None] = [None] * REGISTER_COUNT
    for register, value in re.findall(r"r(\d+) = v(\d+)", found[3]):
        registers[int(register)] = int(value)
    slots = []
    for bits, offset, value in re.findall(r"u(\d+)\[(-?\d+)\] = v(\d+)", found[3]):
        slots.append((int(offset), int(bits) // 8))
        registers.append(int(value))
    said = [each.partition(" += ") for each in (found[5] or "").split(", ") if each]
    terms = [dict(_read_terms(told)) for _, _, told in said]
    values = sorted({value for each in terms for value in each})
    counts = [
        (int(word), int(told.split()[0]), tuple([each.get(value, 0) for value in values]))
        for (word, _, told), each in zip(said, terms, strict=True)
    ]
    registers += values
    is_inside = found[1] is not None
    return Exit(int(found[2]), tuple(registers), int(found[4] or 0), tuple(slots), is_inside, tuple(counts))


def _read_terms(text: str) -> Iterator[tuple[int, int]]:
    """Yield each value of a sum, with 1 or -1."""
    for sign, value in re.findall(r"([+-]) v(\d+)", text):
        yield int(value), int(f"{sign}1")


def _read_way(text: str) -> Way:
    found = re.fullmatch(r"b(\d+)\((.*)\)", text)
    if found is None:
        raise ValueError(f"no way: {text!r}")
    return Way(int(found[1]), _numbers(found[2]))


_BASE = rf"(?P<args>v\d+) \+ (?P<offset>{_NUMBER})"

_REGION = r"(?:(?P<region>stack|(?:only )?(?:argument|packet)) ?)?"
_SPAN = rf"(?P<args>v\d+(?: \.\. v\d+)?(?: \+ v\d+ \* (?P<scale>[1248]))?)? ?\+ (?P<offset>{_NUMBER})"

_CALLED = rf"(?P<imm>{_NUMBER})(?::(?P<offset>{_NUMBER}))?"

_SPECIAL = (
    (COUNT, re.compile(rf"count (?P<offset>[01]) \+= (?:(?P<args>v\d+)|(?P<imm>\d+)){_TAIL}")),
    (PAY, re.compile(rf"pay (?P<imm>-?\d+)(?: own (?P<offset>\d+))?(?P<or> or)?{_TAIL}")),
    (BOUND, re.compile(rf"bound (?P<access>load|store) {_REGION}{_SPAN}\.\.(?P<end>{_NUMBER}){_TAIL}")),
    (ALIGNED, re.compile(rf"aligned {_BASE}, (?P<imm>\d+){_TAIL}")),
    *(
        (BY_NAME[name], re.compile(rf"(?P<results>.*) = {word} {_CALLED}\((?P<args>.*?)\){_TAIL}"))
        for word, name in _CALLS.items()
    ),
)  # fmt: skip


def _read_op(text: str, pc: int) -> Op:
    """Return the operation of a line. Raises ValueError."""
    for row, pattern in _SPECIAL:
        if found := pattern.fullmatch(text):
            said = found.groupdict()
            offset = int(said.get("offset") or 0)
            imm = int(said["end"]) - offset if "end" in said else int(said["imm"] or 0)
            results, args = _numbers(said.get("results") or ""), _numbers(said.get("args") or "")
            stores = said.get("access") == "store" or said.get("or") is not None
            region, scale = said.get("region") or "", int(said.get("scale") or 0)
            leaves = _read_exit(said["leave"])
            return Op(row, args, imm, offset, pc, results, leaves, stores, region, scale)
    for row, pattern in _patterns():
        if row.kind not in _BRANCHES and (found := pattern.fullmatch(text)):
            said = found.groupdict()
            return _made(row, said, pc, _read_exit(said["leave"]))
    raise ValueError(f"no operation: {text!r}")


def _made(row: Row, said: dict[str, str | None], pc: int, leaves: Exit | None = None) -> Op:
    args = tuple(int(value) for name in "aibcd" if (value := said.get(name)) is not None)
    offset = int((said.get("offset") or "0").replace(" ", ""))
    results = () if said.get("r") is None else (int(said["r"] or 0),)
    imm, scale = (int(said.get(name) or 0) for name in ("imm", "scale"))
    op = Op(row, args, imm, offset, pc, results, leaves, False, "", scale)
    assert len(op.results) == results_of(op), row
    return op


def _read_end(text: str, pc: int) -> tuple[Op, tuple[Way, ...]]:
    """Return the end of a block and its ways. Raises ValueError."""
    if text.startswith("leave "):
        return Op(LEAVE, (), 0, 0, pc, (), _read_exit(text)), ()
    if text.startswith("exit "):
        return Op(BY_NAME["EXIT"], _numbers(text), 0, 0, pc), ()
    if text.startswith("goto "):
        return Op(BY_NAME["JA"], (), 0, 0, pc), (_read_way(text.removeprefix("goto ")),)
    head, _, rest = text.rpartition("goto ")
    taken, _, through = rest.partition(" else ")
    ways = _read_way(taken), _read_way(through)
    if head == "may_":
        return Op(BY_NAME["MAY_GOTO"], (), 0, 0, pc), ways
    for row, pattern in _patterns():
        if row.kind in _BRANCHES and (found := pattern.fullmatch(head.rstrip())):
            return _made(row, found.groupdict(), pc), ways
    raise ValueError(f"no end of a block: {text!r}")


def from_text(text: str, verified: Verified) -> Code:
    """Return the code of a text that is of a program. Raises ValueError naming what is no line of code."""
    entries: dict[int, Entry] = {}
    blocks: list[Block] = []
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    heads = [index for index, line in enumerate(lines) if not line.startswith("  ")]
    for index, behind in zip(heads, [*heads[1:], len(lines)], strict=True):
        if found := re.fullmatch(r"entry (\d+): b(\d+) \((.*)\)", lines[index]):
            registers = tuple(int(number) for number in re.findall(r"r(\d+)", found[3]))
            entries[int(found[1])] = Entry(int(found[2]), registers)
            continue
        found = re.fullmatch(r"b(\d+) pc (\d+) \((.*)\):", lines[index])
        if found is None or int(found[1]) != len(blocks):
            raise ValueError(f"no entry and not b{len(blocks)}: {lines[index]!r}")
        blocks.append(_read_block(int(found[2]), _numbers(found[3]), lines[index + 1 : behind]))
    return Code(verified, tuple(blocks), entries)


def _read_block(start: int, args: tuple[int, ...], lines: list[str]) -> Block:
    pc, ops = start, list[Op]()
    if not lines:
        raise ValueError(f"the block of pc {start} has no end")
    for line in lines:
        text, _, said = line.strip().partition(" ; ")
        pc = int(said) if said else pc
        if line is lines[-1]:
            return Block(start, args, tuple(ops), *_read_end(text, pc))
        ops.append(_read_op(text, pc))
    raise AssertionError  # the last line returns
