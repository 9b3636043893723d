"""Helpers of processes, foreign memory, locks and sockets; tail calls; the registry."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from ebpfjit.assembler import assemble
from ebpfjit.errors import BudgetExhausted, ExecutionError, HelperNotFound, MemoryFault
from ebpfjit.kernel.engine import PROGRAM_TYPES
from ebpfjit.kernel.objects import LoadedProgram
from ebpfjit.program import Program
from ebpfjit.runtime.environment import Environment, Task
from ebpfjit.runtime.helpers.names import NAMES, NUMBERS
from ebpfjit.runtime.helpers.sockets import ASSIGNED
from ebpfjit.runtime.helpers.table import bound, helper, helpers
from ebpfjit.runtime.maps import MapType
from ebpfjit.runtime.sockets import Socket
from tests.support.helper_runs import (
    HERE,
    Table,
    as_linux,
    filled_in,
    needs_kernel,
    program_with,
    run,
    run_on,
)

# -- the registry ----------------------------------------------------------------------------------


def test_names_and_numbers_are_linux() -> None:
    assert len(NAMES) == 211
    assert (NAMES[1], NAMES[12], NAMES[95], NAMES[211]) == (
        "bpf_map_lookup_elem", "bpf_tail_call", "bpf_sk_fullsock", "bpf_cgrp_storage_delete",
    )  # fmt: skip
    assert all(NUMBERS[name] == number for number, name in NAMES.items())


def test_bound_functions_are_the_same_objects_each_time() -> None:
    """Their addresses are in machine code."""
    assert all(bound()[number] is function for number, function in dict(bound()).items())
    assert set(bound()) == set(helpers())


def test_each_helper_is_registered_under_its_number() -> None:
    for number, entry in helpers().items():
        assert (entry.number, entry.name) == (number, NAMES[number])
        assert entry.function.__doc__
        assert 0 <= entry.arguments <= 5


def test_a_name_is_registered_once_and_must_exist() -> None:
    helpers()
    with pytest.raises(ValueError, match="bpf_ktime_get_ns is registered already"):
        helper("bpf_ktime_get_ns")(lambda world: 0)
    with pytest.raises(KeyError):
        helper("bpf_no_such_helper")(lambda world: 0)


def test_what_is_no_world_is_refused_when_it_is_made() -> None:
    with pytest.raises(
        TypeError, match=r"clock is a function .*, not 5, or Clock\(5\) for one that stands still"
    ):
        Environment(clock=5)  # type: ignore[arg-type] # the mistake
    with pytest.raises(TypeError, match=r"random is a function that gives a number, not 4$"):
        Environment(random=4)  # type: ignore[arg-type] # the mistake
    with pytest.raises(TypeError, match=r"task is a Task\(pid=..., comm=...\), not of type dict"):
        Environment(task={"pid": 1})  # type: ignore[arg-type] # the mistake
    wrong: dict[str, Any] = {
        "cpus": "4", "socket_cookie": 1.5, "stack": 7, "sockets": "tcp", "memory": [1], "symbols": len,
        "network": (), "tunnel": 3, "socket_options": None,
    }  # fmt: skip
    for name, value in wrong.items():
        with pytest.raises(TypeError, match=f"^{name} is a.*, not of type {type(value).__name__}$"):
            Environment(**{name: value})
    for name in ("pid", "cgroup_id", "comm"):
        with pytest.raises(TypeError, match=f"^{name} is a .*, not of type bytes"):
            Task(**{name: b"x"})  # type: ignore[arg-type] # the mistake
    with pytest.raises(TypeError, match="each of sockets is a Socket, not of type dict"):
        Environment(sockets=({},))  # type: ignore[arg-type] # the mistake
    with pytest.raises(TypeError, match="each of stack is a number, not of type str"):
        Environment(stack=("0x10",))  # type: ignore[arg-type] # the mistake
    with pytest.raises(TypeError, match="environment is an Environment, not of type dict"):
        Program(b"\x95" + bytes(7)).run(environment={"clock": 5})  # type: ignore[arg-type] # the mistake


def test_outside_of_a_run_a_helper_says_what_it_needs() -> None:
    with pytest.raises(ExecutionError, match="bpf_ktime_get_ns needs a world"):
        bound()[5](0, 0, 0, 0, 0)


def test_a_helper_that_is_not_there_is_named() -> None:
    error = run("call 130\ncall 166\nexit", maps={}).error
    assert isinstance(error, ExecutionError)
    error = run("call 166\nexit").error
    assert isinstance(error, HelperNotFound)
    assert str(error).startswith("pc 0: call of helper 166 (bpf_sys_bpf), which is not registered")
    assert "helper 9999, which" in str(run("call 9999\nexit").error)


# -- memory that may not be there ------------------------------------------------------------------

PROBE = """
    mov r6, r1
    {source}
    mov r2, {size}
    add r1, 32
    call {number}
    exit
"""
READ, READ_STR, KERNEL, KERNEL_STR = 4, 45, 113, 115


def probe(number: int, size: int, source: str = "mov r3, r1") -> str:
    return PROBE.format(number=number, size=size, source=source)


@needs_kernel
@pytest.mark.parametrize("size", [0, 1, 3, 5, 6, 16, 32])
@pytest.mark.parametrize("number", [READ, KERNEL, READ_STR, KERNEL_STR])
def test_reading_what_is_there_as_linux(number: int, size: int) -> None:
    as_linux(probe(number, size), b"hello\0more".ljust(32, b"!") + b"\xee" * 32)


@needs_kernel
@pytest.mark.parametrize("size", [1, 32])
@pytest.mark.parametrize("number", [READ, KERNEL, READ_STR, KERNEL_STR])
@pytest.mark.parametrize("source", [0, 16, 1 << 62, 0xFFFF_8000_0000_0000, (1 << 64) - 1])
def test_reading_what_is_not_there_as_linux(number: int, size: int, source: int) -> None:
    outcome = as_linux(probe(number, size, f"lddw r3, {source:#x}"), bytes(32) + b"\xee" * 32)
    assert outcome.signed < 0
    assert outcome.data == bytes(32) + bytes(size) + b"\xee" * (32 - size)


def test_a_string_that_leaves_memory_cannot_be_read() -> None:
    text = "mov r3, r1\nadd r3, 60\nmov r2, 16\ncall 45\nexit"
    outcome = run(text, b"x" * 64)
    assert (outcome.signed, outcome.data[:17]) == (-errno.EFAULT, bytes(16) + b"x")


def test_the_destination_must_be_there() -> None:
    error = run("mov r3, r1\nmov r2, 65\ncall 113\nexit", bytes(64)).error
    assert isinstance(error, MemoryFault)
    assert (error.access, error.pc) == ("store", 2)


def test_probe_write_user() -> None:
    text = "mov r2, r1\nadd r1, {there}\nmov r3, 4\ncall 36\nexit"
    outcome = run(text.format(there=4), b"abcdefgh")
    assert (outcome.value, outcome.data) == (0, b"abcdabcd")
    assert run(text.format(there=6), b"abcdefgh").signed == -errno.EPERM


# -- the process -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "value"), [(14, 20 << 32 | 21), (15, 100 << 32 | 1000), (35, 0), (80, 7)])
def test_the_task_is_the_environments(number: int, value: int) -> None:
    assert run(f"call {number}\nexit").value == value


def test_by_default_the_task_is_this_process() -> None:
    outcome = run("call 14\nexit", environment=Environment())
    assert outcome.value == os.getpid() << 32 | threading.get_native_id()


def test_the_task_in_its_namespace() -> None:
    text = "mov r3, r1\nmov r4, SIZE\nmov r1, 4\nmov r2, 5\ncall 120\nexit"
    outcome = run(text.replace("SIZE", "8"), b"\xee" * 8)
    assert (outcome.value, outcome.data) == (0, bytes([21, 0, 0, 0, 20, 0, 0, 0]))
    outcome = run(text.replace("SIZE", "4"), b"\xee" * 8)
    assert (outcome.signed, outcome.data) == (-errno.EINVAL, bytes(4) + b"\xee" * 4)


@pytest.mark.parametrize(("size", "name"), [(16, b"tester"), (4, b"tes"), (7, b"tester"), (1, b"")])
def test_current_comm(size: int, name: bytes) -> None:
    outcome = run(f"mov r2, {size}\ncall 16\nexit", b"\xee" * 16)
    assert outcome.value == 0
    assert outcome.data == name.ljust(size, b"\0") + b"\xee" * (16 - size)


def test_a_long_comm_is_cut() -> None:
    task = replace(HERE.current_task, comm="a_name_that_is_too_long")
    assert run("mov r2, 16\ncall 16\nexit", bytes(16), environment=replace(HERE, task=task)).data == (
        b"a_name_that_is_\0"
    )


@pytest.mark.parametrize(("number", "value"), [(46, 11), (122, 12), (174, 13), (173, 0), (123, 7)])
def test_cookies_are_the_environments(number: int, value: int) -> None:
    environment = replace(HERE, socket_cookie=11, netns_cookie=12, attach_cookie=13)
    assert run(f"mov r1, 0\nmov r2, 0\ncall {number}\nexit", environment=environment).value == value


# -- locks -----------------------------------------------------------------------------------------


def test_locks_are_taken_one_at_a_time() -> None:
    take, release = "mov r1, r6\ncall 93\n", "mov r1, r6\ncall 94\n"
    start, end = "mov r6, r1\n", "mov r0, 5\nexit"
    assert run(start + take + release + take + release + end, bytes(4)).value == 5
    twice = run(start + take + take + end, bytes(4)).error
    assert "pc 4: bpf_spin_lock: the lock at" in str(twice)
    assert "no lock is held" in str(run(start + release + end, bytes(4)).error)
    other = run(start + take + "mov r1, r10\nadd r1, -4\ncall 94\n" + end, bytes(4)).error
    assert "is the one that is held" in str(other)
    assert isinstance(run(start + take + end, bytes(3)).error, MemoryFault)


def test_kptr_xchg() -> None:
    outcome = run("mov r2, 9\ncall 194\nexit", (7).to_bytes(8, "little"))
    assert (outcome.value, outcome.data[0]) == (7, 9)


# -- sockets ---------------------------------------------------------------------------------------

CONNECTED = Socket("tcp", ("10.0.0.1", 80), ("10.0.0.2", 4000), mark=5, cookie=77, tcp={"snd_cwnd": 10})
LISTENING = Socket("tcp", ("0.0.0.0", 80), interface=3)
BOUND = Socket("tcp", ("10.0.0.1", 443))
SIX = Socket("udp", ("2001:db8::1", 53), rx_queue=2)
SOCKETS = replace(HERE, sockets=(LISTENING, BOUND, CONNECTED, SIX))


def four(source: str, source_port: int, destination: str, destination_port: int) -> bytes:
    def address(text: str) -> bytes:
        return bytes(int(part) for part in text.split("."))

    ports = source_port.to_bytes(2, "big") + destination_port.to_bytes(2, "big")
    return address(source) + address(destination) + ports


LOOKUP = """
    mov r6, r1
    mov r2, r6
    mov r3, {size}
    lddw r4, {netns}
    mov r5, {flags}
    call {number}
    jeq r0, 0, none
    mov r7, r0
    ldxw r1, [r7+16]
    stxw [r6+0], r1
    ldxw r1, [r7+72]
    stxw [r6+4], r1
    mov r1, r7
    call 46
    stxdw [r6+8], r0
    mov r1, r7
    call 96
    mov r8, 0
    jeq r0, 0, release
    ldxw r8, [r0+0]
release:
    mov r1, r7
    call 86
    mov r0, r8
    add r0, 1
none:
    exit
"""


def look_up(data: bytes, number: int = 84, netns: int = (1 << 64) - 1, flags: int = 0) -> Any:
    text = LOOKUP.format(number=number, size=len(data), netns=hex(netns), flags=flags)
    return run(text, data.ljust(16, b"\0"), environment=SOCKETS)


def test_a_connected_socket_is_found() -> None:
    outcome = look_up(four("10.0.0.2", 4000, "10.0.0.1", 80))
    assert outcome.value == 11
    assert outcome.data[:16] == bytes([5, 0, 0, 0, 1, 0, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0])
    assert look_up(four("10.0.0.2", 4000, "10.0.0.1", 80), number=99).value == 11


@pytest.mark.parametrize(
    ("data", "state"),
    [
        (four("10.0.0.9", 1, "10.0.0.1", 80), 10),
        (four("10.0.0.9", 1, "10.0.0.1", 443), 10),
        (four("10.0.0.9", 1, "10.0.0.2", 443), None),
        (four("10.0.0.9", 1, "10.0.0.1", 81), None),
    ],
)
def test_a_listening_socket_is_found(data: bytes, state: int | None) -> None:
    outcome = look_up(data)
    assert (outcome.value != 0) == (state is not None)
    if state is not None:
        assert outcome.data[4] == state


def test_lookups_that_linux_answers_with_null() -> None:
    data = four("10.0.0.2", 4000, "10.0.0.1", 80)
    assert look_up(data, flags=1).value == 0
    assert look_up(data, netns=1 << 31).value == 0
    assert look_up(data, netns=0).value == 11
    assert look_up(data[:11]).value == 0
    assert look_up(data, number=85).value == 0


def test_ipv6_and_udp() -> None:
    data = bytes(16) + bytes.fromhex("20010db8000000000000000000000001") + (9).to_bytes(2, "big")
    outcome = look_up(data + (53).to_bytes(2, "big"), number=85)
    assert (outcome.value, outcome.data[4]) == (1, 7)


def test_a_released_socket_is_not_readable() -> None:
    text = LOOKUP.format(number=84, size=12, netns="-1", flags=0).replace("mov r0, r8\n", "ldxw r0, [r7+0]\n")
    data = four("10.0.0.2", 4000, "10.0.0.1", 80).ljust(16, b"\0")
    for engine in ("interpreter", "jit"):
        error = run_on(engine, text, data, environment=SOCKETS).error
        assert isinstance(error, MemoryFault)
        assert error.access == "load"


def test_sockets_are_readonly() -> None:
    text = LOOKUP.format(number=84, size=12, netns="-1", flags=0).replace(
        "ldxw r1, [r7+16]\n", "stw [r7+16], 1\n"
    )
    data = four("10.0.0.2", 4000, "10.0.0.1", 80).ljust(16, b"\0")
    error = run_on("jit", text, data, environment=SOCKETS).error
    assert "bpf_sock.mark is read-only" in str(error)


def test_only_sockets_of_lookups_are_released() -> None:
    assert "which is no socket that a lookup gave" in str(run("mov r1, 8\ncall 86\nexit").error)


ASSIGN = """
    mov r6, r1
    mov r2, r6
    mov r3, 12
    lddw r4, -1
    mov r5, 0
    call 84
    mov r2, r0
    mov r3, FLAGS
    call 124
    exit
"""


def test_sk_assign_remembers_the_socket() -> None:
    data = four("10.0.0.2", 4000, "10.0.0.1", 80)
    outcome = run(ASSIGN.replace("FLAGS", "0"), data, environment=SOCKETS)
    assert outcome.value == 0
    assert outcome.world is not None
    assert outcome.world.kept[ASSIGNED] is CONNECTED
    assert run(ASSIGN.replace("FLAGS", "1"), data, environment=SOCKETS).signed == -errno.EINVAL
    assert "no socket" in str(run("mov r2, 8\nmov r3, 0\ncall 124\nexit").error)


def test_the_struct_is_linux() -> None:
    data = CONNECTED.to_bytes()
    words = [int.from_bytes(data[at : at + 4], "little") for at in range(0, 80, 4)]
    assert words[:6] == [0, 2, 1, 6, 5, 0]
    assert (data[24:28], words[11], data[48:50], data[52:56]) == (
        bytes([10, 0, 0, 1]), 80, (4000).to_bytes(2, "big"), bytes([10, 0, 0, 2]),
    )  # fmt: skip
    assert words[18:] == [1, 0xFFFFFFFF]
    assert SIX.to_bytes()[28:44].hex() == "20010db8000000000000000000000001"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda: Socket("sctp", ("10.0.0.1", 1)), "one of tcp, udp, not 'sctp'"),
        (lambda: Socket("tcp", ("10.0.0", 1)), "'10.0.0' does not appear to be"),
        (lambda: Socket("tcp", ("10.0.0.1", 65536)), "port 65536 of 10.0.0.1 is not"),
        (lambda: Socket("tcp", ("10.0.0.1", 1), ("::1", 1)), "of two IP versions"),
        (lambda: Socket("tcp", ("10.0.0.1", 1), tcp={"nonsense": 1}), "no field nonsense"),
    ],
)
def test_wrong_sockets_are_refused(wrong: Callable[[], Socket], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        wrong()


# -- tail calls ------------------------------------------------------------------------------------

JUMPS = Table(MapType.PROG_ARRAY, 4, 4, 4)

TAIL = """
    mov r6, r1
    lddw r2, {jmp}
    mov r3, INDEX
    call 12
    mov r7, r0
    mov r0, 1000
    add r0, r7
    exit
"""


def with_programs(**texts: str) -> Callable[[Mapping[str, Any]], None]:
    """Fill slots 0, 1, ... (named a, b, ...) of the map `jmp`."""

    def arrange(maps: Mapping[str, Any]) -> None:
        for name, text in texts.items():
            maps["jmp"][ord(name) - ord("a")] = program_with(text, maps)

    return arrange


@pytest.mark.parametrize(
    ("index", "result"),
    [(0, 42), (1, 1000 - errno.ENOENT), (4, 1000 - errno.E2BIG), (-1, 1000 - errno.E2BIG)],
)
def test_a_tail_call_takes_over_or_falls_through(index: int, result: int) -> None:
    text = TAIL.replace("INDEX", str(index))
    assert run(text, bytes(8), {"jmp": JUMPS}, arrange=with_programs(a="mov r0, 42\nexit")).signed == result


def test_the_index_has_32_bits() -> None:
    text = TAIL.replace("mov r3, INDEX", "lddw r3, 0x100000000")
    assert run(text, bytes(8), {"jmp": JUMPS}, arrange=with_programs(a="mov r0, 42\nexit")).signed == 42


def test_the_other_program_sees_the_same_memory() -> None:
    other = "ldxb r0, [r1+0]\nadd r0, 1\nstxb [r1+1], r0\nexit"
    outcome = run(TAIL.replace("INDEX", "0"), b"\5\0", {"jmp": JUMPS}, arrange=with_programs(a=other))
    assert (outcome.value, outcome.data) == (6, b"\5\6")


COUNT = """
    ldxw r2, [r1+0]
    add r2, 1
    stxw [r1+0], r2
    mov r3, 0
    lddw r2, {jmp}
    call 12
    mov r0, 9
    exit
"""


def test_thirty_three_tail_calls_and_no_more() -> None:
    outcome = run(COUNT, bytes(4), {"jmp": JUMPS}, arrange=with_programs(a=COUNT))
    assert (outcome.value, outcome.data[0]) == (9, 34)


def test_a_tail_call_in_a_function_ends_that_function() -> None:
    text = """
        call jump
        add r0, 1
        exit
    jump:
        mov r3, 0
        lddw r2, {jmp}
        call 12
        mov r0, 500
        exit
    """
    arrange = with_programs(a="mov r0, 42\nexit")
    assert run(text, bytes(8), {"jmp": JUMPS}, arrange=arrange).value == 43
    assert run(text, bytes(8), {"jmp": JUMPS}).value == 501


def test_a_fault_in_the_other_program_has_its_pc() -> None:
    other = "mov r0, 0\nmov r0, 0\nldxb r0, [r1+9]\nexit"
    error = run(TAIL.replace("INDEX", "0"), bytes(8), {"jmp": JUMPS}, arrange=with_programs(a=other)).error
    assert isinstance(error, MemoryFault)
    assert error.pc == 2


def test_tail_calls_share_the_budget() -> None:
    endless = "again:\nja again"
    error = run(
        TAIL.replace("INDEX", "0"), bytes(8), {"jmp": JUMPS}, arrange=with_programs(a=endless), limit=100
    ).error
    assert isinstance(error, BudgetExhausted)


def test_a_program_type_of_its_own_is_not_needed() -> None:
    """What a slot holds is a Program."""
    program = Program.from_bytes(assemble("mov r0, 7\nexit"))

    def arrange(maps: Mapping[str, Any]) -> None:
        maps["jmp"][2] = program

    assert run(TAIL.replace("INDEX", "2"), bytes(8), {"jmp": JUMPS}, arrange=arrange).value == 7


CHAIN = """
    mov r6, r1
    lddw r2, {count_value}
    ldxdw r3, [r2+0]
    add r3, 1
    stxdw [r2+0], r3
    mov r1, r6
    lddw r2, {jmp}
    mov r3, 2
    call 12
    mov r1, r6
    lddw r2, {jmp}
    mov r3, 0
    call 12
    mov r0, 9
    exit
"""


@needs_kernel
def test_the_limit_of_tail_calls_is_linux() -> None:
    """Each program tries an empty slot first, which costs nothing, then itself."""
    count = Table(MapType.ARRAY, 4, 8)
    tables = {"count": count, "jmp": JUMPS}
    ours = run(CHAIN, bytes(4), tables, arrange=with_programs(a=CHAIN))

    made = {name: table.make_in_kernel() for name, table in tables.items()}
    code = assemble(filled_in(CHAIN, {name: found.fd for name, found in made.items()}))
    with LoadedProgram(code, PROGRAM_TYPES["socket_filter"].number) as program:
        made["jmp"].update(program.fd.to_bytes(4, "little"), bytes(4))
        value = program.run(bytes(64)).return_value
    rounds = made["count"].lookup(bytes(4))
    assert (ours.value, ours.maps["count"][0]) == (value, rounds)
    assert rounds == (34).to_bytes(8, "little")
