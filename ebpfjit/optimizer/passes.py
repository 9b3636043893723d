"""The passes over Code, in their order."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.verified import Verified
from ebpfjit.optimizer.build import build
from ebpfjit.optimizer.code import Code
from ebpfjit.optimizer.facts import Facts
from ebpfjit.optimizer.guards import guarded


def stages(
    verified: Verified, promises: Promises, entries: Collection[int] = ()
) -> Iterator[tuple[Code, Facts]]:
    """Yield a program as Code, built and after each pass, with what is known of its values."""
    code = build(verified, entries)
    guards, facts = guarded(code, promises)
    yield code, facts
    yield guards, facts


def optimised(verified: Verified, promises: Promises, entries: Collection[int] = ()) -> tuple[Code, Facts]:
    """Return a program as Code behind all passes, with what is known of its values.

    Raises OptimizationError where analysis does not know what its accesses are to.
    """
    *_, last = stages(verified, promises, entries)
    return last
