"""Claims: small pieces of Code do the same behind a pass of `optimizer/rules`, for all that registers hold.

The pieces are in the words that the passes look for and nearly those: all pairs of operations with constants,
bytes put together in any order, branches around next to nothing, and others drawn by a seed. What a pass
leaves as it is claims nothing, and is left out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import permutations, product

from ebpfjit.analysis.verified import Verified, prepare
from ebpfjit.isa.spec import Kind
from ebpfjit.isa.table import BY_NAME, TABLE
from ebpfjit.optimizer.code import Code
from ebpfjit.optimizer.rules.addresses import displace, index
from ebpfjit.optimizer.rules.arithmetic import simplify
from ebpfjit.optimizer.rules.bytes import gather
from ebpfjit.optimizer.rules.divisions import divide
from ebpfjit.optimizer.rules.operands import use_memory
from ebpfjit.optimizer.rules.selects import CHEAP, select
from ebpfjit.optimizer.text import from_text, to_text
from ebpfjit.program import Program
from ebpfjit.prove.algebra_rules import divisors
from ebpfjit.prove.claims import Claim
from ebpfjit.prove.code import do_the_same, run
from ebpfjit.prove.symbolic import Truth
from ebpfjit.prove.theories import Integers, Theory, Vectors

ROOM = "passes"
Pass = Callable[[Code], Code]
Lines = Sequence[str]

DRAWN = 400
"""Pieces that are drawn for a pass."""
NUMBERS = (0, 1, -1, 2, 3, 4, 8, 10, 13, 31, 32, 48, 51, 63, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, -0x80000000, -2)
VALUES = ("v0", "v1", "v2")
BINARY = tuple(row for row in TABLE if row.kind is Kind.BINARY and not row.uses_src)
DIVIDES = frozenset({"DIV", "MOD", "SDIV", "SMOD"})


@cache
def program() -> Verified:
    """Return the program that pieces of Code are of."""
    return prepare(Program.from_bytes(bytes.fromhex("b700000000000000 9500000000000000")))


def block(lines: Iterable[str]) -> str:
    """Return the text of a block whose arguments are r1, r2 and r3; it may end in a branch to b1 or b2."""
    text = "".join(f"  {line}\n" for line in lines)
    ends = "b1 pc 1 ():\n  exit v0\nb2 pc 1 ():\n  exit v1\n" if "goto" in text else ""
    return f"entry 0: b0 (r1, r2, r3)\nb0 pc 0 (v0, v1, v2):\n{text}{ends}"


def claim_of(
    name: str, change: Pass, text: str, theories: tuple[type[Theory], ...] = (Vectors,)
) -> Claim | None:
    """Return the claim that a pass does what the code says; None where it does nothing."""
    before = from_text(text, program())
    after = change(before)
    if to_text(after) == to_text(before):
        return None

    def statement() -> Truth | bool:
        return do_the_same(run(before), run(after))

    lines = "; ".join(line.strip() for line in text.splitlines()[2:])
    return Claim(ROOM, f"{name}: {lines}", statement, theories, is_of_python=False)


def claims_of(
    name: str, change: Pass, texts: Iterable[str], theories: tuple[type[Theory], ...] = (Vectors,)
) -> Iterator[Claim]:
    """Yield the claims of a pass, each once."""
    for text in dict.fromkeys(texts):
        claim = claim_of(name, change, text, theories)
        if claim is not None:
            yield claim


def code_rules() -> Iterator[Claim]:
    """Yield the claims of all passes of `optimizer/rules`."""
    yield from claims_of("simplify", simplify, map(block, arithmetic()))
    yield from claims_of("divide", divide, map(block, divisions()), (Integers,))
    yield from claims_of("simplify", simplify, map(block, remainders()), (Integers,))
    yield from claims_of("gather", gather, map(block, bytes_together()))
    yield from claims_of("displace", displace, map(block, addresses()))
    yield from claims_of("index", index, map(block, addresses()))
    yield from claims_of("operands", use_memory, map(block, operands()))
    yield from claims_of("select", select, choices())


# -- pieces ------------------------------------------------------------------------------------------------


def value(number: int, bits: int) -> str:
    """Return how a value is written."""
    return f"{'v' if bits == 64 else 'w'}{number}"


def operation(name: str, result: int, a: int, second: int) -> str:
    """Return an operation as text: `second` is a number, or of rows with a register a value."""
    row = BY_NAME[name]
    bits = row.width.bits
    dst, src = value(result, bits), value(a, bits)
    match row.kind:
        case Kind.MOVE if row.offset:
            return f"{dst} = (s{row.offset}){src}"
        case Kind.MOVE:
            return f"{dst} = {src if row.uses_src else second}"
        case Kind.UNARY:
            return f"{dst} = {'-' if row.symbol == '-' else f'{row.symbol} '}{src}"
        case _:
            other = value(second, bits) if row.uses_src else str(second)
            return f"{dst} = {src} {row.symbol.removesuffix('=')} {other}"


def arithmetic() -> Iterator[Lines]:
    """Yield two operations with constants, in all pairs; rotations; comparisons; and what is drawn."""
    chance = random.Random(15)
    for first, then in product(BINARY, BINARY):
        if first.meaning in DIVIDES and then.meaning in DIVIDES:
            continue
        j, k = chance.choice(NUMBERS), chance.choice(NUMBERS)
        yield operation(first.name, 3, 0, j), operation(then.name, 4, 3, k), "exit v4"
    for row in BINARY:
        for k in NUMBERS:
            yield "w3 = w0", operation(row.name, 4, 3, k), "exit v4"
    yield from rotations()
    yield from comparisons()
    for _ in range(DRAWN):
        yield drawn(chance)


def rotations() -> Iterator[Lines]:
    """Yield a number shifted to both sides, the two joined."""
    for left, right, low in product((64, 32), (64, 32), (False, True)):
        for by, other in ((13, 51), (13, 19), (1, 31), (1, 63), (32, 32), (8, 8), (0, 64)):
            for word, swap in product(("|", "^", "+"), (False, True)):
                source, masked = (3, ["w3 = w0"]) if low else (0, [])
                up = operation(f"LSH{left}_K", 4, source, by % left)
                down = operation(f"RSH{right}_K", 5, source, other % right)
                for bits in (64, 32):
                    a, b = value(5 if swap else 4, bits), value(4 if swap else 5, bits)
                    yield *masked, up, down, f"{value(6, bits)} = {a} {word} {b}", "exit v6"


def comparisons() -> Iterator[Lines]:
    """Yield comparisons of what was masked, or with what was made a number."""
    symbols = [row.symbol for row in TABLE if row.kind is Kind.BRANCH and row.name.endswith("32_K")]
    masks = ("v3 = v0 & 255", "w3 = w0 & 8", "v3 = v0 & v1", "w3 = w0 & w1", "w3 = w0", "v3 = v0 & -16")
    for mask, symbol, bits, k in product(masks, symbols, (64, 32), (0, 1, -1, 255)):
        yield mask, f"if {value(3, bits)} {symbol} {k} goto b1() else b2()"
    for symbol, bits, k in product(symbols, (64, 32), (0, -1, 7)):
        for a, b in ((3, 0), (0, 3)):
            yield f"v3 = {k}", f"if {value(a, bits)} {symbol} {value(b, bits)} goto b1() else b2()"


DRAWN_FROM = tuple(
    row.name
    for row in TABLE
    if row.kind in (Kind.BINARY, Kind.MOVE, Kind.UNARY)
    and row.meaning not in DIVIDES
    and not (row.meaning == "MUL" and row.uses_src)
)


def drawn(chance: random.Random) -> Lines:
    """Return a few operations on each other."""
    lines, values = [], [0, 1]
    for number in range(3, 3 + chance.randrange(2, 6)):
        name = chance.choice(DRAWN_FROM)
        a = chance.choice([*values, values[-1], values[-1]])
        second = chance.choice(values) if BY_NAME[name].uses_src else chance.choice(NUMBERS)
        lines.append(operation(name, number, second if name.startswith("MOV") else a, second))
        values.append(number)
    if chance.random() < 0.3:
        size = chance.choice((8, 16, 32, 64))
        lines.append(f"*(u{size} *)(v1 + 0) = v{values[-1]}")
    return *lines, f"exit v{values[-1]}"


def divisions() -> Iterator[Lines]:
    """Yield quotients and remainders by constants, of whole numbers and of those of 32 bits."""
    for d in divisors(31):
        for symbol in "/%":
            yield f"v3 = v0 {symbol} {d}", "exit v3"
            yield f"w3 = w0 {symbol} {d}", "exit v3"
            yield "w3 = w0", f"v4 = v3 {symbol} {d}", "exit v4"
    yield "w3 = w0 / -3", "exit v3"


def remainders() -> Iterator[Lines]:
    """Yield a number less what its quotient makes, of both widths."""
    for kind in "vw":
        names = [f"{kind}{number}" for number in range(6)]
        yield (
            f"{names[3]} = {names[0]} / {names[1]}",
            f"{names[4]} = {names[3]} * {names[1]}",
            (f"{names[5]} = {names[0]} - {names[4]}"),
            "exit v5",
        )


def bytes_together() -> Iterator[Lines]:
    """Yield two and four bytes put together in any order; swaps behind and in front of accesses."""
    for places in (*permutations(range(2)), *permutations(range(4)), (0, 1, 2, 2), (0, 1, 3, 4)):
        for bits, word in product((64, 32), "|+^"):
            yield joined(places, bits, word)
    for row in TABLE:
        if row.kind is Kind.UNARY and row.meaning != "NEG":
            for size in (16, 32, 64):
                swap = operation(row.name, 4, 3, 0)
                yield f"v3 = *(u{size} *)(v0 + 4)", swap, "exit v4"
                yield operation(row.name, 4, 1, 0), f"*(u{size} *)(v0 + 4) = v4", "exit v0"
                again = operation(row.name, 5, 4, 0)
                yield f"v3 = *(u{size} *)(v0 + 4)", swap, again, "exit v5"
    loads, store = ("v3 = *(u8 *)(v0 + 2)", "v4 = *(u8 *)(v0 + 3)"), "*(u8 *)(v1 + 0) = v2"
    for lines in ((loads[0], store, loads[1]), (*loads, store)):
        yield *lines, "v5 = v4 << 8", "v6 = v5 | v3", "exit v6"


def joined(places: Sequence[int], bits: int, word: str) -> Lines:
    """Return loads of bytes, and what puts them together."""
    lines = [f"v{10 + at} = *(u8 *)(v0 + {place})" for at, place in enumerate(places)]
    last = 10
    for at in range(1, len(places)):
        lines.append(f"{value(20 + at, bits)} = {value(10 + at, bits)} << {8 * at}")
        lines.append(f"{value(30 + at, bits)} = {value(last, bits)} {word} {value(20 + at, bits)}")
        last = 30 + at
    return *lines, f"exit v{last}"


def addresses() -> Iterator[Lines]:
    """Yield sums of shifted values and constants, and accesses there."""
    chance = random.Random(16)
    accesses = (
        "v9 = *(u32 *)(v8 + {})",
        "*(u16 *)(v8 + {}) = v2",
        "v9 = *(s8 *)(v8 + {})",
        "*(u64 *)(v8 + {}) = 7",
    )
    for _ in range(DRAWN):
        lines, last = sums(chance)
        access = chance.choice((*accesses, "")).format(chance.choice((0, 4, 100)))
        if not access:
            yield *lines, f"exit v{last}"
            continue
        is_load = access.startswith("v9")
        bound = f"bound {'load' if is_load else 'store'} v8 + 0..4 else leave 0 ()"
        at = [line.replace("v8", f"v{last}") for line in (bound, access)]
        yield *lines, *at, f"exit v{9 if is_load else 0}"


def sums(chance: random.Random) -> tuple[Lines, int]:
    """Return a few sums, shifts and products of each other, and the value of the last."""
    bits = chance.choice((64, 64, 32))
    lines, values = [], [0, 1]
    for number in range(3, 3 + chance.randrange(1, 4)):
        a, b = chance.choice(values), chance.choice(values)
        seconds = [f"+ {chance.choice((9, -7, 16, 1 << 30))}", f"+ {value(b, bits)}", f"+ {value(b, bits)}",
                   f"<< {chance.randrange(1, 5)}", f"* {chance.choice((3, 5, 9, 7))}"]  # fmt: skip
        lines.append(f"{value(number, bits)} = {value(a, bits)} {chance.choice(seconds)}")
        values.append(number)
    return lines, values[-1]


def operands() -> Iterator[Lines]:
    """Yield loads with one operation on what is loaded, which is stored there again or compared."""
    rows = [row for row in TABLE if row.kind is Kind.BINARY and row.meaning not in DIVIDES]
    for row, size, sign, at in product(rows, (8, 16, 32, 64), "us", ("v0 + 8", "v0 + v1 * 4 + 8")):
        load = f"v3 = *({sign}{size} *)({at})"
        if sign == "u" or size < 64:
            a, b = (3, 2 if row.uses_src else -5)
            change = operation(row.name, 4, a, b)
            yield load, change, "exit v4"
            yield load, change, f"*(u{size} *)({at}) = v4", "exit v0"
            if row.uses_src:
                change = operation(row.name, 4, 2, 3)
                yield load, change, "exit v4"
                yield load, change, f"*(u{size} *)({at}) = v4", "exit v0"
    branches = [row for row in TABLE if row.kind is Kind.BRANCH]
    for row, size, sign in product(branches, (8, 16, 32, 64), "us"):
        load, bits = f"v3 = *({sign}{size} *)(v0 + 8)", row.width.bits
        if sign == "s" and size == 64:
            continue
        if row.uses_src:
            for a, b in ((3, 1), (1, 3), (3, 4), (4, 3)):
                test = f"if {value(a, bits)} {row.symbol} {value(b, bits)} goto b1() else b2()"
                yield (*(["v4 = *(u8 *)(v2 + 0)"] if 4 in (a, b) else []), load, test)
        else:
            for k in (0, 5, 200, -1):
                yield load, f"if {value(3, bits)} {row.symbol} {k} goto b1() else b2()"


CHOICE = """\
entry 0: b0 (r1, r2)
b0 pc 0 (v0, v1):
  pay 2
  if {condition} goto b{taken} else b{through}
b1 pc 0 ():
{one}  goto b3(v0, v{given})
b2 pc 0 ():
{two}  goto b3(v0, v{other})
b3 pc 4 (v2, v3):
  pay 5
  v4 = v2 ^ v3
  exit v4
"""


def choices() -> Iterator[str]:
    """Yield branches around next to nothing."""
    conditions = [
        f"{value(0, row.width.bits)} {row.symbol} {value(1, row.width.bits) if row.uses_src else -3}"
        for row in TABLE
        if row.kind is Kind.BRANCH
    ]
    arms = [""]
    for row in sorted(CHEAP, key=lambda row: row.name):
        if row.name in BY_NAME and row.kind is not Kind.LOAD_IMM64:  # the others nest: `select` made them
            arms.append(f"  {operation(row.name, 6, 1, 1 if row.uses_src else 7)}\n")
    chance = random.Random(17)
    for condition in conditions:
        for ways in (("1()", "2()"), ("3(v0, v0)", "2()"), ("1()", "3(v1, v0)")):
            one, two = chance.choice(arms), chance.choice(arms).replace("6 =", "7 =")
            yield CHOICE.format(
                condition=condition, taken=ways[0], through=ways[1], one=one, two=two,
                given=6 if one else 0, other=7 if two else 1,
            )  # fmt: skip
    for arm in arms[1:]:
        yield CHOICE.format(
            condition="v0 s< v1", taken="1()", through="2()", one=arm, two="", given=6, other=1
        )
