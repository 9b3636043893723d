"""Programs on structs as functions: what they are given goes into a lane, and they run as `run` runs them."""

from __future__ import annotations

from typing import Any

import pytest

from ebpfjit import Changed, ExecutionError, JitFunction, Program
from ebpfjit.assembler import assemble
from ebpfjit.jit import gate
from ebpfjit.jit.lanes import LARGEST_STRUCT
from ebpfjit.runtime.contexts import program_type
from ebpfjit.runtime.contexts.types import TYPES
from ebpfjit.runtime.helpers.names import NUMBERS
from ebpfjit.runtime.maps import MapDefinition, MapType, create
from ebpfjit.sealed import inside

pytestmark = pytest.mark.skipif(bool(gate.why_not()), reason=f"no native gate: {gate.why_not()}")

TRACE, TAIL_CALL, GET_RETVAL = (
    NUMBERS[f"bpf_{name}"] for name in ("trace_printk", "tail_call", "get_retval")
)
ANY_SIZE = [
    "tracepoint",
    "raw_tracepoint",
    "tracing",
    "lsm",
    "raw_tracepoint_writable",
    "lirc_mode2",
    "syscall",
]
SIZED = ["kprobe", "perf_event", "cgroup_device", "cgroup_sock", "cgroup_sock_addr", "cgroup_sockopt"]
LAST = """
ldxb r2, [r1]
mov r3, r1
add r3, r2
ldxb r0, [r3]
exit
"""


def program(text: str, type: str, **others: Any) -> Program:
    return Program(assemble(text), name="tested", type=type, **others)


def function(text: str, type: str, **options: Any) -> JitFunction:
    compiled = program(text, type).compile(**options)
    assert inside(compiled).gate is not None, "it has no lane"
    return compiled


def bytes_of(size: int, seed: int = 7) -> bytes:
    return bytes(index * seed + size & 0xFF for index in range(size))


def ends(call: Any) -> object:
    """Return how a run ends: its result, or its fault, which is at another address each time."""
    try:
        return call()
    except ExecutionError as error:
        return type(error), error.pc, getattr(error, "size", None), getattr(error, "access", None)


def test_each_type_whose_bytes_are_its_struct_has_a_lane() -> None:
    without = {name for name, type_ in TYPES.items() if not type_.has_lane}
    assert without == {
        *("xdp.frags", "sk_skb", "flow_dissector", "sk_msg", "sk_reuseport", "sk_lookup", "sock_ops"),
        *("cgroup_sysctl", "netfilter"),
    }


@pytest.mark.parametrize("type_", ANY_SIZE)
def test_structs_of_all_sizes_are_copied_whole(type_: str) -> None:
    called, run = function(LAST, type_), program(LAST, type_)
    data = [bytes([size - 1]) + bytes_of(size - 1) for size in range(1, 256)]
    wanted = [run.run(each, engine="interpreter").return_value for each in data]
    assert [called(each) for each in data] == wanted
    assert [*called.map(data)] == wanted
    for size in (1, 8, 15, 16, 17, 100):  # one byte behind the end
        beyond = bytes([size]) + bytes(size - 1)
        with pytest.raises(ExecutionError) as interpreted:
            run.run(beyond, engine="interpreter")
        with pytest.raises(ExecutionError) as found:
            called(beyond)
        assert {**vars(found.value), "address": 0} == {**vars(interpreted.value), "address": 0}


@pytest.mark.parametrize("type_", SIZED)
def test_structs_of_one_size_are_as_runs_have_them(type_: str) -> None:
    size = program_type(type_).data_size
    assert size is not None
    for offset in range(0, size, 4):
        for width in ("w", "dw"):
            text = f"ldx{width} r0, [r1+{offset}]\nexit"
            run, called = program(text, type_), function(text, type_)
            for data in (bytes(size), bytes_of(size), bytes_of(size - 4), bytes_of(size) + bytes(8)):
                wanted = ends(lambda: run.run(data, engine="interpreter").return_value)  # noqa: B023
                found = ends(lambda: called(data)), ends(lambda: called.map([data])[0])  # noqa: B023
                assert found == (wanted, wanted) or offset in addresses(type_), (offset, width)


def addresses(type_: str) -> set[int]:
    """Where a struct has pointers, which differ from run to run."""
    layout = program_type(type_).layout
    assert layout is not None
    return {at for field in layout.fields if field.pointer for at in range(field.offset - 4, field.stop)}


def test_a_structs_socket_has_what_the_struct_says() -> None:
    """bpf_sock of bpf_sock_addr: family, type and protocol are the call's."""
    layout = program_type("cgroup_sock_addr").layout
    assert layout is not None
    at = {name: field.offset for name, field in layout.by_name.items()}
    text = (
        f"ldxdw r2, [r1+{at['sk']}]\njne r2, 0, there\nmov r0, 77\nexit\nthere: ldxw r0, [r2+4]\nlsh r0, 8\n"
        "ldxw r3, [r2+8]\nadd r0, r3\nlsh r0, 8\nldxw r3, [r2+12]\nadd r0, r3\nexit"
    )
    run, called = program(text, "cgroup_sock_addr"), function(text, "cgroup_sock_addr")
    made = []
    for family, kind, protocol in ((2, 1, 6), (10, 2, 17), (2, 2, 17)):
        data = bytearray(layout.size)
        for name, value in (("family", family), ("type", kind), ("protocol", protocol)):
            data[at[name]] = value
        made.append(bytes(data))
    wanted = [run.run(each, engine="interpreter").return_value for each in made]
    assert wanted[0] == 2 << 16 | 1 << 8 | 6
    assert [called(each) for each in made] == wanted
    assert [*called.map(b"".join(made), stride=layout.size)] == wanted
    own = bytearray(made[0])
    own[at["sk"]] = 0x10  # who gives an address has no socket of ours there
    assert ends(lambda: called(own)) == ends(lambda: run.run(own, engine="interpreter").return_value)


def test_runs_do_not_see_each_other() -> None:
    text = "ldxdw r0, [r1+8]\nldxdw r2, [r10-8]\nadd r0, r2\nstdw [r1+8], 5\nstdw [r10-8], 6\nexit"
    called = function(text, "raw_tracepoint_writable")
    data = bytes(16)
    assert [called(data) for _ in range(3)] == [0, 0, 0]
    assert [*called.map(data * 8, stride=16)] == [0] * 8
    assert data == bytes(16)


def test_faults_of_a_batch_are_told_by_their_place() -> None:
    called = function(LAST, "tracepoint")
    faults: list[Any] = []
    data = b"".join(bytes([each, *bytes(15)]) for each in (3, 16, 15, 200))
    assert [*called.map(data, stride=16, on_fault=99, faults=faults)] == [0, 99, 0, 99]
    assert [each.index for each in faults] == [1, 3]
    assert [*called.map(data, offsets=[0, 16, 32], lengths=[16, 16, 8], on_fault=98)] == [0, 98, 98]


def test_stores_are_taken_where_programs_may_store() -> None:
    text = "stw [r1+4], 9\nldxw r0, [r1+4]\nexit"
    assert function(text, "raw_tracepoint_writable")(bytes(8)) == 9
    for type_ in ("tracepoint", "kprobe"):
        with pytest.raises(ExecutionError):
            function(text, type_)(bytes(168))


def test_helpers_in_python_find_the_run() -> None:
    text = f"ldxw r6, [r1+4]\nstdw [r10-8], 0\nstw [r10-8], 0x41\nmov r1, r10\nadd r1, -8\nmov r2, 2\n" \
        f"call {TRACE}\nmov r0, r6\nexit"  # fmt: skip
    for type_, size in (("tracepoint", 16), ("kprobe", 168)):
        called, output = function(text, type_), list[tuple[int, str]]()
        data = b"".join(bytes([0, 0, 0, 0, each]).ljust(size, b"\0") for each in range(5))
        assert [*called.map(data, stride=size, output=output)] == [0, 1, 2, 3, 4]
        assert output == [(index, "A") for index in range(5)]
        assert called(data[:size]) == 0


def test_a_helper_that_fails_leaves_the_lane_to_the_next_run() -> None:
    def fails(*arguments: int) -> int:
        raise ValueError("no")

    called = program("call 4000\nmov r0, 3\nexit", "tracepoint").compile(helpers={4000: fails})
    assert inside(called).gate is not None
    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            called(bytes(8))
    assert function("mov r0, 3\nexit", "tracepoint")(bytes(8)) == 3


def test_a_run_inside_of_a_run_has_a_struct_of_its_own() -> None:
    inner = function("ldxw r0, [r1]\nexit", "tracepoint")

    def calls(*arguments: int) -> int:
        return inner(b"\x07" + bytes(15)) + inner.map([b"\x09" + bytes(15)])[0]

    text = "mov r6, r1\ncall 4000\nldxw r1, [r6]\nadd r0, r1\nexit"
    outer = program(text, "tracepoint").compile(helpers={4000: calls})
    data = b"\x01" + bytes(15)
    assert outer(data) == 17
    assert [*outer.map([data, data])] == [17, 17]


def test_tail_calls_go_on_with_the_struct() -> None:
    programs = create(MapDefinition("jumps", MapType.PROG_ARRAY, 4, 4, 2))
    target = program("ldxw r0, [r1+4]\nexit", "kprobe")
    programs[0] = target
    code = assemble(f"lddw r2, map[idx:0]\nmov r3, 0\ncall {TAIL_CALL}\nmov r0, 0\nexit")
    first = Program(code, name="first", type="kprobe", references={0: programs.address}, maps=(programs,))
    called = first.compile()
    assert inside(called).gate is not None
    data = bytes([0, 0, 0, 0, 5]).ljust(168, b"\0")
    wanted = first.run(data, engine="interpreter").return_value
    assert [called(data) for _ in range(3)] == [wanted] * 3
    assert [*called.map(data * 4, stride=168)] == [wanted] * 4


def test_what_runs_leave_of_structs_is_told() -> None:
    text = "ldxb r0, [r1]\nstb [r1+1], 7\nexit"
    called, changed = function(text, "raw_tracepoint_writable"), Changed()
    assert [*called.map([b"\1\2\3", b"\2\3\4\5"], changed=changed)] == [1, 2]
    assert bytes(changed.buffer) == b"\1\7\3\2\7\4\5"


def test_structs_that_are_none_or_too_large_go_another_way() -> None:
    text = "mov r0, 3\nexit"
    called = function(text, "tracepoint")
    for size in (0, LARGEST_STRUCT, LARGEST_STRUCT + 1, 70_000):
        assert called(bytes(size)) == 3
    last = function("ldxb r0, [r1+4096]\nexit", "tracepoint")
    assert last(bytes_of(4097)) == bytes_of(4097)[4096]
    with pytest.raises(ExecutionError):
        last(bytes_of(4096))


def test_the_result_of_a_hook_is_its_own() -> None:
    """What bpf_get_retval says is no other run's."""
    called = function(f"call {GET_RETVAL}\nexit", "cgroup_device")
    size = program_type("cgroup_device").data_size or 0
    assert [called(bytes(size)) for _ in range(3)] == [0, 0, 0]
