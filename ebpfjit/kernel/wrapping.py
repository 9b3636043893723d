"""A raw program, wrapped so that the kernel's verifier accepts it and all of r0 can be read.

The kernel returns 32 bits of r0 and starts a program with a context in r1 and nothing else. So:

    slot 0      r0 = 0; if r0 == 0 goto start
    finish:     r1 = &result; *(u64 *)(r1 + 0) = r0; *(u64 *)(r1 + 8) = 1; r0 = 0; exit
    start:      zero the stack; r1 = &memory or 0; r2 = its length; all others = 0
    first_slot: the program, unmoved; each exit of its main function -> goto finish
                (the functions it calls keep their exits)

The ending stands before the program because a function's slots must lie together: behind the
program there may be local functions. A branch that is always taken leads past it, not a jump, so that
a program without an exit is judged for that and not for a `finish` that nothing reaches. Nothing
inside the program moves, so its own offsets hold.
`result` and `memory` are arrays of one value, reached by address (LDDW with src_reg 2).
"""

from __future__ import annotations

from ebpfjit.isa.spec import Kind
from ebpfjit.isa.table import BY_NAME
from ebpfjit.program import SLOT_SIZE, Instruction, Program, encode
from ebpfjit.record import dataclass

RESULT_SIZE = 16
"""Bytes of the result map's value: r0, then 1 where the program reached its end."""

STACK_SIZE = 512
MAY_GOTO_STACK = 16
"""Bytes that the verifier adds to the frame of a program with may_goto (kernel/bpf/verifier.c)."""

_JA_REACH = 1 << 15


@dataclass(frozen=True, slots=True)
class WrappedProgram:
    """Bytecode for the kernel (`code`); the caller's program starts at slot `first_slot` of it."""

    code: bytes
    first_slot: int


def _instruction(name: str, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> Instruction:
    """Return an instruction of the row `name`; the row's fixed fields win over the arguments."""
    row = BY_NAME[name]

    def field(required: object, given: int) -> int:
        return required if isinstance(required, int) else given

    return Instruction(
        0,
        row.opcode,
        field(row.dst, dst),
        field(row.src, src),
        field(row.offset, offset),
        field(row.imm, imm),
        next_imm=0 if row.is_wide else None,
        row=row,
    )


def has_packet_loads(program: Program) -> bool:
    """True where the program uses the legacy packet loads (LDABS, LDIND)."""
    return any(insn.row is not None and insn.row.kind is Kind.PACKET_LOAD for insn in program.instructions)


def has_may_goto(program: Program) -> bool:
    """True where the program uses may_goto."""
    return any(insn.row is not None and insn.row.kind is Kind.MAY_GOTO for insn in program.instructions)


def main_end(program: Program) -> int:
    """Return the slot after the main function: where the first local function starts, or the end."""
    starts = (
        insn.pc + 1 + insn.imm
        for insn in program.instructions
        if insn.row is not None and insn.row.operation in ("CALL_LOCAL", "LDDW_CODE")
    )
    return min((pc for pc in starts if 0 < pc <= len(program)), default=len(program))


def stack_to_zero(program: Program) -> int:
    """Return how many bytes below r10 to zero before the program, a multiple of 8.

    All 512, or what may_goto leaves. With local calls only down to the lowest offset that the
    main function names: where frames share 512 bytes a full one would leave the callees none.
    """
    operations = {insn.row.operation for insn in program.instructions if insn.row is not None}
    limit = STACK_SIZE - MAY_GOTO_STACK if has_may_goto(program) else STACK_SIZE
    if not operations & {"CALL_LOCAL", "LDDW_CODE"}:
        return limit
    end = main_end(program)
    depth = 0
    for insn in program.instructions:
        if insn.pc >= end or insn.row is None:
            continue
        base = insn.src_reg if insn.row.kind is Kind.LOAD else insn.dst_reg
        if insn.row.size and base == 10:
            depth = max(depth, -insn.offset)
        if insn.row.name == "ADD64_K":
            depth = max(depth, -insn.imm if -insn.imm <= STACK_SIZE else 0)
    return min(limit, (depth + 7) // 8 * 8)


def _finish(result_fd: int) -> list[Instruction]:
    return [
        _instruction("LDDW_MAP_VALUE", dst=1, imm=result_fd),
        _instruction("STXDW", dst=1, src=0, offset=0),
        _instruction("STDW", dst=1, offset=8, imm=1),
        _instruction("MOV64_K", dst=0, imm=0),
        _instruction("EXIT"),
    ]


def _start(memory_fd: int | None, memory_size: int, stack: int, context_in_r6: bool) -> list[Instruction]:
    context = [_instruction("MOV64_X", dst=6, src=1)] if context_in_r6 else []
    zeroed = [0, 3, 4, 5, 7, 8, 9] if context_in_r6 else [0, 3, 4, 5, 6, 7, 8, 9]
    if memory_fd is None:
        memory = [_instruction("MOV64_K", dst=1, imm=0)]
    else:
        memory = [_instruction("LDDW_MAP_VALUE", dst=1, imm=memory_fd)]
    return [
        *context,
        *(_instruction("STDW", dst=10, offset=-below, imm=0) for below in range(8, stack + 1, 8)),
        *memory,
        _instruction("MOV64_K", dst=2, imm=memory_size),
        *(_instruction("MOV64_K", dst=register, imm=0) for register in zeroed),
    ]


def _is_plain_exit(insn: Instruction) -> bool:
    """True for an exit that the kernel accepts: the verifier is to judge those with a reserved field.

    It looks at all of them but offset (do_check in kernel/bpf/verifier.c).
    """
    return (
        insn.row is not None
        and insn.row.kind is Kind.EXIT
        and not insn.row.mismatches(insn.dst_reg, insn.src_reg, 0, insn.imm)
    )


def wrap(
    program: Program, result_fd: int, memory_fd: int | None, memory_size: int, *, context_in_r6: bool = False
) -> WrappedProgram:
    """Return `program` with its start state before it and its result stored after it.

    `result_fd` and `memory_fd` are descriptors of array maps with one value, of RESULT_SIZE and of
    `memory_size` bytes; without memory `memory_fd` is None and r1 = r2 = 0. `context_in_r6` is for
    packet loads, which take the packet from the context in r6: r6 then starts as that, not as 0.
    """
    finish = encode(_finish(result_fd))
    enter = encode(
        [_instruction("MOV64_K", dst=0, imm=0), _instruction("JEQ_K", offset=len(finish) // SLOT_SIZE)]
    )
    start = encode(_start(memory_fd, memory_size, stack_to_zero(program), context_in_r6))
    first_slot = (len(enter) + len(finish) + len(start)) // SLOT_SIZE
    body = bytearray(program.code)
    end = main_end(program)
    for insn in program.instructions:
        if insn.pc >= end or not _is_plain_exit(insn):
            continue
        distance = len(enter) // SLOT_SIZE - (first_slot + insn.pc + 1)
        near = distance >= -_JA_REACH
        jump = _instruction("JA", offset=distance) if near else _instruction("JA32", imm=distance)
        body[insn.pc * SLOT_SIZE : insn.next_pc * SLOT_SIZE] = jump.encode()
    return WrappedProgram(enter + finish + start + bytes(body), first_slot)
