"""The passes over Code: one table, in their order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.verified import Verified
from ebpfjit.errors import OptimizationError
from ebpfjit.optimizer.build import build, build_parts
from ebpfjit.optimizer.code import BOUND, Code
from ebpfjit.optimizer.dead import remove_dead
from ebpfjit.optimizer.facts import Facts
from ebpfjit.optimizer.flow import uses_of, with_blocks
from ebpfjit.optimizer.guards import guarded
from ebpfjit.optimizer.hoisting import hoisted
from ebpfjit.optimizer.inline import inline
from ebpfjit.optimizer.order import lay_out, thread_jumps
from ebpfjit.optimizer.payments import pay_ahead
from ebpfjit.optimizer.promotion import promote
from ebpfjit.optimizer.reloads import forward
from ebpfjit.optimizer.remarks import blamed
from ebpfjit.optimizer.rules.addresses import displace, index
from ebpfjit.optimizer.rules.arithmetic import simplify
from ebpfjit.optimizer.rules.bytes import gather
from ebpfjit.optimizer.rules.divisions import divide
from ebpfjit.optimizer.rules.operands import use_memory
from ebpfjit.optimizer.rules.selects import select
from ebpfjit.optimizer.safepoints import look_once
from ebpfjit.optimizer.unrolling import unroll
from ebpfjit.optimizer.vectors import vectorise
from ebpfjit.record import dataclass, replace


@dataclass(slots=True)
class Known:
    """What passes hand on: what every run has, what is known of values, how often these were read.

    Facts are those of the code that guards saw, and hold for the values of later code that were there.
    """

    promises: Promises
    facts: Facts | None = None
    uses: list[int] | None = None
    before: Code | None = None
    """The code that guards saw, for the next pass."""
    counting: set[int] | None = None
    """Values that count what is executed, and are no part of the program; None where nobody counts."""


Pass = Callable[[Code, Known], Code]


def _bounds(code: Code, known: Known) -> Code:
    """Bounds that fall."""
    known.before = code
    code, known.facts = guarded(code, known.promises)
    return code


def _reloads(code: Code, known: Known) -> Code:
    """What checks ask for, of what was stored to frames; bounds fall anew then."""
    before, known.before = known.before, None
    if before is None or known.facts is None:
        return code
    after = forward(before, code, known.facts)
    return code if after is before else _bounds(simplify(after), known)


def _before_loops(code: Code, known: Known) -> Code:
    """Bounds before loops, by what is known of values."""
    return code if known.facts is None else hoisted(code, known.facts)


def _displace(code: Code, known: Known) -> Code:
    """Displacements; the next ones count with what was read here."""
    known.uses = uses_of(code)
    return displace(code, known.uses)


SLOTS, RELOADS = "slots", "reloads"
"""Of values that were in frames."""

PASSES: dict[str, Pass] = {
    "inline": lambda code, _: inline(code),
    "promote": lambda code, known: promote(code, known.counting),
    "select": lambda code, known: select(code, known.counting),
    "simplify": lambda code, _: simplify(code),
    "dead": lambda code, _: remove_dead(code),
    "safepoints": lambda code, _: look_once(code),
    "guards": _bounds,
    RELOADS: _reloads,
    "hoisting": _before_loops,
    "vectors": lambda code, _: vectorise(code),
    "unroll": lambda code, _: unroll(code),
    "divide": lambda code, _: divide(code),
    "displace": _displace,
    "gather": lambda code, known: gather(code, known.uses),
    "index": lambda code, known: index(code, known.uses),
    "operands": lambda code, _: use_memory(code),
    "dead again": lambda code, _: remove_dead(code),
    "payments": lambda code, _: pay_ahead(code),
    "jumps": lambda code, _: thread_jumps(code),
    "layout": lambda code, _: lay_out(code),
}
"""All, by name, in their order."""

ALL_PASSES = frozenset({SLOTS, *PASSES})
"""With what is found out while Code is built."""

KNOWING = frozenset({"guards", RELOADS, "hoisting"})
"""Behind which it is known of values what guards found out."""

UNCHECKED = PASSES.keys() - KNOWING
"""Those of code that has no bounds."""

MOST_INSTRUCTIONS = 1 << 17
"""Of a program that is optimised: that takes up to 10 KiB for each, and some ten times as long as without."""


def stages(
    verified: Verified,
    promises: Promises,
    entries: Collection[int] = (),
    chosen: Collection[str] = ALL_PASSES,
    *,
    counted: bool = False,
) -> Iterator[tuple[str, Code, Facts | None]]:
    """Yield a program as Code, built (`counted` or not) and after each of the `chosen` passes, by name.

    With it comes what is known of its values, where that was found out for this code. Raises
    OptimizationError where analysis does not know what its accesses are to.
    """
    known = Known(promises, counting=set() if counted else None)
    code = build(verified, entries, slots=SLOTS in chosen, counted=counted)
    yield "build", code, None
    for name, change in PASSES.items():
        if name in chosen:
            before, code = code, change(code, known)
            if name == "guards":
                yield "facts", before, known.facts
            yield name, code, known.facts if name in KNOWING else None


def optimised(
    verified: Verified,
    known: Known,
    entries: Collection[int] = (),
    *,
    checked: bool = True,
    chosen: Collection[str] = ALL_PASSES,
) -> Code:
    """Return a program as Code behind the `chosen` passes; without bounds where it is not `checked`.

    What passes find out is in `known` then. Raises OptimizationError as `stages`, and for a program that is
    too large; PassFailed for an error inside of a pass.
    """
    _check_size(verified)
    with blamed("build"):
        code = build(verified, entries, slots=SLOTS in chosen, counted=known.counting is not None)
    return _changed(code, known, checked=checked, chosen=chosen)


def optimised_parts(
    verified: Verified,
    promises: Promises,
    entries: Collection[int] = (),
    *,
    checked: bool = True,
    chosen: Collection[str] = ALL_PASSES,
    counted: bool = False,
) -> Iterator[tuple[Code, Known]]:
    """Yield as `optimised` the parts of a program (`build_parts`), and what passes have found out of each."""
    _check_size(verified)
    with blamed("build"):
        parts = build_parts(verified, entries, slots=SLOTS in chosen, counted=counted)
    while True:
        with blamed("build"):
            code = next(parts, None)
        if code is None:
            return
        known = Known(promises, counting=set() if counted else None)
        yield _changed(code, known, checked=checked, chosen=chosen), known
        del code, known  # while the next part is made


def _check_size(verified: Verified) -> None:
    count = len(verified.program)
    if count > MOST_INSTRUCTIONS:
        raise OptimizationError(
            f"it has {count} instructions, more than the {MOST_INSTRUCTIONS} that are optimised"
        )


def _changed(code: Code, known: Known, *, checked: bool, chosen: Collection[str]) -> Code:
    """Return code behind the `chosen` passes."""
    if not checked:
        code, chosen = _unchecked(code), UNCHECKED.intersection(chosen)
    with blamed("") as at_hand:
        for name, change in PASSES.items():
            if name in chosen:
                at_hand.name = name
                code = change(code, known)
    return code


def _unchecked(code: Code) -> Code:
    """Return the code without bounds."""
    kept = [tuple([op for op in block.ops if op.row is not BOUND]) for block in code.blocks]
    return with_blocks(code, [replace(block, ops=ops) for block, ops in zip(code.blocks, kept, strict=True)])
