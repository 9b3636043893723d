"""Classic BPF: text in four dialects, rules, meanings; every engine, and Linux's own filters."""

from __future__ import annotations

import ctypes
import fcntl
import os
import pickle
import random
import socket
import struct
from dataclasses import replace
from typing import Any

import pytest

from ebpfjit import (
    AssemblyError,
    Clock,
    DecodeError,
    EbpfError,
    Environment,
    InputError,
    Program,
    TranslationError,
    VerifierError,
    classic,
    filters,
    kernel,
    load,
)
from ebpfjit.classic.code import encode
from ebpfjit.classic.linux import is_of_datagrams
from ebpfjit.classic.table import ANCILLARIES, ROWS, Form, Kind
from ebpfjit.difftest.children import run_forked
from ebpfjit.difftest.classic import packet, program
from ebpfjit.filters import pcap

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


SAME_TEXT = {
    "ldh [12]\nret #1": ("ldh\t[12]\nret\t#1", "LDH [ 12 ]\nRET #0X1", "# as in a file\nldh [12]\nret #1"),
    "ldxb 4*([14]&0xf)\nret a": ("ldx 4*([14]&0xf)\nret %a", "LDX 4 * ( [14] & 15 )\nRET A"),
    "ldb vlan_avail\nret a": ("ldb vlan_pr\nret a", "LDB #VLAN_PR\nret a"),
    "ldxb 4*([14]&0xf)\nret #5": ("ldxb 0x4*([016]&0x0f)\nret #+5", "ldxb 04*([+14]&017)\nret #5"),
    "ldh type\nret #0": ("ldh [type]\nret #0", "ldh [ #type ]\nret #0", "\ufeffldh type\nret #0"),
    "ld rand\nldb vlan_avail\nret #0": ("ld [random]\nldb [vlanp]\nret #0",),
    "ldb [9]\nret #0": ("2,48 0 0 9,6 0 0 0", "2,48 0 0 9,6 0 0 0,\n"),  # the latter is bpf_asm's
    "ld [x+3]\nst M[2]\nret a": ("ld [%X + 3]\nst m[ 2 ]\nret A",),
    "jeq x, 0, 1\nret #1\nret #3": ("JEQ X, Yes, No\nYes:\n\nret #1\nNo: ret #0B11",),
}


def test_text_is_read_as_bpf_asm_reads_it() -> None:
    for text, others in SAME_TEXT.items():
        for other in others:
            assert classic.assemble(other) == classic.assemble(text), other
    with pytest.raises(AssemblyError, match="no label 'yes'"):  # their case counts
        classic.assemble("jeq #1, yes\nYes: ret #0")


def test_jumps_back_and_out_are_written_as_they_are() -> None:
    loop = filters.to_classic("ip6 protochain 6")
    for code in (loop, encode([(5, 0, 0, 100), (6, 0, 0, 0)]), encode([(0x15, 200, 255, 7), (6, 0, 0, 0)]),
                 encode([(5, 0, 0, (1 << 32) - 9), (6, 0, 0, 0)])):  # fmt: skip
        for dialect in ("bpf_asm", "tcpdump", "dd", "ddd"):
            assert classic.assemble(classic.disassemble(code, dialect)) == code, dialect


def test_tcpdumps_text_is_libpcaps() -> None:
    """But for the one operation that libpcap cannot write: its machine does not have it."""
    image = pcap._library().bpf_image
    image.restype, image.argtypes = ctypes.c_char_p, (ctypes.c_char_p, ctypes.c_int)
    ret = b"\x06" + bytes(7)
    for row in ROWS:
        jt, jf = (2, 1) if row.kind is Kind.BRANCH else (0, 0)
        is_small = row.kind is Kind.JUMP or row.form is Form.CELL
        for k in (0, 7, 1, -1) if row.kind is Kind.JUMP else (0, 7, 1) if is_small else (3, 1 << 31, -1):
            code = encode([(row.code, jt, jf, k & 0xFFFFFFFF)])
            ours = classic.disassemble(code + 9 * ret, "tcpdump").splitlines()[0]
            if row.name == "ldx" and row.form is Form.LENGTH:
                assert ours == "(000) ldx      #pktlen"
            else:
                assert ours == image(code, 0).decode()
            assert classic.assemble(f"{ours}\n(001) ret      #0")[:8] == code or row.form in UNUSED
    for name, offset in ANCILLARIES.items():
        code = encode([(0x28, 0, 0, offset + 0xFFFFF000)])
        ours, libpcaps = classic.disassemble(code, "tcpdump").strip(), image(code, 0).decode()
        assert ours == libpcaps or (name in ("rand", "vlan_tpid") and "[-40" in libpcaps)  # of old headers
        for text in (ours, libpcaps):
            assert classic.assemble(text) == code, name


UNUSED = (Form.INDEX, Form.LENGTH, Form.NOTHING, Form.ACCUMULATOR)
"""Forms without a number: text has no place for k."""

WRONG_TEXT = {
    "ld [#5]": r"ld takes \[k\], .*not '\[#5\]'",
    "ldh [typ]": r"ldh takes \[k\], \[x \+ k\], not '\[typ\]'",
    "ldxb 8*([14]&0xf)": r"ldxb takes 4\*\(\[k\]&0xf\), not '8",
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


def test_arguments_of_another_type_are_named() -> None:
    ret = encode([(6, 0, 0, 0)])
    for given in (5, "proto", ["proto"], [("proto", 1)]):
        with pytest.raises(TypeError, match="what ancillary loads give is a mapping"):
            classic.run(ret, b"", ancillaries=given)  # type: ignore[arg-type]  # on purpose
    for source in (None, b"ret #0", 5, ["ret #0"]):
        with pytest.raises(TypeError, match="a program's text is a str, not of type"):
            classic.assemble(source)  # type: ignore[arg-type]  # on purpose
    for fields in ((6, 0, 0, -1), (6, 256, 0, 0), (1 << 16, 0, 0, 0), (6, 0, 0), "ret", 6, (6, 0, 0, 0.5)):
        with pytest.raises(ValueError, match=r"instruction 1: fields are code \(u16\), jt, jf"):
            encode([(6, 0, 0, 0), fields])  # type: ignore[list-item]  # on purpose


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
    "ld #0\na: ja a\nret #0": ("target", "a jump back to 1, which is for libpcap's machine only"),
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
    "ldx #0x7fffffff\nldb [x+0x7fffffff]": 0, "ld [x+2]": 0x090A0B0C, "tax\nld #0\ntxa": 100,
    "mul #3": 300, "or #3": 103, "xor #5": 97, "and x": 4,
    **{f"ldx #{x}\n{test}, 0, 1\nret #1\nld #3": result for x, test, result in [
        (7, "jeq #100", 1), (7, "jeq #101", 3), (100, "jeq x", 1), (7, "jeq x", 3),
        (7, "jgt #99", 1), (7, "jgt #100", 3), (100, "jgt x", 3), (100, "jge x", 1), (101, "jge x", 3),
        (7, "jge #101", 3), (7, "jset #3", 3), (4, "jset x", 1), (3, "jset x", 3),
    ]},
}  # fmt: skip
TAKEN, NOT_TAKEN = 1, 3
"""Results of the programs above that branch."""
FROM_THE_LINK = "ldx #0xffe00000\nldb [x+5]"
"""By X: a datagram has no such header, which no rule sees."""
DATA = bytes(range(20))


def _everywhere(code: bytes, data: bytes) -> dict[str, Any]:
    """Return the result of a program on each engine that has it."""
    found: dict[str, Any] = {"classic": classic.run(code, data)}
    for type_ in (None, "socket_filter"):
        translated = classic.to_ebpf(code, type_)
        for engine in ("interpreter", "jit"):
            found[f"{type_} {engine}"] = translated.run(data, engine=engine).return_value
        found[f"{type_} baseline"] = translated.compile(optimize=False)(data)
    return found


def _in_linux(code: bytes, data: bytes, **given: Any) -> dict[str, Any]:
    """Return the result of a translated program in Linux, nothing where there is no bpf(2)."""
    if kernel.unavailable_reason() is not None:
        return {}
    return {"kernel": classic.to_ebpf(code).run(data, engine="kernel", **given).return_value}


def test_every_operation_means_what_linux_has_it_mean() -> None:
    """Each row, each branch both ways, on each engine, and in both of Linux's machines."""
    results: dict[int, set[int]] = {row.code: set() for row in ROWS}
    for text, expected in MEANINGS.items():
        code = classic.assemble(f"ld #100\nldx #7\n{text}\nret a")
        for instruction in classic.decode(code):
            results[instruction.code].add(expected)
        found = _everywhere(code, DATA) | _in_linux(code, DATA)
        if is_of_datagrams(code) and text != FROM_THE_LINK:
            found["linux"] = classic.run_in_linux(code, DATA)
        assert set(found.values()) == {expected}, (text, found)
    for row in ROWS:
        wanted = {TAKEN, NOT_TAKEN} if row.kind is Kind.BRANCH else set()
        assert results[row.code], f"no vector has {row.name} {row.form.value}"
        assert results[row.code] >= wanted, f"{row.name} {row.form.value} goes one way only"


def test_programs_made_by_chance_agree_on_every_engine() -> None:
    for seed in range(120):
        chosen = random.Random(seed)
        code, data = program(chosen), packet(chosen)
        try:
            classic.check(code)
        except VerifierError as error:
            assert error.rule == "ancillary", seed  # noqa: PT017 - what chance may come to
            continue
        found = _everywhere(code, data)
        assert len(set(found.values())) == 1, (seed, found, classic.disassemble(code))


def test_linux_gives_the_same_results() -> None:
    """All 32 bits of them, from its own machine of classic BPF."""
    results = set()
    for seed in range(60):
        chosen = random.Random(-seed)
        code, data = program(chosen, headers=False), packet(chosen)
        if seed % 3 == 0:  # the last load may be out of a packet that is this short
            data = data[: 1 + seed % 14]
        result = classic.run_in_linux(code, data)
        assert result == classic.run(code, data, network=0), (seed, classic.disassemble(code))
        results.add(result)
    assert max(results) > 1 << 31
    assert len(results) > 15
    assert classic.run_in_linux(classic.assemble("ld len\nret a"), bytes(70_000)) == 70_000
    nested = classic.assemble("ld #4\nldx #1\nldb nlan\nret a")
    assert classic.run_in_linux(nested, bytes(8)) == 0
    for text, data, says in [
        ("ret #1", b"", "of an empty datagram"),
        ("ldb [0xffe00000]\nret a", b"1", "what a datagram between two sockets does not have"),
        ("ld mark\nret a", b"1", "what a datagram between two sockets does not have"),
        ("ld len\n" * 4094 + "ret a", b"1", "4095 instructions leave no room"),
        ("ld len\nret a", bytes(1 << 22), "Linux sends no datagram of 4194304 bytes"),
    ]:
        with pytest.raises(InputError, match=says):
            classic.run_in_linux(classic.assemble(text), data)


def _attach(to: socket.socket, code: bytes) -> None:
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_ = struct.pack("H6xQ", len(code) // 8, ctypes.addressof(buffer))
    to.setsockopt(socket.SOL_SOCKET, 26, filter_)  # SO_ATTACH_FILTER


def _kept(code: bytes, data: bytes) -> int | None:
    """Return how much of a datagram a filter of Linux's keeps, None where Linux refuses the filter."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        try:
            _attach(other, code)
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
        if seed % 5 == 0:
            file = filters.to_object(classic.to_ebpf(code, name="mine"), "socket")
            loaded = load(file).programs["mine"]
            assert loaded.type == "socket_filter"
            assert loaded.run(data, engine="kernel").return_value == found, seed


ABOUT = {"mark": 5, "proto": 0x0800, "type": 3, "hatype": 1, "ifidx": 1, "poff": 42, "xor_x": 0x67,
         "nla": 0, "nlan": 0, "vlan_tci": 0, "vlan_avail": 0, "vlan_tpid": 0, "queue": 0, "rxhash": 0,
         "cpu": 0}  # fmt: skip
"""What ancillary loads give for a frame of UDP to another host, with the mark 5 and A and X as below."""
WALKS = {"poff", "nla", "nlan"}
"""These are loops as eBPF; Linux's verifier does not follow them (its machine of classic BPF: below)."""
OF_PLAIN_MEMORY = {"proto", "poff", "nla", "nlan", "xor_x", "cpu"}
FRAME = bytes.fromhex("020000000002" + "020000000001" + "0800" + "4500002000010000401100000a0000010a000002"
                      + "0035003500080000" + "00000000")  # fmt: skip


def test_every_ancillary_load_on_every_engine() -> None:
    assert ABOUT.keys() == ANCILLARIES.keys() - {"rand"}
    one = Environment(cpu=0)
    for name, expected in ABOUT.items():
        code = classic.assemble(f"ld #0x60\nldx #7\nldb {name}\nret a")
        assert classic.run(code, FRAME, ancillaries={"mark": 5}) == expected, name
        assert classic.run(code, FRAME, ancillaries={name: 77}) == (77 if name != "xor_x" else 0x67)
        for type_ in (None, "socket_filter"):
            whole = classic.to_ebpf(code, type_, ancillaries={name: 77})
            assert whole.run(FRAME).return_value == (77 if name != "xor_x" else 0x67), name
            if type_ is None and name not in OF_PLAIN_MEMORY:
                with pytest.raises(TranslationError, match=f"nothing that gives '{name}': say ancillaries="):
                    classic.to_ebpf(code, type_)
                continue
            made, context = classic.to_ebpf(code, type_), {"context": {"mark": 5}} if type_ else {}
            for engine in ("interpreter", "jit"):
                found = made.run(FRAME, engine=engine, environment=one, **context).return_value  # type: ignore[call-overload]
                assert found == expected, (name, type_, engine)
        if name not in WALKS:
            for result in _in_linux(code, FRAME, context={"mark": 5}).values():
                assert result == expected or (name == "cpu" and result < (os.cpu_count() or 1)), name
    for use in (lambda given: classic.run(code, FRAME, ancillaries=given),
                lambda given: classic.to_ebpf(code, ancillaries=given)):  # fmt: skip
        with pytest.raises(ValueError, match=r"no ancillary load 'marc'; .*'mark'"):
            use({"marc": 1})
        with pytest.raises(TypeError, match="what mark gives is a number, not of type str"):
            use({"mark": "1"})
    for run in (classic.run, classic.run_in_linux):
        with pytest.raises(TypeError, match="bytes-like"):
            run(code, 5)
    rand = classic.assemble("ld rand\nret a")
    for type_ in (None, "socket_filter"):
        for engine in ("interpreter", "jit"):
            made = classic.to_ebpf(rand, type_)
            results = {made.run(FRAME, engine=engine).return_value for _ in range(4)}  # type: ignore[call-overload]
            assert len(results | {classic.run(rand, FRAME)}) > 2
    results = {value for _ in range(4) for value in _in_linux(rand, FRAME).values()}
    assert not results or len(results) > 2
    with pytest.raises(ValueError, match="'socket_filter', or None, not 'xdp'"):
        classic.to_ebpf(classic.assemble("ret #1"), "xdp")


def _headers(chosen: random.Random) -> bytes:
    """Return a frame of headers that the flow dissector follows, one in another, now and then a wrong one."""
    inner = {4: 0x0800, 41: 0x86DD, 137: 0x8847}
    made, kind, inside = bytearray(12), chosen.choice([0x0800, 0x86DD, 0x8100, 0x8864, 0x88FB, 0x4305]), 0
    made += kind.to_bytes(2, "big")
    for _ in range(chosen.choice([1, 2, 3, 4, 18])):
        inside = chosen.choice([4, 6, 17, 41, 47, 1, 2, 33, 58, 132, 136, 137, 43, 60, 44, 0, 99])
        if kind == 0x0800:
            fragment = chosen.choice([0, 0, 0, 0x2000, 5])
            made += struct.pack(
                ">BBHHHBB10x", chosen.choice([0x45, 0x45, 0x46]), 0, 0, 0, fragment, 64, inside
            )
            made += bytes(4 * (made[-20] & 15) - 20)
        elif kind == 0x86DD:
            made += struct.pack(">IHBB32x", 6 << 28, 0, inside, 64)
            while inside in (0, 43, 60, 44):
                following, more = chosen.choice([0, 6, 17, 44, 60, 4]), chosen.choice([0, 1])
                made += struct.pack(">BBH4x", following, more if inside != 44 else 0, chosen.choice([0, 8]))
                made += bytes(8 * more if inside != 44 else 0)
                if inside == 44 or len(made) > 400:
                    break
                inside = following
        elif kind == 0x8864:
            protocol = chosen.choice([0x21, 0x57, 0x281, 0x2145, 0xC021])
            made += struct.pack(">HHHH", chosen.choice([0x1100, 0x1100, 0x1101]), 7, 0, protocol)
            kind = {0x21: 0x0800, 0x57: 0x86DD}.get(protocol, 0)
            continue
        elif kind in (0x8100, 0x88FB, 0x4305):
            following = chosen.choice([0x0800, 0x86DD, 0x8864, 0x0806, 0x88F7, 0x8847, 0x8100])
            before = {0x8100: 2, 0x88FB: 4, 0x4305: 22}[kind]
            made += b"\x40\x0f" + bytes(before - 2) + following.to_bytes(2, "big")
            kind = following
            continue
        if inside == 47:
            flags = chosen.choice([0, 0x8000, 0x2000, 0xB000, 0x2001, 0x3081, 0x4000, 3])
            kind = chosen.choice([0x0800, 0x86DD, 0x6558]) if not flags & 1 else 0x880B
            made += struct.pack(">HH", flags, kind) + bytes(4 * (flags & 0xF080).bit_count())
            if kind == 0x6558:
                kind = 0x0800
                made += bytes(12) + b"\x08\x00"
            elif flags & 1:
                kind = 0x0800
                made += b"\0\0\0\x21"
        else:
            kind = inner.get(inside, 0)
        if kind not in (0x0800, 0x86DD):
            break
    made += struct.pack(">12xB7x", chosen.choice([0x50, 0x80, 0x10])) + bytes(chosen.choice([0, 20]))
    return bytes(made[: chosen.randrange(15, len(made) + 1)] if chosen.random() < 0.3 else made)


def test_where_a_payload_begins() -> None:
    chosen = random.Random(1)
    frames = [_headers(chosen) for _ in range(600)]
    code = classic.assemble("ld poff\nret a")
    expected = [classic.run(code, frame) for frame in frames]
    assert len(set(expected)) > 40
    for type_ in (None, "socket_filter"):
        program = classic.to_ebpf(code, type_)
        assert list(program.compile(optimize=True).map(frames)) == expected
        assert list(program.compile(optimize=False).map(frames)) == expected
        assert [program.run(each, engine="interpreter").return_value for each in frames[::6]] == expected[::6]
    raw = classic.to_ebpf(classic.assemble("ld poff\nret a"), starts="network")
    assert raw.run(FRAME).return_value == 28


def test_linux_finds_the_same_payload() -> None:
    """A filter of Linux's on a loopback interface, which keeps as many bytes as it returns."""
    chosen, code = random.Random(2), classic.assemble("ld poff\nret a")
    frames = [_headers(chosen) for _ in range(300)]
    # Linux takes tags off
    cases = [(code, frame) for frame in frames if frame[12:14] != b"\x81\x00" and len(frame) >= 15]
    for (_, frame), kept in zip(cases, _on_an_interface(cases), strict=True):
        assert kept == min(classic.run(code, frame), len(frame)), frame.hex()


def test_linux_gives_each_ancillary_load() -> None:
    """Its machine of classic BPF, of a frame on a loopback interface."""
    about = ABOUT | {"hatype": 772}  # ARPHRD_LOOPBACK
    del about["cpu"]
    cases = [
        (classic.assemble(f"ld #0x60\nldx #7\nldb {name}\njeq #{value}, 0, 1\nret #40\nret #20"), FRAME)
        for name, value in about.items()
    ]
    assert dict(zip(about, _on_an_interface(cases), strict=True)) == dict.fromkeys(about, 40)


def _on_an_interface(cases: list[tuple[bytes, bytes]]) -> list[int]:
    """Return how many bytes of each frame come through its filter, on a network of their own."""
    ended = run_forked(lambda: _kept_on_an_interface(cases), 60)
    if isinstance(ended.value, str):
        pytest.skip(ended.value)
    assert ended.value, ended
    return list(ended.value)


def _kept_on_an_interface(cases: list[tuple[bytes, bytes]]) -> list[int] | str:
    """Do so in this process; or return why not."""
    try:
        if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):  # CLONE_NEWNET: nobody else is heard here
            return f"no network of its own: {os.strerror(ctypes.get_errno())}"
        hears = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        says = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        fcntl.ioctl(says, 0x8914, struct.pack("16sh22x", b"lo", 1))  # SIOCSIFFLAGS: up
        says.setsockopt(socket.SOL_SOCKET, 36, 5)  # SO_MARK
    except (OSError, AttributeError) as error:
        return f"no raw packets here: {error}"
    kept = []
    with hears, says:
        hears.bind(("lo", 3))
        says.bind(("lo", 0))
        hears.setblocking(False)
        for code, frame in cases:
            _attach(hears, code)
            _received(hears)
            says.send(frame)
            kept.append(_received(hears))
    return kept


def _received(hears: socket.socket) -> int:
    """Return how long the last packet is that came in, 0 where there was none."""
    size = 0
    while True:
        try:
            data, address = hears.recvfrom(4096)
        except BlockingIOError:
            return size
        if address[2] != 4:  # PACKET_OUTGOING
            size = len(data)


def test_netlink_attributes() -> None:
    """In the oracle, on both engines, and in Linux."""
    found = set()
    for seed in range(25):
        chosen = random.Random(seed)
        data = bytes(chosen.choice([0, 14]))
        for _ in range(chosen.randrange(6)):
            inner = b"".join(
                struct.pack("<HH", 4 + 4 * size, chosen.randrange(4) | chosen.choice([0, 0x8000]))
                + bytes(4 * size)
                for size in (0, 1)
            )
            size = 4 + len(inner) + chosen.choice([0] * 6 + [1, 40])
            data += struct.pack("<HH", size, chosen.randrange(4)) + inner
        data += bytes(chosen.randrange(4) + 14)
        at, kind = chosen.choice([0, 14, 14, 18, len(data) - 4, len(data) - 3, 1 << 31]), chosen.randrange(5)
        for name in ("nla", "nlan"):
            code = classic.assemble(f"ld #{at}\nldx #{kind}\nldb {name}\nret a")
            result = classic.run(code, data)
            found.add((name, result))
            assert set(_everywhere(code, data).values()) == {result}, (seed, name)
            assert _kept(code, data) == min(result, len(data)), (seed, name)
    assert len(found) > 6


def test_programs_as_long_as_can_be_are_translated() -> None:
    """What one load becomes may be hundreds of instructions; jumps over all of them still reach."""
    heads, tails = "ldx len\njeq #0, 0, 0\njeq #7, 250, 0\n", "ret #5\nret #6"
    code = classic.assemble(heads + 2350 * "ld [x + 0]\n" + tails)
    made = classic.to_ebpf(code, None)
    assert len(made) > 1 << 15
    for data in (bytes(60), bytes(2)):
        assert made.run(data, engine="interpreter").return_value == classic.run(code, data)
    asks = classic.assemble("ld poff\n") * 90 + classic.assemble("ret a")
    assert len(classic.to_ebpf(asks)) < 1000
    assert classic.to_ebpf(asks, None).run(FRAME).return_value == classic.run(asks, FRAME) == 42


def test_functions_of_filters_find_processor_and_chance() -> None:
    """As runs of them do: `compile` of plain memory needs no helpers= for these."""
    for name in ("cpu", "rand"):
        made = classic.to_ebpf(classic.assemble(f"ld {name}\nret a"), None)
        for optimize in (True, False):
            function = made.compile(optimize=optimize)
            results = {function(FRAME) for _ in range(4)} | set(function.map([FRAME] * 3))
            assert (results == {0}) == (name == "cpu")
            assert pickle.loads(pickle.dumps(function))(FRAME) < 1 << 32
    clock = Program.from_assembly("call 5\nexit")
    assert replace(clock, environment=Environment(clock=Clock(7))).compile()() == 7


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
