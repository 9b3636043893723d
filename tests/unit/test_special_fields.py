"""What the kernel's verifier guarantees of locks, timers and records: at run time, on every engine."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import ExecutionError, MapRefused, Object, load
from ebpfjit.assembler import assemble
from ebpfjit.kernel import KernelVerifierError
from ebpfjit.program import Program
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps import MapDefinition, MapFlag, MapType, create
from ebpfjit.runtime.maps.special import KINDS, SpecialField
from ebpfjit.runtime.sockets import Socket
from tests.support.helper_runs import needs_kernel
from tests.support.kfunc_runs import program_of, run

ELF = Path(__file__).parent.parent / "elf"
OBJECT = ELF / "special_fields.o"
FRAME = bytes(64)


def on_interpreter(program: Program) -> int:
    return program.run(FRAME, engine="interpreter").return_value


def on_machine_code(program: Program) -> int:
    return program.run(FRAME, engine="jit").return_value


def through_the_gate(program: Program) -> int:
    return program.compile(optimize=True)(FRAME)


def through_baseline_code(program: Program) -> int:
    return program.compile(optimize=False)(FRAME)


def without_the_lock(program: Program) -> int:
    return program.compile(release_gil=True)(FRAME)


def in_a_batch(program: Program) -> int:
    return int(program.compile().map([FRAME])[0])


WAYS = [
    on_interpreter,
    on_machine_code,
    through_the_gate,
    through_baseline_code,
    without_the_lock,
    in_a_batch,
]
every_way = pytest.mark.parametrize("way", WAYS)
Way = Callable[[Program], int]


def test_special_fields_are_found_in_btf_once_a_map() -> None:
    found = {
        map_.name: [(field.kind, field.offset, field.name) for field in map_.definition.special]
        for map_ in load(OBJECT).maps.values()
        if map_.definition.section == ".maps"
    }
    lock = ("bpf_spin_lock", 12, "inner.lock")
    assert found == {
        "accounts": [lock],
        "others": [lock],
        "timers": [("bpf_timer", 8, "timer")],
        "pointers": [("kptr", 8, "pairs[0].pointer"), ("kptr", 24, "pairs[1].pointer")],
        "ring": [],
        "programs": [],
    }


@every_way
def test_a_lock_that_is_given_back_is_no_matter(way: Way) -> None:
    loaded = load(OBJECT)
    for _ in range(2):
        assert way(loaded.programs["adds"]) == 7
    assert loaded.maps["accounts"].typed[0]["count"] == 2


FORGOTTEN = {
    "forgets": ("bpf_spin_lock takes the lock 'inner.lock'", "call bpf_spin_unlock", "lock(&account"),
    "keeps_a_record": ("bpf_ringbuf_reserve takes a record of map 'ring'", "bpf_ringbuf_submit", "second ="),
    "tail_calls_with_a_lock": ("bpf_spin_lock takes", "still held at a tail call", "special_fields.c:"),
}
MISUSED = {
    "locks_twice": ("bpf_spin_lock: the lock 'inner.lock'", "is held already", "lock(&account"),
    "unlocks_another": ("bpf_spin_unlock of", "is the one that is held", "unlock(&other"),
    "locks_a_number": (
        "is no bpf_spin_lock of map 'accounts'",
        "'inner.lock' (bpf_spin_lock) at 12",
        "count",
    ),
    "locks_a_timer": ("is no bpf_spin_lock of map 'timers'", "'timer' (bpf_timer) at 8", "lock(&timed"),
}


@every_way
@pytest.mark.parametrize("name", [*FORGOTTEN, *MISUSED])
def test_misuse_is_an_error_with_the_line(name: str, way: Way) -> None:
    program = load(OBJECT).programs[name]
    expected = (FORGOTTEN | MISUSED)[name]
    errors = []
    for each in (on_interpreter, way):
        with pytest.raises(ExecutionError) as caught:
            each(program)
        errors.append(caught.value)
        for part in expected:
            assert part in str(caught.value)
        if name == "keeps_a_record":  # which is in the ring for good
            program = load(OBJECT).programs[name]
    judge, error = errors
    assert (error.pc, error.line) == (judge.pc, judge.line)
    if name != "keeps_a_record":
        assert str(error).removeprefix("packet 0: ") == str(judge)


MISPLACED_OBJECT = ELF / "misplaced.o"
MISPLACED = {
    "exchanges_a_number": ("is no referenced kptr of map 'numbers'", "values: none", "bpf_kptr_xchg(value"),
    "exchanges_beside_a_lock": ("is no referenced kptr of map 'accounts'", "'lock' (bpf_spin_lock) at 0", ""),
    "exchanges_a_variable": ("is no referenced kptr of map '.bss'", "&variable"),
    "exchanges_the_frame": ("is no referenced kptr of a map's value, or of an object", "&place"),
    "locks_the_frame": ("is no bpf_spin_lock of a map's value", "bpf_spin_lock(&lock)"),
    "leaves_numbers": ("takes an iterator", "call bpf_iter_num_destroy on every way out", "(&it, 0, 3)"),
    "leaves_bits": ("bpf_iter_bits_new takes an iterator", "call bpf_iter_bits_destroy", "&mask"),
    "leaves_what_failed": ("bpf_iter_num_new takes an iterator", "where the program ends", "(&it, 3, 0)"),
    "begins_twice": ("where an iterator is, since pc", "call bpf_iter_num_destroy first"),
    "jumps_away": ("takes an iterator", "still held at a tail call", "(&it, 0, 3)"),
    "leaves_a_dynptr": ("call bpf_ringbuf_submit_dynptr or bpf_ringbuf_discard_dynptr", "(&ring, 8, 0"),
}


@pytest.fixture(scope="module")
def misplaced() -> Object:
    return load(MISPLACED_OBJECT)


@pytest.mark.parametrize("way", [on_interpreter, on_machine_code, through_the_gate])
@pytest.mark.parametrize("name", MISPLACED)
def test_what_is_no_special_field_and_what_is_left_open(misplaced: Object, name: str, way: Way) -> None:
    with pytest.raises(ExecutionError) as caught:
        way(misplaced.programs[name])
    for part in MISPLACED[name]:
        assert part in str(caught.value)
    assert caught.value.line is not None


@needs_kernel
@pytest.mark.parametrize("name", MISPLACED)
def test_linux_lets_nobody_misplace_them(misplaced: Object, name: str) -> None:
    with pytest.raises(KernelVerifierError, match=r"kptr|type=fp|reference leak|uninitialized iter"):
        misplaced.programs[name].run(FRAME, engine="kernel")


def test_a_run_has_so_many_iterators_at_a_time() -> None:
    begin = (
        "mov r1, r6\nmov r2, 0\nmov r3, 9\ncall kfunc {bpf_iter_num_new}\n"
        "add r6, 1\nsub r7, 1\njne r7, 0, -7\n"
    )
    end = (
        "sub r6, 1\nmov r1, r6\ncall kfunc {bpf_iter_num_destroy}\nadd r7, 1\njne r7, r8, -5\nmov r0, 0\nexit"
    )
    text = "ldxw r6, [r1+0]\nmov r7, {most}\nmov r8, r7\n"
    program = program_of(text.replace("{most}", "512") + begin + end, "xdp")
    assert run(program, bytes(1024)).return_value == 0
    with pytest.raises(ExecutionError, match="bpf_iter_num_new: the 513th iterator at a time"):
        run(program_of(text.replace("{most}", "513") + begin + end, "xdp"), bytes(1024))


UNDER_LOCK = ELF / "under_lock.o"
CALLED = {
    "looks_up": "bpf_map_lookup_elem", "updates": "bpf_map_update_elem", "asks_time": "bpf_ktime_get_ns",
    "asks_number": "bpf_get_prandom_u32", "asks_processor": "bpf_get_smp_processor_id",
    "reads": "bpf_skb_load_bytes", "loops": "bpf_loop",
}  # fmt: skip


@every_way
def test_helpers_are_not_called_under_a_lock(way: Way) -> None:
    loaded = load(UNDER_LOCK)
    assert way(loaded.programs["unlocked"]) == 7
    assert loaded.programs.keys() - {"unlocked"} == CALLED.keys()
    for name, called in CALLED.items():
        program = loaded.programs[name]
        with pytest.raises(ExecutionError) as judge:
            on_interpreter(program)
        with pytest.raises(ExecutionError) as caught:
            way(program)
        assert str(caught.value).removeprefix("packet 0: ") == str(judge.value)
        assert f"{called} is called while the lock 'lock' at 0x" in str(judge.value)
        assert re.search(r"is held, since pc \d+ \(.*under_lock.c:.*\): bpf_spin_unlock", str(judge.value))
        assert str(judge.value).count("under_lock.c:") == 2


@needs_kernel
@pytest.mark.parametrize("name", CALLED)
def test_linux_lets_nobody_call_them_there(name: str) -> None:
    program = load(UNDER_LOCK).programs[name]
    with pytest.raises(ExecutionError) as ours:
        on_interpreter(program)
    with pytest.raises(KernelVerifierError, match="not allowed while holding a lock") as theirs:
        program.run(FRAME, engine="kernel")
    assert theirs.value.pc == ours.value.pc


LOOKED_UP = """
    mov r6, r1
    stdw [r10-8], 0
    stdw [r10-16], 0
    lddw r2, 0x0100007f0100007f
    stxdw [r10-16], r2
    stw [r10-8], 0x50000050
    mov r1, r6
    mov r2, r10
    add r2, -16
    mov r3, 12
    mov r4, -1
    mov r5, 0
    call 84
    {rest}
    mov r0, 1
    exit
"""


@every_way
def test_a_socket_is_given_back(way: Way) -> None:
    socket = Socket(protocol="tcp", local=("127.0.0.1", 80))
    found = replace(Environment(), sockets=(socket,))

    def program(rest: str) -> Program:
        code = assemble(LOOKED_UP.format(rest=rest))
        return Program(code, type="tc", environment=found)

    released = program("jeq r0, 0, +2\nmov r1, r0\ncall 86")
    assert way(released) == 1
    with pytest.raises(ExecutionError, match="bpf_sk_lookup_tcp takes a tcp socket, which is still held"):
        way(program(""))


@every_way
def test_updates_leave_special_fields_alone(way: Way) -> None:
    loaded = load(OBJECT)
    accounts, others = loaded.maps["accounts"], loaded.maps["others"]
    entry = accounts.regions[0].view[24:48]
    entry[12:16] = b"LOCK"
    assert way(loaded.programs["updates"]) == 0
    assert bytes(entry) == (5).to_bytes(8, "little") + b"\6\0\0\0LOCK" + (8).to_bytes(8, "little")
    for map_ in (accounts, others):
        assert map_.typed[1] == {"count": 5, "inner": {"flags": 6, "lock": {"val": 0}}, "last": 8}
    accounts[1] = b"\xff" * 24
    assert bytes(entry[12:16]) == b"LOCK"
    assert accounts[1] == b"\xff" * 12 + bytes(4) + b"\xff" * 8


def test_a_new_entry_of_a_hash_starts_with_zeroed_special_fields() -> None:
    lock = SpecialField("bpf_spin_lock", 4, "lock")
    made: Any = create(MapDefinition("m", MapType.HASH, 4, 8, 1, special=(lock,)))
    made[1] = b"\xff" * 8
    made.regions[0].view[4:8] = b"LOCK"
    del made[1]
    made[2] = b"\xff" * 8
    assert bytes(made.regions[0].view[:8]) == b"\xff" * 4 + bytes(4)


@pytest.mark.parametrize("kind", KINDS)
def test_each_map_type_has_the_special_fields_that_linux_lets_it_have(kind: str) -> None:
    allowed = set()
    for type_ in (
        MapType.HASH, MapType.ARRAY, MapType.LRU_HASH,
        MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH,
    ):  # fmt: skip
        definition = MapDefinition("m", type_, 4, 64, 4, special=(SpecialField(kind, 8, "field"),))
        if type_.name.lower() in KINDS[kind].map_types:
            create(definition)
            allowed.add(type_.name.lower())
        else:
            with pytest.raises(MapRefused, match=rf"'field' \({kind}\).*EOPNOTSUPP"):
                create(definition)
        with pytest.raises(MapRefused, match="EACCES"):
            create(replace(definition, flags=MapFlag.RDONLY_PROG))
    plain = {"hash", "array", "lru_hash"}
    expected = {
        "bpf_spin_lock": {"hash", "array"}, "bpf_res_spin_lock": {"hash", "array"}, "uptr": set(),
        "bpf_timer": plain, "bpf_wq": plain, "bpf_task_work": plain,
        "bpf_list_head": plain, "bpf_rb_root": plain,
    }  # fmt: skip
    assert allowed == expected.get(kind, plain | {"percpu_hash", "percpu_array", "lru_percpu_hash"})
