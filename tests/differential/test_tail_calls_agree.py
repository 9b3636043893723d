"""Tail calls that machine code makes by itself: programs of one prog_array jump among each other at random.

On the interpreter, as `run` runs them, as functions in both tiers and in batches there is one result, one
fault, and one account of instructions; whatever the array holds meanwhile, and whoever changes it.
"""

from __future__ import annotations

import gc
import random
import re
import struct
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import ref

import pytest

from ebpfjit import EbpfError, Environment, JitFunction, Program, Stopped
from ebpfjit.assembler import assemble
from ebpfjit.jit import tails
from ebpfjit.runtime.maps import Map, MapDefinition, MapType, create
from ebpfjit.sealed import inside
from tests.support.whole import WHOLE

SEEDS = range(300 if WHOLE else 30)
ENTRIES = 4
TAIL_CALL, KNOWN = 12, 15  # Python knows the run from bpf_get_current_uid_gid on
PACKETS = (bytes(range(60)), bytes(14), bytes(range(200)))


def _lddw(index: int) -> bytes:
    return struct.pack("<BBhiBBhi", 0x18, 5 << 4 | 1, 0, index, 0, 0, 0, 0)


def _program(parts: list[bytes | str], maps: tuple[Map, ...], name: str, type_: str) -> Program:
    """Return a program of texts, and of wide loads of r1 with a map's address."""
    code, references = b"", {}
    for each in parts:
        if isinstance(each, bytes):
            references[len(code) // 8] = maps[each[4]].address
        code += each if isinstance(each, bytes) else assemble(each)
    return Program(code, name=name, type=type_, references=references, maps=maps)  # type: ignore[arg-type]


def _body(made: random.Random, kind: str) -> list[bytes | str]:
    """Return something to do: r6 is the context, r9 what has come of it."""
    add = "mul r9, 31\nxor r9, r0"
    what = made.choice(["frame", "loop", "packet", "known", "function", "counter", "wrong", "move"])
    at = made.choice([8, 16, 64, 512])
    data, end = (0, 4) if kind == "xdp" else (76, 80)
    match what:
        case "frame":  # what is there first is zero, whoever was there before
            return [f"ldxdw r0, [r10-{at}]\n{add}\nmov r0, r9\nadd r0, 1\nstxdw [r10-{at}], r0"]
        case "loop":
            return [f"mov r0, {made.choice([3, 50, 2000])}\nadd r9, r0\nsub r0, 1\njne r0, 0, -3"]
        case "packet":
            offset = made.choice([0, 13, 40, 100])
            test = f"mov r0, r7\nadd r0, {offset + 1}\njgt r0, r8, +1"
            return [f"ldxw r7, [r6+{data}]\nldxw r8, [r6+{end}]\n{test}\nldxb r9, [r7+{offset}]\nadd r9, 1"]
        case "known" if made.random() < 0.4:
            return [f"call {KNOWN}"]
        case "function":  # frames below the first one
            return ["ldxdw r0, [r10-8]\n" + add + "\nstxdw [r10-8], r9"]
        case "counter":  # a value of the running processor's
            text = "mov r2, r10\nadd r2, -4\ncall 1\njeq r0, 0, +4\nldxdw r1, [r0]"
            text += "\nadd r1, 1\nstxdw [r0], r1\nxor r9, r1"
            return ["stw [r10-4], 0", _lddw(1), text]
        case "wrong" if made.random() < 0.15:
            return [made.choice(["ldxb r0, [r9]", "ldxdw r0, [r10]", "mov r0, 1\ncallx r0"])]
        case "move" if kind == "xdp":
            return [f"mov r1, r6\nmov r2, {made.choice([-14, 14, 40])}\ncall {made.choice([44, 65])}\n{add}"]
    return [f"add r9, {made.randrange(100)}"]


def _jump(made: random.Random) -> list[bytes | str]:
    index = made.choice([*range(ENTRIES), *range(ENTRIES), ENTRIES, -1])
    context = "mov r1, r6" if made.random() < 0.9 else "mov r1, 5"
    swap = "mov r2, r1"
    return [_lddw(0), f"{swap}\n{context}\nmov r3, {index}\ncall {TAIL_CALL}\nxor r9, r0"]


def made_programs(made: random.Random, kind: str, jumps: Any, counts: Any) -> list[Program]:
    """Return programs that jump among each other; in some a function of theirs does it."""
    programs = []
    for number in range(ENTRIES):
        parts: list[bytes | str] = ["mov r6, r1\nmov r9, 0"]
        for _ in range(made.randint(0, 3)):
            parts += _body(made, kind)
        jump = _jump(made) if made.random() < 0.85 else []
        end = "mov r0, r9\nexit"
        if jump and made.random() < 0.2:
            parts += ["mov r1, r6\ncall local +2", end, "mov r6, r1", *jump, "mov r0, 7\nexit"]
        else:
            parts += [*jump, end]
        programs.append(_program(parts, (jumps, counts), f"made{number}", kind))
    return programs


def outcome(run: Callable[[], int]) -> object:
    try:
        return run()
    except EbpfError as error:
        return type(error), re.sub(r"^packet \d+: |0x[0-9a-f]+", "", str(error))


def in_a_batch(function: JitFunction, packet: bytes) -> list[object]:
    errors: list[Any] = []
    results = list(function.map([packet] * 3, on_fault=0, faults=errors))
    raised = {
        error.index: (type(error), re.sub(r"^packet \d+: |0x[0-9a-f]+", "", str(error))) for error in errors
    }
    return [raised.get(index, result) for index, result in enumerate(results)]


@pytest.mark.parametrize("seed", SEEDS)
def test_programs_that_jump_among_each_other(seed: int) -> None:
    made = random.Random(seed)
    kind = made.choice(["xdp", "xdp", "tc"])
    environment = Environment(cpu=1, cpus=2)
    jumps: Any = create(MapDefinition("jumps", MapType.PROG_ARRAY, 4, 4, ENTRIES))
    counts: Any = create(MapDefinition("counts", MapType.PERCPU_ARRAY, 4, 8, 1), environment=environment)
    programs = made_programs(made, kind, jumps, counts)
    for index in range(ENTRIES - 1):
        jumps[index] = programs[index]
    limit = made.choice([None, None, 0, 5, 40, 300])
    given: dict[str, Any] = {"limit": limit, "environment": environment}
    first = programs[-1]
    functions = [first.compile(optimize=optimize, **given) for optimize in (False, True, None)]

    def counted(run: Callable[[], object]) -> tuple[object, object]:
        counts[0] = 0
        return run(), counts[0]

    def compare(packet: bytes) -> None:
        run = partial(first.run, packet, **given)
        wanted = counted(lambda: outcome(lambda: run(engine="interpreter").return_value))
        assert counted(lambda: outcome(lambda: run(engine="jit").return_value)) == wanted
        for function in functions:
            for _ in range(2):
                assert counted(lambda: outcome(lambda: function(packet))) == wanted  # noqa: B023
            counts[0] = 0
            assert in_a_batch(function, packet)[0] == wanted[0]

    for step in range(4):
        compare(made.choice(PACKETS))
        changed = made.randrange(ENTRIES)  # known to machine code or not
        if step % 2:
            jumps.clear() if made.random() < 0.2 else jumps.put(changed, None)
        else:
            jumps[changed] = made.choice(programs)


def jumping(jumps: Any, text: str = "", index: int = 0) -> Program:
    """Return a program that does something and jumps."""
    jump = f"mov r2, r1\nmov r1, r6\nmov r3, {index}\ncall {TAIL_CALL}\nmov r0, 9\nexit"
    return _program(
        [f"mov r6, r1\n{text}" if text else "mov r6, r1", _lddw(0), jump], (jumps,), "jumps", "xdp"
    )


def target(text: str) -> Program:
    return Program(assemble(text), name="target", type="xdp")


def array() -> Any:
    return create(MapDefinition("jumps", MapType.PROG_ARRAY, 4, 4, ENTRIES))


def compiled(program: Program, **options: Any) -> JitFunction:
    function = program.compile(**options)
    assert inside(function).gate is not None
    return function


@pytest.mark.parametrize("optimize", [False, True])
def test_python_makes_the_first_call_alone(optimize: bool) -> None:
    jumps = array()
    jumps[0], jumps[1] = target("ldxw r2, [r1]\nldxw r0, [r1+4]\nsub r0, r2\nexit"), jumping(jumps)
    function = compiled(jumping(jumps, index=1), optimize=optimize)
    assert [function(packet) for packet in PACKETS] == list(map(len, PACKETS))
    assert list(function.map(PACKETS)) == list(map(len, PACKETS))
    assert "so far 1 times" in function.explain()
    jumps[1] = None
    assert function(PACKETS[0]) == 9
    assert "so far 1 times" in function.explain()


def test_helpers_may_change_all_that_led_to_the_program_that_runs() -> None:
    jumps, kept = array(), {}

    def let_go(*_: int) -> int:
        kept.clear()
        jumps.clear()
        jumps[0] = target("mov r0, 1\nexit")
        gc.collect()
        return 11

    helpers = {4000: lambda *_: 3 if "all" in kept else let_go()}
    jumps[0] = target("call 4000\nmov r6, r0\nstxdw [r10-8], r6\nldxdw r0, [r10-8]\nexit")
    kept = {"all": 1, "function": compiled(jumping(jumps), helpers=helpers)}
    gone = ref(kept["function"])
    assert [kept["function"](PACKETS[0]) for _ in range(3)] == [3, 3, 3]
    del kept["all"]
    assert kept["function"](PACKETS[0]) == 11
    gc.collect()
    assert gone() is None


def test_code_of_programs_that_no_array_holds_is_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "MOST_UNUSED", 2)
    jumps, seen = array(), []
    function = compiled(jumping(jumps))
    make = tails.Tails._let_go
    monkeypatch.setattr(tails.Tails, "_let_go", lambda self: (make(self), seen.append(len(self._functions))))
    for number in range(8):
        jumps[0] = target(f"mov r0, {number}\nexit")
        assert [function(PACKETS[0]) for _ in range(2)] == [number, number]
    assert seen == [0, 1, 2, 2, 2, 2, 2, 2]


def test_a_hot_program_is_optimised_though_its_runs_end_in_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EBPFJIT_TIERS", raising=False)
    jumps = array()
    jumps[0] = target("mov r0, 5\nexit")
    function = compiled(jumping(jumps))
    gate = inside(function).gate
    gate.set_words(heat=1 << 40)
    assert function(PACKETS[0]) == 5  # what Python takes counts as well
    gate.set_words(heat=200)
    assert [function(PACKETS[0]) for _ in range(5)] == [5] * 5
    assert inside(function).gate is not gate
    assert inside(function).plain.compiled.recipe.options.optimize


def test_a_stop_is_that_of_the_function_that_was_called() -> None:
    jumps = array()
    jumps[0] = target("call 4000\nja -1")
    function: JitFunction = compiled(jumping(jumps), helpers={4000: lambda *_: function.stop() or 0})
    for _ in range(2):
        with pytest.raises(Stopped):
            function(PACKETS[0])


FULL = "\n".join(f"stxdw [r10-{8 * slot}], r6" for slot in range(1, 65))
HOSTILE = {
    "the stack's end": "ldxdw r0, [r10-520]\nexit",
    "above the stack": "stxdw [r10], r1\nexit",
    "what was there": "ldxdw r0, [r10-512]\nexit",
    "behind the packet": "ldxw r2, [r1]\nldxw r3, [r1+4]\nldxb r0, [r3]\nexit",
    "the context": "stw [r1], 5\nmov r0, 1\nexit",
    "no helper": "mov r5, 99\ncallx r5\nexit",
    "no end": "ja -1",
    "too deep": "call local -1\nexit",
}


@pytest.mark.parametrize("filled", ["", FULL])
@pytest.mark.parametrize("wrong", HOSTILE)
def test_what_goes_wrong_behind_a_jump_does_so_with_each_budget(wrong: str, filled: str) -> None:
    """A fault is the other program's, with its pc; its stack is empty; limits end around the jump."""
    jumps = array()
    jumps[0] = target(HOSTILE[wrong])
    first, before = jumping(jumps, filled), len(filled.splitlines())
    for limit in (*range(before + 4, before + 9), None if wrong != "no end" else 500):
        wanted = outcome(lambda: first.run(PACKETS[0], engine="interpreter", limit=limit).return_value)  # noqa: B023
        function = compiled(first, limit=limit, audit=limit is None)
        assert [outcome(lambda: function(PACKETS[0])) for _ in range(3)] == [wanted] * 3  # noqa: B023
        assert in_a_batch(function, PACKETS[0]) == [wanted] * 3
