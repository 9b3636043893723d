"""The generators as Hypothesis strategies; Hypothesis is an extra (`pip install 'ebpfjit[hypothesis]'`).

    rows()            a row of the table
    instructions()    one instruction: each field as its row says, fixed or free
    programs()        a program of rows that ends in exit
    cases()           a program with its inputs, from the generators of `ebpfjit fuzz`

All shrink: `instructions` and `programs` field by field, `cases` through the choices that were drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ebpfjit.difftest.case import Case
from ebpfjit.difftest.generate import EDGES, EXIT, HELPERS, ROWS
from ebpfjit.difftest.raw import FIELD_BITS, of_fields
from ebpfjit.difftest.sources import SOURCES, check_sources
from ebpfjit.isa.spec import REGISTER_COUNT, Imm, Offset, Reg, Row

JUMP_REACH = 8


def rows(among: Sequence[Row] = tuple(ROWS)) -> SearchStrategy[Row]:
    """Rows of the table, without those that refer to maps and variables."""
    return st.sampled_from(among)


def signed(bits: int) -> SearchStrategy[int]:
    """Numbers of a field of so many bits, edges often."""
    least, most = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    edges = [edge for edge in EDGES if least <= edge <= most]
    return st.one_of(st.sampled_from(edges), st.integers(least, most))


def field(role: object, bits: int) -> SearchStrategy[int]:
    """Values of a field by what its row says of it."""
    match role:
        case int(fixed):
            return st.just(fixed)
        case Reg():
            return st.integers(0, REGISTER_COUNT - 1 - (role is not Reg.READ))
        case Offset.TARGET | Imm.TARGET:
            return st.integers(0, JUMP_REACH)
        case Imm.HELPER | Imm.BTF_ID:
            return st.sampled_from(HELPERS)
        case _:
            return signed(bits)


@st.composite
def instructions(draw: st.DrawFn, among: SearchStrategy[Row] | None = None) -> bytes:
    """The 8 or 16 bytes of an instruction whose row is drawn from `among`; jumps go a little forward."""
    row = draw(rows() if among is None else among)
    return of_fields(row, {name: draw(field(getattr(row, name), bits)) for name, bits in FIELD_BITS.items()})


def programs(
    among: SearchStrategy[Row] | None = None, *, min_size: int = 0, max_size: int = 30
) -> SearchStrategy[bytes]:
    """The bytecode of some instructions and an exit behind them.

    A jump near the end may leave the program: engines fault there, a verifier refuses it.
    """
    body = st.lists(instructions(among), min_size=min_size, max_size=max_size)
    return body.map(lambda parts: b"".join(parts) + EXIT)


def cases(*sources: str) -> SearchStrategy[Case]:
    """Cases of the generators with these names, by default of all. Raises UnknownSource."""
    names = sources or tuple(SOURCES)
    check_sources(names)
    random = st.randoms(use_true_random=False)
    return st.one_of(*(st.builds(SOURCES[name].source, random, st.just(())) for name in names))
