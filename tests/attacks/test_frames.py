"""What the stack shows is zero until the program wrote it, by whatever address it is found.

Faults say how large it was.

The programs find r10 bit by bit, by comparing, so that no instruction names it as memory.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ebpfjit import EbpfVmFixedMbuff, EbpfVmRaw, MemoryFault
from ebpfjit.assembler import assemble
from ebpfjit.difftest.children import run_forked
from ebpfjit.errors import EbpfError
from ebpfjit.program import Program
from ebpfjit.runtime import memory as runtime_memory
from tests.support.whole import WHOLE

LOOP = 181
FIND = """
  mov r3, 0
  mov r4, 1
  lsh r4, 47
find:
  or r3, r4
  jle r3, r10, keep
  xor r3, r4
keep:
  rsh r4, 1
  jne r4, 0, find
"""
"""r3 = r10."""
SUM = """
  mov r0, 0
  mov r4, {size}
sum:
  ldxb r5, [r3-1]
  or r0, r5
  sub r3, 1
  sub r4, 1
  jne r4, 0, sum
"""
"""r0 = all bytes below r3, put together."""
DIRTY = "".join(f"mov r5, -1\nstxdw [r10-{8 * n}], r5\n" for n in range(1, 65))


def looks(size: int, above: int = 0) -> str:
    """Look at `size` bytes of stack, from so many `above` r10 on downwards."""
    return FIND + f"add r3, {above}\n" + SUM.format(size=size)


def raw_ways(
    code: bytes, calculator: Callable[[bytes, int], int] | None = None
) -> dict[str, Callable[..., int]]:
    """Ways to run a program on memory."""
    ways: dict[str, Callable[..., int]] = {}
    for name, options in {"optimised": {"optimize": True}, "baseline": {"optimize": False}}.items():
        vm = EbpfVmRaw(**options)
        if calculator is not None:
            vm.set_stack_usage_calculator(calculator)
        vm.set_program(code)
        vm.jit_compile()
        ways[name] = vm.execute_program_jit
        ways[f"ctypes, {name}"] = lambda data, vm=vm: type(vm).execute_program_jit(vm, data)
    ways["interpreter"] = vm.execute_program
    if calculator is None:
        program = Program.from_bytes(code)
        ways["unlocked"] = program.compile(release_gil=True, optimize=True)
        compiled = program.compile(optimize=True)
        ways["a batch"] = lambda data: max(compiled.map([data] * 3))
        ways["records"] = lambda data: max(compiled.map(data, stride=len(data) // 2))
        ways["run"] = lambda data: program.run(data).return_value
    return ways


def litter() -> None:
    """Leave bytes that are not zero on the thread's stack, where runs will lie."""
    dirty = Program.from_bytes(assemble("mov r6, 7\ncall local f\nexit\nf: " + DIRTY + "exit"))
    deep = "".join(f"f{n}: {DIRTY}call local f{n + 1}\nexit\n" for n in range(1, 7))
    deepest = Program.from_bytes(assemble(f"{DIRTY}call local f1\nexit\n{deep}f7: {DIRTY}exit"))
    for program in (dirty, deepest):
        program.compile(optimize=True)(b"12345678")


def results(ways: dict[str, Callable[..., int]], data: Any) -> dict[str, object]:
    def job() -> dict[str, object]:
        found: dict[str, object] = {}
        for name, way in ways.items():
            litter()
            try:
                found[name] = way(data)
            except EbpfError as error:
                found[name] = type(error).__name__, error.pc  # type: ignore[attr-defined]  # it is a fault
        return found

    ended = run_forked(job, 60)
    assert ended.value is not None, ended
    found: dict[str, object] = ended.value
    return found


PLACES = {
    "main": looks(512) + "exit",
    "a function": "call local f\nexit\nf: " + looks(512) + "exit",
    "main, from a function": FIND + "call local f\nexit\nf: " + SUM.format(size=512) + "exit",
    "a function, after another": "call local g\ncall local f\nexit\nf: "
    + looks(512)
    + "exit\ng: "
    + DIRTY
    + "exit",
    "eight frames": "".join(f"f{n}: call local f{n + 1}\nexit\n" for n in range(7))
    + "f7: "
    + looks(4096, 3584)
    + "exit",
    "by callx": "lddw r6, f\ncallx r6\nexit\nf: " + looks(1024, 512) + "exit",
}


@pytest.mark.parametrize("place", PLACES)
def test_a_frame_is_zero_however_it_is_found(place: str) -> None:
    found = results(raw_ways(assemble(PLACES[place])), bytearray(64))
    assert found == dict.fromkeys(found, 0)


SIZES = (0, 1, 8, 16, 24, 112, 128, 136, 144, 256, 504, 512, 1000, 2048, 4080, 4096)


@pytest.mark.parametrize("size", SIZES if WHOLE else (0, 1, 16, 24, 128, 136, 512, 4096))
def test_frames_of_all_sizes_are_zero_and_end_where_they_do(size: int) -> None:
    rounded = -(-size // 16) * 16
    if size:
        whole = results(raw_ways(assemble(looks(rounded) + "exit"), lambda *_: size), bytearray(64))
        assert whole == dict.fromkeys(whole, 0)
    beyond = results(raw_ways(assemble(looks(rounded + 1) + "exit"), lambda *_: size), bytearray(64))
    assert beyond == dict.fromkeys(beyond, ("MemoryFault", 11))


def test_a_frame_that_was_left_is_not_there() -> None:
    code = assemble(
        "call local f\nmov r3, r0\nldxb r0, [r3-8]\nexit\nf: mov r5, 9\nstxdw [r10-8], r5\nmov r0, r10\nexit"
    )
    found = results(raw_ways(code), bytearray(64))
    assert found == dict.fromkeys(found, ("MemoryFault", 2))


@pytest.mark.parametrize("optimize", [True, False])
def test_the_stack_beside_a_fixed_mbuff_is_zero(optimize: bool) -> None:
    """The gate makes it on the thread's stack, above the program's: r1 leads there, and r10 is not named."""
    vm = EbpfVmFixedMbuff(assemble("mov r3, r1\n" + SUM.format(size=512) + "exit"), 0, 8, optimize=optimize)
    vm.jit_compile()
    found = results({"gate": vm.execute_program_jit}, bytearray(64))
    assert found["gate"] in (0, ("MemoryFault", 3))


def test_a_helper_sees_zeros() -> None:
    """Of a frame of no bytes it sees nothing."""

    def read(address: int, size: int, r3: int, r4: int, r5: int) -> int:
        return sum(runtime_memory.read(address - size, size))

    text = FIND + "mov r1, r3\nmov r2, {size}\ncall 7\nexit"
    for size, shown in ((512, 0), (16, 0), (0, 0), (1, ("MemoryFault", 10))):
        frame = 0 if size == 1 else size
        ways: dict[str, Callable[..., int]] = {}
        for optimize in (True, False):
            vm = EbpfVmRaw(optimize=optimize)
            vm.set_stack_usage_calculator(lambda *_, frame=frame: frame)
            vm.register_helper(7, read)
            vm.set_program(assemble(text.format(size=size)))
            vm.jit_compile()
            ways[f"jit {optimize}"] = vm.execute_program_jit
        ways["interpreter"] = vm.execute_program
        found = results(ways, bytearray(64))
        assert found == dict.fromkeys(found, shown), size


def test_a_frame_is_zero_where_a_run_has_changed_to_other_code() -> None:
    """Baseline code made the frame, optimised code looks at it."""
    code = assemble("mov r9, 1\nlsh r9, 26\nwait: sub r9, 1\njne r9, 0, wait\n" + looks(512) + "exit")

    def job() -> tuple[int, bool]:
        os.environ["EBPFJIT_TIERS"] = ""
        function = Program.from_bytes(code).compile()
        litter()
        return function(bytes(64)), function.is_optimized

    assert run_forked(job, 120).value == (0, True)


# -- what faults say --------------------------------------------------------------------------------


def _callback(body: str, before: str = "") -> bytes:
    start = assemble(before + "mov r1, 1")
    load = struct.pack("<BBhiBBhi", 0x18, 4 << 4 | 2, 0, 5, 0, 0, 0, 0)
    return start + load + assemble(f"mov r3, 0\nmov r4, 0\ncall {LOOP}\nexit") + assemble(body)


FAULTS = {
    "in a callback": (_callback("ldxw r0, [r1+0]\nexit"), 1024),
    "in a function of a callback": (
        _callback("call local f\nexit\nf: mov r1, 0\nldxw r0, [r1+0]\nexit"),
        1536,
    ),
    "in a callback of a callback": (
        _callback(
            f"mov r1, 1\nlddw r2, g\nmov r3, 0\nmov r4, 0\ncall {LOOP}\nexit\ng: ldxw r0, [r1+0]\nexit"
        ),
        1536,
    ),
    "in a callback of a function": (
        assemble(
            f"call local f\nexit\nf: mov r1, 1\nlddw r2, g\nmov r3, 0\nmov r4, 0\ncall {LOOP}\nexit\n"
            "g: stxw [r1+0], r1\nexit"
        ),
        1536,
    ),
    "after a callback": (
        _callback("mov r0, 0\nexit").replace(assemble("exit"), assemble("ldxw r0, [r1+0]"), 1),
        512,
    ),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("type_", ["xdp", None])
def test_a_fault_says_how_much_stack_there_was(name: str, type_: str | None) -> None:
    code, size = FAULTS[name]
    program = Program(code, type=type_)

    def job() -> list[str]:
        ways: list[Callable[[], object]] = [
            lambda: program.run(bytes(64), engine="interpreter"),
            lambda: program.run(bytes(64), engine="jit"),
        ]
        if type_ is not None:
            for options in ({"optimize": True}, {"optimize": False}, {"release_gil": True}):
                function = program.compile(**options)
                ways.append(lambda f=function: f(bytes(64)))  # type: ignore[misc]
                ways.append(lambda f=function: f.map([bytes(64)]))  # type: ignore[misc]
        texts = []
        for way in ways:
            with pytest.raises(MemoryFault) as caught:
                way()
            texts.append(str(caught.value).removeprefix("packet 0: "))
        return texts

    ended = run_forked(job, 60)
    assert ended.value is not None, ended
    assert set(ended.value) == {ended.value[0]}
    assert f"stack ({size} bytes)" in ended.value[0]


def test_frames_are_zero_in_many_threads() -> None:
    function = Program.from_bytes(assemble(PLACES["a function"])).compile(optimize=True)

    def job() -> set[int]:
        found: set[int] = set()

        def run() -> None:
            litter()
            found.update(function(bytes(64)) for _ in range(20))

        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    assert run_forked(job, 60).value == {0}


GUARDED = "mov r0, 0\njlt r2, {length}, +1\nldxb r0, [r1+7]\nexit"


@pytest.mark.parametrize(
    ("body", "is_zeroed"),
    [
        (GUARDED.format(length=8), False),  # nothing is looked at but the packet, inside of it
        (GUARDED.format(length=7), True),  # the check stays, and lets anything through that is the program's
        (looks(8) + "exit", True),
        ("ldxb r0, [r10-8]\nexit", True),
    ],
    ids=["proven", "too short", "found", "named"],
)
def test_a_frame_that_nothing_can_look_at_is_not_zeroed(body: str, is_zeroed: bool) -> None:
    program = Program.from_bytes(assemble(body))
    assert ("xorps xmm0, xmm0" in str(program.compile(optimize=True).listing())) is is_zeroed
    assert "xorps xmm0, xmm0" in str(program.compile(optimize=False).listing())
