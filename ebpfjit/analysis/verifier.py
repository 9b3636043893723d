"""The structural verifier: the rules that any program must keep before it is run.

It is the default of every machine and says nothing about memory: that is checked at run time.
Each rule is a generator over one instruction; a message names pc, instruction and rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ebpfjit.analysis.cfg import NEVER_FALLS_THROUGH, always_reached, illegal_reason, is_inside
from ebpfjit.errors import EMPTY, DecodeError, VerifierError
from ebpfjit.isa.spec import FRAME_POINTER, FROM_ARENA, REGISTER_COUNT, TO_ARENA, Kind, Reg
from ebpfjit.isa.table import BY_OPCODE
from ebpfjit.memo import Memo
from ebpfjit.program import SLOT_SIZE, Instruction, Program

MAX_INSTRUCTIONS = 1_000_000

Rule = Callable[[Program, Instruction], Iterator[str]]

GOTOX = 0x0D
"""Opcode of a jump to what a register holds (Linux 6.19), which LLVM makes of tables of jumps."""


def _known(program: Program, insn: Instruction) -> Iterator[str]:
    if insn.row is not None:
        return
    if insn.opcode == GOTOX:
        yield "gotox, a jump to what a register holds, is not supported: clang -fno-jump-tables does without"
        return
    rows = BY_OPCODE.get(insn.opcode)
    if rows is None:
        yield f"opcode {insn.opcode:#04x} is unknown"
        return
    choices = sorted(
        {
            " ".join(
                f"{field}={value:#x}"
                for field, value in (("src_reg", row.src), ("offset", row.offset), ("imm", row.imm))
                if isinstance(value, int)
            )
            for row in rows
        }
    )
    yield (
        f"opcode {insn.opcode:#04x} has no meaning with src_reg={insn.src_reg:#x} "
        f"offset={insn.offset:#x} imm={insn.imm:#x}; it has with {' or '.join(choices)}"
    )


def _registers(program: Program, insn: Instruction) -> Iterator[str]:
    row = insn.row
    if row is None:
        return
    for field, role, number in (("dst_reg", row.dst, insn.dst_reg), ("src_reg", row.src, insn.src_reg)):
        if not isinstance(role, Reg):
            continue
        if number >= REGISTER_COUNT:
            yield f"{field} is {number}, registers are r0 to r10"


def _reserved(program: Program, insn: Instruction) -> Iterator[str]:
    if insn.row is None:
        return
    fields = (insn.dst_reg, insn.src_reg, insn.offset, insn.imm, insn.next_imm)
    for field, required, actual in insn.row.mismatches(*fields):
        name = f"{field}_reg" if field in ("dst", "src") else field
        yield f"{name} is reserved and must be {required}, it is {actual}"
    if insn.reserved:
        yield "the second slot of an lddw must be zero but for its imm"


def _targets(program: Program, insn: Instruction) -> Iterator[str]:
    row, target = insn.row, insn.target
    if row is not None and row.operation == "LDDW_CODE":
        target = insn.pc + 1 + insn.imm
    if row is None or target is None or is_inside(program, target):
        return
    what = "jump" if row.kind not in (Kind.CALL_LOCAL, Kind.LOAD_IMM64) else "function"
    if 0 <= target < len(program):
        yield f"{what} at pc {target} is the second half of an lddw"
    else:
        yield f"{what} at pc {target} is outside the program ({len(program)} slots)"


def _falls_off(program: Program, insn: Instruction) -> Iterator[str]:
    row = insn.row
    if insn.next_pc == len(program) and row is not None and row.kind not in NEVER_FALLS_THROUGH:
        yield "the last instruction must be exit or a jump: control would fall off the end"


def _alignment(program: Program, insn: Instruction) -> Iterator[str]:
    row = insn.row
    if row is None or not row.is_ordered:
        return
    base = insn.src_reg if row.kind is Kind.LOAD else insn.dst_reg
    if base == FRAME_POINTER and insn.offset % row.size:
        yield f"an atomic of {row.size} bytes at r10{insn.offset:+d} is not aligned"


def _casts(program: Program, insn: Instruction) -> Iterator[str]:
    if insn.row is not None and insn.row.kind is Kind.CAST and insn.imm not in (FROM_ARENA, TO_ARENA):
        yield f"imm={insn.imm:#x}: addr_space_cast insn can only convert between address space 1 and 0"


Rules = tuple[tuple[str, Rule], ...]
"""Rules with the names that refusals give."""
RULES: Rules = (
    ("known-opcode", _known),
    ("registers", _registers),
    ("reserved-fields", _reserved),
    ("jump-targets", _targets),
    ("no-fall-off", _falls_off),
    ("aligned-atomics", _alignment),
    ("casts", _casts),
)
AT_THE_END: Rules = (("no-fall-off", _falls_off),)
"""What is left to ask of the last instruction, where its word kept all rules elsewhere."""


def check(prog: Any) -> None:
    """Check a program (`prog`: bytes-like, or a Program) against every rule.

    A size that is a multiple of 8, from 1 to 1,000,000 instructions; known opcodes; registers in
    range; r10 not written where every run comes; reserved fields zero; jumps and local calls to instructions
    of the program, not into the second half of an LDDW; no way to fall off the end; atomics on the stack
    aligned. Division by an immediate zero is fine: its result is defined. A write to r10 behind a branch may
    be in what Linux's verifier finds dead: whoever comes to it gets an IllegalInstruction.

    Raises VerifierError for the first violation, with `pc` and the `rule`'s name.
    """
    program = (prog if isinstance(prog, Program) else _decode(prog)).own()
    if not program.instructions:
        raise VerifierError(EMPTY, None, "size")
    if len(program.instructions) > MAX_INSTRUCTIONS:
        raise VerifierError(
            f"{len(program.instructions)} instructions, at most {MAX_INSTRUCTIONS} are allowed", None, "size"
        )
    words, slots = program.words, program.slots
    end = len(slots)
    writing: list[Instruction] = []
    sound = _sound_words.trim(end)
    astray = {insn.pc for insn, target in program.jumps if not 0 <= target < end or slots[target] is None}
    asked = {pc for pc, word in enumerate(words) if word not in sound}
    for pc in sorted(asked | astray):
        instruction = slots[pc]
        if instruction is not None and (pc in astray or words[pc] not in sound):  # None: a second half
            _check_instruction(program, instruction)
            writing += [instruction] if illegal_reason(instruction) is not None else []
    if writing:
        _check_frame_pointer(program, writing)
    last = program.instructions[-1]
    _check_instruction(program, last, AT_THE_END if words[last.pc] in _sound_words else RULES)


_sound_words: Memo[int, bool] = Memo()
"""Words that have kept every rule once, and do so anywhere, but for their target and at the end."""


def _check_instruction(program: Program, instruction: Instruction, rules: Rules = RULES) -> None:
    """Check one instruction against rules; remember its word where that says all."""
    for name, rule in rules:
        for message in rule(program, instruction):
            raise _refusal(program, instruction, name, message)
    if instruction.next_imm is not None or illegal_reason(instruction) is not None:
        return  # the other half of an LDDW has rules of its own, and a write to r10 depends on where it is
    _sound_words[program.words[instruction.pc]] = True


def _check_frame_pointer(program: Program, writing: list[Instruction]) -> None:
    """Refuse a write to r10 that no run can get around; any other ends the run that comes to it."""
    reached = always_reached(program)
    for instruction in writing:
        if instruction.pc in reached:
            raise _refusal(program, instruction, "registers", "r10 is read-only")


def _refusal(program: Program, instruction: Instruction, name: str, message: str) -> VerifierError:
    line = program.line_at(instruction.pc)
    where = f" ({line})" if line is not None else ""
    text = f"pc {instruction.pc}: {describe(instruction)}: {message} [{name}]{where}"
    return VerifierError(text, instruction.pc, name)


def describe(instruction: Instruction) -> str:
    """Return an instruction's name, or its bytes where it has none, for a message."""
    if instruction.row is not None:
        return instruction.row.mnemonic
    return f"<{instruction.encode().hex(' ')}>"


def _decode(prog: Any) -> Program:
    code = bytes(memoryview(prog))
    if len(code) > (MAX_INSTRUCTIONS * 2) * SLOT_SIZE:
        raise VerifierError(f"a program of {len(code)} bytes is too large", None, "size")
    try:
        return Program.from_bytes(code)
    except DecodeError as error:
        raise VerifierError(str(error), error.pc, "size") from None
