"""What else is asked of programs of users without CAP_BPF and CAP_PERFMON.

    r1 = map value; r1 += r2      r1 lies in the value afterwards; each way here moves it alike
    socket_filter, cgroup_skb     no loops, no functions, few helpers: the only types that such users load

So that a processor which goes wrong ways on trial reads nothing either: what a sum masks there is made known
when a program is loaded, once for each instruction (sanitize_ptr_alu, Linux 6.18). Wrong ways themselves are
ended by Linux where they would go wrong, so nothing is asked of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ebpfjit.isa.spec import Kind, Reference, Row
from ebpfjit.program import Instruction, Program
from ebpfjit.record import dataclass
from ebpfjit.runtime.contexts.types import program_type
from ebpfjit.verifier import memory, structure
from ebpfjit.verifier.refusals import Refused
from ebpfjit.verifier.stack import SIZE
from ebpfjit.verifier.values import Pointer, Poison, Scalar, Value

if TYPE_CHECKING:
    from ebpfjit.verifier.memory import Setting

MOST_INSTRUCTIONS = 4096
"""Of a program of such a user (BPF_MAXINSNS)."""

_TYPES = frozenset({"socket_filter", "cgroup_skb"})
_CALLS = frozenset({Kind.CALL_LOCAL, Kind.CALL_KFUNC})
_MOVES = frozenset({"ADD", "SUB"})

NEED_CAPABILITIES = frozenset({
    "bpf_spin_lock", "bpf_spin_unlock", "bpf_jiffies64", "bpf_per_cpu_ptr", "bpf_this_cpu_ptr",
    "bpf_timer_init", "bpf_timer_set_callback", "bpf_timer_start", "bpf_timer_cancel", "bpf_kptr_xchg",
    "bpf_for_each_map_elem", "bpf_loop", "bpf_user_ringbuf_drain", "bpf_ringbuf_reserve_dynptr",
    "bpf_ringbuf_submit_dynptr", "bpf_ringbuf_discard_dynptr", "bpf_dynptr_from_mem", "bpf_dynptr_read",
    "bpf_dynptr_write", "bpf_dynptr_data", "bpf_ktime_get_tai_ns", "bpf_task_storage_get",
    "bpf_task_storage_delete", "bpf_cgrp_storage_get", "bpf_cgrp_storage_delete", "bpf_get_current_cgroup_id",
    "bpf_get_current_ancestor_cgroup_id", "bpf_trace_printk", "bpf_trace_vprintk", "bpf_get_current_task",
    "bpf_get_current_task_btf", "bpf_probe_read_user", "bpf_probe_read_kernel", "bpf_probe_read_user_str",
    "bpf_probe_read_kernel_str", "bpf_snprintf", "bpf_snprintf_btf", "bpf_task_pt_regs",
    "bpf_skc_to_tcp6_sock", "bpf_skc_to_tcp_sock", "bpf_skc_to_tcp_timewait_sock",
    "bpf_skc_to_tcp_request_sock",
    "bpf_skc_to_udp6_sock", "bpf_skc_to_unix_sock", "bpf_skc_to_mptcp_sock",
})  # fmt: skip
"""Helpers that such users are not given (bpf_base_func_proto, bpf_sk_base_func_proto)."""


def errors(program: Program) -> Iterator[structure.Error]:
    """Return what is wrong with the shape of a program, for users who may load its type at all."""
    if program.type is None or program_type(program.type).name not in _TYPES:
        return
    if len(program.slots) > MOST_INSTRUCTIONS:
        yield 0, "structure", f"{len(program.slots)} instructions: {MOST_INSTRUCTIONS} without CAP_BPF", ""
    for insn in program.instructions:
        if insn.row is not None and (insn.row.kind in _CALLS or insn.row.reference is Reference.CODE):
            said = "loading/calling other bpf or kernel functions are allowed for CAP_BPF and CAP_SYS_ADMIN"
            yield insn.pc, "call", said, ""
            return
    edge = structure.back_edge(program)
    if edge is not None:
        yield (
            edge[0],
            "termination",
            f"back-edge from insn {edge[0]} to {edge[1]}",
            "no loops without CAP_BPF",
        )


def must_be_given(setting: Setting, name: str, number: int) -> None:
    """Raise Refused for a helper that such users do not have."""
    if setting.type in _TYPES and name in NEED_CAPABILITIES:
        said = f"program of this type cannot use helper {name}#{number}"
        raise Refused("call", said, "it needs CAP_BPF or CAP_PERFMON")


# -- sums -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Move:
    """What an instruction does to a pointer, as far as it is compiled in: how far it may go at most."""

    is_pointer: bool
    is_negative: bool = False
    is_known: bool = False
    is_destination: bool = False
    most: int = 0


def moved(moves: Moves, insn: Instruction, row: Row, values: tuple[Value, Value], result: Value) -> None:
    """Hold a sum or a difference of `values` (dst, src) against what was compiled in. Raises Refused."""
    if row.meaning not in _MOVES or any(isinstance(value, Poison) for value in values):
        return
    number, dst = insn.dst_reg, values[0]
    pointer, by = values if isinstance(dst, Pointer) else values[::-1]
    if not isinstance(pointer, Pointer):
        if row.uses_src:
            moves.move(number, insn.pc, Move(is_pointer=False))
        return
    if not isinstance(result, Pointer) or not isinstance(by, Scalar):
        return
    if row.uses_src and not by.number.is_known and (by.number.smin < 0) != (by.number.smax < 0):
        raise _prohibited(number, "has unknown scalar with mixed signed bounds")
    _inside(number, result)
    if not row.uses_src:
        return
    if not by.number.is_known:
        moves.is_strict = True
    is_negative = by.number.smin < 0
    is_left = is_negative is (row.meaning == "ADD")
    apart = abs(_limit(number, row, pointer, is_left) - _limit(number, row, result, is_left))
    move = Move(True, is_negative, by.number.is_known, pointer is dst, apart)
    moves.move(number, insn.pc, move)


def _inside(number: int, pointer: Pointer) -> None:
    """Raise Refused where a pointer does not stay in its frame or map value."""
    if pointer.kind == "stack":
        if pointer.var is not None:
            raise Refused("memory", f"R{number} variable stack access prohibited for !root")
        if not -SIZE <= pointer.off < 0:
            said = "stack pointer arithmetic goes out of range, prohibited for !root"
            raise Refused("memory", f"R{number} {said}; off={pointer.off}")
    elif pointer.kind == "map_value":
        try:
            memory.in_value(number, pointer)
        except Refused as refused:
            said = "pointer arithmetic of map value goes out of range, prohibited for !root"
            raise Refused("memory", f"R{number} {said}: {refused.message}") from refused


def _limit(number: int, row: Row, pointer: Pointer, is_left: bool) -> int:
    """Return how far a pointer may move in a direction (retrieve_ptr_limit)."""
    if pointer.kind == "stack":
        most, limit = SIZE + is_left, -pointer.off
    elif pointer.kind == "map_value":
        most, limit = pointer.what.definition.value_size, pointer.lowest if is_left else pointer.highest
    else:
        raise _prohibited(number, "has pointer with unsupported alu operation")
    if limit >= most:
        raise _prohibited(number, f"tried to {row.meaning.lower()} beyond pointer bounds")
    return limit


def _prohibited(number: int, said: str) -> Refused:
    return Refused("leak", f"R{number} {said}, pointer arithmetic with it prohibited for !root")


class Moves:
    """What was compiled in for the sums of a program so far, and the array of programs of each tail call.

    `is_strict` where a sum with an unknown number was seen: numbers of states must then be the same.
    """

    def __init__(self) -> None:
        self.is_strict = False
        self._moves: dict[int, Move] = {}
        self._arrays: dict[int, object] = {}

    def move(self, number: int, pc: int, move: Move) -> None:
        """Remember a sum. Raises Refused where the one of another way is not the same."""
        if self._moves.setdefault(pc, move) != move:
            raise _prohibited(number, "tried to add or subtract from different maps, paths or scalars")

    def array(self, pc: int, map_: object) -> None:
        """Remember the array of a tail call. Raises Refused where another way has another one."""
        if self._arrays.setdefault(pc, map_) is not map_:
            raise Refused("call", "tail_call abusing map_ptr", "one array for each call, on all ways there")
