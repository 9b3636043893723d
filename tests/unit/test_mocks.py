"""`ebpfjit.mocks`: helpers of a test's own get what prototypes say, on both engines."""

from __future__ import annotations

import ctypes
from pathlib import Path
from unittest.mock import Mock

import pytest

from ebpfjit import ExecutionError, InputError, MemoryFault, Program, load
from ebpfjit.literals import EngineName
from ebpfjit.mocks import typed, typed_kfuncs

ENGINES: tuple[EngineName, ...] = ("interpreter", "jit")
FIB = """
    r6 = r1
    *(u32 *)(r10 - 16) = 7
    r2 = r10
    r2 += -16
    r3 = 4
    r4 = -1
    call 69
    r7 = *(u32 *)(r10 - 16)
    r0 += r7
    exit
"""
PORT_FILTER = Path(__file__).parents[2] / "examples" / "packets" / "xdp_port_filter.o"


@pytest.mark.parametrize("engine", ENGINES)
def test_memory_is_seen_and_written(engine: EngineName) -> None:
    def lookup(context: int, params: memoryview, size: int, flags: int) -> int:
        assert (bytes(params), size, flags) == (b"\7\0\0\0", 4, 0xFFFFFFFF)
        assert context
        params[0] = 40
        return 2

    fib = Mock(side_effect=lookup)
    result = Program.from_assembly(FIB, type="xdp").run(
        bytes(60),
        engine=engine,
        helpers=typed({"bpf_fib_lookup": fib}),
    )
    assert result.return_value == 42
    assert bytes(fib.call_args.args[1]) == b"\50\0\0\0"
    fib.assert_called_once()


@pytest.mark.parametrize("engine", ENGINES)
def test_maps_and_keys(engine: EngineName) -> None:
    program = load(PORT_FILTER).program("port_filter")
    seen = []

    def lookup(map_: object, key: memoryview) -> None:
        seen.append((map_, bytes(key)))

    result = program.run(bytes(60), engine=engine, helpers=typed({"bpf_map_lookup_elem": lookup}))
    assert result.action == "XDP_PASS"
    (counters,) = [map_ for map_ in program.maps if map_.definition.name == "counters"]
    assert seen == [(counters, b"\2\0\0\0")]


@pytest.mark.parametrize("engine", ENGINES)
def test_null_signed_and_foreign_pointers(engine: EngineName) -> None:
    text = "r1 = 0\nr2 = {}\nr3 = {}\nr4 = -5\nr5 = 0\ncall 69\nexit"
    fib = Mock(return_value=None)
    helpers = typed({"bpf_fib_lookup": fib})
    assert Program.from_assembly(text.format(0, -3)).run(engine=engine, helpers=helpers).return_value == 0
    fib.assert_called_with(0, None, -3, 0xFFFFFFFB)
    with pytest.raises(MemoryFault):
        Program.from_assembly(text.format(64, 8)).run(engine=engine, helpers=helpers)
    assert fib.call_count == 1


def test_names_and_functions_are_looked_at() -> None:
    with pytest.raises(InputError, match="no helper 'bpf_nothing'"):
        typed({"bpf_nothing": print})
    with pytest.raises(TypeError, match="cannot be called"):
        typed({"bpf_redirect": 5})  # type: ignore[dict-item]


@pytest.mark.parametrize("engine", ENGINES)
def test_kernel_functions_get_what_btf_says(engine: EngineName) -> None:
    obj = load(PORT_FILTER.parents[2] / "tests" / "elf" / "own_kfuncs.o")
    entry = bytearray(b"\x05\0\0\0\0\0\0\0")
    lookup, release = Mock(return_value=entry), Mock(return_value=None)
    program = obj.program("looked_up")
    given = typed_kfuncs(program, {"my_lookup": lookup, "my_release": release})
    assert program.run(bytes(60), engine=engine, kfuncs=given).return_value == 5
    _, key, size = lookup.call_args.args
    assert (bytes(key), size) == (b"\7\0\0\0", 4)
    assert bytes(release.call_args.args[0]) == b"\x05\0\0\0\x1e\0\0\0"

    def releasing(found: memoryview) -> None:
        found[0] = 9

    given = typed_kfuncs(program, {"my_lookup": lambda *_: entry, "my_release": releasing})
    program.run(bytes(60), engine=engine, kfuncs=given)
    assert entry[0] == 9
    numbers = typed_kfuncs(obj.program("numbers"), {"my_difference": lambda *given: sum(given) % 100})
    assert obj.program("numbers").run(bytes(60), engine=engine, kfuncs=numbers).return_value == 71
    nothing = typed_kfuncs(program, {"my_lookup": lambda *_: None, "my_release": release})
    assert program.run(bytes(60), engine=engine, kfuncs=nothing).return_value == 99
    with pytest.raises(InputError, match="declares no kernel function 'absent'"):
        typed_kfuncs(program, {"absent": release})
    with pytest.raises(TypeError, match="cannot be called"):
        typed_kfuncs(program, {"my_lookup": 3})  # type: ignore[dict-item]


def _fib(engine: EngineName, returned: object) -> object:
    fib = Mock(return_value=returned)
    return Program.from_assembly(FIB).run(engine=engine, helpers=typed({69: fib})).return_value


@pytest.mark.parametrize("engine", ENGINES)
def test_results_are_integers_or_nothing(engine: EngineName) -> None:
    """Not what int() makes of text, bytes and fractions: a mock that returns such things is a mistake."""
    assert [_fib(engine, each) for each in (-1, 1 << 64, None, True)] == [6, 7, 7, 8]
    for wrong in ("12", 1.5, float("nan"), [1], Mock()):
        with pytest.raises(TypeError, match=r"^helper bpf_fib_lookup returned .*; it returns an integer"):
            _fib(engine, wrong)
    with pytest.raises(ExecutionError, match=r"pc 6: bpf_fib_lookup returned a buffer \(bytes\), and is"):
        _fib(engine, b"12")


LOOKED_UP = """
    *(u32 *)(r10 - 4) = 0
    r2 = r10
    r2 += -4
    r1 = 0
    call 1
    if r0 == 0 goto missing
    r1 = *(u64 *)(r0 + 0)
    *(u64 *)(r0 + 0) = 7
    r0 = r1
    exit
missing:
    r0 = 99
    exit
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_helpers_that_return_pointers_may_return_memory(engine: EngineName) -> None:
    value = bytearray(b"\5\0\0\0\0\0\0\0")
    program = Program.from_assembly(LOOKED_UP)

    def run(returned: object) -> int:
        helpers = typed({"bpf_map_lookup_elem": lambda map_, key: returned})
        return program.run(engine=engine, helpers=helpers).return_value

    assert (run(value), run(None)) == (5, 99)
    assert value[0] == 7
    assert run((ctypes.c_uint64 * 1)(6)) == 6
    with pytest.raises(MemoryFault, match="memory of bpf_map_lookup_elem is read-only"):
        run(bytes(8))
    with pytest.raises(MemoryFault, match="outside"):
        run(bytearray(7))


@pytest.mark.parametrize("engine", ENGINES)
def test_memory_of_a_size_that_the_helper_knows(engine: EngineName) -> None:
    """Such as the number that bpf_strtol writes, the headers that SYN cookies are made of."""
    text = """
        *(u64 *)(r10 - 16) = 0x3231
        *(u64 *)(r10 - 8) = 0
        r1 = r10
        r1 += -16
        r2 = 2
        r3 = 0
        r4 = r10
        r4 += -8
        call 105
        r0 = *(u64 *)(r10 - 8)
        exit
    """

    def strtol(text: memoryview, size: int, flags: int, result: memoryview) -> None:
        assert (bytes(text), size, flags, len(result)) == (b"12", 2, 0, 8)
        result[0] = 12

    program = Program.from_assembly(text)
    assert program.run(engine=engine, helpers=typed({"bpf_strtol": strtol})).return_value == 12


@pytest.mark.parametrize("engine", ENGINES)
def test_memory_keeps_its_size(engine: EngineName) -> None:
    def growing(context: int, params: memoryview, *_: int) -> None:
        under = params.obj
        params.release()
        under.extend(bytes(100))  # type: ignore[attr-defined]  # of a memoryview whose owner is known

    with pytest.raises(BufferError):
        Program.from_assembly(FIB).run(engine=engine, helpers=typed({"bpf_fib_lookup": growing}))


def test_what_is_no_mapping_or_name_is_said() -> None:
    program = load(PORT_FILTER.parents[2] / "tests" / "elf" / "own_kfuncs.o").program("looked_up")
    with pytest.raises(InputError, match="no helper 'fib_lookup': did you mean 'bpf_fib_lookup'"):
        typed({"fib_lookup": print})
    for wrong, said in (([69], "not a list"), (None, "not a NoneType"), ({6.5: print}, "not 6.5")):
        with pytest.raises(TypeError, match=said):
            typed(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=said):
            typed_kfuncs(program, wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"not 6\.5"):
        program.run(bytes(60), kfuncs={6.5: print})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="those of a Program, not of a str"):
        typed_kfuncs("looked_up", {})  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ENGINES)
def test_kernel_functions_by_number_and_memory_of_any_kind(engine: EngineName) -> None:
    program = load(PORT_FILTER.parents[2] / "tests" / "elf" / "own_kfuncs.o").program("looked_up")
    numbers = {called.name: number for number, called in program.kfuncs.items()}
    entry = (ctypes.c_uint32 * 2)(5, 0)
    functions = {numbers["my_lookup"]: lambda *_: entry, numbers["my_release"]: lambda _: None}
    given = typed_kfuncs(program, functions)
    assert program.run(bytes(60), engine=engine, kfuncs=given).return_value == 5
    assert list(entry) == [5, 30]
    with pytest.raises(TypeError, match="kfunc my_lookup returned 'x', of type str"):
        program.run(bytes(60), engine=engine, kfuncs={**given, "my_lookup": lambda *_: "x"})
    with pytest.raises(InputError, match="declares no kernel function 7"):
        typed_kfuncs(program, {7: print})
