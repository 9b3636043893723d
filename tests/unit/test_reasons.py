"""Which instruction set the result: machine code's memory of it, against a trace of the interpreter."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest

from ebpfjit import Program, load
from ebpfjit.compiling import with_reasons
from ebpfjit.isa.spec import Kind
from ebpfjit.runtime.changed import NO_REASON
from tests.support.packets import packets

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "packets"
DATA = [*packets().values()]


def _reasons(program: Program, data: list[bytes]) -> list[int]:
    found = array("Q")
    with_reasons(program).map(data, on_fault=0, reasons=found)
    return list(found)


def _traced(program: Program, data: bytes) -> int:
    """Return the pc of what set the result, by going back through what was executed."""
    wanted: int | str = 0
    steps = list(program.trace(data))
    for step in reversed(steps):
        insn = program.slots[step.pc]
        assert insn is not None
        assert insn.row is not None
        kind, row = insn.row.kind, insn.row
        if kind is Kind.STORE:
            if wanted == f"[{insn.offset}]" and insn.dst_reg == 10:
                if not row.uses_src:
                    return step.pc
                wanted = insn.src_reg
            continue
        called = kind in (Kind.CALL_HELPER, Kind.CALL_KFUNC)
        writes = kind not in (Kind.EXIT, Kind.BRANCH, Kind.JUMP, Kind.STORE)
        if not (wanted in range(6) if called else writes and wanted == insn.dst_reg):
            continue
        if kind is Kind.MOVE and row.uses_src and row.operation in ("MOV64", "MOV32"):
            wanted = insn.src_reg
        elif kind is Kind.LOAD and insn.src_reg == 10:
            wanted = f"[{insn.offset}]"
        else:
            return step.pc
    return 0


@pytest.mark.parametrize("name", ["ipip", "xdp_port_filter", "nat", "socket_statistics", "event_logger"])
def test_as_a_trace_says(name: str) -> None:
    for program in load(EXAMPLES / f"{name}.o").programs:
        obj, other = (load(EXAMPLES / f"{name}.o") for _ in range(2))
        for each in (obj, other):
            if name == "xdp_port_filter":
                each.maps["blocked"][53] = 1
            if name == "ipip":
                each.maps["tunnels"].typed[0x0200000A] = {"local": 1, "remote": 2}
        expected = [_traced(other.programs[program], packet) for packet in DATA]
        assert _reasons(obj.programs[program], DATA) == expected
        if name in ("ipip", "xdp_port_filter"):
            assert len(set(expected)) > 1


def test_lines_of_a_firewall() -> None:
    program = load(EXAMPLES / "xdp_port_filter.o").programs["port_filter"]
    (pc, *_) = _reasons(program, [packets()["udp"]])
    assert "bpf_map_lookup_elem(&blocked" in program.line_at(pc).text  # type: ignore[union-attr]  # it has lines


LOCAL = """
    mov r6, 7
    ldxw r2, [r1]
    ldxb r2, [r2+12]
    jeq r2, 8, out
    mov r6, r2
    call f
    jne r0, 0, end
out:
    mov32 r0, r6
end:
    exit
f:  mov r0, r2
    and r0, 1
    jeq r0, 1, odd
    mov r0, 0
odd:
    exit
"""


def test_functions_faults_and_what_was_never_set() -> None:
    program = Program.from_assembly(LOCAL, type="xdp")
    frames = [bytes(12) + kind + bytes(46) for kind in (b"\x08\0", b"\x86\xdd", b"\x87\0")]
    found = _reasons(program, frames)
    rows = [insn.row for insn in map(program.slots.__getitem__, found) if insn is not None]
    assert [row.operation for row in rows if row is not None] == ["MOV64", "LDXB", "AND64"]
    faults = Program.from_assembly("ldxw r1, [r1]\nldxb r0, [r1+30]\nexit", type="xdp")
    assert _reasons(faults, [bytes(20), bytes(40)]) == [NO_REASON, 1]
    assert _reasons(Program.from_assembly("exit", type="xdp"), [bytes(20)]) == [0]
    ends = Program.from_assembly("mov r6, r1\nldabsb 40\nmov r0, 1\nexit", type="tc")
    assert _reasons(ends, [bytes(20), bytes(60)]) == [1, 2]


def test_only_functions_that_remember_are_asked() -> None:
    program = Program.from_assembly("mov r0, 2\nexit", type="xdp")
    with pytest.raises(ValueError, match="remembers no reasons"):
        program.compile().map([bytes(60)], reasons=array("Q"))
    with pytest.raises(TypeError, match="an array"):
        with_reasons(program).map([bytes(60)], reasons=[])  # type: ignore[arg-type]  # what users may get wrong
