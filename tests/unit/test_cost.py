"""`ebpfjit.cost`: counts are the interpreter's, by packet; functions, lines, maps, stack; the command."""

from __future__ import annotations

import json
import random
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ebpfjit import ExecutionError, InputError, Program, load
from ebpfjit.cost import flame_graph, folded, measure, text

EXAMPLES = Path(__file__).parents[2] / "examples" / "packets"
ETHERNET = bytes.fromhex("0200000000010200000000020800")
UDP = ETHERNET + bytes.fromhex("4500003c00000000401100000a0000010a00000204d20050001a0000")
PACKETS = [bytes(60), UDP, UDP + bytes(20), ETHERNET, random.Random(2).randbytes(200), UDP]

CHAIN = """
    call two
    r0 = 0
    exit
two:
    *(u64 *)(r10 - 24) = r1
    call three
    call three
    exit
three:
    r2 = r10
    r2 += -100
    r0 = 0
    exit
"""


@pytest.mark.parametrize("name", ["xdp_port_filter", "vlan", "lpm_router", "load_balancer", "configurable"])
def test_instructions_are_those_of_the_interpreter(name: str) -> None:
    path = EXAMPLES / f"{name}.o"
    for program_name in load(path).programs:
        wanted, faults = [], 0
        program = load(path).program(program_name)
        for packet in PACKETS:
            result = program.run(packet, engine="interpreter")
            wanted.append(result.instructions)
        cost = measure(load(path).program(program_name), PACKETS, rounds=1)
        assert cost.by_packet == wanted, program_name
        assert cost.faults == faults
        assert cost.by_packet[cost.worst] == max(cost.by_packet)
        assert cost.worst_packet == PACKETS[cost.worst]
        assert sum(line.instructions for line in cost.lines) == cost.instructions
        assert sum(function.instructions for function in cost.functions) == cost.instructions


def test_what_tail_calls_go_on_with_costs_too() -> None:
    obj = load(EXAMPLES.parent / "bugs" / "firewall_0.o")  # its array holds two programs
    tcp = bytes.fromhex("0000 0017") + bytes(16)  # to port 23
    frame = bytes(12) + bytes.fromhex("0800 4500 0000 0000 0000 0006 baf9") + bytes(8) + tcp
    wanted = obj.program("firewall").run(frame, engine="interpreter").instructions
    cost = measure(obj.program("firewall"), [frame], rounds=1)
    assert cost.instructions == wanted
    assert {each.name: each.entered for each in cost.functions} == {"firewall": 1, "telnet": 1, "tftp": 0}


def test_maps_and_lines_of_the_port_filter() -> None:
    cost = measure(load(EXAMPLES / "xdp_port_filter.o").program("port_filter"), PACKETS, rounds=1)
    assert cost.maps["counters", "lookup"] == 6
    assert cost.helpers["bpf_map_lookup_elem"] == 6 + cost.maps["blocked", "lookup"]
    assert cost.nanoseconds > 0
    shown = text(cost, lines=2)
    assert "program.h:42" in shown
    assert shown.splitlines()[-1].startswith("and ")


def test_functions_stack_and_flame_graph() -> None:
    program = Program.from_assembly(CHAIN, name="one")
    cost = measure(program, [b"", b""], rounds=1)
    assert {each.name: (each.entered, each.instructions) for each in cost.functions} == {
        "one": (2, 6), "function_3": (2, 8), "function_7": (4, 16),
    }  # fmt: skip
    assert (cost.stack.functions, cost.stack.bytes) == (["one", "function_3", "function_7"], 24 + 104)
    stacks = dict(line.rsplit(" ", 1) for line in folded(cost).splitlines())
    assert stacks["one;function_3;function_7;pc 8"] == "4"
    assert sum(map(int, stacks.values())) == cost.instructions
    ElementTree.fromstring(flame_graph(cost))


def test_recursion_is_said_and_ends() -> None:
    program = Program.from_assembly("one:\nr1 -= 1\nif r1 s< 1 goto out\ncall one\nout:\nr0 = 0\nexit")
    cost = measure(program, [b""], rounds=1)
    assert cost.stack.is_recursive
    assert "recursion" in text(cost)
    assert folded(cost)


def test_faults_are_counted_to_the_instruction() -> None:
    program = Program.from_assembly("r0 = *(u8 *)(r1 + 1)\nr0 += 1\nexit", name="second")
    with pytest.raises(ExecutionError):
        program.run(b"1")
    cost = measure(program, [b"12", b"1"], rounds=1)
    assert (cost.by_packet, cost.faults) == ([3, 1], 1)
    assert cost.first_fault.startswith("packet 1: pc 0: load of 1 byte")
    assert json.loads(json.dumps(cost.to_json()))["worst_packet"] == "3132"


def test_no_packet() -> None:
    with pytest.raises(InputError, match="no packet"):
        measure(Program.from_assembly("exit"), [])
