"""What machine code relies on behind a helper's call: helpers that take memory away say so.

All tests run with helpers under watch (`tests.support.rights`); here the watch itself is tested, and helpers
that move or free something are called while they are watched as if they were not marked.
"""

from __future__ import annotations

import inspect
import random
from dataclasses import replace
from typing import Any

import pytest

from ebpfjit.assembler import assemble
from ebpfjit.errors import MemoryFault
from ebpfjit.program import Program
from ebpfjit.runtime import memory
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.helpers import table
from ebpfjit.runtime.memory import AddressSpace, Region, active
from ebpfjit.runtime.sockets import Socket
from tests.support.rights import keeping_rights, watched

PACKET = bytes(12) + b"\x08\x00" + b"\x45" + bytes(range(120))


def shrink(region: Region) -> None:
    region.stop -= 1


def move(region: Region) -> None:
    region.start += 8
    region.stop += 8


def protect(region: Region) -> None:
    region.writable = False


@pytest.mark.parametrize("change", [shrink, move, protect, memory.revoke])
def test_the_watch_sees_what_is_taken(change: Any) -> None:
    region = Region.of_buffer("mem", bytearray(16))
    with active(AddressSpace([region])):
        with pytest.raises(AssertionError, match="bpf_bad took memory away"), keeping_rights("bpf_bad"):
            change(region)
        with keeping_rights("bpf_good"):
            memory.grant(bytearray(4))


def test_all_helpers_are_watched() -> None:
    """But for those that are marked, which need not be."""
    for number, helper in table.helpers().items():
        function = table.bound()[number]
        inner = inspect.getclosurevars(function).nonlocals["function"]
        if helper.calls_functions:  # `ending` is around it
            inner = inspect.getclosurevars(inner).nonlocals["function"]
        assert (inner is helper.function) is helper.ends_rights, helper.name


#  helper                   type   its arguments behind r1, where it takes something away
MOVERS: dict[str, tuple[str, tuple[int, ...]]] = {
    "bpf_xdp_adjust_head":  ("xdp", (8,)),
    "bpf_xdp_adjust_tail":  ("xdp", (0xFFFFFFF0,)),
    "bpf_xdp_adjust_meta":  ("xdp", (4,)),
    "bpf_skb_change_tail":  ("tc",  (64, 0)),
    "bpf_skb_adjust_room":  ("tc",  (0xFFFFFFF0, 1, 0)),
    "bpf_skb_vlan_pop":     ("tc",  ()),
    "bpf_skb_change_proto": ("tc",  (0x0008, 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", MOVERS)
def test_helpers_that_move_the_packet_are_caught_without_their_mark(name: str) -> None:
    type_, arguments = MOVERS[name]
    number = table.NUMBERS[name]
    helper = table.helpers()[number]
    assert helper.ends_rights
    unmarked = table._bind(watched(replace(helper, ends_rights=False)))
    before = ["mov r6, r1"]
    if name == "bpf_xdp_adjust_meta":
        before += ["mov r2, -8", f"call {number}", "mov r1, r6"]
    if name == "bpf_skb_change_proto":
        before += ["mov r2, 0xDD86", "mov r3, 0", "call 31", "mov r1, r6"]
    lines = [
        *before,
        *(f"lddw r{2 + at}, {value}" for at, value in enumerate(arguments)),
        "call 1000",
        "exit",
    ]
    packet = PACKET
    if name == "bpf_skb_vlan_pop":
        packet = bytes(12) + b"\x81\0\0\5\x08\0" + PACKET[14:]
    program = Program(assemble("\n".join(lines)), type=type_)
    with pytest.raises(AssertionError, match=f"{name} took memory away"):
        program.compile(helpers={1000: unmarked})(packet)


LOOK_UP = """
    mov r6, r1
    stdw [r10-8], 0
    stw [r10-12], 0
    mov r2, r10
    add r2, -12
    mov r3, 12
    mov r4, -1
    mov r5, 0
    call 84
    mov r7, r0
    jeq r7, 0, out
    ldxw r8, [r7+4]
    {middle}
    mov r1, r7
    call 86
    {after}
    out:
    exit
"""


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
@pytest.mark.parametrize(
    ("middle", "after"),
    [
        ("", "ldxw r0, [r7+4]"),
        ("mov r1, r7\ncall 96\nmov r9, r0\nldxw r0, [r9]", "ldxw r0, [r9]"),
    ],
)
def test_a_socket_that_was_released_is_not_read(engine: str, middle: str, after: str) -> None:
    environment = Environment(sockets=(Socket("tcp", ("0.0.0.0", 0)),))
    program = Program(assemble(LOOK_UP.format(middle=middle, after=after)), type="tc")
    pc = program.instructions[-2].pc
    with pytest.raises(MemoryFault) as fault:
        program.run(PACKET, engine=engine, environment=environment)
    assert (fault.value.pc, fault.value.access) == (pc, "load")
    fine = Program(assemble(LOOK_UP.format(middle=middle, after="mov r0, 5")), type="tc")
    assert fine.run(PACKET, engine=engine, environment=environment).return_value == 5


SLICE = """
    mov r6, r1
    ldxw r1, [r6+76]
    mov r2, 64
    mov r3, 0
    mov r4, r10
    add r4, -16
    call 197                # bpf_dynptr_from_mem: of the packet
    jne r0, 0, out
    mov r1, r10
    add r1, -16
    mov r2, 32
    mov r3, 8
    call 203                # bpf_dynptr_data
    mov r7, r0
    jeq r7, 0, out
    ldxb r8, [r7]
    mov r1, r6
    mov r2, 20
    mov r3, 0
    call 38                 # bpf_skb_change_tail
    {after}
    out:
    mov r0, 7
    exit
"""


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_a_slice_of_a_packet_that_was_cut_is_not_read(engine: str) -> None:
    """Neither through the old address, nor through one that the dynptr still gives, nor by its helpers."""
    again = "mov r1, r10\nadd r1, -16\nmov r2, 32\nmov r3, 8\ncall 203\nmov r7, r0\n"
    for after in ("ldxb r8, [r7]", again + "ldxb r8, [r7]"):
        cut = Program(assemble(SLICE.format(after=after)), type="tc")
        with pytest.raises(MemoryFault) as fault:
            cut.run(PACKET, engine=engine)
        assert fault.value.pc == cut.instructions[-3].pc
    read = "mov r1, r10\nadd r1, -24\nmov r2, 8\nmov r3, r10\nadd r3, -16\nmov r4, 32\nmov r5, 0\ncall 201"
    with pytest.raises(MemoryFault):
        Program(assemble(SLICE.format(after=read)), type="tc").run(PACKET, engine=engine)


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_memory_is_given_and_taken_in_any_order(engine: str) -> None:
    buffers = [bytearray([number] * 8) for number in range(1, 24)]
    program = Program(assemble("call 200\nldxb r0, [r0+0]\nexit"))
    there: dict[int, Region] = {}
    source = random.Random(7)

    def change(*_: int) -> int:
        there.clear()
        for _step in range(source.randrange(1, 60)):
            chosen = source.randrange(len(buffers))
            if chosen in there:
                memory.revoke(there.pop(chosen))
            else:
                there[chosen] = memory.grant(buffers[chosen])
        return memory.address_of(buffers[source.randrange(len(buffers))])

    ends = set()
    for _ in range(60):
        try:
            number = program.run(helpers={200: change}, engine=engine).return_value - 1
            is_right = number in there
        except MemoryFault as fault:
            number, is_right = -1, fault.address not in {region.start for region in there.values()}
        assert is_right
        ends.add(number)
    assert len(ends) > 10
