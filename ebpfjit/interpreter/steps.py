"""What each kind of instruction does: one function for each, which makes the step of an instruction.

    decoder(verified, instruction, row)  ->  step(state, registers)  ->  None, or the pc to go on at

The row says which decoder, `isa.semantics` what the operation means. Fields are taken apart once; a step is
what is left to do. Registers hold u64: of 64 bits they are operands as they are, of fewer they are wrapped.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ebpfjit.analysis.arena_accesses import base_of
from ebpfjit.analysis.cfg import is_inside
from ebpfjit.analysis.verified import Verified
from ebpfjit.bits import U64_MASK, W32, W64, WIDTH_OF_SIZE
from ebpfjit.isa import semantics
from ebpfjit.isa.spec import FROM_ARENA, Kind, Row
from ebpfjit.program import Instruction
from ebpfjit.runtime import faults
from ebpfjit.runtime.execution import CODE_ADDRESS, Execution, HelperFunction, call_helper
from ebpfjit.runtime.foreign import NOTHING, ForeignMemory
from ebpfjit.runtime.memory import MAX_FRAMES

if TYPE_CHECKING:
    from ebpfjit.interpreter.machine import State

LEFT, NOWHERE = -1, -2
"""Instead of a pc: what was left is a function or the program, and `State` says where it goes on, if it does;
a jump, taken, to where no instruction starts."""

LINK_OFFSET, NETWORK_OFFSET = -0x200000, -0x100000
"""From where on a packet load's offset counts from a header (SKF_LL_OFF, SKF_NET_OFF in linux/filter.h)."""

Step = Callable[["State", list[int]], Any]
"""step(state, registers): execute an instruction; of those in ENDS_STRETCH return where to go on, or LEFT."""

Decoder = Callable[[Verified, Instruction, Row], Step]
DECODERS: dict[Kind, Decoder] = {}

ENDS_STRETCH = frozenset({
    Kind.JUMP, Kind.BRANCH, Kind.MAY_GOTO, Kind.PACKET_LOAD, Kind.EXIT,
    Kind.CALL_HELPER, Kind.CALL_KFUNC, Kind.CALL_LOCAL, Kind.CALL_REGISTER,
})  # fmt: skip
"""What may go on elsewhere than at the next instruction, or calls out; `State.pc` is right in these alone."""


def decodes(kind: Kind) -> Callable[[Decoder], Decoder]:
    """Register what makes the steps of a kind of instruction."""

    def register(decoder: Decoder) -> Decoder:
        DECODERS[kind] = decoder
        return decoder

    return register


@decodes(Kind.BINARY)
def _binary(verified: Verified, insn: Instruction, row: Row) -> Step:
    meaning, width, mask = semantics.BINARY[row.meaning], row.width, row.width.mask
    dst, src, imm = insn.dst_reg, insn.src_reg, row.width.wrap(insn.imm)

    def with_src(state: State, registers: list[int]) -> None:
        registers[dst] = meaning(width, registers[dst], registers[src])

    def with_imm(state: State, registers: list[int]) -> None:
        registers[dst] = meaning(width, registers[dst], imm)

    def narrow_with_src(state: State, registers: list[int]) -> None:
        registers[dst] = meaning(width, registers[dst] & mask, registers[src] & mask)

    def narrow_with_imm(state: State, registers: list[int]) -> None:
        registers[dst] = meaning(width, registers[dst] & mask, imm)

    if width is W64:
        return with_src if row.uses_src else with_imm
    return narrow_with_src if row.uses_src else narrow_with_imm


@decodes(Kind.MOVE)
def _move(verified: Verified, insn: Instruction, row: Row) -> Step:
    meaning, width, mask = semantics.MOVE[row.meaning], row.width, row.width.mask
    dst, src = insn.dst_reg, insn.src_reg

    def move(state: State, registers: list[int]) -> None:
        registers[dst] = meaning(width, registers[src] & mask)

    return move if row.uses_src else _constant(dst, meaning(width, width.wrap(insn.imm)))


def _constant(dst: int, value: int) -> Step:
    def load_constant(state: State, registers: list[int]) -> None:
        registers[dst] = value

    return load_constant


@decodes(Kind.UNARY)
def _unary(verified: Verified, insn: Instruction, row: Row) -> Step:
    meaning, width, dst = semantics.UNARY[row.meaning], row.width, insn.dst_reg

    def unary(state: State, registers: list[int]) -> None:
        registers[dst] = meaning(width, width.wrap(registers[dst]))

    return unary


@decodes(Kind.CAST)
def _cast(verified: Verified, insn: Instruction, row: Row) -> Step:
    dst, src, use = insn.dst_reg, insn.src_reg, verified.arena
    to_user = use.map.to_user if use is not None and insn.imm != FROM_ARENA else int

    def cast(state: State, registers: list[int]) -> None:
        registers[dst] = to_user(W32.wrap(registers[src]))

    return cast


@decodes(Kind.LOAD_IMM64)
def _load_imm64(verified: Verified, insn: Instruction, row: Row) -> Step:
    return _constant(insn.dst_reg, W64.wrap(constant(verified, insn, row)))


def constant(verified: Verified, insn: Instruction, row: Row) -> int:
    """Return the value that an LDDW leaves in dst."""
    if row.operation == "LDDW_CODE":
        return CODE_ADDRESS + insn.pc + 1 + insn.imm
    if row.reference is not None:
        return verified.program.references[insn.pc]
    return insn.imm64


_WORDS = {size: struct.Struct(f"<{letter}") for size, letter in ((1, "B"), (2, "H"), (4, "I"), (8, "Q"))}
"""How the bytes of an access are read and written, by their number."""


@decodes(Kind.LOAD)
def _load(verified: Verified, insn: Instruction, row: Row) -> Step:
    pc, base, dst, offset, size = insn.pc, insn.src_reg, insn.dst_reg, insn.offset, row.size
    unpack = _WORDS[size].unpack_from

    def load(state: State, registers: list[int]) -> None:
        address = registers[base] + offset & U64_MASK
        region = state.near[base]
        if address < region.start or address + size > region.stop or region.rights is not None:
            region = state.near[base] = state.space.region_of(pc, address, size, "load")
        registers[dst] = unpack(region.view, address - region.start)[0]

    is_plain = not row.signed and not row.is_ordered and pc not in verified.found_elsewhere
    return load if is_plain else _unusual_load(verified, insn, row)


def _unusual_load(verified: Verified, insn: Instruction, row: Row) -> Step:
    access, is_kernels = faults.access_of(row), insn.pc in verified.kernel_loads

    def load(state: State, registers: list[int]) -> None:
        address = W64.wrap(registers[insn.src_reg] + insn.offset)
        _check_alignment(insn, row, address)
        in_arena, view = _arena_bytes(state, insn, row)
        if in_arena:
            value = int.from_bytes(view, "little") if view is not None else 0
        elif is_kernels and state.space.find(address, row.size, "load") is None:
            value = _foreign(state).load(address, row.size)
        else:
            value = state.space.load(insn.pc, address, row.size, access)
        registers[insn.dst_reg] = W64.wrap(row.width.signed(value)) if row.signed else value

    return load


@decodes(Kind.STORE)
def _store(verified: Verified, insn: Instruction, row: Row) -> Step:
    pc, base, src, offset, size = insn.pc, insn.dst_reg, insn.src_reg, insn.offset, row.size
    pack, mask = _WORDS[size].pack_into, WIDTH_OF_SIZE[size].mask

    def store_src(state: State, registers: list[int]) -> None:
        address = registers[base] + offset & U64_MASK
        region = state.near[base]
        if (
            address < region.start or address + size > region.stop
            or not region.writable or region.rights is not None
        ):  # fmt: skip
            region = state.near[base] = state.space.region_of(pc, address, size, "store")
        pack(region.view, address - region.start, registers[src] & mask)

    is_plain = row.uses_src and not row.is_ordered and pc not in verified.found_elsewhere
    return store_src if is_plain else _unusual_store(verified, insn, row)


def _unusual_store(verified: Verified, insn: Instruction, row: Row) -> Step:
    access, src = faults.access_of(row), insn.src_reg if row.uses_src else None

    def store(state: State, registers: list[int]) -> None:
        address = W64.wrap(registers[insn.dst_reg] + insn.offset)
        value = insn.imm if src is None else registers[src]
        _check_alignment(insn, row, address)
        in_arena, view = _arena_bytes(state, insn, row)
        if not in_arena:
            state.space.store(insn.pc, address, row.size, value, access)
        elif view is not None:
            view[:] = (value & (1 << 8 * row.size) - 1).to_bytes(row.size, "little")

    return store


@decodes(Kind.ATOMIC)
def _atomic(verified: Verified, insn: Instruction, row: Row) -> Step:
    meaning, width = semantics.ATOMIC[row.meaning], row.width
    is_exchange = row.meaning == "CMPXCHG"
    fetched = (0 if is_exchange else insn.src_reg) if row.fetch else None

    def atomic(state: State, registers: list[int]) -> None:
        address = W64.wrap(registers[insn.dst_reg] + insn.offset)
        _check_alignment(insn, row, address)
        in_arena, view = _arena_bytes(state, insn, row)
        if in_arena and view is None:
            return  # Linux skips the instruction: registers stay as they are
        old = (
            int.from_bytes(view, "little") if view is not None
            else state.space.load(insn.pc, address, row.size, "atomic")
        )  # fmt: skip
        new = meaning(width, old, width.wrap(registers[insn.src_reg]))
        if is_exchange:
            # Written back even where it differs, as the machine does: the write must be allowed.
            new = new if old == width.wrap(registers[0]) else old
        if view is not None:
            view[:] = new.to_bytes(row.size, "little")
        else:
            state.space.store(insn.pc, address, row.size, new, "atomic")
        if fetched is not None:
            registers[fetched] = old

    return atomic


def _check_alignment(insn: Instruction, row: Row, address: int) -> None:
    if row.is_ordered and address % row.size:
        raise faults.alignment_fault(insn.pc, address, row.size)


_ELSEWHERE: tuple[bool, memoryview | None] = (False, None)
"""Said of each access of a program without an arena, which is nearly every program."""


def _arena_bytes(state: State, insn: Instruction, row: Row) -> tuple[bool, memoryview | None]:
    """Return whether an access is to the arena, and its bytes there: None where there are none."""
    use = state.verified.arena
    is_sure = use.accesses.get(insn.pc) if use is not None else None
    if use is None or is_sure is None:
        return _ELSEWHERE
    number = state.registers[base_of(insn)]
    access = "load" if row.kind is Kind.LOAD else "store"
    if not is_sure and state.space.find(W64.wrap(number + insn.offset), row.size, access) is not None:
        return _ELSEWHERE
    return True, use.map.reach(number, insn.offset, row.size)


def _foreign(state: State) -> ForeignMemory:
    """Return the memory behind pointers of the kernel's."""
    world = state.execution.world
    return world.foreign if world is not None else NOTHING


@decodes(Kind.PACKET_LOAD)
def _packet_load(verified: Verified, insn: Instruction, row: Row) -> Step:
    src, size, next_pc = insn.src_reg if row.uses_src else None, row.size, insn.next_pc

    def packet_load(state: State, registers: list[int]) -> int:
        index = insn.imm + (0 if src is None else registers[src])
        packet = state.execution.packet
        offset = _packet_offset(state.execution, W32.signed(index))
        if packet is None or offset is None or offset + size > packet.size:
            registers[0] = 0
            return state.exit_function()
        if offset >= 0:
            data = bytes(packet.view[offset : offset + size])
        else:  # the link header, in front of what the program sees
            data = ctypes.string_at(packet.start + offset, size)
        registers[0] = int.from_bytes(data, "big")
        return next_pc

    return packet_load


def _packet_offset(execution: Execution, index: int) -> int | None:
    """Return where a packet load reads, from the packet's start; None where there is nothing."""
    packet, headers = execution.packet, execution.headers
    if index >= 0:
        return index
    if index < LINK_OFFSET or packet is None or headers is None:
        return None
    if index >= NETWORK_OFFSET:
        return headers.network - packet.start + index - NETWORK_OFFSET
    return headers.link - packet.start + index - LINK_OFFSET


def _target_of(verified: Verified, insn: Instruction) -> int:
    """Return the slot that a jump goes to, NOWHERE where no instruction starts there."""
    target = insn.target
    assert target is not None  # only what has one comes here
    return target if is_inside(verified.program, target) else NOWHERE


def _bad_target(verified: Verified, insn: Instruction) -> Step:
    def jump(state: State, registers: list[int]) -> int:
        raise faults.bad_target(insn, len(verified.program))

    return jump


@decodes(Kind.JUMP)
def _jump(verified: Verified, insn: Instruction, row: Row) -> Step:
    target = _target_of(verified, insn)
    return _bad_target(verified, insn) if target == NOWHERE else goes_to(target)


def goes_to(pc: int) -> Step:
    """Return the step that does nothing but go on at a slot."""

    def jump(state: State, registers: list[int]) -> int:
        return pc

    return jump


@decodes(Kind.BRANCH)
def _branch(verified: Verified, insn: Instruction, row: Row) -> Step:
    holds, width, mask = semantics.CONDITION[row.meaning], row.width, row.width.mask
    dst, src, imm = insn.dst_reg, insn.src_reg, row.width.wrap(insn.imm)
    target, next_pc = _target_of(verified, insn), insn.next_pc

    def with_src(state: State, registers: list[int]) -> int:
        return target if holds(width, registers[dst], registers[src]) else next_pc

    def with_imm(state: State, registers: list[int]) -> int:
        return target if holds(width, registers[dst], imm) else next_pc

    def narrow_with_src(state: State, registers: list[int]) -> int:
        return target if holds(width, registers[dst] & mask, registers[src] & mask) else next_pc

    def narrow_with_imm(state: State, registers: list[int]) -> int:
        return target if holds(width, registers[dst] & mask, imm) else next_pc

    if width is W64:
        branch = with_src if row.uses_src else with_imm
    else:
        branch = narrow_with_src if row.uses_src else narrow_with_imm
    return branch if target != NOWHERE else _checked(branch, _bad_target(verified, insn))


def _checked(branch: Step, bad_target: Step) -> Step:
    def checked(state: State, registers: list[int]) -> Any:
        pc = branch(state, registers)
        return bad_target(state, registers) if pc == NOWHERE else pc

    return checked


@decodes(Kind.MAY_GOTO)
def _may_goto(verified: Verified, insn: Instruction, row: Row) -> Step:
    jump, next_pc = _jump(verified, insn, row), insn.next_pc

    def may_goto(state: State, registers: list[int]) -> Any:
        if not state.loops:
            return jump(state, registers)
        state.loops -= 1
        return next_pc

    return may_goto


def _call_out(insn: Instruction, functions_of: Callable[[Execution], Mapping[int, HelperFunction]]) -> Step:
    number, next_pc = insn.imm & 0xFFFFFFFF, insn.next_pc

    def call(state: State, registers: list[int]) -> int:
        state.pc = next_pc
        function = functions_of(state.execution).get(number)
        if function is None:
            raise faults.helper_not_found(insn)
        r1, r2, r3, r4, r5 = registers[1:6]
        try:
            result = call_helper(function, (r1, r2, r3, r4, r5))
        except Exception as error:
            faults.locate(error, insn.pc)
            faults.name_helper(error, state.program, insn.pc)
            raise
        # What a call leaves in r1 to r5 is nobody's: zero, in both engines.
        registers[0:6] = [result & U64_MASK, 0, 0, 0, 0, 0]
        if state.leaving:
            state.leaving = False
            return state.exit_function()
        return LEFT if state.ended else next_pc

    return call


@decodes(Kind.CALL_HELPER)
def _call_helper(verified: Verified, insn: Instruction, row: Row) -> Step:
    return _call_out(insn, lambda execution: execution.helpers)


@decodes(Kind.CALL_KFUNC)
def _call_kfunc(verified: Verified, insn: Instruction, row: Row) -> Step:
    return _call_out(insn, lambda execution: execution.kfuncs)


@decodes(Kind.CALL_LOCAL)
def _call_local(verified: Verified, insn: Instruction, row: Row) -> Step:
    pc, target = insn.pc, _target_of(verified, insn)

    def call(state: State, registers: list[int]) -> int:
        check_depth(state, pc)
        state.call_local(target, pc)
        return target

    return call if target != NOWHERE else _bad_target(verified, insn)


@decodes(Kind.CALL_REGISTER)
def _call_register(verified: Verified, insn: Instruction, row: Row) -> Step:
    pc, register = insn.pc, insn.dst_reg

    def call(state: State, registers: list[int]) -> int:
        check_depth(state, pc)
        target = function_at(verified, registers[register], pc)
        state.call_local(target, pc)
        return target

    return call


def check_depth(state: State, pc: int) -> None:
    """Raise CallDepthExceeded where there is no frame left for a call at slot `pc`."""
    if len(state.frames) + 1 >= MAX_FRAMES:
        raise faults.call_depth_exceeded(pc, MAX_FRAMES)


def function_at(verified: Verified, address: int, pc: int) -> int:
    """Return the slot of the function that an LDDW calls `address`; `pc` is that of the call.

    Raises IllegalInstruction where there is none.
    """
    target = address - CODE_ADDRESS
    if target not in verified.program.functions:
        raise faults.bad_function(pc, address)
    return target


@decodes(Kind.EXIT)
def _exit(verified: Verified, insn: Instruction, row: Row) -> Step:
    return lambda state, registers: state.exit_function()
