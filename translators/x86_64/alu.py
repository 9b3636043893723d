"""Arithmetic, moves and byte swaps.

A 32-bit operation on x86-64 clears the upper half of its destination, as eBPF wants it.
"""

from __future__ import annotations

from ebpfjit.isa.spec import FROM_ARENA
from ebpfjit.program import Instruction
from ebpfjit.translators.registry import Translator
from ebpfjit.translators.x86_64.target import Context, load_constant, register, translates

#    eBPF    x86-64
REGULAR = {
    "ADD": "add",
    "SUB": "sub",
    "OR": "or",
    "AND": "and",
    "XOR": "xor",
}

#    eBPF    by cl   BMI2
SHIFTS = {
    "LSH": ("shl", "shlx"),
    "RSH": ("shr", "shrx"),
    "ARSH": ("sar", "sarx"),
}

#    eBPF    signed  result
DIVISIONS = {
    "DIV": (False, "quotient"),
    "MOD": (False, "remainder"),
    "SDIV": (True, "quotient"),
    "SMOD": (True, "remainder"),
}


LEA_SCALES = {3: 2, 5: 4, 9: 8}
"""A factor that lea does, as a register plus so many times itself."""


def _regular(mnemonic: str) -> Translator:
    def translate(insn: Instruction, cx: Context) -> None:
        cx.emit_constant(f"{mnemonic} {cx.dst}, {cx.operand}", cx.imm)

    translate.__doc__ = f"dst {mnemonic}= operand."
    return translate


for _meaning, _mnemonic in REGULAR.items():
    translates(f"{_meaning}64", f"{_meaning}32")(_regular(_mnemonic))


@translates("MUL64", "MUL32")
def mul(insn: Instruction, cx: Context) -> None:
    """Imul keeps the low half, which is the same signed and unsigned; lea is sooner done."""
    if not cx.is_x and insn.imm in LEA_SCALES and not cx.settings.harden:
        cx.emit(f"lea {cx.dst}, [{cx.dst64}+{cx.dst64}*{LEA_SCALES[insn.imm]}]")
    elif cx.is_x or cx.settings.harden:
        cx.emit_constant(f"imul {cx.dst}, {cx.operand}", cx.imm)
    else:
        cx.emit(f"imul {cx.dst}, {cx.dst}, $imm", imm=cx.imm)


@translates("MOV64")
def mov64(insn: Instruction, cx: Context) -> None:
    """Copy, or load a sign-extended immediate."""
    if cx.is_x:
        cx.emit(f"mov {cx.dst}, {cx.src}")
    else:
        load_constant(cx, insn.dst_reg, insn.imm64)


@translates("MOV32")
def mov32(insn: Instruction, cx: Context) -> None:
    """Copy 32 bits; mov r32, r32 clears the upper half even of itself."""
    if cx.is_x:
        cx.emit(f"mov {cx.dst}, {cx.src}")
    else:
        load_constant(cx, insn.dst_reg, insn.imm & 0xFFFFFFFF)


@translates("MOVSX64_8", "MOVSX64_16", "MOVSX64_32", "MOVSX32_8", "MOVSX32_16")
def movsx(insn: Instruction, cx: Context) -> None:
    """Movsx dst, the low part of src."""
    source = register(insn.src_reg, insn.offset)
    mnemonic = "movsxd" if insn.offset == 32 else "movsx"
    cx.emit(f"{mnemonic} {cx.dst}, {source}")


@translates("ADDR_SPACE_CAST")
def cast(insn: Instruction, cx: Context) -> None:
    """The low half of src, a number in the arena; for a user, below the upper half of the arena's address.

    mov dst32, src32;  test dst32, dst32;  je done;  movabs r10, upper;  or dst, r10;  done:
    """
    dst32 = register(insn.dst_reg, 32)
    cx.emit(f"mov {dst32}, {register(insn.src_reg, 32)}")
    arena = cx.plan.arena
    if insn.imm == FROM_ARENA or arena is None or not arena.upper:
        return
    done = cx.new_label("done")
    cx.emit(f"test {dst32}, {dst32}")
    cx.jump("je", done)
    cx.emit("movabs r10, $imm", imm=arena.upper << 32, imm_sizes=(64,))
    cx.emit(f"or {cx.dst64}, r10")
    cx.label(done)


@translates("NEG64", "NEG32")
def neg(insn: Instruction, cx: Context) -> None:
    """Two's complement."""
    cx.emit(f"neg {cx.dst}")


@translates("LE16", "LE32", "LE64")
def to_little_endian(insn: Instruction, cx: Context) -> None:
    """The machine is little-endian: only truncate."""
    match insn.imm:
        case 16:
            cx.emit(f"movzx {register(insn.dst_reg, 32)}, {register(insn.dst_reg, 16)}")
        case 32:
            cx.emit(f"mov {register(insn.dst_reg, 32)}, {register(insn.dst_reg, 32)}")


@translates("BE16", "BE32", "BE64", "BSWAP16", "BSWAP32", "BSWAP64")
def swap_bytes(insn: Instruction, cx: Context) -> None:
    """Reverse the low bytes, clear those above."""
    if insn.imm == 16:
        cx.emit(f"rol {register(insn.dst_reg, 16)}, 8")
        cx.emit(f"movzx {register(insn.dst_reg, 32)}, {register(insn.dst_reg, 16)}")
    else:
        cx.emit(f"bswap {register(insn.dst_reg, insn.imm)}")


def _shift(by_cl: str, bmi2: str) -> Translator:
    def translate(insn: Instruction, cx: Context) -> None:
        if not cx.is_x:
            _shift_by_constant(cx, by_cl, insn.imm % cx.width.bits)
        elif "bmi2" in cx.settings.features:
            cx.emit(f"{bmi2} {cx.dst}, {cx.dst}, {cx.src}")
        else:
            _shift_by_cl(cx, insn, by_cl)

    translate.__doc__ = f"{by_cl}: the machine takes the count modulo the width, as eBPF does."
    return translate


def _shift_by_constant(cx: Context, mnemonic: str, count: int) -> None:
    if count:
        cx.emit(f"{mnemonic} {cx.dst}, $imm", imm=count)
    elif cx.width.bits == 32:
        cx.emit(f"mov {cx.dst}, {cx.dst}")


def _shift_by_cl(cx: Context, insn: Instruction, mnemonic: str) -> None:
    """Shift where the count must be in cl: rcx holds r4, which may be either operand.

    dst is rcx:             mov r10, rcx;  mov rcx, src;  shl r10, cl;  mov rcx, r10
    src is rcx:             shl dst, cl
    neither:                mov r10, rcx;  mov rcx, src;  shl dst, cl;  mov rcx, r10
    """
    src_is_rcx, dst_is_rcx = cx.src64 == "rcx", cx.dst64 == "rcx"
    if src_is_rcx and not dst_is_rcx:
        cx.emit(f"{mnemonic} {cx.dst}, cl")
        return
    cx.emit("mov r10, rcx")
    if not src_is_rcx:
        cx.emit(f"mov rcx, {cx.src64}")
    shifted = {64: "r10", 32: "r10d"}[cx.width.bits] if dst_is_rcx else cx.dst
    cx.emit(f"{mnemonic} {shifted}, cl")
    cx.emit("mov rcx, r10")


for _meaning, (_by_cl, _bmi2) in SHIFTS.items():
    translates(f"{_meaning}64", f"{_meaning}32")(_shift(_by_cl, _bmi2))


def _division(signed: bool, result: str) -> Translator:
    def translate(insn: Instruction, cx: Context) -> None:
        if cx.is_x or insn.imm == 0 or (signed and insn.imm == -1):
            _divide_by_any(insn, cx, signed, result)
        else:
            _load_divisor(cx, insn)
            _divide(cx, signed, result)

    translate.__doc__ = f"The {result}, {'signed' if signed else 'unsigned'}."
    return translate


def _load_divisor(cx: Context, insn: Instruction) -> None:
    divisor = {64: "r10", 32: "r10d"}[cx.width.bits]
    cx.emit_constant(f"mov {divisor}, {cx.operand}", cx.imm, (32,))


def _divide_by_any(insn: Instruction, cx: Context, signed: bool, result: str) -> None:
    """Divide by what may be 0 (quotient 0, remainder dst) or, signed, -1 (which may trap)."""
    divisor = {64: "r10", 32: "r10d"}[cx.width.bits]
    dst32 = register(insn.dst_reg, 32)
    done, zero = cx.new_label("divided"), cx.new_label("zero")
    _load_divisor(cx, insn)
    cx.emit(f"test {divisor}, {divisor}")
    cx.jump("je", zero)
    if signed:
        minus_one = cx.new_label("minus_one")
        cx.emit(f"cmp {divisor}, -1")
        cx.jump("je", minus_one)
    _divide(cx, signed, result)
    cx.label(done)
    with cx.out_of_line(zero):
        if result == "quotient":
            cx.emit(f"xor {dst32}, {dst32}")
        elif cx.width.bits == 32:
            cx.emit(f"mov {dst32}, {dst32}")
        cx.jump("jmp", done)
    if signed:
        with cx.out_of_line(minus_one):
            if result == "quotient":
                cx.emit(f"neg {cx.dst}")
            else:
                cx.emit(f"xor {dst32}, {dst32}")
            cx.jump("jmp", done)


def _divide(cx: Context, signed: bool, result: str) -> None:
    """Divide dst by r10: the machine wants rdx:rax, which hold r3 and r0.

    push rax;  mov rax, dst;  push rdx;  xor edx, edx;  div r10
    mov dst, (rax or rdx) through r10;  pop rdx;  pop rax
    """
    bits = cx.width.bits
    divisor = {64: "r10", 32: "r10d"}[bits]
    rax, rdx = register(0, bits), register(3, bits)
    if cx.dst64 != "rax":
        cx.emit("push rax")
        cx.emit(f"mov {rax}, {cx.dst}")
    if cx.dst64 != "rdx":
        cx.emit("push rdx")
    if signed:
        cx.emit({64: "cqo", 32: "cdq"}[bits])
        cx.emit(f"idiv {divisor}")
    else:
        cx.emit("xor edx, edx")
        cx.emit(f"div {divisor}")
    cx.emit(f"mov {divisor}, {rax if result == 'quotient' else rdx}")
    if cx.dst64 != "rdx":
        cx.emit("pop rdx")
    if cx.dst64 != "rax":
        cx.emit("pop rax")
    cx.emit(f"mov {cx.dst}, {divisor}")


for _meaning, (_signed, _result) in DIVISIONS.items():
    translates(f"{_meaning}64", f"{_meaning}32")(_division(_signed, _result))
