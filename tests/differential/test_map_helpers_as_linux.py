"""Which helper takes which type of map: each of ours on each type, given to Linux's verifier."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ebpfjit import LoadError, Program, VerifierError, kernel
from ebpfjit.assembler import assemble
from ebpfjit.difftest.children import run_forked
from ebpfjit.kernel.frames import load_program
from ebpfjit.runtime.helpers.maps import TAKES
from ebpfjit.runtime.helpers.names import NUMBERS
from ebpfjit.runtime.maps import MapDefinition, MapFlag, MapType, create, rules

_REASON = kernel.unavailable_reason()

START = "mov r6, r1\n" + "".join(f"stdw [r10-{at}], 0\n" for at in range(8, 72, 8))
MAP, ELEMENT = "lddw r1, map[idx:0]\n", "mov r2, r10\nadd r2, -64\n"
ON_CONTEXT = "mov r1, r6\nlddw r2, map[idx:0]\n"
ENTRY = "mov r3, r10\nadd r3, -48\nmov r4, 0\n"
END = "mov r0, 0\nexit\n"
RELEASE = "jeq r0, 0, +2\nmov r1, r0\ncall 86\n"
VISITOR = "visitor:\nmov r0, 0\nexit\n"

#                                type         arguments
CALLS = {
    "bpf_map_lookup_elem":        ("xdp",     MAP + ELEMENT),
    "bpf_map_update_elem":        ("xdp",     MAP + ELEMENT + ENTRY),
    "bpf_map_delete_elem":        ("xdp",     MAP + ELEMENT),
    "bpf_map_lookup_percpu_elem": ("xdp",     MAP + ELEMENT + "mov r3, 0\n"),
    "bpf_map_push_elem":          ("xdp",     MAP + ELEMENT + "mov r3, 0\n"),
    "bpf_map_pop_elem":           ("xdp",     MAP + ELEMENT),
    "bpf_map_peek_elem":          ("xdp",     MAP + ELEMENT),
    "bpf_for_each_map_elem":      ("xdp",     MAP + "lddw r2, visitor\nmov r3, 0\nmov r4, 0\n"),
    "bpf_tail_call":              ("xdp",     ON_CONTEXT + "mov r3, 0\n"),
    "bpf_redirect_map":           ("xdp",     MAP + "mov r2, 0\nmov r3, 0\n"),
    "bpf_sock_map_update":        ("sock_ops", ON_CONTEXT + "mov r3, r10\nadd r3, -64\nmov r4, 0\n"),
    "bpf_sock_hash_update":       ("sock_ops", ON_CONTEXT + "mov r3, r10\nadd r3, -64\nmov r4, 0\n"),
    "bpf_sk_redirect_map":        ("sk_skb",  ON_CONTEXT + "mov r3, 0\nmov r4, 0\n"),
    "bpf_msg_redirect_map":       ("sk_msg",  ON_CONTEXT + "mov r3, 0\nmov r4, 0\n"),
    "bpf_sk_redirect_hash":       ("sk_skb",  ON_CONTEXT + "mov r3, r10\nadd r3, -64\nmov r4, 0\n"),
    "bpf_msg_redirect_hash":      ("sk_msg",  ON_CONTEXT + "mov r3, r10\nadd r3, -64\nmov r4, 0\n"),
    "bpf_sk_select_reuseport":    ("sk_reuseport", ON_CONTEXT + "mov r3, r10\nadd r3, -64\nmov r4, 0\n"),
    "bpf_user_ringbuf_drain":     ("kprobe",  MAP + "lddw r2, visitor\nmov r3, 0\nmov r4, 0\n"),
    "bpf_perf_event_output":      ("xdp",     ON_CONTEXT + "mov r3, 0\nmov r4, r10\nadd r4, -8\nmov r5, 8\n"),
    "bpf_perf_event_read":        ("kprobe",  MAP + "mov r2, 0\n"),
    "bpf_perf_event_read_value":  ("kprobe",  MAP + "mov r2, 0\nmov r3, r10\nadd r3, -24\nmov r4, 24\n"),
    "bpf_skb_under_cgroup":       ("tc",      ON_CONTEXT + "mov r3, 0\n"),
    "bpf_current_task_under_cgroup": ("kprobe", MAP + "mov r2, 0\n"),
    "bpf_get_local_storage":      ("cgroup_skb", MAP + "mov r2, 0\n"),
    "bpf_get_stackid":            ("kprobe",  ON_CONTEXT + "mov r3, 0\n"),
    "bpf_ringbuf_output":         ("xdp",     MAP + ELEMENT + "mov r3, 8\nmov r4, 0\n"),
    "bpf_ringbuf_reserve":        ("xdp",     MAP + "mov r2, 8\nmov r3, 0\n"),
    "bpf_ringbuf_query":          ("xdp",     MAP + "mov r2, 0\n"),
    "bpf_ringbuf_reserve_dynptr": ("xdp",     MAP + "mov r2, 8\nmov r3, 0\nmov r4, r10\nadd r4, -16\n"),
}  # fmt: skip

TYPED = {
    name for name in TAKES if name.endswith(("_storage_get", "_storage_delete", "_timer_init", "_wq_init"))
}
"""What takes a map with types, and something that is not made here: tests/elf has programs of these."""

AFTER = {
    "bpf_ringbuf_reserve": "jeq r0, 0, +3\nmov r1, r0\nmov r2, 0\ncall 133\n",
    "bpf_ringbuf_reserve_dynptr": "mov r1, r10\nadd r1, -16\nmov r2, 0\ncall 200\n",
}
"""What gives back what the call has taken."""

INNER = MapDefinition("inner", MapType.HASH, 4, 8, 4)
SIZES = {
    MapType.LPM_TRIE: (8, 8),
    MapType.STACK_TRACE: (4, 8),
    **dict.fromkeys((*rules.RINGS, MapType.ARENA), (0, 0)),
    **dict.fromkeys(rules.CGROUP_STORAGES, (16, 8)),
}
USUAL_FLAGS = {
    **dict.fromkeys((MapType.LPM_TRIE, *rules.STORAGES), MapFlag.NO_PREALLOC),
    MapType.ARENA: MapFlag.MMAPABLE,
}


def definition_of(kind: MapType) -> MapDefinition:
    keys, values, _ = rules.SHAPES[kind]
    key, value = SIZES.get(kind, (4 if keys.allows(4) else 0, 8 if values.allows(8) else 4))
    flags = USUAL_FLAGS.get(kind, 0)
    inner = INNER if kind.name.endswith("OF_MAPS") else None
    entries = 4096 if kind in rules.RINGS else 1
    entries = 0 if kind in rules.STORAGES | rules.CGROUP_STORAGES else entries
    return MapDefinition("m", kind, key, value, entries, flags, inner=inner)


def program(name: str, kind: MapType) -> Program:
    type_, arguments = CALLS[name]
    after = AFTER.get(name, "")
    if name == "bpf_map_lookup_elem" and kind in (MapType.SOCKMAP, MapType.SOCKHASH):
        after = RELEASE
    callback = VISITOR if "visitor" in arguments else ""
    code = assemble(START + arguments + f"call {NUMBERS[name]}\n" + after + END + callback)
    made = create(definition_of(kind))
    bare = Program.from_bytes(code)
    references = {
        insn.pc: made.address
        for insn in bare.instructions
        if insn.row is not None and insn.row.operation == "LDDW_MAP_IDX"
    }
    return replace(bare, name=name, type=type_, references=references, maps=(made,))


def taken_by_linux(name: str) -> dict[str, str]:
    """Return the types that Linux lets a helper have, "", and what it says of the others."""
    said = {}
    for kind in rules.SHAPES:
        try:
            load_program(program(name, kind), license="GPL")
        except VerifierError as error:
            said[kind.name] = str(error).splitlines()[0]
        except LoadError as error:
            said[kind.name] = f"LoadError {error}"
        else:
            said[kind.name] = ""
    return said


def test_there_is_a_call_of_each_helper_that_takes_a_map() -> None:
    assert CALLS.keys() == TAKES.keys() - TYPED


@pytest.mark.skipif(_REASON is not None, reason=str(_REASON))
def test_helpers_take_the_types_of_maps_that_linux_lets_them_have() -> None:
    ended = run_forked(lambda: {name: taken_by_linux(name) for name in CALLS}, 30)
    assert ended.value is not None, ended
    for name, said in ended.value.items():
        taken = {kind for kind, why in said.items() if not why}
        assert taken == {kind.name for kind in TAKES[name]}, f"{name}: {said}"
