"""Programs that look up, update and delete: both engines leave the same r0, maps and faults."""

from __future__ import annotations

import random
import sys
import threading
from dataclasses import replace
from typing import Any

import pytest

from ebpfjit import BudgetExhausted, EbpfError, ExecutionError, MemoryFault, Program
from ebpfjit.assembler import assemble
from ebpfjit.options import Options
from ebpfjit.ready import ready
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps import MapDefinition, MapFlag, MapType, create
from tests.support.whole import WHOLE

ENVIRONMENT = Environment(cpus=2, cpu=1)
DATA = bytes(range(64))
SHAPES = [
    (MapType.HASH, 4, 8), (MapType.HASH, 7, 12), (MapType.HASH, 16, 4), (MapType.LRU_HASH, 8, 8),
    (MapType.PERCPU_HASH, 4, 8), (MapType.LRU_PERCPU_HASH, 4, 4), (MapType.ARRAY, 4, 8),
    (MapType.ARRAY, 4, 13), (MapType.PERCPU_ARRAY, 4, 8), (MapType.LPM_TRIE, 8, 8),
]  # fmt: skip


def made(kind: MapType, key: int, value: int, **more: Any) -> Any:
    flags = MapFlag.NO_PREALLOC if kind is MapType.LPM_TRIE else 0
    definition = MapDefinition("m", kind, key, value, 6, flags=more.pop("flags", flags), **more)
    return create(definition, environment=ENVIRONMENT)


def program(text: str, *maps: Any) -> Program:
    code = assemble(text)
    plain = Program.from_bytes(code)
    references = {
        insn.pc: maps[insn.imm].address
        for insn in plain.instructions
        if insn.row is not None and insn.row.operation == "LDDW_MAP_IDX"
    }
    return Program(code, references=references, maps=maps)


def run(engine: str, text: str, m: Any, *more: Any) -> tuple[Any, ...]:
    """Return r0 or the fault, and what is in the map then."""
    start = m.regions[0].start
    loaded = program(text, m, *more)
    if engine == "baseline":
        ready(loaded).options = Options(optimize=False)
        engine = "jit"
    try:
        result: Any = loaded.run(DATA, engine=engine, environment=ENVIRONMENT).return_value
        result = ("at", result - start) if m.regions[0].contains(result, 1) else result
    except ExecutionError as error:
        result = type(error), error.pc, getattr(error, "size", None), getattr(error, "access", None)
    return result, list(m.items())


# Pointers to keys and values: into the frame, into memory, out of both, made at run time.
POINTERS = {
    "frame": "mov64 {r}, r10\nadd64 {r}, -{below}",
    "memory": "mov64 {r}, r6\nadd64 {r}, {at}",
    "frame or memory": "mov64 {r}, r10\nadd64 {r}, -{below}\njset r7, 1, +2\nmov64 {r}, r6\nadd64 {r}, {at}",
    "above the frame": "mov64 {r}, r10\nadd64 {r}, -2",
    "behind memory": "mov64 {r}, r6\nadd64 {r}, 61",
    "nowhere": "mov64 {r}, 16",
}
GOOD = ("frame", "memory", "frame or memory")


def generated(rng: random.Random, m: Any, *, bad: bool) -> str:
    key_size, value_size = m.definition.key_size, m.definition.value_size
    lines = ["mov64 r6, r1", "mov64 r8, 0"]
    for _ in range(rng.randrange(2, 8)):
        helper = rng.choice((1, 1, 2, 2, 3))
        key = rng.choice(tuple(POINTERS) if bad and rng.random() < 0.2 else GOOD)
        value = rng.choice(tuple(POINTERS) if bad and rng.random() < 0.2 else GOOD)
        below, number = rng.choice((24, 40, 64)), rng.randrange(8)
        lines += [f"mov64 r7, {rng.randrange(2)}", f"mov64 r0, {number}"]
        lines += [f"stxdw [r10-{below - offset}], r0" for offset in (0, 8)]
        lines.append(POINTERS[key].format(r="r2", below=below, at=rng.randrange(64 - key_size + 1)))
        if helper == 2:
            lines += [f"mov64 r0, {rng.getrandbits(31)}", "stxdw [r10-104], r0", "stxdw [r10-96], r0"]
            lines.append(POINTERS[value].format(r="r3", below=104, at=rng.randrange(64 - value_size + 1)))
            lines.append(f"mov64 r4, {rng.choice((0, 0, 0, 1, 2, 3))}")
        lines += ["lddw r1, map[idx:0]", f"call {helper}"]
        if helper == 1:
            access = {4: "ldxw", 8: "ldxdw", 12: "ldxw", 13: "ldxw"}[value_size]
            lines += ["jeq r0, 0, +2", f"{access} r0, [r0+0]", "add64 r8, r0"]
        else:
            lines += ["add64 r8, r0", "mul64 r8, 31"]
        lines += ["add64 r8, r1", "add64 r8, r2"]  # zero after a call
    return "\n".join([*lines, "mov64 r0, r8", "exit"])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bad", [False, True])
def test_engines_agree_on_map_calls(shape: tuple[MapType, int, int], bad: bool) -> None:
    rng = random.Random(f"{shape} {bad}")
    faults = 0
    for _ in range(25 if WHOLE else 9):
        first, second, third = made(*shape), made(*shape), made(*shape)
        for round_ in range(3):  # what an earlier run left in the map is there in the next
            text = generated(rng, first, bad=bad)
            ours, theirs = run("jit", text, first), run("interpreter", text, second)
            assert ours == theirs == run("baseline", text, third), (round_, text)
            faults += isinstance(ours[0], tuple) and ours[0][0] is MemoryFault
    assert (faults > 0) == bad


ARRAYS = (MapType.ARRAY, MapType.PERCPU_ARRAY)
CALL = """
mov64 r6, r1
stdw [r10-32], 1
stdw [r10-24], 0
stdw [r10-8], 0
stdw [r10-16], 5
mov64 r2, r10
add64 r2, -32
mov64 r3, r10
add64 r3, -16
mov64 r4, 0
lddw r1, map[idx:0]
call {helper}
exit
"""


@pytest.mark.parametrize(
    ("shape", "helper"),
    [(shape, helper) for shape in SHAPES for helper in (1, 2, 3) if shape[0] is not MapType.LPM_TRIE]
    + [((MapType.LPM_TRIE, size, 8), 1) for size in (5, 8, 20)],
    ids=str,
)
@pytest.mark.parametrize("optimize", [False, True])
def test_calls_on_known_maps_need_no_python(
    shape: tuple[MapType, int, int], helper: int, optimize: bool
) -> None:
    m = made(*shape)
    loaded = program(CALL.format(helper=helper), m)
    ready(loaded).options = Options(optimize=optimize)
    expected = loaded.run(DATA, engine="interpreter", environment=ENVIRONMENT).return_value
    forbid_python(m)
    result = loaded.run(DATA, environment=ENVIRONMENT).return_value
    assert result == expected or helper == 1 or (helper == 3 and shape[0] not in ARRAYS)


OTHER_MAPS = {
    "one that is loaded before": (
        "lddw r1, map[idx:1]\njeq r7, 0, c\nlddw r1, map[idx:0]\nc: ", {0: 11, 1: 10},
    ),
    "one that is loaded last": (
        "lddw r1, map[idx:0]\njeq r7, 0, c\nlddw r1, map[idx:1]\nc: ", {0: 10, 1: 11},
    ),
    "a map that was kept": ("lddw r8, map[idx:0]\nmov r1, r8\n", {0: 10, 1: 10}),
    "a map that comes from the frame": (
        "lddw r1, map[idx:1]\nstxdw [r10-24], r1\nlddw r1, map[idx:0]\nldxdw r1, [r10-24]\n", {0: 11, 1: 11},
    ),
    "its address and a number": ("lddw r1, map[idx:0]\nadd r1, r7\n", {0: 10, 1: None}),
    "no map at all": ("lddw r1, map[idx:0]\nmul r1, r7\n", {0: None, 1: 10}),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_MAPS)
@pytest.mark.parametrize("kind", [MapType.ARRAY, MapType.HASH])
def test_a_call_is_done_to_the_map_that_it_is_given(name: str, kind: MapType) -> None:
    """Baseline code guesses which map it is: what comes in r1 counts."""
    loads, expected = OTHER_MAPS[name]
    start = "ldxb r7, [r1]\nstdw [r10-8], 0\nstdw [r10-16], 1\n"
    for number, found in expected.items():
        text = (
            f"mov r6, r1\n{start}and r7, 1\nxor r7, {number ^ DATA[0] & 1}\n{loads}mov r2, r10\nadd r2, -8\n"
            "mov r3, r10\nadd r3, -16\nmov r4, 0\nmov r9, r1\ncall 1\njeq r0, 0, out\nldxdw r7, [r0]\n"
            "mov r1, r9\nmov r2, r10\nadd r2, -8\nmov r3, r10\nadd r3, -16\nmov r4, 0\ncall 2\n"
            "mov r0, r7\nout: exit"
        )
        outcomes = []
        for engine in ("interpreter", "jit", "baseline"):
            first, second = made(kind, 4, 8), made(kind, 4, 8)
            first[0], second[0] = 10, 11
            result, _ = run(engine, text, first, second)
            assert (result if found is not None else result[0]) == (found or ExecutionError), engine
            outcomes.append([result, dict(first.items()), dict(second.items())])
        assert outcomes[0] == outcomes[1] == outcomes[2]


def forbid_python(m: Any) -> None:
    def called(*_: object) -> int:
        raise AssertionError("Python was called")

    m.lookup = m.update = m.delete = called


@pytest.mark.parametrize("harden", [False, True])
def test_what_machine_code_does_not_do_by_itself_takes_the_helper(harden: bool) -> None:
    m = made(MapType.HASH if harden else MapType.LPM_TRIE, 8, 8)
    compiled = program(CALL.format(helper=1 if harden else 2), m).compile(harden=harden)
    assert "map_hash" not in compiled.listing()


def test_a_readonly_map_is_not_written() -> None:
    for flags, kind in ((MapFlag.RDONLY_PROG, MapType.ARRAY), (MapFlag.RDONLY_PROG, MapType.HASH)):
        m = made(kind, 4, 8, flags=flags)
        for engine in ("jit", "interpreter"):
            with pytest.raises(EbpfError, match="read-only"):
                program(CALL.format(helper=2), m).run(DATA, engine=engine, environment=ENVIRONMENT)


def test_a_store_to_a_readonly_value_faults() -> None:
    text = CALL.format(helper=1).replace("exit", "jeq r0, 0, +1\nstdw [r0+0], 1\nexit")
    m = made(MapType.ARRAY, 4, 8, is_readonly=True)
    for engine in ("jit", "interpreter"):
        with pytest.raises(MemoryFault, match="read-only"):
            program(text, m).run(DATA, engine=engine, environment=ENVIRONMENT)


def test_the_processor_of_the_run_is_the_one_whose_value_is_found() -> None:
    text = CALL.format(helper=1).replace("exit", "ldxdw r0, [r0+0]\nexit")
    for kind in (MapType.PERCPU_ARRAY, MapType.PERCPU_HASH):
        m = made(kind, 4, 8)
        m[1] = [10, 11]
        loaded = program(text, m)
        for cpu in (0, 1, 0):
            for engine in ("jit", "interpreter"):
                result = loaded.run(DATA, engine=engine, environment=Environment(cpus=2, cpu=cpu))
                assert result.return_value == 10 + cpu


def test_python_and_machine_code_change_a_table_in_turns() -> None:
    """Python is interrupted in the middle of its changes, again and again: nothing is lost or broken."""
    m = create(MapDefinition("m", MapType.HASH, 4, 8, 64))
    text = """
        mov64 r6, 501
        mov64 r7, 1
        lddw r9, 6364136223846793005
        mul64 r7, r9
        add64 r7, 12345
        mov64 r2, r7
        rsh64 r2, 40
        and64 r2, 31
        stxdw [r10-8], r2
        mov64 r2, r10
        add64 r2, -8
        lddw r1, map[idx:0]
        call 3
        mov64 r2, r7
        rsh64 r2, 45
        and64 r2, 31
        stxdw [r10-8], r2
        mov64 r2, r10
        add64 r2, -8
        mov64 r3, r2
        mov64 r4, 0
        lddw r1, map[idx:0]
        call 2
        sub64 r6, 1
        jne r6, 0, -26
        exit
    """
    loaded = program(text, m)
    function, memory = loaded.compile(), bytearray(64)
    done = threading.Event()

    def change() -> None:
        key = 32
        while not done.is_set():
            key = 32 + (key + 7) % 32
            m[key] = key
            del m[key]

    changer = threading.Thread(target=change)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    try:
        changer.start()
        for _ in range(3000):
            assert function(memory) == 0
    finally:
        done.set()
        changer.join()
        sys.setswitchinterval(interval)
    assert len(m) == len(list(m)) <= 32
    for key in list(m):
        assert key[0] < 32
        del m[key]
    assert len(m) == 0
    for key in range(64):  # every entry is still there to be used
        m[key] = key
    assert dict(m.items()) == {key.to_bytes(4, "little"): key.to_bytes(8, "little") for key in range(64)}


FINDS = "lddw r1, map[idx:0]\ncall 1\njeq r0, 0, out\nldxdw r0, [r0]\n"
KEYS = {
    "at the frame's end": ("mov r2, r10\nadd r2, -4\n", True),
    "at its start": ("mov r2, r10\nadd r2, -512\n", True),
    "one byte past its end": ("mov r2, r10\nadd r2, -3\n", False),
    "one byte before its start": ("mov r2, r10\nadd r2, -513\n", False),
    "at one of two places": ("mov r2, r10\nadd r2, -8\njeq r6, 64, m\nadd r2, -8\nm: ", True),
    "at one of two places, of which one is too high": (
        "mov r2, r10\nadd r2, -3\njeq r6, 0, m\nadd r2, -8\nm: ", False,
    ),
    "in the frame, or in memory": ("mov r2, r10\nadd r2, -8\njeq r6, 0, m\nmov r2, r7\nm: ", False),
    "at a place that depends": ("mov r2, r10\nadd r2, -16\nand r6, 12\nadd r2, r6\n", True),
    "at a place that depends, perhaps past the end": (
        "mov r2, r10\nadd r2, -16\nldxb r6, [r7+9]\nand r6, 15\nadd r2, r6\n", False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("in_loop", [False, True])
def test_keys_that_surely_are_in_the_frame_are_not_looked_at(name: str, in_loop: bool) -> None:
    place, is_known = KEYS[name]
    start = "mov r6, r2\nmov r7, r1\nstdw [r10-8], 0\nstdw [r10-16], 0\nstdw [r10-512], 0\nmov r8, 3\n"
    end = "sub r8, 1\njne r8, 0, l\nout: exit" if in_loop else "out: exit"
    text = f"{start}l: {place}{FINDS}{end}"
    for kind in (MapType.ARRAY, MapType.HASH):
        m = made(kind, 4, 8)
        m.update(bytes(4), b"\x05" + bytes(7))
        listing = program(text, m).compile(optimize=True).listing()
        assert (listing.count("call is_load") == 1) is is_known  # that of the baseline code behind it
        assert run("jit", text, m) == run("interpreter", text, m)


@pytest.mark.parametrize("optimize", [False, True])
def test_what_leaves_machine_code_is_told_and_counted(optimize: bool) -> None:
    m = made(MapType.HASH, 4, 8)
    function = program(CALL.format(helper=1), m).compile(optimize=optimize)
    function(DATA)
    assert "helper" not in function.explain()
    m.set_field("busy", 1)  # as where Python is in the middle of a change
    function(DATA)
    m.set_field("busy", 0)
    function(DATA)
    (line,) = (line for line in function.explain().splitlines() if "helper" in line)
    assert line.startswith(
        "helper 1 (bpf_map_lookup_elem) on map 'm' (hash) is machine code, but where Python"
    )
    assert line.endswith("called at pc 12, so far 1 times")
    assert f"; {line}\n" in function.listing()
    function = program(CALL.format(helper=2), made(MapType.LPM_TRIE, 8, 8)).compile(optimize=optimize)
    for _ in range(3):
        function(DATA)
    expected = "helper 2 (bpf_map_update_elem) on map 'm' (lpm_trie) is a Python function: called at pc 12"
    assert f"{expected}, so far 3 times\n" in function.explain()
    assert "each call is prepared in Python: a program with maps and without a type\n" in function.explain()


@pytest.mark.parametrize("kind", [MapType.PERCPU_ARRAY, MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH])
@pytest.mark.parametrize("optimize", [None, False, True])
def test_functions_of_packets_see_the_values_of_their_processor(kind: MapType, optimize: bool | None) -> None:
    text = CALL.format(helper=1).replace("exit", "jeq r0, 0, +1\nstdw [r0], 7\nmov r0, 2\nexit")
    m = made(kind, 4, 8)
    m[1] = [1, 2]
    loaded = replace(program(text, m), type="xdp", environment=ENVIRONMENT)
    function = loaded.compile(optimize=optimize)
    assert function(bytes(60)) == 2
    assert "prepared in Python" not in function.explain()
    assert m[1] == [bytes([1] + 7 * [0]), bytes([7] + 7 * [0])]
    for call in (lambda: function(bytes(60)), lambda: function.map([bytes(60)])):
        m[1] = [1, 2]
        loaded.run(bytes(60), environment=Environment(cpus=2, cpu=0))  # which shows that processor's
        assert m[1] == [bytes([7] + 7 * [0]), bytes([2] + 7 * [0])]
        call()
        assert m[1] == [bytes([7] + 7 * [0])] * 2
    one = create(replace(m.definition, name="few"))
    few = replace(program(text, one), type="xdp", environment=ENVIRONMENT)
    with pytest.raises(ExecutionError, match=r"'few' .*: values for 1 processors, not for number 1"):
        few.compile(optimize=optimize)(bytes(60))


TRIE = """
mov r7, 3
again: stw [r10-16], {longest}
stdw [r10-12], 0
mov r2, r10
add r2, -16
lddw r1, map[idx:0]
call 1
add r6, r0
sub r7, 1
jne r7, 0, again
mov r0, 2
jeq r6, 0, out
mov r0, 1
out: exit
"""


@pytest.mark.parametrize("lengths", [(), (0,), (0, 8, 16, 24, 32)])
@pytest.mark.parametrize("longest", [32, 9, 33, -1])
def test_a_lookup_in_a_trie_pays_for_its_lengths(lengths: tuple[int, ...], longest: int) -> None:
    """At every instruction limit all engines end at the same instruction, with as much left."""
    m = made(MapType.LPM_TRIE, 8, 8)
    for length in lengths:
        m[length.to_bytes(4, "little") + bytes(4)] = length
    loaded = program(TRIE.format(longest=longest), m)
    outcomes: dict[str, list[Any]] = {}
    for engine, optimize in (("interpreter", True), ("jit", True), ("jit", False)):
        start = ready(loaded)
        start.options, start.compiled = Options(optimize=optimize), {}
        for limit in range(60):
            try:
                outcome: Any = loaded.run(DATA, engine=engine, limit=limit).return_value
            except BudgetExhausted as error:
                outcome = error.pc
            outcomes.setdefault(f"{engine} {optimize}", []).append(outcome)
    first, *others = outcomes.values()
    assert first == others[0] == others[1]
    assert first[-1] == (1 if lengths and 0 <= longest <= 32 else 2)
