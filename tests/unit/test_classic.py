"""Classic BPF: text in four dialects, rules, meanings; every engine, and Linux's own filters."""

from __future__ import annotations

import ctypes
import random
import socket
import struct
from typing import Any

import pytest

from ebpfjit import AssemblyError, DecodeError, EbpfError, TranslationError, VerifierError, classic, kernel
from ebpfjit.classic.table import ANCILLARIES, ROWS, Form, Kind
from ebpfjit.difftest.classic import packet, program

TCPDUMP = """\
(000) ldh      [12]
(001) jeq      #0x800           jt 2\tjf 8
(002) ldb      [23]
(003) jeq      #0x6             jt 4\tjf 8
(004) ldxb     4*([14]&0xf)
(005) ldh      [x + 16]
(006) jeq      #0x50            jt 7\tjf 8
(007) ret      #262144
(008) ret      #0
"""
BPF_ASM = """
/* the same, as people write it */
        ldh [12]
        jne #0x800, no      ; not IPv4
        ldb [23]
        jneq #6, no
        ldxb 4*([14]&0xf)
        ldh [x + 16]        // the destination's port
        jeq #80, yes, no
yes:    ret #262144
no:     ret #0
"""


def test_dialects_read_and_write_the_same() -> None:
    code = classic.assemble(TCPDUMP)
    assert classic.assemble(BPF_ASM) == code
    assert classic.disassemble(code, "tcpdump") == TCPDUMP
    assert classic.disassemble(code, "dd").splitlines()[1] == "{ 0x15, 0, 6, 0x00000800 },"
    assert classic.disassemble(code, "ddd").splitlines()[:3] == ["9", "40 0 0 12", "21 0 6 2048"]
    assert classic.assemble("4,48 0 0 9,21 0 1 6,6 0 0 1,6 0 0 0") == classic.assemble(
        "ldb [9]\njeq #6, 0, 1\nret #1\nret #0"
    )
    for dialect in ("bpf_asm", "tcpdump", "dd", "ddd"):
        for seed in range(60):
            made = program(random.Random(seed))
            assert classic.assemble(classic.disassemble(made, dialect)) == made, (dialect, seed)
    assert classic.assemble("ret #010") == classic.assemble("{ 6, 0, 0, 010 },") == classic.assemble("ret #8")
    with pytest.raises(ValueError, match="a dialect is one of bpf_asm, tcpdump, dd, ddd"):
        classic.disassemble(code, "c")


WRONG_TEXT = {
    "": "the text has no instructions",
    "ldq [1]": r"line 1, column 1: no operation 'ldq'; there are: add",
    "ld [1\nret #0": r"line 1, column 4: ld takes \[k\], .*not '\[1'",
    "ldh #5": r"ldh takes \[k\], \[x \+ k\], not '#5'",
    "jeq #1, there\nret #0": "line 1, column 9: no label 'there'",
    "jeq #1\nret #0": "jeq has one target or two",
    "ret #0, 5": "ret has no targets",
    "a: ret #0\na: ret #1": "line 2, column 1: a second label 'a'",
    "ld #0x100000000": "does not fit in 32 bits",
    "{ 0x6, 0, 0 },": "an instruction is { code, jt, jf, k }, four numbers",
    "{ 0x6, 300, 0, 0 },": "jt is 300, and has room for 0 to 255",
    "3\n6 0 0 0": "line 1, .*the first line says 3 instructions, and there are 1",
    "1\n6 0 0": "four numbers in base 10",
    "(001) ret #0": r"instruction \(001\) stands at the place of \(000\)",
    "(000) jeq #1": "jeq has its targets: jt N jf N",
    "(000) jeq #0x1 jt 0 jf 0": "jt is -1",
    "ld [08]": "line 1, column 4: 08 is no number of 32 bits",
    "{ 6, 0, 0, 09 },": "line 1, column 1: 09 is no number",
    "ret #" + "9" * 5000: r"9{20}\.\.\. is no number of 32 bits",
    "{ 6, 0, 0, " + "9" * 5000 + "},": "is no number of 32 bits",
    "jmp " + "9" * 5000: "is no number of 32 bits",
    "(" + "9" * 5000 + ") ret #0": "no operation",
    "6 0 0 " + "9" * 5000: "four numbers in base 10",
    "9" * 5000: "no operation",
}


def test_wrong_text_is_one_clear_error_each() -> None:
    for text, says in WRONG_TEXT.items():
        with pytest.raises(AssemblyError, match=says):
            classic.assemble(text)


WRONG = {
    "ld [0]": ("ends", "the program ends without a ret"),
    "div #0\nret a": ("divisor", "instruction 0: div by the constant 0"),
    "mod #0\nret a": ("divisor", "mod by the constant 0"),
    "lsh #32\nret a": ("shift", "lsh by 32, of 32 bits"),
    "st M[16]\nret a": ("cell", r"M\[16\], and there are M\[0\] to M\[15\]"),
    "ld M[3]\nret a": ("cell", r"M\[3\] is read before it is written"),
    "ret #0\nld M[3]\nret a": ("cell", r"instruction 1: M\[3\] is read before it is written"),
    "jeq #1, 0, 1\nst M[3]\nld M[3]\nret a": ("cell", r"instruction 2: M\[3\] is read before"),
    "ja 1\nret #0": ("target", "a jump to 2, and the program has 2 instructions"),
    "jeq #1, 0, 7\nret #0": ("target", "a branch to 8"),
    "ld [0xfffff041]\nret a": ("ancillary", "offset 0xfffff041 is of no packet"),
}


def test_rules_are_those_of_linux() -> None:
    for text, (rule, says) in WRONG.items():
        code = classic.assemble(text)
        for use in (classic.check, classic.to_ebpf, lambda code: classic.run(code, b"")):
            with pytest.raises(VerifierError, match=says) as raised:
                use(code)
            assert raised.value.rule == rule
        assert _kept(code, b"") is None, text
    with pytest.raises(VerifierError, match="code 0x00ff is no operation"):
        classic.check(struct.pack("<HBBI", 0xFF, 0, 0, 0))
    for code in (b"", classic.encode([(6, 0, 0, 0)] * 4097)):
        with pytest.raises(VerifierError):
            classic.check(code)
    with pytest.raises(DecodeError, match="7 bytes are no whole number"):
        classic.check(bytes(7))
    assert classic.check(classic.assemble("jeq #1, 0, 1\nst M[3]\nst M[3]\nld M[3]\nret a")) is None


#    operation on A = 100, X = 7                       result
MEANINGS = {
    "add #5": 105, "add x": 107, "sub #101": 0xFFFFFFFF, "sub x": 93, "mul x": 700, "div #7": 14, "div x": 14,
    "mod #7": 2, "mod x": 2, "and #6": 4, "or x": 103, "xor x": 99, "lsh #30": 0, "lsh x": 12800,
    "rsh #2": 25, "rsh x": 0, "neg": 0xFFFFFF9C, "txa": 7, "ld len": 20, "ld [2]": 0x02030405,
    "ldh [2]": 0x0203,
    "ldb [2]": 2, "ldh [x+1]": 0x0809, "ldb [x+12]": 19, "ld [17]": 0, "ldb [20]": 0, "ldb [x+13]": 0,
    "ldxb 4*([15]&0xf)\ntxa": 60, "ldx len\ntxa": 20, "ldx #3\ndiv x": 33, "ldx #0\ndiv x": 0,
    "ldx #0\nmod x": 0, "ld xor_x": 99, "st M[2]\nld #0\nld M[2]": 100,
    "stx M[15]\nldx #0\nldx M[15]\ntxa": 7, "ld [0xffe00003]": 0x03040506, "ldb [0xfff00001]": 15,
    "jset #4, 0, 1\nret #1\nld #3": 1, "jgt x, 0, 1\nret #1\nld #3": 1, "jge #100, 0, 1\nret #1\nld #3": 1,
    "jgt #0xffffffff, 0, 1\nret #1\nld #3": 3, "ja 1\nret #1\nld #3": 3, "ldx #0xffe00000\nldb [x+5]": 5,
    "ldx #0x7fffffff\nldb [x+0x7fffffff]": 0,
}  # fmt: skip
DATA = bytes(range(20))


def _everywhere(code: bytes, data: bytes) -> dict[str, Any]:
    """Return the result of a program on each engine that has it."""
    found: dict[str, Any] = {"classic": classic.run(code, data)}
    for type_ in (None, "socket_filter"):
        translated = classic.to_ebpf(code, type_)
        for engine in ("interpreter", "jit"):
            found[f"{type_} {engine}"] = translated.run(data, engine=engine).return_value
    return found


def test_every_operation_means_what_linux_has_it_mean() -> None:
    covered = set()
    for text, expected in MEANINGS.items():
        code = classic.assemble(f"ld #100\nldx #7\n{text}\nret a")
        covered |= {instruction.code for instruction in classic.decode(code)}
        assert set(_everywhere(code, DATA).values()) == {expected}, text
    assert len(covered) > 35


def test_programs_made_by_chance_agree_on_every_engine() -> None:
    for seed in range(250):
        chosen = random.Random(seed)
        code, data = program(chosen), packet(chosen)
        try:
            classic.check(code)
        except VerifierError as error:
            assert error.rule == "ancillary", seed  # noqa: PT017 - what chance may come to
            continue
        found = _everywhere(code, data)
        assert len(set(found.values())) == 1, (seed, found, classic.disassemble(code))


def _kept(code: bytes, data: bytes) -> int | None:
    """Return how much of a datagram a filter of Linux's keeps, None where Linux refuses the filter."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        buffer = ctypes.create_string_buffer(code, len(code))
        filter_ = struct.pack("H6xQ", len(code) // 8, ctypes.addressof(buffer))
        try:
            other.setsockopt(socket.SOL_SOCKET, 26, filter_)  # SO_ATTACH_FILTER
        except OSError:
            return None
        other.setblocking(False)
        try:
            one.send(data)
            return len(other.recv(4096))
        except OSError:
            return 0


def test_linux_filters_its_sockets_the_same_way() -> None:
    """What Linux lets through of a datagram is as long as the result says."""
    for seed in range(300):
        chosen = random.Random(-seed)
        code, data = program(chosen, headers=False), packet(chosen)
        kept = _kept(code, data)
        assert kept == min(classic.run(code, data, network=0), len(data)), (seed, classic.disassemble(code))


@pytest.mark.skipif(kernel.unavailable_reason() is not None, reason="bpf(2) is not allowed here")
def test_translated_filters_run_in_linux() -> None:
    for seed in range(25):
        chosen = random.Random(1000 + seed)
        code, data = program(chosen), packet(chosen)
        try:
            found = classic.to_ebpf(code).run(data, engine="kernel").return_value
        except VerifierError:
            continue
        assert found == classic.run(code, data), (seed, classic.disassemble(code))


CONTEXT = {"mark": 5, "ifindex": 3, "queue_mapping": 2}
ABOUT = {"mark": 5, "ifidx": 3, "queue": 2, "proto": 0x0800, "type": 0, "hatype": 1, "rxhash": None, "cpu": 0,
         "vlan_tci": 0, "vlan_avail": 0, "vlan_tpid": 0, "rand": None}  # fmt: skip


def test_ancillary_loads() -> None:
    frame = bytes(12) + b"\x08\x00" + bytes(46)
    for name in ANCILLARIES:
        code = classic.assemble(f"ldb {name}\nret a")
        about = {key: value for key, value in ABOUT.items() if value is not None}
        assert 0 <= classic.run(code, frame, ancillaries=about) < 1 << 32
        if name in ("nla", "nlan", "poff"):
            with pytest.raises(TranslationError, match=f"nothing that gives {name!r}; classic.run does"):
                classic.to_ebpf(code)
            continue
        for engine in ("interpreter", "jit"):
            found = classic.to_ebpf(code).run(frame, engine=engine, context={"mark": 5}).return_value
            if name in ("mark", "proto", "hatype", "cpu", "vlan_tci", "vlan_avail", "vlan_tpid", "type"):
                assert found == ABOUT[name], name
    with pytest.raises(TranslationError, match="a program without a context has nothing that gives 'mark'"):
        classic.to_ebpf(classic.assemble("ld mark\nret a"), None)
    with pytest.raises(ValueError, match="'socket_filter', or None, not 'xdp'"):
        classic.to_ebpf(classic.assemble("ret #1"), "xdp")


def test_netlink_attributes() -> None:
    inner = struct.pack("<HH", 8, 5) + b"1234"
    data = struct.pack("<HH", 8, 1) + bytes(4) + struct.pack("<HH", 4 + len(inner), 2) + inner
    find = "ld #{at}\nldx #{kind}\nldb {name}\nret a"
    for name, at, kind, where in [
        ("nla", 0, 1, 0), ("nla", 0, 2, 8), ("nla", 0, 9, 0), ("nlan", 8, 5, 12), ("nlan", 8, 1, 0),
        ("nla", 99, 1, 0),
    ]:  # fmt: skip
        code = classic.assemble(find.format(at=at, kind=kind, name=name))
        assert classic.run(code, data) == where, (name, at, kind)


def test_what_nothing_leads_to_is_not_translated() -> None:
    for type_ in (None, "socket_filter"):
        once = classic.to_ebpf(classic.assemble("ldx #1\nret #7"), type_)
        for more in ("ret #5\n", "ja 1\nld [4]\nret a\n", "ldxb 4*([0x40000000]&0xf)\n"):
            made = classic.to_ebpf(classic.assemble(f"ldx #1\nret #7\n{more}ret #6"), type_)
            assert made.code == once.code, more


def test_a_place_is_compared_once() -> None:
    code = classic.assemble("ldh [20]\njeq #1, 0, 2\nldb [3]\njeq #2, 0, 0\nldb [19]\nret a")
    assert classic.to_ebpf(code, None).disassemble().count("jlt") == 1
    assert issubclass(TranslationError, EbpfError)
    assert {row.kind for row in ROWS} == set(Kind)
    assert {row.form for row in ROWS} == set(Form)
