"""What docs/differences.md says of programs that Linux takes otherwise than we do: an example of each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ebpfjit import EbpfError, InputError, Program, load
from ebpfjit.assembler import assemble
from ebpfjit.difftest.verdicts import texts
from ebpfjit.kernel import KernelUnavailable, KernelVerifierError, load_program, unavailable_reason

ROOT = Path(__file__).resolve().parents[2]
OBJECTS = ROOT / "tests" / "elf"
DOCS = (ROOT / "docs" / "differences.md").read_text()
needs_kernel = pytest.mark.skipif(unavailable_reason() is not None, reason=str(unavailable_reason()))


def in_linux(program: Program) -> str:
    """Return "accepted", or why Linux refuses a program."""
    try:
        load_program(program)
    except KernelUnavailable:
        raise
    except EbpfError as error:
        return error.log if isinstance(error, KernelVerifierError) and error.log else str(error)
    return "accepted"


# -- What the verifier refuses, though the RFC defines it ------------------------------------------

#  Linux's words, what runs here without a type, on 64 bytes, and what it gives
DEFINED = (
    ("div by zero", "r0 = 7; r0 /= 0; exit", 0),
    ("invalid shift 64", "r0 = 7; r0 <<= 64; exit", 7),
    ("invalid shift -1", "r0 = 1; r0 <<= -1; exit", 1 << 63),
    ("misaligned stack access", "r0 = 5; *(u64 *)(r10 - 12) = r0; exit", 5),
    ("unreachable insn", "r0 = 3; exit; r0 = 1; exit", 3),
    ("R1 !read_ok", "r0 = 0; call f; r0 = r1; r0 -= r1; exit; f: r1 = 2; exit", 0),
    ("R6 !read_ok", "r6 = 2; call f; exit; f: r0 = r6; exit", 2),
    ("pointer arithmetic with *= operator prohibited", "r1 *= 2; r0 = 4; exit", 4),
    (
        "R2 invalid mem access 'scalar'",
        "w2 = w1; r2 = 4096; if r1 == 0 goto +1; r2 = r1; r0 = *(u8 *)(r2 + 1); exit",
        1,
    ),
    (
        "frames is too deep",
        "r1 = 3; call f; exit; f: r0 = 9; r1 -= 1; if r1 == 0 goto +1; call f; exit",
        9,
    ),
    ("unknown opcode 8d", "r2 = subprog[f]; callx r2; exit; f: r0 = 8; exit", 8),
)


@pytest.mark.parametrize(("words", "text", "result"), DEFINED, ids=[row[0] for row in DEFINED])
def test_what_the_verifier_refuses_runs_here(words: str, text: str, result: int) -> None:
    code = assemble(text.replace("; ", "\n"))
    assert Program(code).run(bytes(range(64)), engine="interpreter").return_value == result
    program = Program(code, type="socket_filter")
    assert program.verify(seconds=0).status == "refused", "our verdict is Linux's"
    if unavailable_reason() is None:
        assert words in in_linux(program)


# -- What program.verify() says otherwise than Linux ------------------------------------------------


def test_texts_with_another_verdict_are_in_the_docs() -> None:
    """Each is named under the class that its reason begins with; tests/verifier holds both verdicts to it."""
    section = DOCS.partition("## Verdicts")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| .*?\| `(\w+)\.txt`", section, re.MULTILINE)
    expected = {
        (read.because.partition(":")[0], path.stem)
        for path in sorted((ROOT / "tests" / "verifier").glob("*.txt"))
        if (read := texts.read(path)).because
    }
    assert expected
    assert set(rows) == expected


@needs_kernel
def test_a_kernel_may_be_built_without_what_ours_knows() -> None:
    """bpf_override_return takes CONFIG_BPF_KPROBE_OVERRIDE."""
    program = Program.from_assembly("r2 = 0\ncall 58\nr0 = 0\nexit", type="kprobe")
    assert program.verify().status == "accepted"
    said = in_linux(program)
    assert said == "accepted" or "cannot use helper bpf_override_return#58" in said


@needs_kernel
def test_linux_loads_no_program_without_a_type() -> None:
    program = Program.from_assembly("r0 = 0\nexit")
    assert program.verify().status == "accepted"
    assert "Linux loads none without" in in_linux(program)


@needs_kernel
def test_what_an_object_lacks_is_no_matter_of_its_code() -> None:
    program = load(OBJECTS / "externs.o").program("configured")
    assert program.verify().status == "accepted"
    assert "has no value" in str(program.refusal)
    assert str(program.refusal) in in_linux(program)


@needs_kernel
def test_a_limit_leaves_the_verdict_open() -> None:
    program = Program.from_assembly("r0 = 0\ntop: r0 += 1\nif r0 < 900 goto top\nr0 = 0\nexit", type="xdp")
    assert program.verify(limit=500).status == "undecided"
    assert (program.verify().status, in_linux(program)) == ("accepted", "accepted")


# -- Packets and contexts -------------------------------------------------------------------------------

IPV4, IPV6, OTHER = bytes(12) + b"\x08\x00", bytes(12) + b"\x86\xdd", bytes(12) + b"\x12\x34"
LENGTH = "r0 = *(u32 *)(r1 + 0)"
STORED = "r2 = {0}; *(u32 *)(r1 + {1}) = r2; r0 = *(u32 *)(r1 + {1})"
FRAME = OTHER + bytes(50)

#  what it is, the program, its packet, what it gives here and in Linux (None: InputError)
SEEN = (
    ("an IPv4 header of 11 bytes", LENGTH, IPV4 + bytes(11), 25, None),
    ("an IPv6 header of 31 bytes", LENGTH, IPV6 + bytes(31), 45, None),
    ("the longest packet of a socket buffer", LENGTH, OTHER + bytes(3698), 3712, 3712),
    ("a longer one", LENGTH, OTHER + bytes(3699), 3713, None),
    ("tc_index", STORED.format(0x12345, 44), FRAME, 0x12345, 0x2345),
    ("queue_mapping", STORED.format(65535, 12), FRAME, 65535, 0),
    ("a small queue_mapping", STORED.format(65534, 12), FRAME, 65534, 65534),
    ("the upper half of protocol", "r0 = *(u16 *)(r1 + 18)", IPV4 + b"\x45" + bytes(49), 0, 8),
)
NAMES = [row[0] for row in SEEN]


@needs_kernel
@pytest.mark.parametrize(("text", "packet", "here", "linux"), [row[1:] for row in SEEN], ids=NAMES)
def test_packets_and_contexts(text: str, packet: bytes, here: int, linux: int | None) -> None:
    program = Program.from_assembly(text.replace("; ", "\n") + "\nexit", type="tc")
    assert program.run(packet, engine="interpreter").return_value == here
    if linux is None:
        with pytest.raises(InputError, match="EINVAL"):
            program.run(packet, engine="kernel")
    else:
        assert program.run(packet, engine="kernel").return_value == linux


@needs_kernel
def test_a_lookup_with_an_interface() -> None:
    text = "r0 = *(u32 *)(r1 + 64)\nif r0 == 0 goto +1\nr0 = 1\nexit"
    program = Program.from_assembly(text, type="sk_lookup")
    context = {"ingress_ifindex": 3, "family": 2, "protocol": 6}
    assert program.run(context=context, engine="interpreter").return_value == 1
    with pytest.raises(InputError, match="EINVAL"):
        program.run(context=context, engine="kernel")
