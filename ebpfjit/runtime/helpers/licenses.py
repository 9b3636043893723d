"""Which helpers Linux keeps for programs under the GPL, and whether a program's licence is one.

An object says its licence in a section of that name. Linux refuses a call of such a helper in a
program of any other licence, "" among them (check_helper_call in kernel/bpf/verifier.c; gpl_only of each
struct bpf_func_proto), and of any kernel function (add_kfunc_call). Bytecode that comes from no object says
nothing, and may call them.
"""

from __future__ import annotations

from collections.abc import Mapping

from ebpfjit.isa.spec import Kind
from ebpfjit.program import Instruction, Program
from ebpfjit.runtime.execution import HelperFunction
from ebpfjit.runtime.helpers.table import bound, helpers
from ebpfjit.runtime.kfuncs.table import kfuncs

COMPATIBLE = frozenset(
    ("GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL")
)
"""The licences that Linux takes for the GPL (license_is_gpl_compatible in include/linux/license.h)."""

_OF_PERF_EVENTS = frozenset({"bpf_get_stackid"})
"""What programs of type perf_event have in a version of their own, for any licence."""


def is_compatible(license: str | None) -> bool:
    """True for a licence that gives a program all helpers; None, where nothing is said, does."""
    return license is None or license in COMPATIBLE


def restricted_calls(
    program: Program, called: Mapping[int, HelperFunction] | None = None
) -> Mapping[str, Instruction]:
    """Return the helpers and kfuncs that Linux refuses a program of its licence, and the first call of each.

    `called` are the functions that stand for helpers: one of the user's own is not restricted.
    """
    if is_compatible(program.license) or program.type is None:
        return {}  # without a type it is not Linux's, nor are its helpers
    ours, known = bound(), helpers()
    found: dict[str, Instruction] = {}
    for insn in program.instructions:
        if insn.row is not None and insn.row.kind is Kind.CALL_KFUNC:
            kfunc = program.kfuncs.get(insn.imm)
            if kfunc is not None and kfunc.name in kfuncs():
                found.setdefault(kfunc.name, insn)
        if insn.row is None or insn.row.kind is not Kind.CALL_HELPER:
            continue
        number = insn.imm & 0xFFFFFFFF
        helper = known.get(number)
        if (
            helper is None
            or not helper.gpl
            or (called is not None and called.get(number) is not ours[number])
        ):
            continue
        if not (program.type == "perf_event" and helper.name in _OF_PERF_EVENTS):
            found.setdefault(helper.name, insn)
    return found


def describe(program: Program, name: str, call: Instruction) -> str:
    """Return what to say of a restricted call: the place, the helper, the licence and what to do."""
    line = program.line_at(call.pc)
    where = f"pc {call.pc}" + (f" ({line})" if line is not None else "")
    said = f"its license is {program.license!r}" if program.license else "its object says no license"
    return (
        f"{where}: {name} is for programs under the GPL, and {said}: Linux does not load program "
        f'{program.name!r} (SEC("license") = "GPL" says that it is one)'
    )
