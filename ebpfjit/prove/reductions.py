"""Claims: elements that are put together many at once are what they are one by one.

What translators write for REDUCE does what `isa.semantics` says, whatever the vector registers hold. A loop
of a few rounds more than are done at once returns and pays the same behind the pass `vectors`, and asks for
as many bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import z3

from ebpfjit.isa import semantics
from ebpfjit.isa.spec import Kind, Row
from ebpfjit.isa.unencoded import REDUCTIONS, UNENCODED
from ebpfjit.optimizer.code import Op
from ebpfjit.optimizer.text import from_text
from ebpfjit.optimizer.vectors import MOST_BYTES, VECTOR_BYTES, vectorise
from ebpfjit.prove.claims import Claim
from ebpfjit.prove.code import formula_of, run
from ebpfjit.prove.code_rules import program
from ebpfjit.prove.machine import Example, Path
from ebpfjit.prove.meanings import WIDTHS
from ebpfjit.prove.stencils import (
    ALL_FEATURES,
    SCRATCH,
    context,
    guest,
    is_left_as_it_was,
    paths_through,
    verified_of,
)
from ebpfjit.prove.symbolic import Integer, Truth, vector
from ebpfjit.prove.value_stencils import APART, FIRST
from ebpfjit.translators import registry
from ebpfjit.translators.x86_64.target import NAME, VALUES, register

ROOM = "reductions"
PLACES = {1: (((1,), 6, 8), ((1,), 1, 0), ((8,), 11, -128), ((9,), 0, 1 << 20)),
          2: (((1, 2), 6, 8), ((1, 2), 2, 0), ((3, 0), 3, -4), ((8, 11), 9, 1 << 20))}  # fmt: skip
"""By how many arrays there are: the registers of their addresses, of the result, the displacement."""


def reductions() -> Iterator[Claim]:
    """Yield the claims of all reductions, of translators and of loops."""
    for row in UNENCODED.values():
        if row.kind is Kind.REDUCE:
            for args, dst, offset in PLACES[2 if row.uses_src else 1]:
                for size in (VECTOR_BYTES, 2 * VECTOR_BYTES, MOST_BYTES)[:: 1 if dst == 6 else 2]:
                    yield _of_translator(Op(row, args, size // row.size, offset, 0, (dst,)))
    for row in UNENCODED.values():
        if row.kind is Kind.REDUCE:
            yield _of_loop(row)


def _of_translator(op: Op) -> Claim:
    row, bits = op.row, 8 * op.row.size
    starts = [FIRST + APART * arg for arg in op.args]
    offsets = (op.offset, 0)
    found: list[Path] = []

    def lifted() -> list[Path]:
        cx = context(verified_of(b""), ALL_FEATURES)
        cx.insn = op  # type: ignore[assignment]  # it has what translators ask of instructions
        memory = tuple(
            (start + offset, op.imm * row.size, f"array{number}")
            for number, (start, offset) in enumerate(zip(starts, offsets, strict=False))
        )
        example = Example(
            {register(number): FIRST + APART * number for number in range(VALUES.count)}, memory
        )
        return paths_through(cx, lambda: registry.translator_of(NAME, row)(op, cx), example)

    def statement() -> Truth | bool:
        if not found:
            found.extend(lifted())
        (path,) = found
        arrays = [z3.BitVec(f"array{number}", op.imm * bits) for number in range(len(starts))]
        elements: list[list[Integer]] = [
            [vector(z3.Extract(at + bits - 1, at, array), bits) for at in range(0, op.imm * bits, bits)]
            for array in arrays
        ]
        target = register(op.results[0])
        result = semantics.reduced(WIDTHS[row.width.bits], row.meaning, *elements)
        same: Truth | bool = is_left_as_it_was(path, SCRATCH | {target})
        same = same & formula_of(vector(path.registers[target], 64) == result)
        for number, (arg, offset) in enumerate(zip(op.args, offsets, strict=False)):
            loads = path.accesses[number :: len(starts)]
            if [access.size for access in loads] != [VECTOR_BYTES] * (op.imm * row.size // VECTOR_BYTES):
                return False
            for place, access in enumerate(loads):
                address = WIDTHS[64].wrap(guest(arg) + offset + VECTOR_BYTES * place)
                same = same & formula_of(vector(access.address, 64) == address)
        return same & all(access.stored is None for access in path.accesses)

    args = ", ".join(f"r{arg}" for arg in op.args)
    name = f"{row.name} of {op.imm}: {args} -> r{op.results[0]}, {op.offset:+}"
    return Claim(ROOM, name, statement, is_of_python=False)


# -- loops -------------------------------------------------------------------------------------------------

LOOP = """\
entry 0: b0 (r1, r2, r3)
b0 pc 0 (v0, v1, v2):
  v3 = 0
  v4 = {rounds}
  goto b1(v0, v1, v3, v2)
b1 pc 1 (v5, v6, v7, v8):
  pay 5 else leave 1 (r1 = v5, r2 = v6, r3 = v8)
{lines}
  v20 = v5 + {size}
  v21 = v6 + {size}
  v22 = v7 + 1
  if v22 < v4 goto b1(v20, v21, v22, v{result}) else b2()
b2 pc 7 ():
  exit v{result}
"""


def _lines(row: Row) -> Sequence[str]:
    """Return the text of a round."""
    value, bits = ("v" if row.width.bits == 64 else "w"), 8 * row.size
    loads = [
        f"  bound load v{base} + 4..{4 + row.size} else leave 2 ()\n  v{base + 5} = *(u{bits} *)(v{base} + 4)"
        for base in (5, 6)[: 1 + row.uses_src]
    ]
    if row.uses_src:
        return *loads, f"  {value}12 = {value}10 * {value}11", f"  {value}13 = {value}8 + {value}12"
    return *loads, f"  {value}13 = {value}8 {REDUCTIONS[row.meaning]} {value}10"


def _of_loop(row: Row) -> Claim:
    rounds = MOST_BYTES // row.size
    text = LOOP.format(rounds=rounds + 2, size=row.size, lines="\n".join(_lines(row)), result=13)
    before = from_text(text, program())
    after = vectorise(before)
    assert after is not before, f"{row.name}: such a loop is left as it is"

    def statement() -> Truth | bool:
        one, other = run(before), run(after)
        asked = [sum(size for _, size, _ in each.bounds) for each in (one, other)]
        if one.paid != other.paid or asked[0] != asked[1] or len(other.bounds) >= len(one.bounds):
            return False
        return formula_of(one.result == other.result)

    return Claim(ROOM, f"a loop of {rounds + 2} rounds with {row.name}", statement, is_of_python=False)
