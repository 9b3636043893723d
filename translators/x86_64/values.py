"""What optimised code does at once: rotations, sums, choices, and accesses with an index or as an operand.

Results may be in any register, that of an argument too; nothing else is changed but r10 and the flags.
"""

from __future__ import annotations

from ebpfjit.bits import WIDTH_OF_SIZE
from ebpfjit.isa.spec import Kind
from ebpfjit.isa.unencoded import UNENCODED
from ebpfjit.translators.operation import Operation
from ebpfjit.translators.plan import Audit
from ebpfjit.translators.x86_64.alu import REGULAR
from ebpfjit.translators.x86_64.jump import CONDITIONS
from ebpfjit.translators.x86_64.memory import LOADS, emit_audit, load_address
from ebpfjit.translators.x86_64.target import (
    INVERSE,
    POINTER,
    SCRATCH,
    Context,
    address_operand,
    register,
    translates,
)

WITH_MEMORY = {**REGULAR, "MUL": "imul"}
"""Operations whose second operand may lie in memory."""
SCRATCH_NAMES = dict(zip((64, 32, 16, 8), SCRATCH[0], strict=True))


def _operations(*kinds: Kind) -> list[str]:
    """Return the operations of these kinds that only optimised code has."""
    return [*dict.fromkeys(row.operation for row in UNENCODED.values() if row.kind in kinds)]


def address_text(insn: Operation) -> str:
    """Return the registers that an address is the sum of, as they stand in it."""
    base = register(insn.args[0])
    if not insn.scale:
        return base
    index = register(insn.args[1])
    return f"{base}+{index}*{insn.scale}" if insn.scale > 1 else f"{base}+{index}"


def _memory(insn: Operation) -> tuple[str, int | None]:
    """Return an access's operand and the number for its `$offset`."""
    return address_operand(address_text(insn), insn.offset)


def emit_audits(cx: Context, insn: Operation) -> None:
    """Emit the fault "audit" where an access is to bytes that are not the program's; r10 and r11 are lost.

    Loads may be of what was gathered from several regions: then each byte must be there.
    """
    base, size, stores = address_text(insn), insn.row.size, insn.row.kind in STORES
    if stores or size == 1:
        emit_audit(cx, base, insn.offset, Audit(size, stores))
        return
    done = cx.new_label("audited")
    cx.used.add("is_load")
    load_address(cx, base, insn.offset)
    cx.emit(f"mov r10d, {size}")
    cx.jump("call", "is_load")
    cx.jump("jae", done)
    for byte in range(size):
        emit_audit(cx, base, insn.offset + byte, Audit(1, stores=False))
    cx.label(done)


STORES = frozenset({Kind.INDEXED_STORE, Kind.UPDATE})
"""Kinds that write what they address."""


def _values(insn: Operation) -> tuple[int, ...]:
    """Return the arguments behind those of the address."""
    return insn.args[2 if insn.scale else 1 :]


@translates("ROTATE64", "ROTATE32")
def rotate(insn: Operation, cx: Context) -> None:
    """Rorx dst, src, bits - n; or a copy, and rol dst, n."""
    bits = insn.row.width.bits
    (value,), (result,) = insn.args, insn.results
    dst, src, by = register(result, bits), register(value, bits), insn.imm % bits
    if result != value and by and "bmi2" in cx.settings.features:
        cx.emit(f"rorx {dst}, {src}, $imm", imm=bits - by, imm_sizes=(8,))
        return
    if result != value or (not by and bits == 32):
        cx.emit(f"mov {dst}, {src}")
    if by:
        cx.emit(f"rol {dst}, $imm", imm=by, imm_sizes=(8,))


@translates("MULHI64")
def mulhi(insn: Operation, cx: Context) -> None:
    """The high half of a product, of which one factor must be in rdx: mulx dst, dst, src leaves no other.

    mov r10, rdx;  mov rdx, a;  mulx dst, dst, b;  mov rdx, r10
    push rax;  push rdx;  mov r10, b;  mov rax, a;  mul r10;  mov r10, rdx;  pop rdx;  pop rax;  mov dst, r10
    """
    (a, b), dst = map(register, insn.args), register(insn.results[0])
    if "bmi2" in cx.settings.features:
        if "rdx" in (a, b):
            cx.emit(f"mulx {dst}, {dst}, {b if a == 'rdx' else a}")
            return
        cx.emit("mov r10, rdx")
        cx.emit(f"mov rdx, {a}")
        cx.emit(f"mulx {dst}, {dst}, {b}")
        if dst != "rdx":
            cx.emit("mov rdx, r10")
        return
    kept = [name for name in ("rax", "rdx") if name != dst]
    for name in kept:
        cx.emit(f"push {name}")
    cx.emit(f"mov r10, {b}")
    cx.emit(f"mov rax, {a}")
    cx.emit("mul r10")
    cx.emit("mov r10, rdx")
    for name in reversed(kept):
        cx.emit(f"pop {name}")
    cx.emit(f"mov {dst}, r10")


@translates("SUM64", "SUM32")
def sum_(insn: Operation, cx: Context) -> None:
    """Lea dst, [base + index * scale + offset]."""
    memory, offset = _memory(insn)
    cx.emit(f"lea {register(insn.results[0], insn.row.width.bits)}, {memory}", offset=offset)


def _compare(
    insn: Operation, cx: Context, left: str, right: int | None, bits: int, offset: int | None
) -> str:
    """Set the flags for a comparison of `left` with a register, or the number; return its jump."""
    is_test = insn.row.meaning == "JSET"
    mnemonic = "test" if is_test else "cmp"
    if right is not None:
        cx.emit(f"{mnemonic} {left}, {register(right, bits)}", offset=offset)
    else:
        number = insn.imm if bits > 16 else WIDTH_OF_SIZE[bits // 8].signed(insn.imm)
        whole = min(bits, 32)
        sizes = (whole,) if is_test or bits == 8 else (8, whole)
        cx.emit_constant(f"{mnemonic} {left}, $imm", number, sizes, offset)
    return "jne" if is_test else CONDITIONS[insn.row.meaning]


@translates(*_operations(Kind.SELECT))
def select(insn: Operation, cx: Context) -> None:
    """The comparison, and a conditional move over the other value; moves leave the flags alone."""
    bits, (result,) = insn.row.width.bits, insn.results
    chosen, other = insn.args[-2:]
    right = insn.args[1] if insn.row.uses_src else None
    jump = _compare(insn, cx, register(insn.args[0], bits), right, bits, None)
    if result == chosen:
        jump, chosen = INVERSE[jump], other
    elif result != other:
        cx.emit(f"mov {register(result)}, {register(other)}")
    cx.emit(f"cmov{jump.removeprefix('j')} {register(result)}, {register(chosen)}")


@translates(*(name for name in _operations(Kind.INDEXED_LOAD) if name.startswith("INDEXED")))
def indexed_load(insn: Operation, cx: Context) -> None:
    """A load, as any other."""
    (result,), (memory, offset) = insn.results, _memory(insn)
    names = {"dst32": register(result, 32), "dst64": register(result), "memory": memory}
    cx.emit(LOADS[insn.row.operation.removeprefix("INDEXED_")].format(**names), offset=offset)


@translates(*(name for name in _operations(Kind.INDEXED_STORE) if name.startswith("INDEXED")))
def indexed_store(insn: Operation, cx: Context) -> None:
    """A store of a register or a number."""
    size, (memory, offset) = insn.row.size, _memory(insn)
    if insn.row.uses_src:
        cx.emit(f"mov {POINTER[size]} {memory}, {register(insn.args[-1], 8 * size)}", offset=offset)
        return
    number = insn.imm if size > 2 else insn.row.width.signed(insn.imm)
    cx.emit_constant(f"mov {POINTER[size]} {memory}, $imm", number, (min(8 * size, 32),), offset)


@translates("SWAPPED_LDXH", "SWAPPED_LDXW", "SWAPPED_LDXDW")
def swapped_load(insn: Operation, cx: Context) -> None:
    """Movbe dst, [m]; or a load, and bswap dst."""
    size, (memory, offset) = insn.row.size, _memory(insn)
    dst = register(insn.results[0], 8 * size)
    if size == 2:
        cx.emit(f"movzx {register(insn.results[0], 32)}, word ptr {memory}", offset=offset)
        cx.emit(f"rol {dst}, 8")
    elif "movbe" in cx.settings.features:
        cx.emit(f"movbe {dst}, {POINTER[size]} {memory}", offset=offset)
    else:
        cx.emit(f"mov {dst}, {POINTER[size]} {memory}", offset=offset)
        cx.emit(f"bswap {dst}")


@translates("SWAPPED_STXH", "SWAPPED_STXW", "SWAPPED_STXDW")
def swapped_store(insn: Operation, cx: Context) -> None:
    """Movbe [m], src; or a copy in r10, which is swapped and stored."""
    size, (memory, offset) = insn.row.size, _memory(insn)
    src = register(insn.args[-1], 8 * size)
    if "movbe" in cx.settings.features:
        cx.emit(f"movbe {POINTER[size]} {memory}, {src}", offset=offset)
        return
    scratch = SCRATCH_NAMES[8 * size]
    cx.emit(f"mov {SCRATCH_NAMES[max(8 * size, 32)]}, {register(insn.args[-1], max(8 * size, 32))}")
    cx.emit(f"rol {scratch}, 8" if size == 2 else f"bswap {scratch}")
    cx.emit(f"mov {POINTER[size]} {memory}, {scratch}", offset=offset)


@translates(*_operations(Kind.BINARY_LOAD))
def binary_load(insn: Operation, cx: Context) -> None:
    """Op dst, [m]; where dst is part of the address the bytes are loaded first, or it is done in r10.

    dst is neither:      mov dst, src;  sub dst, [m]
    dst is in [m]:       mov dst, [m];  add dst, src           if the order does not matter
                         mov r10, src;  sub r10, [m];  mov dst, r10
    """
    bits, (result,), (value,) = insn.row.width.bits, insn.results, _values(insn)
    memory, offset = _memory(insn)
    memory = f"{POINTER[insn.row.size]} {memory}"
    mnemonic = WITH_MEMORY[insn.row.meaning]
    dst, src = register(result, bits), register(value, bits)
    if result == value or result not in insn.args:
        if result != value:
            cx.emit(f"mov {dst}, {src}")
        cx.emit(f"{mnemonic} {dst}, {memory}", offset=offset)
    elif mnemonic != "sub":
        cx.emit(f"mov {dst}, {memory}", offset=offset)
        cx.emit(f"{mnemonic} {dst}, {src}")
    else:
        scratch = SCRATCH_NAMES[bits]
        cx.emit(f"mov {scratch}, {src}")
        cx.emit(f"{mnemonic} {scratch}, {memory}", offset=offset)
        cx.emit(f"mov {dst}, {scratch}")


@translates(*_operations(Kind.UPDATE))
def update(insn: Operation, cx: Context) -> None:
    """Op [m], a register or a number."""
    size, (memory, offset) = insn.row.size, _memory(insn)
    memory = f"{POINTER[size]} {memory}"
    mnemonic = REGULAR[insn.row.meaning]
    if insn.row.uses_src:
        cx.emit(f"{mnemonic} {memory}, {register(insn.args[-1], 8 * size)}", offset=offset)
        return
    number = insn.imm if size > 2 else insn.row.width.signed(insn.imm)
    sizes = (8,) if size == 1 else (8, min(8 * size, 32))
    cx.emit_constant(f"{mnemonic} {memory}, $imm", number, sizes, offset)


@translates(*_operations(Kind.BRANCH_LOAD))
def branch_load(insn: Operation, cx: Context) -> None:
    """Cmp [m], a register or a number; jcc."""
    size, (memory, offset) = insn.row.size, _memory(insn)
    values = _values(insn)
    right = values[0] if values else None
    cx.goto(_compare(insn, cx, f"{POINTER[size]} {memory}", right, 8 * size, offset), 0)
