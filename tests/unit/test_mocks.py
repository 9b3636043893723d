"""`ebpfjit.mocks`: helpers of a test's own get what prototypes say, on both engines."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest

from ebpfjit import InputError, MemoryFault, Program, load
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
