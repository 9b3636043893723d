"""What each kind of instruction makes of a state: one transfer function for each, in a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ebpfjit.isa.spec import FROM_ARENA, Kind, Row
from ebpfjit.isa.spec import Reference as Refers
from ebpfjit.program import Instruction
from ebpfjit.runtime.maps.definition import MapType
from ebpfjit.verifier import (
    arithmetic,
    branches,
    calls,
    contexts,
    endings,
    functions,
    kfuncs,
    memory,
    unprivileged,
)
from ebpfjit.verifier.numbers import DOMAIN
from ebpfjit.verifier.refusals import Refused, Undecided
from ebpfjit.verifier.state import END, State, Step, read
from ebpfjit.verifier.values import Pointer, Poison, Scalar, Value, known, unknown

if TYPE_CHECKING:
    from ebpfjit.verifier.walk import Walk


def _operand(state: State, insn: Instruction, row: Row) -> Value:
    return read(state, insn.src_reg) if row.uses_src else arithmetic.constant(row, insn.imm)


def _binary(walk: Walk, state: State, insn: Instruction, row: Row) -> None:
    said = arithmetic.refused_operand(insn)
    if said:
        raise Refused("structure", said)
    src, dst = _operand(state, insn, row), read(state, insn.dst_reg)
    if (
        insn.src_reg == insn.dst_reg
        and row.uses_src
        and row.meaning in ("SUB", "XOR")
        and isinstance(dst, Scalar)
    ):
        result: Value = known(0)
    else:
        signs = arithmetic.two_signs(row, dst, src)
        if signs is not None:
            other = walk.fork(state, insn.pc)
            dst, other.registers[insn.dst_reg] = signs
        result = arithmetic.binary(row, insn.dst_reg, dst, src, privileged=walk.setting.privileged)
    if not walk.setting.privileged:
        unprivileged.moved(walk.moves, insn, row, (dst, src), result)
    state.registers[insn.dst_reg] = result


def _move(walk: Walk, state: State, insn: Instruction, row: Row) -> None:
    src = _operand(state, insn, row)
    if isinstance(src, Pointer) and not walk.setting.privileged:
        if row.width.bits != 64:
            raise Refused("leak", f"R{insn.src_reg} partial copy of pointer")
        if row.meaning.startswith("MOVSX"):
            raise Refused("leak", f"R{insn.src_reg} sign-extension part of pointer")
    state.registers[insn.dst_reg] = arithmetic.moved(row, src)


def _unary(walk: Walk, state: State, insn: Instruction, row: Row) -> None:
    dst = read(state, insn.dst_reg)
    if isinstance(dst, Pointer) and not walk.setting.privileged:
        raise Refused("leak", f"R{insn.dst_reg} pointer arithmetic prohibited")
    state.registers[insn.dst_reg] = arithmetic.unary(row, dst)


def _cast(walk: Walk, state: State, insn: Instruction, row: Row) -> None:
    read(state, insn.src_reg)
    if walk.program.arena is None:
        raise Refused(
            "type", "addr_space_cast insn can only be used in a program that has an associated arena"
        )
    state.registers[insn.dst_reg] = Pointer("arena") if insn.imm == FROM_ARENA else unknown()


def _wide(walk: Walk, state: State, insn: Instruction, row: Row) -> None:
    state.registers[insn.dst_reg] = _referred(walk, insn, row)


def _referred(walk: Walk, insn: Instruction, row: Row) -> Value:
    program, refers = walk.program, row.reference
    match refers:
        case None:
            return known(insn.imm64)
        case Refers.MAP_BY_INDEX | Refers.MAP_VALUE_BY_INDEX:
            if not 0 <= insn.imm < len(program.maps):
                raise Refused("type", f"map {insn.imm} is none of the program's {len(program.maps)}")
            map_ = program.maps[insn.imm]
            if refers is Refers.MAP_BY_INDEX:
                return Pointer("map", map_)
            if map_ is program.arena:
                return unknown()
            offset = insn.next_imm or 0
            if map_.definition.type != MapType.ARRAY or map_.definition.max_entries != 1:
                raise Refused("type", "direct value access is of an array of one entry", "look its value up")
            if not 0 <= offset < map_.definition.value_size:
                raise Refused("memory", f"invalid access to map value pointer, off={offset}")
            return Pointer("map_value", map_, off=offset)
        case Refers.CODE:
            return Pointer("func", insn.pc + 1 + insn.imm)
        case Refers.VARIABLE:
            if insn.imm64 == 0:
                return known(0)
            name = program.kernel_symbols.get(insn.pc, "")
            return Pointer("btf_id", name, flags=frozenset({"trusted", "percpu", "symbol"}))
    if program.section is not None:  # it is from an object, whose maps relocations name
        raise Refused("type", f"fd {insn.imm} is not pointing to valid bpf_map")
    raise Undecided("a map is named by a file descriptor, which means something to who made it only")


def _load(walk: Walk, state: State, insn: Instruction, row: Row) -> None:
    base = read(state, insn.src_reg)
    if row.is_ordered:
        _ordered(insn.src_reg, base, insn.offset, row)
    walk.same_kind(insn.pc, base)
    value = memory.load(walk.setting, state, insn.src_reg, base, insn.offset, row.size)
    walk.reaches.see(insn.pc, base, insn.offset, row.size, stores=False)
    walk.deepened(state, base, insn.offset)
    is_in_value = isinstance(base, Pointer) and base.kind == "map_value"
    if row.is_ordered and is_in_value and isinstance(value, Pointer):
        raise Refused("type", "kptr in map can only be accessed using BPF_MEM instruction mode")
    if row.signed:
        if isinstance(value, Pointer):
            raise Refused("type", f"R{insn.src_reg} a pointer is loaded with its sign extended")
        if isinstance(value, Scalar) and not isinstance(value, Poison):
            number = DOMAIN.extended(value.number, 8 * row.size, True)
            value = value if number is value.number else Scalar(number, (value,))
    state.registers[insn.dst_reg] = value


def _store(walk: Walk, state: State, insn: Instruction, row: Row) -> None:
    value = _operand(state, insn, row)
    if not row.uses_src:
        value = known(insn.imm)
    base = read(state, insn.dst_reg)
    if row.is_ordered:
        _ordered(insn.dst_reg, base, insn.offset, row)
    if (
        isinstance(value, Pointer) and value.kind == "stack" and isinstance(base, Pointer)
        and base.kind == "stack" and base.what != len(state.frames) - 1
    ):  # fmt: skip
        raise Refused("type", "cannot spill pointers to stack into stack frame of the caller")
    walk.same_kind(insn.pc, base)
    memory.store(walk.setting, state, insn.dst_reg, base, insn.offset, row.size, value)
    walk.reaches.see(insn.pc, base, insn.offset, row.size, stores=True)
    walk.deepened(state, base, insn.offset)


_NOT_ATOMIC = frozenset({
    "ctx", "packet", "packet_meta", "flow_keys", "socket", "sock_common", "tcp_sock", "xdp_sock",
})  # fmt: skip


def _ordered(number: int, base: Value, offset: int, row: Row) -> None:
    """Raise Refused where an atomic or ordered access is not of memory for that, or not aligned."""
    if not isinstance(base, Pointer):
        return
    if base.kind in _NOT_ATOMIC:
        raise Refused("type", f"BPF_ATOMIC access into R{number} {arithmetic.named(base)} is not allowed")
    at = DOMAIN.known(base.off + offset)
    if base.var is not None:
        at = DOMAIN.binary("ADD", True, base.var, at)
    if (at.value | at.mask) & row.size - 1 and base.kind != "arena":
        raise Refused(
            "memory", f"misaligned {arithmetic.named(base)} access off {base.off + offset} size {row.size}"
        )


def _atomic(walk: Walk, state: State, insn: Instruction, row: Row) -> None:
    value, base = read(state, insn.src_reg), read(state, insn.dst_reg)
    if row.meaning == "CMPXCHG":
        read(state, 0)
    if isinstance(value, Pointer) and not walk.setting.privileged:
        raise Refused("leak", f"R{insn.src_reg} leaks addr into mem")
    _ordered(insn.dst_reg, base, insn.offset, row)
    if isinstance(base, Pointer) and base.kind == "stack" and base.var is not None:
        raise Refused("memory", f"variable offset stack pointer R{insn.dst_reg} in an atomic operation")
    loaded = _to_be_changed(walk, state, insn, row, base)
    if isinstance(loaded, Pointer) and not walk.setting.privileged:
        raise Refused("leak", f"R{insn.dst_reg} leaks addr into mem")
    memory.store(walk.setting, state, insn.dst_reg, base, insn.offset, row.size, unknown())
    walk.reaches.see(insn.pc, base, insn.offset, row.size, stores=True)
    walk.deepened(state, base, insn.offset)
    if row.fetch:
        fetched = 0 if row.meaning == "CMPXCHG" else insn.src_reg
        state.registers[fetched] = loaded if isinstance(loaded, Scalar) else Scalar(DOMAIN.sized(row.size))


def _to_be_changed(walk: Walk, state: State, insn: Instruction, row: Row, base: Value) -> Value:
    """Return what an atomic operation loads. What must not be written is refused, known or not."""
    try:
        return memory.load(walk.setting, state, insn.dst_reg, base, insn.offset, row.size)
    except Undecided:
        memory.store(walk.setting, state, insn.dst_reg, base, insn.offset, row.size, unknown())
        raise


def _packet_load(walk: Walk, state: State, insn: Instruction, row: Row) -> None:
    type_ = walk.setting.type
    if type_ is not None and not contexts.has_legacy_loads(type_):
        raise Refused("call", "BPF_LD_[ABS|IND] instructions not allowed for this program type")
    calls.held_at(state, "BPF_LD_[ABS|IND] would lead to reference leak", "BPF_LD_[ABS|IND]")
    context = read(state, 6)
    if type_ is not None and (not isinstance(context, Pointer) or context.kind != "ctx"):
        raise Refused("type", "at the time of BPF_LD_ABS|IND R6 != pointer to skb")
    if isinstance(context, Pointer) and (context.off or context.var is not None):
        raise Refused("type", f"dereference of modified ctx ptr R6 off={context.off} disallowed")
    if row.uses_src:
        read(state, insn.src_reg)
    registers = state.registers
    if len(state.frames) > 1:  # what is behind the packet's end ends the function
        walk.leave(state, insn, known(0))
    for number in range(1, 6):
        registers[number] = None
    registers[0] = Scalar(DOMAIN.sized(row.size))


def _jump(walk: Walk, state: State, insn: Instruction, row: Row) -> int:
    assert insn.target is not None
    return insn.target


def _branch(walk: Walk, state: State, insn: Instruction, row: Row) -> int | None:
    src, dst = _operand(state, insn, row), read(state, insn.dst_reg)
    falls, jumps = branches.ways(row, dst, src, privileged=walk.setting.privileged)
    target = insn.target
    assert target is not None
    before = state.way
    if falls is None and jumps is None:
        return END
    if jumps is None:
        assert falls is not None
        falls(state)
        return None
    if falls is None:
        jumps(state)
        return target
    other = walk.fork(state, target)
    other.way = Step(before, insn.pc, True)
    jumps(other)
    state.way = Step(before, insn.pc, False)
    falls(state)
    return None


def _may_goto(walk: Walk, state: State, insn: Instruction, row: Row) -> int | None:
    target = insn.target
    assert target is not None
    # What follows the loop is walked first: what matters there is not forgotten from round to round.
    other = walk.fork(state, insn.next_pc)
    other.way = Step(state.way, insn.pc, False)
    other.rounds += 1
    if state.point is not None:
        walk.seen.widened(other, state.point.before, insn.pc)
    state.way = Step(state.way, insn.pc, True)
    return target


def _helper(walk: Walk, state: State, insn: Instruction, row: Row) -> int | None:
    if kfuncs.is_only_linux_s(walk, insn):
        return _kfunc(walk, state, insn, row)
    calls.call(walk, state, insn)
    return None


def _kfunc(walk: Walk, state: State, insn: Instruction, row: Row) -> int | None:
    return None if kfuncs.call(walk, state, insn) else END


def _local(walk: Walk, state: State, insn: Instruction, row: Row) -> int:
    target = insn.target
    assert target is not None
    registers = state.registers
    parameters = walk.functions.parameters(target)
    if parameters is not None:
        if state.holds_a_lock:
            raise Refused(
                "lock",
                "global function calls are not allowed while holding a lock",
                "make the function static",
            )
        if target in walk.functions.sleeping and (state.sections or not kfuncs.is_sleepable(walk, state)):
            said = "global functions that may sleep are not allowed in non-sleepable context"
            raise Refused("lock", said)
        functions.check_call(walk.setting, state, parameters)
        walk.called.add(target)
        if target in walk.functions.moving:
            name = f"a call of {walk.program.functions[target]}()"
            calls.packet_moved(state, name, privileged=walk.setting.privileged)
        for number in range(1, 6):
            registers[number] = None
        registers[0] = unknown()
        return insn.next_pc
    walk.enter(state, target, insn.pc, [None, *registers[1:6]])
    return target


def _register_call(walk: Walk, state: State, insn: Instruction, row: Row) -> None:
    raise Refused("structure", "calls of what a register holds are none that Linux has")


Transfer = Callable[["Walk", State, Instruction, Row], int | None]

TRANSFER: dict[Kind, Transfer] = {
    Kind.BINARY: _binary,
    Kind.MOVE: _move,
    Kind.UNARY: _unary,
    Kind.CAST: _cast,
    Kind.LOAD_IMM64: _wide,
    Kind.LOAD: _load,
    Kind.STORE: _store,
    Kind.ATOMIC: _atomic,
    Kind.PACKET_LOAD: _packet_load,
    Kind.JUMP: _jump,
    Kind.BRANCH: _branch,
    Kind.MAY_GOTO: _may_goto,
    Kind.CALL_HELPER: _helper,
    Kind.CALL_LOCAL: _local,
    Kind.CALL_KFUNC: _kfunc,
    Kind.CALL_REGISTER: _register_call,
    Kind.EXIT: endings.leave,
}
"""What each kind of instruction makes of a state; it returns the next slot, None for the one behind, END."""
