"""Loads, stores, constants, and legacy packet loads."""

from __future__ import annotations

from ebpfjit.program import Instruction
from ebpfjit.translators.plan import Audit, Check
from ebpfjit.translators.x86_64.checks import FIND_ARENA
from ebpfjit.translators.x86_64.target import (
    BLOCK,
    POINTER,
    Context,
    address_operand,
    load_constant,
    pin,
    register,
    translates,
)


@translates("LDDW")
def lddw(insn: Instruction, cx: Context) -> None:
    """A 64-bit constant."""
    load_constant(cx, insn.dst_reg, insn.imm64)


@translates("LDDW_CODE")
def lddw_code(insn: Instruction, cx: Context) -> None:
    """The address of a function."""
    load_constant(cx, insn.dst_reg, cx.settings.code_address + insn.pc + 1 + insn.imm)


@translates(
    "LDDW_MAP_FD", "LDDW_MAP_VALUE", "LDDW_VARIABLE", "LDDW_MAP_IDX", "LDDW_MAP_IDX_VALUE"
)  # fmt: skip
def lddw_reference(insn: Instruction, cx: Context) -> None:
    """What the reference was resolved to."""
    load_constant(cx, insn.dst_reg, cx.program.references[insn.pc])


def memory_operand(cx: Context, base: str, insn: Instruction) -> tuple[str, int | None]:
    """Check the access where it needs it; return the operand's text and its `$offset`."""
    emit_check(cx, base, insn)
    return address_operand(base, insn.offset)


def load_address(cx: Context, base: str, offset: int, into: str = "r11") -> None:
    """Put base + offset into a scratch register; `base` may be a sum."""
    if offset:
        cx.emit(f"lea {into}, [{base}+$offset]", offset=offset)
    else:
        cx.emit(f"lea {into}, [{base}]" if "+" in base else f"mov {into}, {base}")


def emit_check(cx: Context, base: str, insn: Instruction) -> None:
    """Emit the check of an access, if it needs one, and its audit; clobbers r10."""
    if cx.check is not None:
        _emit_check(cx, base, insn.offset, cx.check)
    audit = cx.plan.audits.get(insn.pc)
    if audit is not None:
        emit_audit(cx, base, insn.offset, audit)


def emit_audit(cx: Context, base: str, offset: int, audit: Audit) -> None:
    """Emit the fault "audit" for bytes that are not the program's, whatever analysis found; clobbers r10."""
    routine = "audit_store" if audit.stores else "audit_load"
    cx.used.add(routine)
    load_address(cx, base, offset)
    cx.emit(f"mov r10d, {audit.size}")
    cx.jump("call", routine)


def _emit_check(cx: Context, base: str, offset: int, check: Check) -> None:
    """Emit the check of an access at base + offset; clobbers r10.

    The likely region inline, anything else out of line:
        lea r10, [base+offset];  sub r10, [start];  cmp r10, [limit];  jae other
    or, where minus the region's start is pinned in r11:
        lea r10, [base+r11+offset];  cmp r10, [limit];  jae other
    Bytes of the frame:
        lea r10, [base+offset+frame];  sub r10, rbp;  cmp r10, frame - size;  ja other
    An access to a struct with rights is one that these allow, or not, wherever its base is where r1 started:
        cmp base, [start];  jne other
    Where there is no room for another limit all is asked out of line.
    """
    other = cx.new_label("other")
    if check.region == "stack" and check.frame_size >= check.size:
        if cx.frame_top:
            cx.emit(f"lea r10, [{base}+$offset]", offset=offset + check.frame_size)
            cx.emit(f"sub r10, {cx.frame_top}")
        else:
            load_address(cx, base, offset, "r10")
            cx.emit(f"sub r10, qword ptr {BLOCK['stack_start']}")
        cx.emit("cmp r10, $imm", imm=check.frame_size - check.size)
        cx.jump("ja", other)
    elif check.region == "stack":
        cx.jump("jmp", other)
    elif check.region == "argument" and cx.plan.struct_rights:
        if _may_be_struct(cx, offset, check):
            _compare_with_start(cx, base)
            cx.jump("jne", other)
        else:
            cx.jump("jmp", other)
    elif (limit := cx.limit(check.region, check.size, check.stores)) is None:
        cx.jump("jmp", other)
    else:

        def compare() -> None:
            _load_distance(cx, base, offset, check.region)
            cx.emit("cmp r10, qword ptr [r12+$offset]", offset=limit)

        cx.repeat((base, offset, check.region, cx.pinned, limit), compare)
        cx.jump("jae", other)
    back = cx.new_label("inside")
    cx.label(back)
    _check_any_region(cx, other, back, base, offset, check)


def _may_be_struct(cx: Context, offset: int, check: Check) -> bool:
    """True where an access is one to a struct with rights, and allowed, if its base is where r1 started."""
    rights = cx.plan.struct_rights
    return 0 <= offset < len(rights) and bool(rights[offset] >> (4 if check.stores else 0) & check.size)


def _compare_with_start(cx: Context, base: str) -> None:
    """Compare a base with where r1 started."""
    cx.repeat((base, "argument_start"), lambda: cx.emit(f"cmp {base}, qword ptr {BLOCK['argument_start']}"))


def _load_distance(cx: Context, base: str, offset: int, region: str) -> None:
    """Put the distance of base + offset from a region's start into r10."""
    if region != cx.pinned:
        load_address(cx, base, offset, "r10")
        cx.emit(f"sub r10, qword ptr {BLOCK[region + '_start']}")
    else:
        load_address(cx, f"{base}+r11", offset, "r10")


def _check_any_region(cx: Context, label: str, back: str, base: str, offset: int, check: Check) -> None:
    routine = "check_store" if check.stores else "check_load"
    cx.used.add(routine)

    def name() -> None:
        load_address(cx, base, offset)
        cx.emit(f"mov r10d, {check.size}")

    with cx.out_of_line(label):
        if check.region != "argument" and _may_be_struct(cx, offset, check):
            # A context that was kept in the frame meanwhile.
            _compare_with_start(cx, base)
            cx.jump("je", back)
        cx.repeat((base, offset, check.size), name)
        cx.jump("call", routine)
        cx.jump("jmp", back)


def check_alignment(cx: Context, base: str, offset: int, size: int) -> None:
    """Check that base + offset is a multiple of `size`; clobbers r10."""
    if size == 1:
        return
    fault = cx.new_label("unaligned")
    load_address(cx, base, offset, "r10")
    cx.emit(f"test r10d, {size - 1}")
    cx.jump("jne", fault)
    with cx.out_of_line(fault):
        load_address(cx, base, offset)
        cx.raise_fault("alignment")


def find_in_arena(cx: Context, number: int, insn: Instruction, *, stores: bool) -> str:
    """Emit what leaves in r11 where an access through register `number` has its bytes; clobbers r10.

    Returns the label that is jumped to where it has none in the arena: nothing is to be done then. A load may
    go on: r11 leads to zeros. What may be an address of the program's memory is looked for there first:
        lea r11, [reg+offset];  mov r10d, size;  call is_load;  jae found
        mov r11d, reg32;  lea r11, [r11+offset];  movabs r10, descriptor;  call find_arena_SIZE;  jb nothing
    """
    arena, size = cx.plan.arena, cx.row.size
    assert arena is not None  # it has the access
    found, nothing = cx.new_label("found"), cx.new_label("nothing")
    if not arena.accesses[insn.pc]:
        routine = "is_store" if stores else "is_load"
        cx.used.add(routine)
        load_address(cx, register(number), insn.offset)
        cx.emit(f"mov r10d, {size}")
        cx.jump("call", routine)
        cx.jump("jae", found)
    cx.used.add(FIND_ARENA[size])
    cx.emit(f"mov r11d, {register(number, 32)}")
    if insn.offset:
        cx.emit("lea r11, [r11+$offset]", offset=insn.offset)
    cx.emit("movabs r10, $imm", imm=arena.descriptor, imm_sizes=(64,))
    cx.jump("call", FIND_ARENA[size])
    if stores:
        cx.jump("jb", nothing)
    cx.label(found)
    return nothing


def is_in_arena(cx: Context) -> bool:
    """True where the instruction's access is to the program's arena, or may be."""
    return cx.plan.arena is not None and cx.insn.pc in cx.plan.arena.accesses


#             operation  instruction
LOADS = {
    "LDXB": "movzx {dst32}, byte ptr {memory}",
    "LDXH": "movzx {dst32}, word ptr {memory}",
    "LDXW": "mov {dst32}, dword ptr {memory}",
    "LDXDW": "mov {dst64}, qword ptr {memory}",
    "LDXSB": "movsx {dst64}, byte ptr {memory}",
    "LDXSH": "movsx {dst64}, word ptr {memory}",
    "LDXSW": "movsxd {dst64}, dword ptr {memory}",
}
#  the machine loads with acquire and stores with release semantics anyway
LOADS.update({f"LOAD_ACQ{size}": LOADS[f"LDX{size}"] for size in ("B", "H", "W", "DW")})


@translates(*LOADS)
def load(insn: Instruction, cx: Context) -> None:
    """Dst = *(src + offset)."""
    if cx.row.is_ordered:
        check_alignment(cx, cx.src64, insn.offset, cx.row.size)
    if insn.pc in cx.plan.kernel_loads:
        _load_of_kernel(cx, insn)
        return
    if is_in_arena(cx):
        find_in_arena(cx, insn.src_reg, insn, stores=False)
        _load_found(cx, insn)
        return
    memory, offset = memory_operand(cx, cx.src64, insn)

    def access() -> None:
        names = {"dst32": register(insn.dst_reg, 32), "dst64": cx.dst64, "memory": memory}
        cx.emit(LOADS[cx.row.operation].format(**names), offset=offset)

    cx.repeat((cx.row.name, insn.dst_reg, memory, offset), access)


def _load_of_kernel(cx: Context, insn: Instruction) -> None:
    """Emit a load that gives what is behind a pointer of the kernel's, or zero; clobbers r10."""
    cx.used.add("find_load")
    load_address(cx, cx.src64, insn.offset)
    cx.emit(f"mov r10d, {cx.row.size}")
    cx.jump("call", "find_load")
    _load_found(cx, insn)


def _load_found(cx: Context, insn: Instruction) -> None:
    """Emit a load of what r11 leads to, which anybody may read."""
    names = {"dst32": register(insn.dst_reg, 32), "dst64": cx.dst64, "memory": "[r11]"}
    cx.emit(LOADS[cx.row.operation].format(**names))
    pin(cx)


@translates("STB", "STH", "STW", "STDW", "STXB", "STXH", "STXW", "STXDW",
            "STORE_RELB", "STORE_RELH", "STORE_RELW", "STORE_RELDW")  # fmt: skip
def store(insn: Instruction, cx: Context) -> None:
    """*(dst + offset) = src or imm."""
    row = cx.row
    size = row.size
    if row.is_ordered:
        check_alignment(cx, cx.dst64, insn.offset, size)
    if is_in_arena(cx):
        nothing = find_in_arena(cx, insn.dst_reg, insn, stores=True)
        _store_at(cx, insn, "[r11]", None)
        cx.label(nothing)
        pin(cx)
        return
    _store_at(cx, insn, *memory_operand(cx, cx.dst64, insn))


def _store_at(cx: Context, insn: Instruction, memory: str, offset: int | None) -> None:
    """Emit the store to an operand."""
    row = cx.row
    size = row.size
    if row.uses_src:
        cx.emit(f"mov {POINTER[size]} {memory}, {register(insn.src_reg, 8 * size)}", offset=offset)
        return
    bits = min(8 * size, 32)
    value = row.width.signed(insn.imm) if size < 4 else insn.imm
    cx.emit_constant(f"mov {POINTER[size]} {memory}, $imm", value, (bits,), offset)


@translates("LDABSB", "LDABSH", "LDABSW", "LDABSDW", "LDINDB", "LDINDH", "LDINDW", "LDINDDW")
def packet_load(insn: Instruction, cx: Context) -> None:
    """r0 = packet bytes in network order; outside of the packet the function ends with r0 = 0.

    mov r11d, index;  js out;  mov r10, size;  sub r10, r11;  jb out;  cmp r10, bytes;  jb out;
    add r11, start;  inside: load

    Out of line, a negative index counts from a header: from -0x200000 on from the link header, from
    -0x100000 on from the network header (SKF_LL_OFF, SKF_NET_OFF).
    """
    row = cx.row
    out, inside = cx.new_label("outside_packet"), cx.new_label("inside_packet")
    if row.uses_src:
        cx.emit(f"mov r11d, {register(insn.src_reg, 32)}")
        cx.emit_constant("add r11d, $imm", insn.imm)
    else:
        cx.emit_constant("mov r11d, $imm", insn.imm, (32,))
    cx.emit("test r11d, r11d")
    cx.jump("js", out)
    cx.emit(f"mov r10, qword ptr {BLOCK['packet_size']}")
    cx.emit("sub r10, r11")
    cx.jump("jb", out)
    cx.emit(f"cmp r10, {row.size}")
    cx.jump("jb", out)
    cx.emit(f"add r11, qword ptr {BLOCK['packet_start']}")
    cx.label(inside)
    for line in {
        1: ("movzx eax, byte ptr [r11]",),
        2: ("movzx eax, word ptr [r11]", "rol ax, 8"),
        4: ("mov eax, dword ptr [r11]", "bswap eax"),
        8: ("mov rax, qword ptr [r11]", "bswap rax"),
    }[row.size]:
        cx.emit(line)
    pin(cx)
    with cx.out_of_line(out):
        _load_from_header(cx, row.size, inside)


def _load_from_header(cx: Context, size: int, inside: str) -> None:
    nothing, found = cx.new_label("nothing"), cx.new_label("header")
    cx.emit("test r11d, r11d")
    cx.jump("jns", nothing)
    cx.emit("add r11d, 0x200000")
    cx.jump("jae", nothing)
    cx.emit(f"mov r10, qword ptr {BLOCK['link_header']}")
    cx.emit("cmp r11d, 0x100000")
    cx.jump("jb", found)
    cx.emit("sub r11d, 0x100000")
    cx.emit(f"mov r10, qword ptr {BLOCK['network_header']}")
    cx.label(found)
    cx.emit("test r10, r10")
    cx.jump("je", nothing)
    cx.emit("add r11, r10")
    cx.emit(f"mov r10, qword ptr {BLOCK['packet_start']}")
    cx.emit(f"add r10, qword ptr {BLOCK['packet_size']}")
    cx.emit("sub r10, r11")
    cx.jump("jb", nothing)
    cx.emit(f"cmp r10, {size}")
    cx.jump("jae", inside)
    cx.label(nothing)
    if cx.exit:
        cx.jump("jmp", cx.exit)  # r1 to r5 are where the caller reads them in baseline code only
        return
    pin(cx)
    cx.emit("xor eax, eax")
    cx.emit("ret")
