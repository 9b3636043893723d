"""A finding: the case that goes wrong, shrunk, and told so that a person can go on from there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from ebpfjit.difftest import typed
from ebpfjit.difftest.case import Case, Input, to_text
from ebpfjit.difftest.check import AUDIT, CRASH, DIFFERS, HANG, Checker, Problem
from ebpfjit.difftest.children import run_forked
from ebpfjit.difftest.compare import assembly_of, compare_case
from ebpfjit.difftest.engines import on_interpreter, prepared
from ebpfjit.difftest.report import program_text
from ebpfjit.difftest.shrink import MOST_ATTEMPTS, shrink
from ebpfjit.difftest.trace import Trace, trace_jit
from ebpfjit.errors import EbpfError
from ebpfjit.record import dataclass

SECONDS = 5.0
"""How long one run may take before it counts as one that hangs."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What went wrong with program `number`.

    `nature` is one of those in `check`, `text` what was seen in one line. `case` has the one input
    on which it shows. `details` is filled when the finding has been shrunk: program, answers, the
    pc and its assembly.
    """

    number: int
    nature: str
    text: str
    case: Case
    details: str = ""

    @property
    def file_name(self) -> str:
        """The name of its corpus file: the nature, and a hash of program and input."""
        given = to_text(self.case, self.case.inputs[0])
        return f"{self.nature.split()[0]}_{hashlib.sha256(given.encode()).hexdigest()[:12]}.txt"

    def corpus_text(self) -> str:
        """Return its corpus file, with what is known in comments."""
        lines = [f"Found as {self.case.name}: {self.nature}", *self.details.splitlines()]
        return to_text(self.case, self.case.inputs[0], lines)


def found(number: int, case: Case, problem: Problem) -> Finding:
    """Return the finding of a problem, not shrunk yet."""
    return Finding(number, problem.nature, problem.text, replace(case, inputs=(problem.given,)))


def examine(case: Case, engines: Sequence[str]) -> Problem | None:
    """Check a case in a child process: a crash and a hang are problems like others."""
    given: Input = case.inputs[0]
    ended = run_forked(lambda: Checker(engines).check(case), SECONDS)
    if ended.hangs:
        return Problem(HANG, given, f"it does not end in {SECONDS:g} s")
    if ended.signal:
        return Problem(CRASH, given, f"the process died of {ended.signal}")
    problem: Problem | None = ended.value
    return problem


def shrunk(finding: Finding, engines: Sequence[str], most_attempts: int = MOST_ATTEMPTS) -> Finding:
    """Return the finding with a small case of the same nature, and its details."""

    def still_wrong(candidate: Case) -> bool:
        problem = examine(candidate, engines)
        return problem is not None and problem.nature == finding.nature

    for given in finding.case.inputs:  # of a crash it is not known on which input
        start = replace(finding.case, inputs=(given,))
        problem = examine(start, engines)
        if problem is not None and problem.nature == finding.nature:
            break
    else:
        return replace(finding, details=f"{finding.text}\nIt does not come again by itself.")
    small = shrink(start, still_wrong, most_attempts if finding.nature != HANG else most_attempts // 100)
    problem = examine(small, engines)
    text = problem.text if problem is not None else finding.text
    return replace(finding, case=small, text=text, details=details(small, finding.nature, text, engines))


def told(finding: Finding, engines: Sequence[str]) -> str:
    """Return the details of a finding as it is, without shrinking it."""
    return details(finding.case, finding.nature, finding.text, engines)


def details(case: Case, nature: str, text: str, engines: Sequence[str]) -> str:
    """Return program, answers, the pc and the assembly of that pc."""
    parts = [program_text(case.code), text]
    if nature in (DIFFERS, AUDIT):
        ended = run_forked(lambda: str(compare_case(case, engines)), SECONDS)
        parts[1] = ended.value or text
    elif nature in (CRASH, HANG) and "jit" in engines:
        parts += _where_it_was(case)
    if case.tail:
        parts.append(f"what it may tail call:\n{program_text(case.tail)}")
    elif case.twin:
        parts.append(f"its twin:\n{program_text(case.twin)}")
    return "\n".join(part for part in parts if part)


def _where_it_was(case: Case) -> list[str]:
    """Return the last step of baseline code of a crash or a hang, its assembly, and what is right."""
    answer = run_forked(lambda: _interpreted(case), SECONDS).value
    last = typed.last_step(case) if case.type else _last_step(case)
    if last is None:
        return [f"interpreter: {answer}"]
    name, pc = last
    said = f"the last step of baseline code was at pc {pc}" + (f" of {name}" if name else "")
    return [said, f"interpreter: {answer}", _assembly(case, name, pc)]


def _interpreted(case: Case) -> str:
    runner = typed.runner(case, "interpreter") if case.type else on_interpreter(case, prepared(case))
    return str(runner(case.inputs[0]))


def _last_step(case: Case) -> tuple[str, int] | None:
    """Run instrumented code in a child; return no name, and the pc of its last step."""
    trace = Trace()
    run_forked(lambda: trace_jit(case, prepared(case), case.inputs[0], trace) and None, SECONDS)
    steps = trace.steps()
    return ("", steps[-1].pc) if steps else None


def _assembly(case: Case, name: str, pc: int) -> str:
    try:
        if case.type:
            made = typed.assembly(typed.linked(case), name, pc, case.build)
        else:
            made = assembly_of(case, pc)
        return f"machine code of pc {pc}:\n{made.rstrip()}"
    except EbpfError as error:
        return f"machine code of pc {pc}: {error}"
