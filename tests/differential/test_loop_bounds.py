"""Loops whose accesses are asked for before them, at every bound near the end of their memory.

Where too little is asked before a loop a fault is missing, or a byte is changed that is not the program's:
the interpreter is the judge. Machine code runs in a child.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import pytest

from ebpfjit import EbpfVmRaw, ExecutionError, MemoryFault, Program
from ebpfjit.assembler import assemble
from ebpfjit.difftest.case import Case, Input
from ebpfjit.difftest.children import run_forked
from ebpfjit.difftest.compare import differences
from ebpfjit.difftest.engines import compiled_case, on_interpreter, on_tiered, prepared, runner_of
from ebpfjit.difftest.typed import runner
from ebpfjit.translators.block import MOST_LIMITS

HOISTED = {
    "a pointer that rises": "mov r3, 0\nl: stxb [r1], r3\nadd r1, 1\nadd r3, 1\njlt r3, 40, l\nexit",
    "up to and with": "mov r3, 0\nl: stxb [r1], r3\nadd r1, 1\nadd r3, 1\njle r3, 40, l\nexit",
    "until they meet": "mov r3, 0\nl: stxw [r1], r3\nadd r1, 4\nadd r3, 4\njne r3, 40, l\nexit",
    "a bound in a register": (
        "mov r4, r2\nrsh r4, 1\nmov r3, 0\nl: ldxh r5, [r1]\nadd r1, 2\nadd r3, 1\njlt r3, r4, l\nexit"
    ),
    "tested at the top": (
        "mov r3, 0\nl: jge r3, 40, out\nstxb [r1+2], r3\nadd r1, 1\nadd r3, 1\nja l\nout: exit"
    ),
    "entered in the middle": (
        "mov r3, 0\nja m\nl: add r1, 1\nadd r3, 1\njge r3, 40, out\nm: stxb [r1], r3\nja l\nout: exit"
    ),
    "downwards": (
        "add r1, 40\nmov r3, 40\nl: sub r1, 4\nldxw r4, [r1]\nadd r0, r4\nsub r3, 1\njgt r3, 30, l\nexit"
    ),
    "downwards, with the end": (
        "add r1, 40\nmov r3, 40\nl: stxb [r1], r3\nsub r1, 1\nsub r3, 1\njge r3, 2, l\nexit"
    ),
    "the counter is the pointer": "mov r3, r1\nadd r3, r2\nl: stb [r1], 7\nadd r1, 1\njne r1, r3, l\nexit",
    "an index times four": (
        "ldxb r6, [r1]\nmov r3, 0\nl: mov r4, r3\nlsh r4, 2\nadd r4, r1\nldxw r5, [r4]\nadd r0, r5\n"
        "add r3, 1\njlt r3, r6, l\nexit"
    ),
    "several pointers": (
        "mov r4, r1\nadd r4, r2\nmov r3, 0\nl: sub r4, 2\nldxh r5, [r4]\nstxb [r1], r5\nadd r1, 1\n"
        "add r3, 1\njlt r3, 20, l\nexit"
    ),
    "a load that a store follows": (
        "mov r3, 0\nl: ldxw r4, [r1]\njgt r4, 9, n\nadd r4, 1\nstxw [r1], r4\nn: add r1, 4\nadd r3, 1\n"
        "jlt r3, 10, l\nexit"
    ),
    "left early": (
        "mov r3, 0\nl: ldxb r4, [r1]\njeq r4, 9, out\nadd r1, 1\nadd r3, 1\njlt r3, 40, l\n"
        "out: mov r0, r3\nexit"
    ),
    "in rounds of rounds": (
        "mov r6, 3\no: mov r3, 0\nmov r4, r1\nl: stxb [r4], r6\nadd r4, 1\nadd r3, 1\njlt r3, 40, l\n"
        "sub r6, 1\njne r6, 0, o\nexit"
    ),
    "a bound near the top of all numbers": (
        "ldxdw r4, [r1]\nmov r3, r4\nsub r3, 6\nl: stxb [r1+8], r3\nadd r1, 4\nadd r3, 4\njlt r3, r4, l\nexit"
    ),
    "a bound near zero": (
        "ldxdw r4, [r1]\nmov r3, r4\nadd r3, 6\nl: stxb [r1+8], r3\nadd r1, 4\nsub r3, 4\njge r3, r4, l\nexit"
    ),
    "a comparison of halves that are all of it": (
        "mov r3, 0\nl: ldxb r4, [r1]\nadd r1, 1\nadd r3, 1\njlt32 r3, 40, l\nexit"
    ),
    "a call that is inlined": (
        "mov r6, r1\nmov r7, 0\nl: ldxb r4, [r6]\nadd r6, 1\nadd r7, 1\ncall local f\njlt r7, 40, l\n"
        "exit\nf: exit"
    ),
    "signed, down to zero": (
        "add r1, 40\nmov r3, 39\nl: sub r1, 1\nldxb r4, [r1]\nadd r0, r4\nsub r3, 1\njsgt r3, -1, l\nexit"
    ),
    "signed, up from below zero": (
        "ldxb r6, [r1]\nmov r3, r6\nsub r3, 20\nl: stxb [r1], r3\nadd r1, 1\nadd r3, 1\njslt r3, 20, l\nexit"
    ),
    "signed, from anywhere": (
        "ldxdw r3, [r1]\nl: stxb [r1+8], r3\nadd r1, 1\nsub r3, 1\njsge r3, -3, l\nexit"
    ),
    "down until it wraps": "ldxb r3, [r1]\nl: stxb [r1], r3\nadd r1, 1\nsub r3, 1\njne r3, -1, l\nexit",
    "a sum": (
        "ldxb r6, [r1]\nmov r3, 0\nl: mov r4, r1\nadd r4, r3\nldxb r5, [r4+3]\nadd r0, r5\nadd r3, 1\n"
        "jlt r3, r6, l\nexit"
    ),
    "steps of three": "mov r3, 0\nl: stxb [r1], r3\nadd r1, 3\nadd r3, 3\njlt r3, 40, l\nexit",
    "steps of three until they meet": (
        "ldxb r6, [r1]\nmov r3, 0\nl: stxb [r1], r3\nadd r1, 3\nadd r3, 3\njne r3, r6, l\nexit"
    ),
    "steps of seven from the end": (
        "add r1, r2\nmov r3, r2\nl: sub r1, 7\nldxw r4, [r1]\nadd r0, r4\nsub r3, 7\njge r3, 7, l\nexit"
    ),
    "until a pointer or a number": (
        "mov r4, r1\nadd r4, r2\nmov r3, 0\nl: jge r1, r4, out\nstxb [r1], r3\nadd r1, 1\nadd r3, 1\n"
        "jlt r3, 1500, l\nout: exit"
    ),
    "from the program's start": "l: ldxb r4, [r1]\nadd r1, 1\nadd r3, 1\njlt r3, 40, l\nexit",
}
"""What is asked once before the loop; r1 and r2 are the memory and its size."""

NOT_HOISTED = {
    "another step in some rounds": (
        "mov r3, 0\nl: ldxb r4, [r1]\njeq r4, 9, n\nadd r1, 1\nn: add r1, 1\nadd r3, 1\njlt r3, 40, l\nexit"
    ),
    "a step from memory": "mov r3, 0\nl: ldxb r4, [r1]\nadd r1, r4\nadd r3, 1\njlt r3, 40, l\nexit",
    "a bound that changes": (
        "mov r6, r2\nmov r3, 0\nl: ldxb r4, [r1]\nadd r1, 1\nadd r3, 1\nsub r6, r4\njlt r3, r6, l\nexit"
    ),
    "rounds without the comparison": (
        "mov r3, 0\nl: ldxb r4, [r1]\nadd r1, 1\nadd r3, 1\njne r4, 9, l\njlt r3, 40, l\nexit"
    ),
    "it runs away": "mov r3, 50\nl: ldxb r4, [r1]\nadd r1, 1\nadd r3, 1\njgt r3, 40, l\nexit",
    "no multiple of the counter's step": (
        "mov r3, 0\nl: stxb [r1], r3\nadd r1, 1\nadd r3, 2\njlt r3, 40, l\nexit"
    ),
    "entered in two places": (
        "mov r3, 0\njeq r2, 33, m\nl: ldxb r4, [r1]\nm: add r1, 1\nadd r3, 1\njlt r3, 40, l\nexit"
    ),
    "signed, to a number from memory": (
        "ldxdw r6, [r1]\nadd r1, 40\nmov r3, 39\nl: sub r1, 1\nldxb r4, [r1]\nsub r3, 1\njsgt r3, r6, l\nexit"
    ),
    "from far below zero": (
        "mov r3, -600000000\nl: ldxb r4, [r1]\nadd r0, r4\nadd r1, 1\nadd r3, 1\njslt r3, 600000000, l\nexit"
    ),
    "signed, by halves": (
        "add r1, 40\nmov r3, 39\nl: sub r1, 1\nldxb r4, [r1]\nsub32 r3, 1\njsgt32 r3, -1, l\nexit"
    ),
}
"""Near misses of such loops, and others that are looked at round by round."""

LOOPS = HOISTED | NOT_HOISTED
BUILDS = ("native", "audit", "hardened", "baseline")


def judged(cases: Iterable[Case], builds: Sequence[str] = (), *, tiered: bool = False) -> None:
    """Assert that builds of cases (none: their own) do what the interpreter does; or `tiered` code."""
    ended = run_forked(lambda: list(problems(cases, builds, tiered)), 60)
    assert ended.value == [], ended


def problems(cases: Iterable[Case], builds: Sequence[str], tiered: bool) -> Iterator[str]:
    for case in cases:
        ready = prepared(case)
        if tiered:
            runners = {"tiered": on_tiered(case, ready, every=False)}
        else:
            runners = {each: runner_of(compiled_case(case, ready, each)) for each in builds or (case.build,)}
        judge = on_interpreter(case, ready)
        for given in case.inputs:
            outcomes = {"interpreter": judge(given)} | {name: run(given) for name, run in runners.items()}
            if differences(outcomes):
                yield f"{case.name}: {given}: {outcomes}"


@pytest.mark.parametrize("is_hoisted", [True, False])
def test_which_loops_are_asked_for_before_them(is_hoisted: bool) -> None:
    for name, text in (HOISTED if is_hoisted else NOT_HOISTED).items():
        listing = Program.from_bytes(assemble(text)).compile(optimize=True).listing()
        assert ("no check: made before the loop at pc " in listing) is is_hoisted, name


CONTENTS = (bytes(80), bytes([9] * 80), b"\x05" + bytes(79), b"\xff" * 80, b"\x0a" + b"\x01" * 79)
SIZES = (0, 1, 3, 4, 5, *range(37, 45), 80)
INPUTS = (
    *(Input(content[:size], 500, guard="after") for content in CONTENTS for size in SIZES),
    *(Input(bytes(size), 500, read_only=True, guard="before") for size in (*range(38, 43), 80)),
)


def test_engines_agree_at_every_bound() -> None:
    judged((Case(assemble(text), INPUTS, name=name) for name, text in LOOPS.items()), BUILDS)


def test_runs_that_come_in_from_other_code_are_asked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a loop: of what is left of it."""
    monkeypatch.setenv("EBPFJIT_TIERS", "on")
    given = INPUTS[::5]
    cases = (Case(assemble(text), given, "audit", name=name) for name, text in LOOPS.items())
    judged(cases, tiered=True)


# -- every stride ---------------------------------------------------------------------------------------

LENGTH = 40
"""Bytes of memory, or one less; the first says how many rounds there are: each program runs with many."""

SIZE_OF = {"b": 1, "h": 2, "w": 4, "dw": 8}


def upwards(stride: int, size: str, test: str, access: str) -> str:
    """A pointer that goes up by a stride, the counter by one or by the stride, to a bound in r6."""
    unit = stride if test == "jne" else 1
    return (
        f"ldxb r6, [r1]\nmul r6, {unit}\nmov r3, 0\nadd r1, 1\nl: {access}\nadd r1, {stride}\n"
        f"add r3, {unit}\n{test} r3, r6, l\nmov r0, r3\nexit"
    )


def downwards(stride: int, size: str, test: str, access: str) -> str:
    """The same from the memory's end, tested at the top."""
    leave = {"jlt": "jslt r6, 1", "jle": "jeq r6, 0", "jne": f"jlt r6, {stride}"}[test]
    unit = stride if test == "jne" else 1
    return (
        f"ldxb r6, [r1]\nmul r6, {unit}\nadd r1, r2\nsub r1, {SIZE_OF[size]}\nl: {leave}, out\n"
        f"{access}\nsub r1, {stride}\nsub r6, {unit}\nja l\nout: exit"
    )


def indexed(stride: int, size: str, test: str, access: str) -> str:
    """An index times the stride, from the memory's second byte on."""
    at_index = access.replace("r1", "r4")
    return (
        f"ldxb r6, [r1]\nmov r3, 0\nl: mov r4, r3\nmul r4, {stride}\nadd r4, r1\nadd r4, 1\n"
        f"{at_index}\nadd r3, 1\n{test} r3, r6, l\nexit"
    )


def at_the_end(stride: int, size: str) -> tuple[Input, ...]:
    """Return memory with numbers of rounds just below, at and above what fits."""
    fits = (LENGTH - 1 - SIZE_OF[size]) // stride + 1
    rounds = sorted({0, 1, *range(max(0, fits - 2), fits + 3), 255})
    return tuple(
        Input(bytes([number]) + bytes(range(length)), 300, number % 3 == 2, "after")
        for number in rounds
        for length in (LENGTH - 2, LENGTH - 1)
    )


def strides(loop: Callable[[int, str, str, str], str]) -> Iterator[Case]:
    """Yield a loop with every stride, size and test, as a load, a store, or an addition in memory."""
    for number, stride in enumerate((1, 2, 3, 4, 5, 8, 16)):
        for size in SIZE_OF:
            for test in ("jlt", "jle", "jne"):
                accesses = [f"ldx{size} r5, [r1]\nadd r0, r5", f"stx{size} [r1], r6"]
                number += 1
                text = loop(stride, size, test, accesses[number % 2])
                name = f"{loop.__name__} by {stride}, {size}, {test}, {accesses[number % 2]!r}"
                yield Case(assemble(text), at_the_end(stride, size), BUILDS[number // 2 % 2], name=name)


@pytest.mark.parametrize("loop", [upwards, downwards, indexed])
def test_engines_agree_with_every_stride(loop: Callable[[int, str, str, str], str]) -> None:
    judged(strides(loop))


# -- batches, and without Python's lock ------------------------------------------------------------------


def ending(run: Callable[[], object]) -> object:
    """Return what a run returns, or what it ends with."""
    try:
        return run()
    except ExecutionError as error:
        return type(error), error.pc


def batches() -> Iterator[str]:
    """Yield each loop that does otherwise in batches, or without Python's lock, than the interpreter does."""
    packets = [bytearray(content[:size]) for content in CONTENTS for size in SIZES]
    for name, text in LOOPS.items():
        program, limit = Program.from_bytes(assemble(text)), 500
        vm = EbpfVmRaw(program, instruction_limit=limit)
        wanted = [bytearray(packet) for packet in packets]
        endings = [ending(partial(vm.execute_program, packet)) for packet in wanted]
        for release_gil in (False, True):
            function = program.compile(optimize=True, release_gil=release_gil, limit=limit)
            called, mapped = ([bytearray(packet) for packet in packets] for _ in range(2))
            values = function.map(mapped, on_fault=FAULTED).tolist()
            if [ending(partial(function, packet)) for packet in called] != endings or called != wanted:
                yield f"{name}, called, {release_gil=}"
            if values != [FAULTED if isinstance(each, tuple) else each for each in endings]:
                yield f"{name}, in a batch, {release_gil=}"
            if mapped != wanted:
                yield f"{name}, in a batch, {release_gil=}: another memory"


FAULTED = 0xFA17


def test_calls_and_batches_do_what_the_interpreter_does() -> None:
    """With Python's lock and without it; each packet has a size of its own."""
    ended = run_forked(lambda: list(batches()), 60)
    assert ended.value == [], ended


RISING = HOISTED["a pointer that rises"]


@pytest.mark.parametrize("release_gil", [False, True])
def test_what_is_asked_is_asked_of_each_packet_of_a_batch(release_gil: bool) -> None:
    """Sizes and rights of the memory are other ones from packet to packet."""
    function = Program.from_bytes(assemble(RISING)).compile(optimize=True, release_gil=release_gil)
    fits, short, constant = bytearray(64), bytearray(39), bytes(64)
    for packets, index in (
        ([fits, short, fits], 1),
        ([fits, bytearray(40), constant], 2),
        ([constant], 0),
    ):
        for packet in (fits, short):
            packet[:] = bytes(len(packet))
        with pytest.raises(MemoryFault) as caught:
            function.map(packets)
        assert (caught.value.index, caught.value.pc, caught.value.access) == (index, 1, "store")
    function.map([short], on_fault=7)
    assert short == bytes(range(39))
    assert constant == bytes(64)
    assert function.map([fits, short, bytearray(40), constant, fits], on_fault=7).tolist() == [0, 7, 0, 7, 0]
    area = bytearray(3 * 41)
    assert function.map(area, stride=41).tolist() == [0, 0, 0]
    assert area == bytes([*range(40), 0]) * 3
    with pytest.raises(MemoryFault) as caught:
        function.map(area, offsets=[0, 41, 83], lengths=[41, 40, 39])
    assert caught.value.index == 2


# -- packets ----------------------------------------------------------------------------------------------

DATA_AND_END = "mov r6, r1\nldxw r2, [r1+{data}]\nldxw r7, [r1+{end}]\nmov r0, 0\n"
OUT = "\nout: exit"

SOMETIMES = {
    "farther, where it is asked": (
        "l: mov r3, r2\nadd r3, 1\njgt r3, r7, out\nldxb r4, [r2]\njset r4, 1, n\nmov r3, r2\nadd r3, 5\n"
        "jgt r3, r7, out\nldxb r4, [r2+4]\nadd r0, r4\nn: add r2, 1\nja l"
    ),
    "farther, where it is not asked": (
        "l: mov r3, r2\nadd r3, 1\njgt r3, r7, out\nldxb r4, [r2]\njset r4, 1, n\nldxb r4, [r2+1]\n"
        "add r0, r4\nn: add r2, 1\nja l"
    ),
    "farther down": (
        "mov r3, r7\nl: sub r3, 1\njlt r3, r2, out\nldxb r4, [r3]\njset r4, 1, n\nmov r5, r3\nsub r5, 4\n"
        "jlt r5, r2, out\nldxb r4, [r3-4]\nadd r0, r4\nn: ja l"
    ),
}
"""What not each round touches, and the loop's test says nothing of: that is asked where it is."""

ON_PACKETS = {
    "to the end": (
        "mov r3, r2\nadd r3, 1\njgt r3, r7, out\nl: ldxb r4, [r3-1]\nadd r0, r4\nadd r3, 1\njle r3, r7, l"
    ),
    "words to the end": (
        "l: mov r3, r2\nadd r3, 4\njgt r3, r7, out\nldxw r4, [r2]\nadd r0, r4\nadd r2, 4\nja l"
    ),
    "by three, stores": (
        "l: mov r3, r2\nadd r3, 3\njgt r3, r7, out\nstxb [r2+2], r0\nadd r0, 1\nadd r2, 3\nja l"
    ),
    "a number that a verifier wants": (
        "mov r5, 0\nl: mov r3, r2\nadd r3, r5\nadd r3, 2\njgt r3, r7, out\nldxh r4, [r3-2]\nadd r0, r4\n"
        "add r5, 2\njlt r5, 1500, l"
    ),
    "from the end": ("mov r3, r7\nl: sub r3, 1\njlt r3, r2, out\nldxb r4, [r3]\nadd r0, r4\nja l"),
    "a step past the end": ("l: ldxh r4, [r2]\nadd r0, r4\nadd r2, 2\njlt r2, r7, l"),
    "an end that is none": (
        "add r7, 1\nl: mov r3, r2\nadd r3, 1\njgt r3, r7, out\nstxb [r2], r0\nadd r2, 1\nja l"
    ),
    "a length that is wrong": (
        "ldxb r5, [r2+30]\nlsh r5, 3\nadd r5, r2\nl: jge r2, r5, out\nmov r3, r2\nadd r3, 1\n"
        "jgt r3, r7, out\nldxb r4, [r2]\nadd r0, r4\nadd r2, 1\nja l"
    ),
    "two tests, the second one stricter": (
        "l: mov r3, r2\nadd r3, 1\njgt r3, r7, out\nldxb r4, [r2]\nadd r0, r4\nmov r3, r2\nadd r3, 5\n"
        "jgt r3, r7, out\nldxb r4, [r2+4]\nxor r0, r4\nadd r2, 1\nja l"
    ),
    **SOMETIMES,
    "from in front of it": (
        "sub r2, 1\nl: mov r3, r2\nadd r3, 1\njgt r3, r7, out\nldxb r4, [r2]\nadd r0, r4\nadd r2, 1\nja l"
    ),
    "from the end to in front of it": (
        "sub r2, 1\nmov r3, r7\nl: sub r3, 1\njlt r3, r2, out\nldxb r4, [r3]\nadd r0, r4\nja l"
    ),
    "either, behind a choice": (
        "l: mov r3, r2\nadd r3, 2\njgt r3, r7, out\nldxb r4, [r2]\njset r4, 1, n\nldxb r5, [r2+1]\n"
        "add r0, r5\nn: add r2, 1\nja l"
    ),
}
"""What is asked of a packet before the loop; r2 and r7 are its ends, r6 the context."""

IN_STRUCTS = {
    "the context": "mov r3, r6\nadd r3, {data}\nmov r5, 0\n",
    "the context, as if it were the packet": (
        "mov r5, 77\nmov r3, r6\nadd r3, {data}\nsub r3, r2\nxor r3, r5\nxor r3, r5\nadd r2, r3\n"
        "mov r3, r2\nmov r5, 0\n"
    ),
}
IN_LINE = {
    "words": "ldxw r4, [r3]\nldxw r5, [r3+4]\nja out",
    "halves": "ldxh r4, [r3]\nldxh r5, [r3+2]\nja out",
    "halves in a loop": "l: ldxh r4, [r3]\nadd r3, 2\nadd r5, 1\njlt r5, 2, l",
    "words in a loop": "l: ldxw r4, [r3]\nadd r3, 4\nadd r5, 1\njlt r5, 2, l",
    "stores": "stxw [r3+4], r0\nldxw r4, [r3+4]\nja out",
}
FIELDS = {"xdp": {"data": 0, "end": 4}, "tc": {"data": 76, "end": 80}, "cgroup_skb": {"data": 76, "end": 80}}
WAYS = (
    ("optimized", "native"),
    *(("jit", build) for build in BUILDS[:3]),
    ("gate", "native"),
    ("tiered", "audit"),
)


def typed_cases() -> Iterator[Case]:
    frame = bytes([9] * 12) + b"\x08\x00\x45" + bytes(range(60))
    bodies = ON_PACKETS | {
        f"{name}, {where}": start + body
        for where, start in IN_STRUCTS.items()
        for name, body in IN_LINE.items()
    }
    for number, (name, text) in enumerate(bodies.items()):
        type_, fields = [*FIELDS.items()][number % len(FIELDS)]
        code = assemble((DATA_AND_END + text + OUT).format(**fields))
        sizes = (34, 37) if name in ON_PACKETS else (34,)
        yield Case(code, tuple(Input(frame[:size], 500) for size in sizes), type=type_, name=name)


def typed_problems(cases: Iterable[Case]) -> Iterator[str]:
    for case in cases:
        judge = runner(case, "interpreter")
        runners = {f"{engine}, {build}": runner(replace(case, build=build), engine) for engine, build in WAYS}
        for given in case.inputs:
            outcomes = {"interpreter": judge(given)} | {name: run(given) for name, run in runners.items()}
            if differences(outcomes):
                yield f"{case.name}, {case.type}: {given}: {outcomes}"


def test_packets_are_asked_for_as_a_whole_and_structs_by_access() -> None:
    ended = run_forked(lambda: list(typed_problems(typed_cases())), 100)
    assert ended.value == [], ended


@pytest.mark.parametrize("type_", ["xdp", "tc"])
def test_which_loops_over_packets_are_asked_for_before_them(type_: str) -> None:
    fields = FIELDS[type_]
    for name, text in ON_PACKETS.items():
        code = assemble((DATA_AND_END + text + OUT).format(**fields))
        listing = Program(code, type=type_).compile(optimize=True).listing()
        assert "no check: made before the loop at pc " in listing, name
        if name in SOMETIMES:
            assert " of the packet" in listing, name
    for name, start in IN_STRUCTS.items():
        for body in IN_LINE.values():
            code = assemble((DATA_AND_END + start + body + OUT).format(**fields))
            listing = Program(code, type=type_).compile(optimize=True).listing()
            assert "before the loop" not in listing or name != "the context", (name, body)


def test_more_sizes_than_there_are_words_for_limits() -> None:
    """Each pointer is asked for as many bytes as no other: by the packet's size where no word is left."""
    parts = [
        f"ldxb r4, [r2+{number % 14}]\nand r4, 1\nmov r3, r2\nadd r3, r4\n"
        f"ldxb r4, [r3]\nadd r0, r4\nstxb [r3+{number}], r0"
        for number in range(1, MOST_LIMITS + 12)
    ]
    code = assemble((DATA_AND_END + "\n".join(parts) + OUT).format(**FIELDS["xdp"]))
    sizes = (100, MOST_LIMITS + 5, MOST_LIMITS + 20)
    given = tuple(Input(bytes(range(1, size + 1)), 5000) for size in sizes)
    case = Case(code, given, type="xdp", name="many sizes")
    ended = run_forked(lambda: list(typed_problems([case])), 60)
    assert ended.value == [], ended
    listing = Program(code, type="xdp").compile(optimize=True).listing()
    assert f"; checked: {MOST_LIMITS + 8} bytes of the packet" in listing


def test_a_comparison_with_the_end_stands_for_all_that_it_speaks_of() -> None:
    """Behind it one check is left, whatever the blocks are."""
    text = (
        "mov r3, r2\nadd r3, 34\njgt r3, r7, out\nldxh r4, [r2+12]\njne r4, 8, out\nldxb r0, [r2+23]\n"
        "jne r0, 6, out\nldxw r0, [r2+26]\nldxw r5, [r2+30]\nstxw [r2+26], r5\nstxw [r2+30], r0"
    )
    code = assemble((DATA_AND_END + text + OUT).format(**FIELDS["xdp"]))
    listing = Program(code, type="xdp").compile(optimize=True).listing()
    listing = listing[: listing.index("\n; baseline code, ")]
    assert listing.count("; checked") == 1
    assert "; checked: 34 bytes of the packet" in listing


def test_what_is_asked_on_packets_of_programs_with_a_type() -> None:
    """The packet lies between pointers in its context, and grows no larger than it is."""
    text = (
        "ldxw r2, [r1]\nldxw r4, [r1+4]\nmov r0, 1\nmov r3, 0\nl: ldxb r5, [r2]\nadd r3, r5\nadd r2, 1\n"
        "jlt r2, r4, l\nmov r0, r3\nexit"
    )
    program = Program(assemble(text), type="xdp")
    packet = bytes(range(60)) * 2
    function = program.compile(optimize=True)
    assert function(packet) == sum(packet) == program.run(packet, engine="interpreter").return_value
    assert function.map([packet, packet[:14]]).tolist() == [sum(packet), sum(packet[:14])]
    beyond = Program(assemble(text.replace("jlt r2, r4", "jle r2, r4")), type="xdp")
    pcs = set()
    for run in (beyond.compile(optimize=True), lambda data: beyond.run(data, engine="interpreter")):
        with pytest.raises(MemoryFault) as caught:
            run(packet)
        pcs.add((caught.value.pc, caught.value.access, caught.value.size))
    assert pcs == {(4, "load", 1)}
