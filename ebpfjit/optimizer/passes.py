"""The passes over Code, in their order."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.verified import Verified
from ebpfjit.optimizer import rules
from ebpfjit.optimizer.build import build
from ebpfjit.optimizer.code import BOUND, Code
from ebpfjit.optimizer.facts import Facts
from ebpfjit.optimizer.guards import guarded
from ebpfjit.optimizer.hoisting import hoisted
from ebpfjit.optimizer.order import thread_jumps
from ebpfjit.optimizer.payments import pay_ahead


def stages(
    verified: Verified, promises: Promises, entries: Collection[int] = ()
) -> Iterator[tuple[str, Code, Facts | None]]:
    """Yield a program as Code, built and after each pass, by name, with what is known of its values then."""
    code = build(verified, entries)
    yield "build", code, None
    for change in rules.BEFORE_GUARDS:
        code = change(code)
        yield change.__name__, code, None
    seen = code
    code, facts = guarded(code, promises)
    yield "facts", seen, facts
    yield "guards", code, facts
    code = hoisted(code, facts)
    yield "hoisting", code, facts
    for change in (*rules.BEHIND_GUARDS, pay_ahead, thread_jumps):
        code = change(code)
        yield change.__name__, code, None


def optimised(
    verified: Verified, promises: Promises, entries: Collection[int] = (), *, checked: bool = True
) -> Code:
    """Return a program as Code behind all passes; without bounds where it is not `checked`.

    Raises OptimizationError where analysis does not know what its accesses are to.
    """
    built = build(verified, entries)
    if not checked:
        return thread_jumps(pay_ahead(rules.machine_like(rules.simpler(_unchecked(built)))))
    code, facts = guarded(rules.simpler(built), promises)
    return thread_jumps(pay_ahead(rules.machine_like(hoisted(code, facts))))


def _unchecked(code: Code) -> Code:
    """Return the code without bounds."""
    blocks = [
        replace(block, ops=tuple(op for op in block.ops if op.row is not BOUND)) for block in code.blocks
    ]
    return replace(code, blocks=tuple(blocks))
