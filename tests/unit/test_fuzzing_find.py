"""`ebpfjit.fuzzing.find_input`: what leads to a fault at a place that is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ebpfjit import ExecutionError, MemoryFault, Program, load
from ebpfjit.assembler import assemble
from ebpfjit.fuzzing import Witness, find_input, find_inputs, fuzz, side
from ebpfjit.runtime.maps import MapDefinition, MapType, create

BUGS = Path(__file__).parents[2] / "examples" / "bugs"
NULL = "r0 = 0\nr0 = *(u8 *)(r0 + 0)\nout:\nexit"
IN_PACKET = f"""
r2 = *(u32 *)(r1 + {{data}})
r3 = *(u32 *)(r1 + {{end}})
r0 = 2
r4 = r2
r4 += 20
if r4 > r3 goto out
r5 = *(u32 *)(r2 + 14)
if r5 != 0x12345678 goto out
{NULL}
"""
OFFSETS = {"xdp": (0, 4), "tc": (76, 80), "cgroup_skb": (76, 80)}


def of(text: str, type_: str | None = None) -> Program:
    return Program.from_assembly(text, name="main", type=type_)


def shown(program: Program, pc: int, **options: object) -> Witness:
    """Return a witness that the interpreter has confirmed, and that confirms it again."""
    witness = find_input(program, pc, seconds=20, **options)  # type: ignore[arg-type]
    assert witness is not None
    assert witness.error.pc == pc
    with pytest.raises(ExecutionError) as raised:
        witness.run(program)
    assert raised.value.pc == pc
    return witness


@pytest.mark.parametrize("type_", OFFSETS)
def test_packets(type_: str) -> None:
    data, end = OFFSETS[type_]
    program = of(IN_PACKET.format(data=data, end=end), type_)
    witness = shown(program, 9)
    assert b"\x78\x56\x34\x12" in witness.packet
    assert len(witness.packet) == (20 if type_ != "cgroup_skb" else 34)


def test_short_packets_come_first() -> None:
    program = of("r2 = *(u32 *)(r1 + 0)\nr0 = *(u8 *)(r2 + 60)\nexit", "xdp")
    assert shown(program, 1, runs=200).packet == bytes(14)


@pytest.mark.parametrize(
    ("type_", "text", "fields"),
    [
        ("tc", f"r2 = *(u32 *)(r1 + 8)\nif r2 != 7777 goto out\n{NULL}", {"mark": 7777}),
        ("socket_filter", f"r2 = *(u32 *)(r1 + 52)\nif r2 != 9 goto out\n{NULL}", None),
        ("xdp", f"r2 = *(u32 *)(r1 + 16)\nif r2 != 9 goto out\n{NULL}", None),
        ("sk_lookup", f"r2 = *(u64 *)(r1 + 0)\nif r2 == 0 goto out\n{NULL}", {"sk": {}}),
    ],
)
def test_fields_of_contexts(type_: str, text: str, fields: object) -> None:
    witness = shown(of(text, type_), 3)
    assert witness.context == fields if fields is not None else witness.context


@pytest.mark.parametrize("type_", ["kprobe", "cgroup_sock_addr", "tracepoint", None])
def test_structs_and_memory(type_: str | None) -> None:
    text = f"r2 = *(u32 *)(r1 + 8)\nif r2 != 7777 goto out\n{NULL}"
    witness = shown(of(text, type_), 3)
    assert witness.packet[8:12] == (7777).to_bytes(4, "little")


def test_memory_that_is_too_short() -> None:
    assert len(shown(of("r0 = 0\nif r2 < 5 goto out\nr0 = *(u8 *)(r1 + 11)\nout:\nexit"), 2).packet) in range(
        5, 12
    )


def with_map(text: str, definition: MapDefinition) -> Program:
    """Return a program on packets whose `map[idx:0]` is an empty map."""
    made = create(definition)
    program = Program.from_bytes(assemble(text), name="main", type="xdp")
    references = {i.pc: made.address for i in program.instructions if i.next_pc == i.pc + 2}
    return replace(program, maps=(made,), references=references)


ENTRY = """
r1 = map[idx:0]
r2 = r10
r2 += -4
*(u32 *)(r10 - 4) = 1
call 1
"""
UPDATE = """
r6 = *(u32 *)(r1 + 0)
r1 = *(u32 *)(r6 + 0)
*(u32 *)(r10 - 4) = r1
*(u64 *)(r10 - 16) = r1
r1 = map[idx:0]
r2 = r10
r2 += -4
r3 = r10
r3 += -16
r4 = 0
call 2
r1 = map[idx:0]
r2 = r10
r2 += -4
call 1
r0 = *(u8 *)(r0 + 0)
exit
"""
RESERVE = """
r1 = map[idx:0]
r2 = 8
r3 = 0
call 131
r6 = r0
r1 = *(u8 *)(r6 + 0)
r1 = r6
r2 = 0
call 133
exit
"""


def test_maps_that_miss_hit_and_are_full() -> None:
    hash_ = MapDefinition("entries", MapType.HASH, 4, 8, 16)
    miss = with_map(f"{ENTRY}r0 = *(u8 *)(r0 + 0)\nexit", hash_)
    witness = shown(miss, 6)
    assert (witness.maps, witness.packet) == ({}, bytes(14))
    miss.maps[0][1] = 7
    assert shown(miss, 6).maps == {"entries": []}
    assert dict(miss.maps[0].items()) == {(1).to_bytes(4, "little"): (7).to_bytes(8, "little")}
    hit = with_map(f"{ENTRY}if r0 == 0 goto out\nr0 = *(u8 *)(r0 + 32000)\nout:\nr0 = 0\nexit", hash_)
    assert dict(shown(hit, 7).maps["entries"]).keys() == {b"\1\0\0\0"}
    full = with_map(UPDATE, hash_)
    witness = shown(full, 17)
    assert len(witness.packets) + len(witness.maps.get("entries", ())) == 17


def test_helpers_that_return_null() -> None:
    program = with_map(RESERVE, MapDefinition("ring", MapType.RINGBUF, 0, 0, 4096))
    assert shown(program, 6, runs=2000).failing == ("bpf_ringbuf_reserve",)


def test_pcs_of_one_search() -> None:
    program = load(BUGS / "firewall_7.o").program("firewall")
    found = find_inputs(program, [212, 5], seconds=10, runs=60_000)
    assert {pc: type(each.error) for pc, each in found.items()} == {212: MemoryFault}


def test_endless_loops_and_tests_of_errors() -> None:
    program = of("r0 = 0\nagain:\nr0 += 1\nif r0 != 0 goto again\nexit", "xdp")
    witness = find_input(program, lambda error: type(error).__name__ == "BudgetExhausted", limit=1000)
    assert witness is not None
    assert witness.to_json()["error"] == "BudgetExhausted"


def test_the_same_seed_finds_the_same() -> None:
    program = load(BUGS / "firewall_1.o").program("firewall")
    first, second = (find_input(program, 152, seconds=30, seed=3) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.to_json()["packets"] == second.to_json()["packets"]


def test_on_the_interpreter_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side, "best_engine", lambda: "interpreter")
    shown(of(IN_PACKET.format(data=0, end=4), "xdp"), 9)


def test_nothing_is_found_where_nothing_is() -> None:
    assert find_input(of("r0 = 0\nexit", "xdp"), 0, runs=3000) is None
    assert find_input(of("r0 = 0\nexit", "xdp"), 7, runs=3000) is None
    refused = Program.from_bytes(b"\xff" * 8, type="xdp")
    assert find_input(refused, 0, runs=3000) is None


def jumping(target: Program) -> Program:
    """Return a program that goes on as another one, and has instructions behind that."""
    text = "r2 = map[idx:0]\nr3 = 0\ncall 12\n" + "r0 = 2\n" * 6 + "exit"
    made = with_map(text, MapDefinition("jumps", MapType.PROG_ARRAY, 4, 4, 1))
    made.maps[0][0] = target
    return made


def test_places_are_of_the_program_that_is_meant_where_it_tail_calls() -> None:
    data, end = OFFSETS["xdp"]
    target = Program.from_assembly(IN_PACKET.format(data=data, end=end), name="target", type="xdp")
    program = jumping(target)
    witness = find_input(program, ("target", 9), seconds=20)
    assert witness is not None
    assert witness.packet[14:18] == b"\x78\x56\x34\x12"
    assert (witness.error.program, witness.error.pc) == ("target", 9)
    assert find_input(program, 9, runs=20_000) is None
    report = fuzz(program, runs=20_000)
    (finding,) = report.findings
    assert (finding.program, finding.pc, finding.packet) == ("target", 9, witness.packet)
    assert finding.text.endswith("in program 'target', which was tail-called")
    assert (report.reached, report.instructions, report.ways, report.all_ways) == (14, 21, 4, 4)
