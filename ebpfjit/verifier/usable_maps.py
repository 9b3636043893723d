"""Which maps programs may use at all, whatever they do with them.

Facts: check_map_prog_compatibility of kernel/bpf/verifier.c, Linux 6.18.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ebpfjit.isa.spec import Reference
from ebpfjit.program import Program
from ebpfjit.runtime.contexts.types import program_type
from ebpfjit.runtime.maps.definition import MapType
from ebpfjit.verifier.structure import Error

_SLEEPABLE = frozenset({
    MapType.HASH, MapType.LRU_HASH, MapType.ARRAY, MapType.PERCPU_HASH, MapType.PERCPU_ARRAY,
    MapType.LRU_PERCPU_HASH, MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS, MapType.RINGBUF,
    MapType.USER_RINGBUF, MapType.INODE_STORAGE, MapType.SK_STORAGE, MapType.TASK_STORAGE,
    MapType.CGRP_STORAGE, MapType.QUEUE, MapType.STACK, MapType.ARENA,
})  # fmt: skip
"""What programs that may sleep use."""

_TRACING = frozenset({"kprobe", "tracepoint", "perf_event", "raw_tracepoint", "raw_tracepoint_writable"})
_LOCKS = frozenset({"bpf_spin_lock", "bpf_res_spin_lock"})
_NOT_FOR_TRACING = _LOCKS | {"bpf_timer", "bpf_wq", "bpf_list_head", "bpf_rb_root"}


_NAMES_A_MAP = (Reference.MAP_BY_INDEX, Reference.MAP_VALUE_BY_INDEX)


def errors(program: Program, *, is_sleepable: bool) -> Iterator[Error]:
    """Return the maps that a program must not use, each where it is named first."""
    seen: set[int] = set()
    for insn in program.instructions if program.type is not None else ():
        if insn.row is None or insn.row.reference not in _NAMES_A_MAP or insn.imm in seen:
            continue
        seen.add(insn.imm)
        if not 0 <= insn.imm < len(program.maps):
            continue  # the walk says so
        definition = program.maps[insn.imm].definition
        kinds = {special.kind for special in definition.special}
        said = map_refusal(program.type or "", definition.type, kinds, sleepable=is_sleepable)
        if said:
            yield insn.pc, "type", f"{said}: map '{definition.name}'", ""


def map_refusal(type_: str, kind: MapType, special: Iterable[str] = (), *, sleepable: bool = False) -> str:
    """Return why programs of a type may not use a map of a kind, in Linux's words; "" where they may.

    `special` are the structs inside of its values that are Linux's own: "bpf_spin_lock", "bpf_timer".
    Raises InputError for a type that there is not.
    """
    name, found = program_type(type_).name, set(special)
    if name in _TRACING and (refused := sorted(found & _NOT_FOR_TRACING)):
        return f"tracing progs cannot use {refused[0]} yet"
    if name == "socket_filter" and found & _LOCKS:
        return "socket filter progs cannot use bpf_spin_lock yet"
    if kind is MapType.STRUCT_OPS:
        return "bpf_struct_ops map cannot be used in prog"
    if sleepable and kind not in _SLEEPABLE:
        return "Sleepable programs can only use array, hash, ringbuf and local storage maps"
    return ""
