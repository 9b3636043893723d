"""Comparisons, findings and fuzzing runs as text.

Nothing here depends on time but `times_text` and `progress_text`: the same programs give the same
report, byte for byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfjit.difftest.case import Case
from ebpfjit.difftest.compare import Comparison
from ebpfjit.difftest.coverage import CATEGORIES
from ebpfjit.difftest.outcome import Outcome
from ebpfjit.difftest.trace import Parting
from ebpfjit.disassembler import disassemble_instruction
from ebpfjit.errors import EbpfError
from ebpfjit.program import Program

if TYPE_CHECKING:
    from ebpfjit.difftest.fuzz import FuzzReport

SHOWN_BYTES = 64


def program_text(code: bytes) -> str:
    """Return a program as text, a line for each instruction with its pc and bytes."""
    try:
        instructions = Program.from_bytes(code).instructions
    except EbpfError:
        return f"  {code.hex()}"
    return "\n".join(
        f"{insn.pc:4}: {insn.encode().hex(' ')}  {disassemble_instruction(insn, 'rbpf')}"
        for insn in instructions
    )


def comparison_text(case: Case, comparison: Comparison) -> str:
    """Return what every engine answered, and where they part."""
    given = comparison.given
    limit = "none" if given.limit is None else given.limit
    what = "packet" if case.type else "memory"
    lines = [f"{what} {_hex(given.memory)}, limit {limit}, build {case.build}"]
    for name, outcome in comparison.outcomes.items():
        lines.append(f"  {name + ':':13} {_ending(outcome)}")
        lines += [f"    event for {map_}: {_hex(data)}" for map_, data in (outcome and outcome.events) or ()]
    if comparison.agree:
        return "\n".join([*lines, "  they agree"])
    lines.append(f"  they differ in: {', '.join(comparison.differing)}")
    for field in comparison.differing:
        if field not in ("value", "kind", "message", "attributes"):
            for name, outcome in comparison.outcomes.items():
                if outcome is not None and (value := getattr(outcome, field)) is not None:
                    lines.append(f"    {field} on {name}: {_shown(value)}")
    if comparison.parting is not None:
        lines.append(_parting_text(comparison.parting))
    if comparison.assembly:
        lines += ["  machine code of that pc:", comparison.assembly.rstrip()]
    return "\n".join(lines)


def _ending(outcome: Outcome | None) -> str:
    return "no answer" if outcome is None else str(outcome)


def _hex(data: bytes) -> str:
    if not data:
        return "none"
    more = f"... ({len(data)} bytes)" if len(data) > SHOWN_BYTES else ""
    return data[:SHOWN_BYTES].hex() + more


def _shown(value: object) -> str:
    return _hex(value) if isinstance(value, bytes) else str(value)


def _parting_text(found: Parting) -> str:
    after = "at the start" if found.pc is None else f"after pc {found.pc}"
    after += f" of {found.program}" if found.program else ""
    lines = [f"  they part {after}:"]
    for name, step in zip(("interpreter", "jit"), found.steps, strict=True):
        if step is None:
            lines.append(f"    {name} goes no further")
            continue
        registers = ", ".join(f"r{n} = {step.registers[n]:#x}" for n in found.registers)
        lines.append(f"    {name} is at pc {step.pc}" + (f" with {registers}" if registers else ""))
    return "\n".join(lines)


MOST_NAMED = 8


def report_text(report: FuzzReport) -> str:
    """Return what a run came to, times aside."""
    options, total = report.options, report.total
    each = max(total.programs, 1)
    lines = [
        f"seed {options.seed}, engines {', '.join(options.engines)}, "
        f"sources {', '.join(options.chosen_sources())}",
        f"{total.programs} programs of {total.slots / each:.1f} slots, "
        f"{total.instructions} instructions executed",
        "",
    ]
    lines += [f"  {count:9} {ending}" for ending, count in report.coverage.of("ending").items()]
    lines.append("")
    for category, reached, there in report.coverage.summary():
        lines.append(f"  {reached:5} of {there:5}  {CATEGORIES[category]}{_not_reached(report, category)}")
    lines.append("")
    for finding in report.findings:
        seen = "" if finding.details else f": {finding.text}"
        lines.append(f"program {finding.number}: {finding.nature}{seen}")
        lines += [f"  {line}" for line in finding.details.splitlines()]
        lines.append("")
    count = len(report.findings)
    lines.append(
        f"{count or 'no'} finding{'' if count == 1 else 's'}"
        + (", interrupted" if report.interrupted else "")
    )
    return "\n".join(lines)


def _not_reached(report: FuzzReport, category: str) -> str:
    missing = report.coverage.missing(category)
    return f"; not {', '.join(missing)}" if 0 < len(missing) <= MOST_NAMED else ""


def times_text(report: FuzzReport) -> str:
    """Return the line of a report that no other run repeats."""
    return (
        f"time: {report.seconds:.1f} s, {report.total.programs / max(report.seconds, 0.01):.0f} programs a "
        f"second, {report.per_core:.0f} a second of processor time"
    )


def progress_text(report: FuzzReport) -> str:
    """Return where a run is, in one line."""
    shown = {category: f"{reached}/{there}" for category, reached, there in report.coverage.summary()}
    rate = report.total.programs / max(report.seconds, 0.01)
    return (
        f"{report.seconds:5.0f} s  {report.total.programs} programs, {rate:.0f}/s  rows {shown['row']}  "
        f"pairings {shown['pairing']}  findings {len(report.findings)}"
    )
