"""Whoever comes into a function, by whatever way: nothing is believed of it that does not hold on all ways.

Each program is run by the interpreter and as machine code, optimised and not, and all must agree: result,
memory, fault and what is left of the budget.
"""

from __future__ import annotations

import inspect
import struct
from collections.abc import Callable, Mapping

import pytest

from ebpfjit import EbpfVmRaw, address_of
from ebpfjit.analysis.entries import Way
from ebpfjit.analysis.verified import prepare
from ebpfjit.assembler import assemble
from ebpfjit.difftest.children import run_forked
from ebpfjit.errors import EbpfError, ExecutionError
from ebpfjit.interpreter import interpret
from ebpfjit.jit.entry import compile_program
from ebpfjit.options import Options
from ebpfjit.program import Program
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.execution import CODE_ADDRESS, Execution, HelperFunction
from ebpfjit.runtime.helpers import table
from ebpfjit.runtime.maps.creation import create
from ebpfjit.runtime.maps.definition import MapDefinition, MapType
from ebpfjit.runtime.memory import Region
from ebpfjit.runtime.world import Engine, World, current

FOR_EACH, LOOP, TAIL_CALL = 164, 181, 12
CALL, CALL_ALL, FORGIVE, LEAVE = 1000, 1001, 1002, 1003
Outcome = tuple[object, ...]


def engine() -> Engine:
    world = current()
    assert world is not None
    assert world.engine is not None
    return world.engine


def call(function: int, r2: int, r3: int, r4: int, r5: int) -> int:
    return engine().call_function(function, (r2, r3, r4, r5))


def call_all(function: int, r2: int, r3: int, r4: int, r5: int) -> int:
    return engine().call_function(function, (-1, 1 << 65 | 7, r2, r3, r4))


def forgive(function: int, r2: int, r3: int, r4: int, r5: int) -> int:
    try:
        return engine().call_function(function, (r2,))
    except ExecutionError:
        return 99


def leave(value: int, raises: int, r3: int, r4: int, r5: int) -> int:
    engine().leave_function()
    if raises:
        raise ExecutionError("after it asked to leave")
    return value


HELPERS: dict[int, HelperFunction] = {
    **table.bound(),
    CALL: call,
    CALL_ALL: call_all,
    FORGIVE: forgive,
    LEAVE: leave,
}


def lddw(register: int, number: int) -> bytes:
    low, high = struct.unpack("<ii", struct.pack("<Q", number & (1 << 64) - 1))
    return struct.pack("<BBhiBBhi", 0x18, register, 0, low, 0, 0, 0, high)


def function(register: int, pc: int, target: int) -> bytes:
    """The load of a function's address, at slot `pc`."""
    return struct.pack("<BBhiBBhi", 0x18, 4 << 4 | register, 0, target - pc - 1, 0, 0, 0, 0)


def _outcome(run: Callable[[Execution], int], limit: int | None) -> Outcome:
    memory = bytearray(range(64, 128))
    region = Region.of_buffer("mem", memory)
    execution = Execution(
        (region.start, region.size),
        [region],
        region,
        region,
        HELPERS,
        limit=limit,
        world=World(Environment()),
    )
    left = memory
    try:
        result: Outcome = (run(execution),)
    except ExecutionError as error:
        # The stacks of two runs are at different places.
        result = (
            type(error).__name__,
            error.pc,
            str(error).split(" at 0x")[0],
            str(error).partition(": outside")[2],
        )
    return *result, bytes(left), execution.budget_left


def agree(code: bytes | Program, limit: int | None = 10_000, seconds: float = 60) -> Outcome:
    """Return what all ways to run a program come to: (r0, memory, budget), or the fault and those."""
    verified = prepare(code if isinstance(code, Program) else Program.from_bytes(code))

    def machine(*, optimize: bool) -> Callable[[Execution], int]:
        return compile_program(verified, Options(optimize=optimize), HELPERS).run

    def job() -> list[Outcome]:
        runs = [lambda e: interpret(verified, e), machine(optimize=True), machine(optimize=False)]
        return [_outcome(run, limit) for run in runs]

    ended = run_forked(job, seconds)
    assert ended.value is not None, ended
    first, *others = ended.value
    assert others == [first] * len(others)
    return tuple(first)


DUMP = "".join(f"stxdw [r10-{8 * (n + 1)}], r{n}\n" for n in range(10))
SUM = "mov r0, 0\n" + "".join(f"ldxdw r1, [r10-{8 * (n + 1)}]\nlsh r0, 7\nadd r0, r1\n" for n in range(1, 10))


# -- function 0 called back -------------------------------------------------------------------------


def _taken(register: int, pc: int, target: int) -> bytes:
    return function(register, pc, target)


def _forged(register: int, pc: int, target: int) -> bytes:
    return lddw(register, CODE_ADDRESS + target)


NAMES = {"taken": _taken, "forged": _forged}
ACCESSES = {
    "load": "ldxdw r0, [r5-8]\nstxdw [r3+0], r0",
    "store": "lddw r0, 0x5a5a5a5a5a5a5a5a\nstxdw [r5-8], r0",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("access", ACCESSES)
def test_main_as_a_callback_does_not_know_its_registers(name: str, access: str) -> None:
    """In the callback r4 is what main chose: r10 + r4 is any address of the process."""
    text = assemble
    secret = bytearray(b"SECRET!!" * 4)
    array = create(MapDefinition("array", MapType.ARRAY, 4, 8, 1))
    code = (
        text("jne r4, 0, +12")  # 0: in the callback r4 is what main chose
        + struct.pack("<BBhiBBhi", 0x18, 5 << 4 | 1, 0, 0, 0, 0, 0, 0)  # 1: the map
        + NAMES[name](2, 3, 0)  # 3: main itself
        + lddw(3, address_of(secret) + 8)  # 5
        + text("sub r3, r10\nadd r3, 512\nmov r4, 0")  # 7: from the callback's r10
        + text(f"call {FOR_EACH}\nmov r0, 0\nexit")
        + text(f"mov r5, r10\nadd r5, r4\n{ACCESSES[access]}\nmov r0, 1\nexit")  # 13
    )
    program = Program(code, name="t", type="xdp", references={1: array.address}, maps=(array,))

    def job(engine: str) -> str:
        try:
            program.run(bytes(64), engine=engine)
        except EbpfError as error:
            return f"{type(error).__name__} {error.pc}"  # type: ignore[attr-defined]  # it is a fault
        return "it went through"

    for engine in ("interpreter", "jit"):
        ended = run_forked(lambda engine=engine: job(engine), 60)  # type: ignore[misc]
        assert ended.value == f"MemoryFault {15 if access == 'load' else 17}", (engine, ended)
    assert secret == b"SECRET!!" * 4


@pytest.mark.parametrize("name", NAMES)
def test_main_as_a_callback_does_not_take_r1_for_the_context(name: str) -> None:
    code = (
        assemble("jeq r2, 1, +7\nmov r1, 1")
        + NAMES[name](2, 2, 0)
        + assemble(f"mov r3, 1\nmov r4, 0\ncall {LOOP}\nexit\nldxw r0, [r1+0]\nexit")
    )
    for type_ in ("xdp", "tc", None):
        program = Program(code, name="t", type=type_)
        texts = []
        for engine in ("interpreter", "jit"):

            def job(program: Program = program, engine: str = engine) -> str:
                try:
                    return str(program.run(bytes(64), engine=engine).return_value)
                except EbpfError as error:
                    return str(error)

            texts.append(run_forked(job, 60).value)
        assert texts[0] == texts[1]
        assert texts[0].startswith("pc 8: load of 4 bytes at 0x0: outside")


# -- registers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("helper", [CALL, CALL_ALL])
@pytest.mark.parametrize("place", ["main", "a function"])
def test_registers_of_a_callback(place: str, name: str, helper: int) -> None:
    """r1 to r5 are the helper's, modulo 2**64; all others are zero; the caller's come back."""
    start = assemble("".join(f"mov r{n}, {n * 11}\n" for n in (0, 6, 7, 8, 9)))
    after = assemble("add r0, r6\nadd r0, r7\nadd r0, r8\nadd r0, r9\nexit")
    setup = assemble(f"mov r2, -5\nmov r3, 3\nmov r4, 4\nmov r5, 5\ncall {helper}")
    told = assemble("jeq r4, 5, +18\njeq r2, 7, +17")  # main tells by these whether it is called back
    target = 0 if place == "main" else 19
    code = told + start + NAMES[name](1, 7, target) + setup + after + assemble(DUMP + SUM + "exit")
    numbers = [-5, 3, 4, 5, 0] if helper == CALL else [-1, 7, -5, 3, 4]
    expected = 0
    for number in [*numbers, 0, 0, 0, 0]:
        expected = (expected << 7) + number
    expected += 11 * (6 + 7 + 8 + 9)
    assert agree(Program(code, symbols={19: "dump"}))[0] == expected & (1 << 64) - 1


@pytest.mark.parametrize("target", range(-1, 9))
def test_only_starts_of_functions_are_called_back(target: int) -> None:
    """Any of them may be, with a number that no instruction takes; all else is the same fault everywhere."""
    code = (
        lddw(1, CODE_ADDRESS + target)
        + assemble(f"mov r2, 0\ncall {CALL}\nexit")
        + assemble("call local f\nexit\nf: mov r0, 77\nexit")
    )
    outcome = agree(code)
    expected: dict[int, object] = {0: "CallDepthExceeded", 7: 77}
    assert outcome[0] == expected.get(target, "IllegalInstruction")


def test_a_function_that_only_a_symbol_names_is_called_back() -> None:
    code = lddw(1, CODE_ADDRESS + 4) + assemble(f"call {CALL}\nexit\nmov r0, 5\nexit")
    assert agree(Program(code, symbols={4: "f"}))[0] == 5
    assert agree(Program(code))[0] == "IllegalInstruction"


# -- frames, depth, loops ---------------------------------------------------------------------------


@pytest.mark.parametrize("depth", range(1, 8))
def test_a_callback_that_faults_deep_inside_gives_its_frames_back(depth: int) -> None:
    """A helper that forgives may do so for ever, and all frames are there each time."""
    chain = "".join(f"f{n}: call local f{n + 1}\nexit\n" for n in range(1, depth))
    text = (
        f"mov r6, 20\nagain: lddw r1, f1\ncall {FORGIVE}\nadd r7, r0\nsub r6, 1\njne r6, 0, again\n"
        f"mov r0, r7\nexit\n{chain}f{depth}: ldxb r0, [r0+0]\nexit"
    )
    assert agree(assemble(text))[0] == 20 * 99


def test_callbacks_in_callbacks_are_counted() -> None:
    text = f"lddw r1, f\ncall {CALL}\nexit\nf: lddw r1, f\ncall {CALL}\nadd r0, 1\nexit"
    assert agree(assemble(text))[:2] == ("CallDepthExceeded", 6)
    text = f"mov r1, 3\nlddw r2, f\nmov r3, 0\nmov r4, 0\ncall {LOOP}\nexit\nf: mov r1, 2\nlddw r2, g\n"
    text += f"mov r3, 0\nmov r4, 0\ncall {LOOP}\nmov r0, 0\nexit\ng: mov r0, 0\nexit"
    assert agree(assemble(text))[0] == 3


def test_may_goto_counts_for_each_callback() -> None:
    text = (
        f"mov r6, 3\nl: may_goto out\nlddw r1, f\ncall {CALL}\nadd r7, r0\nsub r6, 1\njne r6, 0, l\n"
        "out: mov r0, r7\nexit\nf: mov r1, 9\nk: may_goto end\nsub r1, 1\njne r1, 0, k\n"
        "mov r0, 5\nexit\nend: mov r0, 1\nexit"
    )
    assert agree(assemble(text))[0] == 15


# -- ends of functions ------------------------------------------------------------------------------


@pytest.mark.parametrize("helper", [LEAVE, TAIL_CALL])
def test_what_a_function_that_a_helper_ends_leaves_in_registers(helper: int) -> None:
    """r1 to r5 are zero behind any call of a helper, also where the function ends with it."""
    text = (
        "call local f\nor r0, r1\nor r0, r2\nor r0, r3\nor r0, r4\nor r0, r5\nexit\n"
        f"f: mov r1, 64\nmov r2, 0\nmov r3, 3\nmov r4, 4\nmov r5, 5\ncall {LEAVE}\nmov r0, 1\nexit"
    )
    assert agree(assemble(text))[0] == 64


def test_a_request_to_leave_ends_with_the_callback_that_made_it() -> None:
    text = (
        f"lddw r1, f\ncall {FORGIVE}\nmov r6, r0\nmov r1, 0\nlddw r1, g\ncall {CALL}\nadd r0, r6\nexit\n"
        f"f: mov r1, 5\nmov r2, 1\ncall {LEAVE}\nexit\ng: mov r1, 5\nmov r2, 0\ncall {LEAVE}\nmov r0, 9\nexit"
    )
    assert agree(assemble(text))[0] == 99 + 5


def test_a_tail_call_in_a_callback_leaves_nothing_of_the_host() -> None:
    other = Program(assemble("mov r0, 7\nexit"), name="other", type="xdp")
    programs = create(MapDefinition("programs", MapType.PROG_ARRAY, 4, 4, 1))
    programs[0] = other
    code = (
        function(2, 0, 15)  # 0
        + assemble(f"mov r6, r1\nmov r3, r1\nmov r1, 2\nmov r4, 0\ncall {LOOP}\nmov r7, r0")  # 2
        + assemble("mov r1, r6\ncall local +5\nlsh r7, 32\nor r0, r7\nor r0, r1\nor r0, r5\nexit")  # 8
        + struct.pack("<BBhiBBhi", 0x18, 5 << 4 | 2, 0, 0, 0, 0, 0, 0)  # 15
        + assemble(f"jle r1, 8, +1\nja +1\nmov r1, r6\nmov r3, 0\ncall {TAIL_CALL}\nmov r0, 1\nexit")
    )
    program = Program(code, name="t", type="xdp", references={15: programs.address}, maps=(programs,))
    results = [
        run_forked(lambda engine=engine: program.run(bytes(64), engine=engine).return_value, 60).value  # type: ignore[misc]
        for engine in ("interpreter", "jit")
    ]
    assert results[0] is not None
    assert results[0] == results[1]


# -- jumps from one function into another -----------------------------------------------------------

CROSSINGS = {
    "into a larger frame": (
        "call local f\nexit\ng: stxdw [r10-64], r1\nldxdw r0, [r10-64]\nexit\nf: ja g",
        {0: 64, 5: 16},
    ),
    "into the middle": (
        "call local f\nmov r1, 3\nmiddle: ldxdw r0, [r10-56]\nadd r0, r1\nexit\nf: mov r1, 2\nja middle",
        {0: 64, 5: 48},
    ),
    "falling through": (
        "call local f\nexit\nf: mov r1, 2\ng: stxdw [r10-40], r1\nldxdw r0, [r10-40]\nexit\n"
        "h: call local g\nexit",
        {0: 64, 2: 32, 3: 64, 6: 64},
    ),
    "into main": (
        "jeq r1, 0, out\nldxb r2, [r1+3]\ncall local f\nout: exit\nf: mov r1, 0\nja -6",
        {0: 64, 4: 0},
    ),
    "a function that calls main": (
        "jeq r2, 5, out\nmov r2, 5\nadd r1, 60\ncall local -4\nldxb r0, [r1+0]\nexit\n"
        "out: ldxb r0, [r1+7]\nexit",
        {0: 64},
    ),
}


@pytest.mark.parametrize("name", CROSSINGS)
def test_functions_that_share_code_run_on_their_own_frames(name: str) -> None:
    text, sizes = CROSSINGS[name]
    code = assemble(text)

    def job(engine: str, *, optimize: bool) -> object:
        vm = EbpfVmRaw(optimize=optimize)
        vm.set_stack_usage_calculator(lambda _, pc: sizes.get(pc, 16))
        vm.set_program(code)
        if engine == "execute_program_jit":
            vm.jit_compile()
        try:
            return getattr(vm, engine)(memory)
        except EbpfError as error:
            return str(error).split(" at 0x")[0] + str(error).partition(":")[2].partition(":")[2]

    memory = bytes(range(64))
    found = [
        run_forked(lambda e=engine, o=optimize: job(e, optimize=o), 60).value  # type: ignore[misc]
        for engine, optimize in (
            ("execute_program", True),
            ("execute_program_jit", True),
            ("execute_program_jit", False),
        )
    ]
    assert found[0] is not None
    assert found == found[:1] * 3


# -- the list ---------------------------------------------------------------------------------------


def ways(text: str, calling: frozenset[int] | None = None) -> Mapping[int, frozenset[Way]]:
    verified = prepare(Program.from_bytes(assemble(text)))
    return verified.entries_with(calling).ways


START = {Way.START, Way.TAIL_CALL, Way.TIER_CHANGE}


def test_the_ways_into_a_program() -> None:
    plain = ways("l: jeq r1, 5, out\ncall local f\nja l\nout: exit\nf: exit")
    assert plain == {
        0: {*START, Way.JUMP},
        1: {Way.JUMP},
        2: {Way.JUMP},
        3: {Way.JUMP, Way.TIER_CHANGE},
        4: {Way.LOCAL_CALL, Way.TIER_CHANGE},
    }
    assert ways("call local main\nexit".replace("main", "-1"))[0] == {*START, Way.LOCAL_CALL}
    assert ways("callx r3\nexit")[0] == {*START, Way.CALLX}


def test_only_a_helper_that_may_call_functions_makes_callbacks() -> None:
    text = "call 1000\ncall local f\nexit\nf: exit"
    both = ways(text)
    assert (both[0], both[3]) == ({*START, Way.CALLBACK}, {Way.LOCAL_CALL, Way.CALLBACK, Way.TIER_CHANGE})
    assert ways(text, frozenset({1000})) == both
    harmless = ways(text, frozenset({1001}))
    assert (harmless[0], harmless[3]) == (START, {Way.LOCAL_CALL, Way.TIER_CHANGE})
    assert Way.CALLBACK in ways("call kfunc 3\nexit", frozenset())[0]


CALLING = ("call_function", "set_callback", "_drain(")
"""What calls a function of the program: at once, when a timer fires, for each record."""


def test_helpers_that_call_functions_say_so() -> None:
    """Machine code has no way in for a helper that does not; the interpreter would let it."""
    for helper in table.helpers().values():
        module = inspect.getsource(inspect.getmodule(helper.function))  # type: ignore[arg-type]
        source = inspect.getsource(helper.function)
        calls = any(word in source for word in CALLING)
        assert helper.calls_functions == calls, helper.name
        assert helper.calls_functions or "call_function" not in module or helper.name.startswith("bpf_")
