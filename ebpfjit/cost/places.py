"""Instructions that were executed, by function and line; calls by helper, and by map."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import field

from ebpfjit.analysis.likely_maps import likely_maps
from ebpfjit.isa.spec import Kind
from ebpfjit.program import Instruction, Program
from ebpfjit.record import dataclass
from ebpfjit.runtime.helpers.table import name_of

OPERATIONS = {f"bpf_map_{word}_elem": word for word in ("lookup", "update", "delete", "push", "pop", "peek")}
"""Helpers whose first argument is a map, by name, with what they do to it."""
CALLS_OUT = frozenset({Kind.CALL_HELPER, Kind.CALL_KFUNC})

Counted = Iterable[tuple[Program, Mapping[int, int]]]
"""Programs with how often each instruction was executed, by its slot."""


@dataclass
class LineCost:
    """A line of source: the instructions and calls of helpers that were executed of it, over all packets.

    `file` and `line` (from 1) say where it is, `text` what stands there ("" where the object does not
    know), `function` in which function.
    """

    file: str
    line: int
    text: str
    function: str
    instructions: int = 0
    calls: int = 0


@dataclass
class FunctionCost:
    """A function: how often it was entered, its own instructions and calls of helpers, whom it called.

    `name` is the function's, `entered` how often control came to it by a call, or as the program began;
    `instructions` and `calls` (of helpers) are its own, without those of functions that it called;
    `callees` are the calls of these, by name.
    """

    name: str
    entered: int = 0
    instructions: int = 0
    calls: int = 0
    callees: dict[str, int] = field(default_factory=dict)


def by_place(counted: Counted) -> tuple[list[FunctionCost], list[LineCost]]:
    """Return what was executed by function and by line, that with most instructions first.

    A program without lines has a line for each of its slots, counted from 0, without a file.
    """
    functions: dict[str, FunctionCost] = {}
    lines: dict[tuple[str, int, str], LineCost] = {}
    for program, executed in counted:
        names = program.function_names
        starts = sorted(names)
        for insn in program.instructions:
            count, start = executed[insn.pc], starts[bisect_right(starts, insn.pc) - 1]
            name, source = names[start], program.line_at(insn.pc)
            file, number, text = "", insn.pc, ""
            if source is not None:
                file, number, text = os.path.normpath(source.file), source.line, source.text
            line = lines.setdefault((file, number, name), LineCost(file, number, text, name))
            function = functions.setdefault(name, FunctionCost(name))
            if insn.pc == start:
                function.entered += count
            for each in (line, function):
                each.instructions += count
                each.calls += count if insn.row is not None and insn.row.kind in CALLS_OUT else 0
            if count and insn.row is not None and insn.row.kind is Kind.CALL_LOCAL and insn.target in names:
                callee = names[insn.target]
                function.callees[callee] = function.callees.get(callee, 0) + count
    found = [line for line in lines.values() if line.instructions]
    found.sort(key=lambda line: (-line.instructions, line.file, line.line))
    return sorted(functions.values(), key=lambda each: (-each.instructions, each.name)), found


def called(counted: Counted) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
    """Return how often helpers and kernel functions were called, by name, and what was done to which map.

    Which map a call is given is told by what was loaded into r1 before it; "?" where nothing tells.
    """
    helpers: Counter[str] = Counter()
    maps: Counter[tuple[str, str]] = Counter()
    for program, executed in counted:
        likely = likely_maps(program)
        for insn in program.instructions:
            if insn.row is None or insn.row.kind not in CALLS_OUT:
                continue
            name = _name(program, insn)
            helpers[name] += executed[insn.pc]
            if name in OPERATIONS:
                index = likely.get(insn.pc)
                of = "?" if index is None else program.maps[index].definition.name
                maps[of, OPERATIONS[name]] += executed[insn.pc]
    return (
        {name: count for name, count in helpers.most_common() if count},
        {what: count for what, count in maps.most_common() if count},
    )


def _name(program: Program, insn: Instruction) -> str:
    """Return the name of what an instruction calls."""
    if insn.row is not None and insn.row.kind is Kind.CALL_KFUNC:
        known = program.kfuncs.get(insn.imm)
        return known.name if known is not None else f"kfunc {insn.imm}"
    return name_of(insn.imm & 0xFFFFFFFF)
