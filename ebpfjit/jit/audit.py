"""Audit builds: what analysis found is looked at again where the machine code relies on it.

The code is the same optimised code, but that

    every load, store and atomic    is checked for its own bytes, in its own place, whether its check fell,
                                    went under another, went before a loop or was weakened; behind the check
                                    that is left, so that what that one finds is the usual fault
    a map helper's call             is asked for the map, the key and the value that were taken for known
    every local call                counts frames
    a frame that is not zeroed      is filled with bytes that are not zero

Where what was looked at does not hold, the run ends with an AuditFailure: the analysis, or a translator, is
wrong, whatever the program did. What is audited follows from the program alone, never from the facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ebpfjit.analysis.entries import OUTWARD
from ebpfjit.analysis.verified import Verified
from ebpfjit.errors import AuditFailure
from ebpfjit.isa.spec import Kind
from ebpfjit.program import Program
from ebpfjit.record import replace
from ebpfjit.runtime import faults
from ebpfjit.translators.plan import Audit, MapCall, MapOperation

MEMORY = frozenset({Kind.LOAD, Kind.STORE, Kind.ATOMIC})

GATHERED = "bytes are loaded together"
"""The reason of a load that stands for several."""

CALLS = {
    "audit": "key and value are the program's",
    "audit_map": "it is always given the same map",
    "audit_depth": "local calls never are too deep",
}
"""What was taken for known of a call, by the fault that tells it is not so."""


def audits_of(verified: Verified) -> dict[int, Audit]:
    """Return what is checked besides, by pc: every access of the program."""
    elsewhere = verified.found_elsewhere
    return {
        insn.pc: Audit(insn.row.size, insn.row.kind is not Kind.LOAD)
        for insn in verified.program.instructions
        if insn.row is not None
        and insn.row.kind in MEMORY
        and insn.pc not in verified.illegal
        and insn.pc not in elsewhere  # these are always looked for
    }


def audited(call: MapCall, map_: Any) -> MapCall:
    """Return a call of a map helper with what is looked at there: r1, the key, a new value."""
    definition = map_.definition
    arguments = [(2, definition.key_size)]
    if call.operation is MapOperation.UPDATE:
        arguments.append((3, definition.value_size))
    return replace(call, audits=tuple(arguments), address=map_.address)


def failure(program: Program, notes: Mapping[int, str], kind: str, pc: int, address: int) -> AuditFailure:
    """Return the exception of a fault of these kinds; `notes` say of each access what was found."""
    insn = program.slots[pc]
    row = insn.row if insn is not None else None
    assert row is not None  # it was translated
    if row.kind in MEMORY:
        reason = notes[pc].removeprefix("no check: ")
        return faults.audit_failure(pc, address, row.size, faults.access_of(row), reason)
    if kind == "audit" and row.kind not in OUTWARD:
        return faults.audit_failure(pc, address, 1, "load", GATHERED)
    return faults.audit_failure(pc, address if kind != "audit_depth" else 0, 0, "call", CALLS[kind])
