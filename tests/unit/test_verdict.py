"""What `Program.verify` returns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ebpfjit import EbpfError, MemoryFault, Program, load
from ebpfjit.verifier.walk import Walk

CHECKOUT = Path(__file__).resolve().parents[2]

GUARDED = """
    ldxw r2, [r1]
    ldxw r3, [r1+4]
    mov r4, r2
    add r4, 14
    mov r0, 1
    jgt r4, r3, +1
    ldxb r0, [r2+13]
    exit
"""


def test_what_is_compared_may_be_read() -> None:
    found = Program.from_assembly(GUARDED, type="xdp").verify(seconds=0)
    assert found
    assert (found.status, found.errors, found.reason) == ("accepted", (), "")
    assert found.visited >= 8
    assert found.stack == 0


def test_one_byte_too_far() -> None:
    found = Program.from_assembly(GUARDED.replace("r2+13", "r2+14"), type="xdp").verify(seconds=0)
    assert not found
    (error,) = found.errors
    assert (error.pc, error.kind) == (6, "memory")
    assert "invalid access to packet, off=14 size=1, R2(r=14)" in error.message
    assert [each.pc for each in error.path] == [5]
    assert dict(error.registers)["r2"].startswith("the packet")
    assert str(error) in str(found) or error.message in str(found)
    again = json.loads(json.dumps(found.json()))
    assert again["status"] == "refused"
    assert again["errors"][0]["pc"] == 6


def test_all_errors_that_do_not_follow_from_one_another() -> None:
    text = "mov r0, r3\nldxdw r2, [r10-8]\nldxw r2, [r1+512]\nexit"
    found = Program.from_assembly(text, type="xdp").verify(seconds=0)
    assert [error.pc for error in found.errors] == [0, 2]


def test_lines_of_source() -> None:
    """What is wrong has its line, where the object has any."""
    program = load(CHECKOUT / "tests/elf/special_fields.o").program("forgets")
    found = program.verify(seconds=0)
    assert found.status == "refused"
    assert all(error.line is not None for error in found.errors)


def test_objects_of_examples() -> None:
    for name in ("load_balancer.o", "ipip.o", "event_logger.o"):
        programs = load(CHECKOUT / "examples/packets" / name).programs
        assert {
            each: program.verify(seconds=0).status for each, program in programs.items()
        } == dict.fromkeys(programs, "accepted")


def test_what_a_tail_call_leads_to_may_move_the_packet_and_return_anything() -> None:
    """A function with a tail call returns what the program called does; where there is none, it goes on."""
    maps = load(CHECKOUT / "tests/elf/tail_call_two_types.o").programs["caller"].maps
    tail = "mov r1, r6\nlddw r2, map[idx:0]\nmov r3, 0\ncall 12\n"
    look = "ldxw r7, [r6+76]\nldxw r8, [r6+80]\nmov r2, r7\nadd r2, 1\nmov r0, 1\njle r2, r8, +1\nexit\n"
    goes_on = "mov r6, r1\n" + look + tail + "ldxb r1, [r7]\nmov r0, 0\nexit"
    function = "\nexit\nsub: mov r6, r1\n" + tail + "mov r0, 0\nexit"
    moved = "mov r6, r1\n" + look + "mov r1, r6\ncall local sub\nldxb r0, [r7]" + function
    returned = "mov r6, r1\ncall local sub\njeq r0, 0, +1\nldxb r0, [r0]\nmov r0, 0" + function
    for text, kinds in ((goes_on, []), (moved, ["type"]), (returned, ["type"])):
        program = replace(Program.from_assembly(text, type="tc"), maps=maps)
        assert [error.kind for error in program.verify(seconds=0).errors] == kinds


def test_maps_that_programs_of_a_type_must_not_use() -> None:
    program = load(CHECKOUT / "tests/elf/special_fields.o").program("adds")
    assert program.verify(seconds=0).errors == ()
    (error,) = replace(program, type="perf_event", section="perf_event").verify(seconds=0).errors
    assert "tracing progs cannot use bpf_" in error.message


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("ldxb r0, [r1]\nexit", None, "context_size"),
        ("mov r0, 0\nloop: add r0, 1\nand r0, 0xff\nja loop\nexit", "xdp", ""),
    ],
)
def test_what_is_not_decided_says_why(text: str, kind: str | None, words: str) -> None:
    found = Program.from_assembly(text, type=kind).verify(limit=1000)
    assert found.status in ("undecided", "refused")
    assert words in str(found)


def test_a_limit_is_told_with_its_loop() -> None:
    """1,000 rounds of which each one is another."""
    text = "mov r0, 0\nloop: add r0, 1\njlt r0, 1000, loop\nmov r0, 1\nexit"
    program = Program.from_assembly(text, type="xdp")
    assert program.verify(seconds=0).status == "accepted"
    found = program.verify(limit=500)
    assert found.status == "undecided"
    assert "500 instructions were walked" in found.reason
    assert "pc 1" in found.reason


def test_memory_of_a_program_without_a_type() -> None:
    program = Program.from_assembly("ldxb r0, [r1+7]\nexit")
    assert program.verify(context_size=8).status == "accepted"
    assert program.verify(context_size=7).status == "refused"


def test_structs_of_the_kernel_are_for_programs_whose_license_goes_with_the_gpl() -> None:
    lookup = "r1 = *(u64 *)(r1 + 168); if r1 == 0 goto out; call 137; if r0 == 0 goto out"
    text = f"{lookup}; r0 = *(u32 *)(r0 + 0); out: r0 = 0; exit".replace("; ", "\n")
    program = Program.from_assembly(text, type="tc")
    assert program.verify(seconds=0).status == "undecided", "what is there the kernel's types say"
    (error,) = replace(program, license="Proprietary").verify(seconds=0).errors
    assert (error.pc, error.kind) == (4, "type")
    assert "Cannot access kernel 'struct tcp_sock' from non-GPL compatible program" in error.message


def test_claims_are_what_was_known() -> None:
    found = Program.from_assembly(GUARDED, type="xdp").verify(claims=True)
    assert found.claims is not None
    assert set(found.claims) == set(range(8))
    assert Program.from_assembly(GUARDED, type="xdp").verify(seconds=0).claims is None


def test_pointers_of_unprivileged_programs_stay_inside() -> None:
    program = Program.from_assembly("mov r0, r1\nexit", type="socket_filter")
    assert program.verify(unprivileged=True).errors[0].kind == "leak"
    assert program.verify(seconds=0).status == "accepted"


def test_an_error_of_the_verifier_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Walk, "run", fails)
    program = Program.from_assembly("mov r0, 0\nexit", type="xdp")
    with pytest.raises(ZeroDivisionError):
        program.verify(seconds=0)
    monkeypatch.setenv("EBPFJIT_FAILURES", "")
    found = program.verify(seconds=0)
    assert found.status == "undecided"
    assert "ZeroDivisionError" in found.reason


def test_a_witness_really_faults() -> None:
    program = Program.from_assembly(GUARDED.replace("r2+13", "r2+14"), type="xdp")
    found = program.verify()
    (error,) = found.errors
    assert len(error.witness.packet) == 14
    with pytest.raises(MemoryFault) as fault:
        error.witness.run(program)
    assert fault.value.pc == error.pc
    assert "a run that goes wrong there: 14 bytes" in str(found)
    assert found.json()["errors"][0]["witness"]["pc"] == error.pc


def test_no_witness_is_told_where_one_was_looked_for() -> None:
    """The comparison is one that no packet fails."""
    program = Program.from_assembly("ldxw r2, [r1]\nldxb r0, [r2]\nexit", type="xdp")
    (error,) = program.verify(seconds=0.05).errors
    assert (error.witness, error.looked) == (None, True)
    (error,) = program.verify(seconds=0).errors
    assert not error.looked


@pytest.mark.parametrize(
    ("name", "program", "status"),
    [
        ("iterators_of.o", "tasks", "accepted"),
        ("iterators_of.o", "files", "accepted"),
        ("map_fields.o", "array", "accepted"),
        ("map_fields.o", "inside", "accepted"),
        ("dummy_ops.o", "test_2", "accepted"),
        ("dummy_ops.o", "test_1", "accepted"),
    ],
)
def test_structs_of_the_kernel_by_the_types_of_the_object(name: str, program: str, status: str) -> None:
    assert load(CHECKOUT / "tests/elf" / name).program(program).verify(seconds=0).status == status


@pytest.mark.parametrize(
    ("access", "words"),
    [
        ("ldxdw r0, [r1+30000]", "access beyond struct"),
        ("ldxw r0, [r1+2]", "access beyond the end of member map_type"),
        ("stxw [r1], r0", "only read from maps is supported"),
    ],
)
def test_wrong_reads_of_a_maps_struct(access: str, words: str) -> None:
    given = load(CHECKOUT / "tests/elf/map_fields.o").program("array")
    text = f"lddw r1, map[idx:0]\nmov r0, 0\n{access}\nmov r0, 0\nexit"
    made = Program.from_assembly(text, type="tc")
    program = replace(given, code=made.code, references={}, lines={}, relocations={3: False})
    assert words in program.verify(seconds=0).errors[0].message


def test_a_listing_has_the_verdict_beside_the_instructions() -> None:
    program = Program.from_assembly(GUARDED.replace("r2+13", "r2+14"), type="xdp")
    listing = program.listing(verdict=program.verify(seconds=0))
    assert "; refused: invalid access to packet" in listing
    assert "verdict: refused (9 instructions visited" in listing
    (step,) = (each for each in listing.to_dict()["instructions"] if each["errors"])
    assert step["pc"] == 6
    assert "refused" not in program.listing()
    assert listing.html() != program.listing().html()


def test_what_a_kernel_lacks_is_refused() -> None:
    """Atomic operations came with Linux 5.12."""
    text = "r0 = 0\n*(u64 *)(r10 - 8) = r0\nr1 = 1\nr0 = cmpxchg_64(r10 - 8, r0, r1)\nr0 = 0\nexit"
    program = Program.from_assembly(text, type="xdp")
    assert program.verify("5.15").status == "accepted"
    found = program.verify("5.10")
    assert found.status == "refused"
    (error,) = found.errors
    assert (error.pc, error.kind, error.looked) == (3, "kernel", False)
    assert "5.12" in error.message
    with pytest.raises(EbpfError):
        program.verify("5.99")


def test_comparisons_of_the_frame_pointer_leak_it() -> None:
    """Both ways behind one that is refused are walked."""
    text = "jlt r10, 0, +2\nldxw r2, [r1+512]\nja +1\nldxw r2, [r1+256]\nmov r0, 0\nexit"
    found = Program.from_assembly(text, type="xdp").verify(unprivileged=True, seconds=0)
    assert [(error.pc, error.kind) for error in found.errors] == [(0, "leak"), (1, "memory"), (3, "memory")]


def test_references_that_nothing_resolves_are_not_decided() -> None:
    """Linux looks at all of them before it walks anything."""
    found = Program.from_assembly("mov r0, 0\njeq r0, 0, +2\nlddw r1, map[fd:7]\nexit", type="xdp").verify()
    assert found.status == "undecided"
    assert "nothing resolves" in found.reason


def test_a_descriptor_that_is_in_an_object_names_no_map() -> None:
    code = bytes.fromhex("18110000010000000000000000000000b7000000000000009500000000000000")
    verdict = Program(code, section="socket", type="socket_filter").verify(seconds=0)
    assert [error.message for error in verdict.errors] == ["fd 1 is not pointing to valid bpf_map"]
    assert Program(code, type="socket_filter").verify(seconds=0).status == "undecided"


def test_an_extension_is_judged_with_what_it_replaces() -> None:
    program = Program(bytes.fromhex("61120400000000009500000000000000"), section="freplace/f", type="ext")
    assert program.verify(seconds=0).status == "undecided"
