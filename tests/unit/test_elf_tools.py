"""What tracing tools set before they load an object, and the packets of functions that they trace."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import Environment, ExecutionError, LoadError, MapRefused, MemoryFault, kernel, load
from ebpfjit.runtime.maps.definition import MapType
from ebpfjit.runtime.objects import KernelPointer

TOOLS = Path(__file__).parents[1] / "elf" / "tools.o"
EXTERNS = TOOLS.with_name("externs.o")
ADDRESS = 0xFFFF_8880_1234_0000
PACKET = bytes(range(40))
needs_kernel = pytest.mark.skipif(
    kernel.unavailable_reason() is not None, reason=str(kernel.unavailable_reason())
)
ENGINES = ("interpreter", "jit", pytest.param("kernel", marks=needs_kernel))
engines = pytest.mark.parametrize("engine", ["interpreter", "jit"])


# -- sizes and types -------------------------------------------------------------------------------


@engines
def test_a_stack_map_has_the_depth_that_the_user_gives(engine: str) -> None:
    obj = load(TOOLS, maps={"stacks": {"value_size": 16, "max_entries": 64}})
    environment = Environment(stack=(1, 2, 3))
    number = obj.program("profile").run(bytes(256), engine=engine, environment=environment).return_value
    assert obj.maps["stacks"][number] == struct.pack("<2Q", 1, 2)


def test_a_stack_map_without_a_depth_says_how_to_give_it() -> None:
    obj = load(TOOLS, maps={"stacks": 64})
    with pytest.raises(
        MapRefused, match=r"value_size is 0.*load\(\.\.\., maps={'stacks': {'value_size': n}}\)"
    ):
        obj.program("profile").run(bytes(256))


@engines
@pytest.mark.parametrize("type_", ["perf_event_array", MapType.PERF_EVENT_ARRAY, 4])
def test_a_ring_buffer_becomes_what_older_kernels_have(engine: str, type_: Any) -> None:
    changes = {"type": type_, "key_size": 4, "value_size": 4, "max_entries": 8}
    obj = load(TOOLS, maps={"events": changes})
    result = obj.program("compatible").run(context={"di": 1}, engine=engine)
    assert result.events == (("events", b"\5\0\0\0"),)


def test_what_is_set_of_a_map_is_checked() -> None:
    with pytest.raises(
        MapRefused, match="'valuesize' is not what a loader sets; it sets type, key_size, value_size"
    ):
        load(TOOLS, maps={"stacks": {"valuesize": 8}})
    with pytest.raises(MapRefused, match="cannot have 0 entries"):
        load(TOOLS, maps={"stacks": {"max_entries": 0}})
    with pytest.raises(TypeError, match="'value_size': a number, not a str"):
        load(TOOLS, maps={"stacks": {"value_size": "8"}})
    with pytest.raises(TypeError, match=r"'type' is a MapType or one of hash, array, .*, not 'rinbuf'"):
        load(TOOLS, maps={"events": {"type": "rinbuf"}})
    obj = load(TOOLS, maps={"stacks": {"value_size": 12}})
    assert "must be a multiple of 8" in str(obj.refusals["stacks"])


def test_a_map_of_another_size_loses_its_types() -> None:
    obj = load(EXTERNS.with_name("btf_maps.o"))
    name, map_ = next(
        (n, m) for n, m in obj.maps.items() if m.definition.value_type and m.definition.type == 1
    )
    changed = load(EXTERNS.with_name("btf_maps.o"), maps={name: {"value_size": 100}}).maps[name].definition
    assert (changed.value_size, changed.value_type, changed.types) == (100, None, None)
    assert (changed.key_type, changed.max_entries) == (map_.definition.key_type, map_.definition.max_entries)


# -- what is said ----------------------------------------------------------------------------------


def test_a_struct_that_is_only_declared_says_what_to_do() -> None:
    with pytest.raises(
        LoadError, match=r"struct flow, has no size: the object only declares it .*declare a variable of it"
    ):
        load(TOOLS).program("by_flow").run(bytes(64))


def test_the_kernel_is_not_asked_for_what_the_loader_refused() -> None:
    with pytest.raises(LoadError, match="has no size"):
        kernel.load_program(load(TOOLS).program("by_flow"))


def test_linux_loads_no_program_without_a_type() -> None:
    with pytest.raises(
        LoadError, match=r"'untyped', section 'tail_of_something': .* types={'untyped': 'xdp'}"
    ):
        kernel.load_program(load(TOOLS).program("untyped"))


def test_the_struct_says_which_operation_a_program_is() -> None:
    programs = load(TOOLS).programs
    assert programs["halve"].operation == ("tcp_congestion_ops", "ssthresh")
    assert programs["keep"].operation == ("tcp_congestion_ops", "undo_cwnd")
    assert programs["nobody"].operation is None


@needs_kernel
def test_linux_loads_operations_as_their_struct_says() -> None:
    programs = load(TOOLS).programs
    for name in ("halve", "keep"):
        kernel.load_program(programs[name])
    with pytest.raises(LoadError, match="'no_member': let a member of one point to the program"):
        kernel.load_program(programs["nobody"])


@pytest.mark.parametrize("engine", ENGINES)
def test_symbols_without_a_size_leave_the_types_of_maps(engine: str) -> None:
    obj = load(TOOLS)
    assert [obj.program("guard").run(bytes(64), engine=engine).return_value for _ in range(2)] == [5, 10]


@pytest.mark.parametrize("engine", ENGINES)
def test_read_only_variables_are_set_before_the_first_run(engine: str) -> None:
    obj = load(TOOLS)
    obj.program("constant").run(bytes(64), engine=engine)
    with pytest.raises(
        LoadError, match=r"'chosen' is in \.rodata, which programs may only read: set it before"
    ):
        obj.globals["chosen"] = 2


@pytest.mark.parametrize("engine", ENGINES)
def test_a_constant_beside_its_section_leaves_the_types_of_maps(engine: str) -> None:
    obj = load(TOOLS)
    obj.globals["chosen"] = 2
    assert obj.program("constant").run(bytes(64), engine=engine).return_value == 30
    assert obj.program("guard").run(bytes(64), engine=engine).return_value == 5


@engines
def test_a_program_that_got_no_context_says_so(engine: str) -> None:
    with pytest.raises(
        MemoryFault, match=r"outside context \(0 bytes: none was given, as data or by context=\)"
    ):
        load(TOOLS).program("dump").run(engine=engine)


@pytest.mark.parametrize(
    ("value", "message"),
    [("maybe", "give a number, or 'y', 'm' or 'n'"), ("m", "it is a bool, which is 'y' or 'n'")],
)
def test_a_bool_of_the_configuration_is_yes_or_no(value: str, message: str) -> None:
    with pytest.raises(LoadError, match=f"extern 'CONFIG_NET' .* cannot be '{value}': {message}"):
        load(EXTERNS, kconfig={"CONFIG_NET": value})


# -- packets ---------------------------------------------------------------------------------------


def buffers() -> tuple[Environment, KernelPointer, KernelPointer]:
    """Return an environment, a struct xdp_buff and a struct sk_buff with the same packet."""
    environment = Environment(memory={ADDRESS: PACKET})
    queue = environment.struct("xdp_rxq_info", dev=environment.struct("net_device", ifindex=3))
    xdp = environment.struct("xdp_buff", data=ADDRESS, data_end=ADDRESS + len(PACKET), rxq=queue)
    return environment, xdp, environment.struct("sk_buff", data=ADDRESS, len=len(PACKET) + 8)


@engines
def test_an_event_takes_bytes_of_a_traced_packet(engine: str) -> None:
    environment, xdp, skb = buffers()
    obj = load(TOOLS, environment=environment)
    result = obj.program("dump").run(struct.pack("<2Q", xdp, 2), engine=engine)
    assert result.events == (("packets", struct.pack("<2I", 3, 2) + PACKET[:6]),)
    result = obj.program("dropped").run(struct.pack("<2Q", skb, 40), engine=engine)
    assert (result.return_value, result.events) == (0, (("packets", struct.pack("<I", 48) + PACKET),))


@engines
@pytest.mark.parametrize("wanted", [41, 49])  # more than there is in memory, more than the packet has
def test_an_event_takes_no_more_than_the_packet(engine: str, wanted: int) -> None:
    environment, _, skb = buffers()
    result = (
        load(TOOLS)
        .program("dropped")
        .run(struct.pack("<2Q", skb, wanted), engine=engine, environment=environment)
    )
    assert (result.return_value, result.events) == ((-14) & 0xFFFFFFFF, ())


@engines
def test_bytes_where_each_is_given(engine: str) -> None:
    environment = Environment(btf=EXTERNS.with_name("kernel_memory.o"))
    task = environment.struct("task_struct", comm=[104, 105], pid=4)
    program = load(EXTERNS.with_name("kernel_memory.o")).program("probed")
    assert program.run(bytes(168), environment=environment, engine=engine).return_value == 4
    environment.struct("task_struct", comm=[300], real_parent=task)
    with pytest.raises(ExecutionError, match="comm: 300 is not from 0 to 255"):
        program.run(bytes(168), environment=environment, engine=engine)
