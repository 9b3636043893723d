"""Bugs to plant in rewrites over values: what is not quite the idiom is taken for it."""

from __future__ import annotations

from typing import Any

from ebpfjit.difftest.planting import Plant, PlantedBug, function, mapped, method
from ebpfjit.isa.spec import Kind
from ebpfjit.optimizer.rules import addresses, algebra, arithmetic, bytes, divisions, operands, selects

ENGINES = ("interpreter", "optimized")
SOURCES = ("idioms",)


def _harmless_stores() -> None:
    bytes.HARMLESS |= {Kind.STORE}


def _swapped_shift(old: Any) -> Any:
    """Take any two shifts for a rotation by that of the left one."""

    def shifted(rewriting: Any, value: int, meaning: str, bits: int) -> tuple[int, int] | None:
        found = old(rewriting, value, meaning, bits)
        if meaning == "LSH":
            rewriting.left_by = 0 if found is None else found[1]
        return found if found is None or meaning == "LSH" else (found[0], bits - rewriting.left_by)

    return shifted


def _further(old: Any) -> Any:
    def reciprocal(*given: Any) -> divisions.Reciprocal | None:
        found = old(*given)
        return None if found is None else found._replace(behind=found.behind + 1)

    return reciprocal


def _remainder_of_any(old: Any) -> Any:
    """Take any product of a quotient and its divisor for one of what it is taken from."""

    def divisor(rewriting: Any, width: Any, a: int, b: int) -> int | None:
        product = rewriting.makers[b]
        quotients = () if product is None else [rewriting.makers[value] for value in product.args]
        dividends = [maker.args[0] for maker in quotients if maker is not None and maker.row.meaning == "DIV"]
        found = (old(rewriting, width, dividend, b) for dividend in dividends)
        return next((value for value in found if value is not None), None)

    return divisor


def _remainder_by_any(old: Any) -> Any:
    """Take what a quotient is multiplied by for its divisor."""

    def divisor(rewriting: Any, width: Any, a: int, b: int) -> int | None:
        found = old(rewriting, width, a, b)
        product = rewriting.makers[b]
        if found is not None or product is None or len(product.args) != 2 or product.row.meaning != "MUL":
            return found  # type: ignore[no-any-return]
        for value, other in (product.args, product.args[::-1]):
            maker = rewriting.makers[value]
            if maker is not None and maker.row.meaning == "DIV" and maker.args[0] == a:
                return other  # type: ignore[no-any-return]
        return None

    return divisor


_EXCHANGED: Plant = mapped(arithmetic.EXCHANGED, "JGT", "JGT")

RULES: tuple[PlantedBug, ...] = tuple(
    PlantedBug(name, what, plant, ENGINES, SOURCES)
    for name, what, plant in (
        (
            "rotations-of-any",
            "Any two shifts of a value that are joined are a rotation",
            method(arithmetic._Pass, "shifted", _swapped_shift),
        ),
        (
            "sums-of-few-bits",
            "A sum has no more bits than its operands",
            mapped(algebra.BITS, "ADD", lambda w, n, k: max(n, k.bit_length())),
        ),
        ("comparisons-turned", "A comparison with the operands exchanged is the same", _EXCHANGED),
        (
            "bytes-in-one-order",
            "Bytes that are put together are taken to lie the lowest first",
            function(bytes._step, lambda old: lambda offsets: abs(old(offsets))),
        ),
        (
            "remainders-of-any",
            "What is taken from any number is taken for that of which it leaves the remainder",
            method(arithmetic._Pass, "divisor", _remainder_of_any),
        ),
        (
            "remainders-by-any",
            "What a quotient is multiplied by is taken for its divisor",
            method(arithmetic._Pass, "divisor", _remainder_by_any),
        ),
        ("bytes-across-stores", "Bytes are gathered past stores", _harmless_stores),
        (
            "displacement-lost",
            "What is added to a base is lost",
            function(
                addresses._at,
                lambda old: lambda op, args, offset, row=None, scale=0: old(op, args, op.offset, row, scale),
            ),
        ),
        (
            "sums-of-two",
            "Of a sum of three the number is lost",
            function(
                addresses._sum,
                lambda old: lambda op, bits, args, scale, offset: old(op, bits, args, scale, 0),
            ),
        ),
        (
            "choices-turned",
            "Of a choice the other value is taken",
            method(
                selects._Selecting,
                "choose",
                lambda old: lambda blocks, number, block, one, other: old(blocks, number, block, other, one),
            ),
        ),
        (
            "operands-across-stores",
            "What is loaded for one operation is loaded where that stands, behind stores too",
            method(operands._Operands, "load", lambda old: lambda block, value: block.loads.get(value)),
        ),
        (
            "quotients-halved",
            "A number is divided by a constant, and by two",
            function(divisions.reciprocal, _further),
        ),
    )
)
