"""What the verifier says of a program: `verify`, and the verdict it returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from ebpfjit.analysis.verified import check_references
from ebpfjit.analysis.verifier import check
from ebpfjit.errors import LoadError, VerifierError
from ebpfjit.failures import are_raised
from ebpfjit.isa.spec import FRAME_POINTER, Kind
from ebpfjit.program import Instruction, Program, SourceLine
from ebpfjit.record import dataclass, field
from ebpfjit.runtime.attach import SLEEPABLE, attachment
from ebpfjit.runtime.contexts.types import program_type
from ebpfjit.runtime.helpers.licenses import is_compatible
from ebpfjit.verifier import lsm_hooks, operations, structure, usable_maps, words
from ebpfjit.verifier import unprivileged as shape
from ebpfjit.verifier.kernel_types import KernelTypes
from ebpfjit.verifier.memory import Setting
from ebpfjit.verifier.objects import Objects
from ebpfjit.verifier.proven import Proven, constants_of
from ebpfjit.verifier.refusals import Decision
from ebpfjit.verifier.state import State
from ebpfjit.verifier.values import Pointer, Value, known, unknown
from ebpfjit.verifier.walk import Found, Stop, Walk

LIMIT = 1_000_000
"""Instructions that Linux walks at most, all states together (BPF_COMPLEXITY_LIMIT_INSNS)."""

Status = Literal["accepted", "refused", "undecided"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """One error of a program.

    `pc` is the slot, `line` the line of source (None: not known), `kind` one of `refusals.KINDS`. `message`
    begins with Linux's words, `advice` is what would help ("": nothing general). `path` are the decisions
    that lead there, from the start on; `registers` what is known of those that the instruction reads.
    `witness` is an input for which a run really faults there (`fuzzing.Witness`), None where none was found;
    `looked` whether one was looked for.
    """

    pc: int
    kind: str
    message: str
    advice: str = ""
    line: SourceLine | None = None
    path: tuple[Decision, ...] = ()
    registers: tuple[tuple[str, str], ...] = ()
    witness: Any = None
    looked: bool = False

    def __str__(self) -> str:
        where = f"pc {self.pc}" + (f" ({self.line})" if self.line is not None else "")
        return f"{where}: {self.message}" + (f"; {self.advice}" if self.advice else "")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a program is safe: `status` is "accepted", "refused" or "undecided".

    `name` is the program's. `errors` are those that do not follow from one another, in order of their slots.
    `reason` says why it is not decided. `visited` counts instructions that were walked, `states` those that
    were kept; `stack` are the most bytes of stack that a chain of calls takes. `claims` has for each slot
    what was known each time the walk came there, where that was asked for: all that any run has there lies in
    one of them. `proven` is what machine code may rely on, None of what is not accepted.
    """

    status: Status
    errors: tuple[Refusal, ...] = ()
    reason: str = ""
    visited: int = 0
    states: int = 0
    stack: int = 0
    name: str = ""
    claims: Mapping[int, list[State]] | None = None
    proven: Proven | None = field(default=None, repr=False, compare=False)

    @property
    def is_accepted(self) -> bool:
        """True where the program is safe."""
        return self.status == "accepted"

    def __bool__(self) -> bool:
        return self.is_accepted

    def __repr__(self) -> str:
        errors = f", {len(self.errors)} errors" if self.errors else ""
        return f"<Verdict {self.name or 'main'}: {self.status}{errors}, {self.visited} instructions visited>"

    @property
    def summary(self) -> str:
        """The verdict in a line: its figures, and why it is not decided."""
        figures = f"{self.visited} instructions visited, {self.states} states, {self.stack} bytes of stack"
        why = f": not decided, because {self.reason}" if self.reason else ""
        return f"{self.status} ({figures}){why}"

    def __str__(self) -> str:
        lines = [f"{self.name or 'main'}: {self.summary}"]
        for error in self.errors:
            lines += _shown(error)
        return "\n".join(lines)

    def json(self) -> dict[str, Any]:
        """Return all of it as what JSON has."""
        return {
            "status": self.status,
            "name": self.name,
            "visited": self.visited,
            "states": self.states,
            "stack": self.stack,
            **({"reason": self.reason} if self.reason else {}),
            "errors": [_as_json(error) for error in self.errors],
        }


def _shown(error: Refusal) -> list[str]:
    lines = ["", f"  pc {error.pc}: {error.message}  [{error.kind}]"]
    if error.line is not None:
        lines.append(f"    {error.line}")
    lines += [f"    {register} is {known}" for register, known in error.registers]
    if error.advice:
        lines.append(f"    help: {error.advice}")
    if error.path:
        lines.append("    how a run comes there:")
        lines += [f"      {line}" for line in words.told(error.path)]
    if error.witness is not None:
        lines.append(f"    a run that goes wrong there: {words.witnessed(error.witness)}")
    elif error.looked:
        lines.append("    no input was found with which a run goes wrong there")
    return lines


def _as_json(error: Refusal) -> dict[str, Any]:
    line = error.line
    return {
        "pc": error.pc,
        "kind": error.kind,
        "message": error.message,
        "advice": error.advice,
        "line": None if line is None else {"file": line.file, "line": line.line, "text": line.text},
        "path": [{"pc": each.pc, "text": each.text, "line": each.line} for each in error.path],
        "registers": dict(error.registers),
        "witness": None if error.witness is None else error.witness.to_json(),
    }


def verify(
    program: Program,
    *,
    limit: int = LIMIT,
    unprivileged: bool = False,
    context_size: int | None = None,
    claims: bool = False,
) -> Verdict:
    """Say whether a program is safe, as Linux's verifier would, without running it.

    It is walked in all ways that a run may take; `limit` are the instructions that are walked at most.
    `unprivileged` programs are those of users without CAP_BPF and CAP_PERFMON: they must not leak pointers,
    nor read what they have not written, and have few helpers, no functions and no loops. `context_size` are
    the bytes that a program without a type is given; where nobody says, its memory cannot be decided.
    `claims` keeps what was known (large). What no rule here decides is "undecided", never "accepted".
    """
    program = program.own()
    name = program.name or ""
    constants = constants_of(program)
    try:
        check(program)
    except VerifierError as error:
        pc = error.pc or 0
        refusal = Refusal(pc, "structure", str(error), line=program.line_at(pc))
        return Verdict("refused", (refusal,), name=name)
    missing = _undefined(program)
    if missing is not None:
        return Verdict("refused", (missing,), name=name)
    wrong = sorted([*structure.errors(program), *(shape.errors(program) if unprivileged else ())])
    if wrong:
        return Verdict("refused", tuple(_of_structure(program, each) for each in wrong), name=name)
    if program.type is not None and program_type(program.type).name == "ext":
        reason = "what an extension is given, and may do, the program says that it replaces a function of"
        return Verdict("undecided", reason=reason, name=name)
    setting = _setting(program, privileged=not unprivileged, context_size=context_size)
    walk = Walk(
        program,
        setting,
        limit=limit,
        claims=claims,
    )
    reason = ""
    try:
        walk.run([None, *_arguments(setting)])
    except Stop:
        if walk.visited > limit:
            reason = _exploded(walk)
    except Exception as error:
        if are_raised():
            raise
        reason = f"of a bug of ebpfjit: {type(error).__name__}: {error}"
    stack, _, deep = structure.deepest(program, walk.depths, walk.later)
    errors = [_refusal(program, each) for each in walk.found.values()]
    deep += usable_maps.errors(program, is_sleepable=walk.is_sleepable)
    if program.type is not None:
        deep += [*walk.functions.wrong_endings(), *walk.functions.wrong_tags(), *lsm_hooks.errors(program)]
    deep += operations.errors(program, is_sleepable=walk.is_sleepable)
    errors += [_of_structure(program, each) for each in deep]
    errors.sort(key=lambda error: error.pc)
    if walk.undecided and not reason:
        pc, said = min(walk.undecided.items())
        line = program.line_at(pc)
        reason = f"at pc {pc}" + (f" ({line})" if line is not None else "") + f": {said}"
    if not reason:
        reason = _unresolved(program)
    status: Status = "refused" if errors else "undecided" if reason else "accepted"
    known = walk.claims if claims else None
    proven = Proven(program, walk.reaches.by_pc, constants, context_size) if status == "accepted" else None
    return Verdict(status, tuple(errors), reason, walk.visited, walk.seen.kept, stack, name, known, proven)


def _undefined(program: Program) -> Refusal | None:
    """Return what is wrong with a call of a function that the object lacks.

    Compilers leave such a call aimed at itself, for a linker to aim; recursion it is not.
    """
    lacks = next(iter(program.refusals), None)
    if lacks is None:
        return None
    calls = (insn.pc for insn, target in program.jumps if target == insn.pc and _is_call(insn))
    pc = next(calls, None)
    if pc is None:
        return None
    return Refusal(pc, "call", str(lacks), "link the object that has the function", program.line_at(pc))


def _is_call(insn: Instruction) -> bool:
    return insn.row is not None and insn.row.kind is Kind.CALL_LOCAL


def _unresolved(program: Program) -> str:
    """Return what a program refers to that nobody knows here, on whatever way; "" where there is nothing."""
    try:
        check_references(program)
    except LoadError as error:
        return str(error)
    return ""


def lacking(found: Verdict, needs: Iterable[Any]) -> Verdict:
    """Return a verdict for a kernel that lacks what a program needs (`compatibility.Need`)."""
    needs = tuple(needs)
    errors = [
        Refusal(need.pc or 0, "kernel", f"{need.feature}, {need.since}", need.advice, need.line)
        for need in needs
        if need.is_known
    ]
    reason = found.reason or next(
        (f"{need.feature}: {need.since}" for need in needs if not need.is_known), ""
    )
    both = tuple(sorted((*found.errors, *errors), key=lambda error: error.pc))
    status: Status = "refused" if both else "undecided" if reason else found.status
    proven = found.proven if status == "accepted" else None
    return replace(found, status=status, errors=both, reason=reason, proven=proven)


def _setting(program: Program, *, privileged: bool, context_size: int | None) -> Setting:
    if program.type is None:
        return Setting(None, None, privileged, context_size)
    attached = attachment(program.type, program.section)
    attach = attached.type if attached.is_said else None
    name = program_type(program.type).name
    return Setting(
        name, attach, privileged, context_size, KernelTypes(program), Objects(program),
        is_sleepable=bool(attached.flags & SLEEPABLE), is_restricted=not is_compatible(program.license),
    )  # fmt: skip


def _arguments(setting: Setting) -> list[Value]:
    if setting.type is not None:
        return [Pointer("ctx")]
    size = setting.context_size
    if size is None:
        return [Pointer("ctx", size=-1), unknown()]
    return [Pointer("ctx", size=size), known(size)]


def _exploded(walk: Walk) -> str:
    """Say where most of the walk was, as it took too long."""
    pc = max(walk.visits, key=walk.visits.__getitem__)
    line = walk.program.line_at(pc)
    where = f"pc {pc}" + (f" ({line})" if line is not None else "")
    return (
        f"{walk.visited - 1} instructions were walked, and there are more states: most in the loop around "
        f"{where}, which was come to {walk.visits[pc]} times"
    )


def _of_structure(program: Program, error: structure.Error) -> Refusal:
    pc, kind, message, advice = error
    return Refusal(pc, kind, message, advice, program.line_at(pc))


def _refusal(program: Program, found: Found) -> Refusal:
    insn = program.slots[found.pc]
    assert insn is not None
    assert insn.row is not None
    row = insn.row
    read = []
    if row.implicit_reads:
        read += [number for number in row.implicit_reads if found.registers[number] is not None]
    for role, number in ((row.dst, insn.dst_reg), (row.src, insn.src_reg)):
        if not isinstance(role, int) and role.name != "WRITE" and number < FRAME_POINTER:
            read.append(number)
    registers = tuple(
        (f"r{number}", words.described(found.registers[number])) for number in dict.fromkeys(read)
    )
    return Refusal(
        found.pc, found.kind, found.message, found.advice, program.line_at(found.pc),
        words.path(program, found.way), registers,
    )  # fmt: skip
