"""Functions that helpers call: what they are given, and what they may return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebpfjit.isa.spec import Kind
from ebpfjit.program import Instruction, Program
from ebpfjit.runtime.helpers.names import NAMES
from ebpfjit.verifier import kfuncs
from ebpfjit.verifier.arguments import Dynptr, Given
from ebpfjit.verifier.refusals import Undecided
from ebpfjit.verifier.state import State
from ebpfjit.verifier.values import Pointer, Value, fresh, poison, unknown

if TYPE_CHECKING:
    from ebpfjit.verifier.walk import Walk

_CALLED_BACK = frozenset({"bpf_loop", "bpf_for_each_map_elem", "bpf_user_ringbuf_drain", "bpf_find_vma"})


def comes_again(program: Program, insn: Instruction) -> bool:
    """True of instructions at which rounds of a loop begin whose end the verifier is not to find."""
    row = insn.row
    if row is None:
        return False
    if row.kind is Kind.CALL_KFUNC:
        return kfuncs.comes_again(program, insn)
    return row.kind is Kind.MAY_GOTO or (row.kind is Kind.CALL_HELPER and NAMES.get(insn.imm) in _CALLED_BACK)


def given_to(walk: Walk, state: State, name: str, given: Given) -> tuple[list[Value], tuple[int, int], bool]:
    """Return what a callback is given from r0 on, what it may return, and whether it runs later."""
    context = given.values[2] if len(given.values) > 2 else None
    match name:
        case "bpf_loop":
            return [None, unknown(), context], (0, 1), False
        case "bpf_for_each_map_elem":
            return [None, *_entry_of(given.map), context], (0, 1), False
        case "bpf_user_ringbuf_drain":
            sample = Pointer("dynptr", Dynptr("local", 0, 0, fresh(), rdonly=False))
            return [None, sample, context], (0, 1), False
        case "bpf_rbtree_add":
            node = given.special["node"]
            lent = node.but(ref=0, flags=node.flags | {"borrowed"})
            return [None, lent.but(id=fresh()), lent.but(id=fresh())], (0, 1), False
        case "bpf_timer_set_callback" | "bpf_wq_set_callback_impl":
            map_ = given.source.what if given.source is not None else given.map
            return [None, *_entry_of(map_)], (0, 0), True
        case "bpf_find_vma":
            trusted = frozenset({"trusted"})
            found = [Pointer("btf_id", each, flags=trusted) for each in ("task_struct", "vm_area_struct")]
            return [None, *found, given.values[3]], (0, 1), False
    raise Undecided(f"functions that {name} calls are not known here")


def _entry_of(map_: Any) -> list[Value]:
    """Return the map, key and value that a callback is given; anything where nobody said of which."""
    if map_ is None:
        return [poison(), poison(), poison()]
    return [Pointer("map", map_), Pointer("map_key", map_), Pointer("map_value", map_, id=fresh())]
