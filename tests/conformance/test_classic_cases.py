"""What Linux's own tests of classic BPF ask (lib/test_bpf.c), as facts: a filter, bytes, results by length.

Each on its own interpreter, in Linux where a datagram has what it asks for, and translated: on plain memory
and as a socket filter, on both engines. Packets are zeros behind their bytes; ancillary loads give ABOUT.
"""

from __future__ import annotations

from typing import Any

import pytest

from ebpfjit import VerifierError, classic
from ebpfjit.classic.code import encode
from ebpfjit.classic.linux import is_of_datagrams

ABOUT = {
    "type": 3, "mark": 0x1234AAAA, "rxhash": 0x1234AAAB, "queue": 123, "proto": 0x800, "vlan_tci": 0xFFFF,
    "vlan_avail": 1, "ifidx": 577, "hatype": 588, "cpu": 2,
}  # fmt: skip
LINK, NETWORK = 0xFFE00000, 0xFFF00000
ALL = 0xFFFFFFFF
SSH = bytes.fromhex("10bf48d643d63c075443e5760800451000647"
                    "5b540004006ad2e0a0101950a01020ac2240016")  # fmt: skip
PING = bytes(12) + bytes.fromhex("080045000054ac8b40004001901b7f000001")
PLACES = bytes(0x20) + b"\x82\x71\x25\x82\x93\x36" + bytes(22) + b"\x25\x05\x89\x19"
"""Bytes up to 0x40, of which some are not 0."""

FILTERS: dict[str, tuple[str, bytes, dict[int, int]]] = {
    "a byte from behind": ("ld #1; tax; ld #2; add x; neg; tax; ld len; add x; tax; ldb [x+1]; ret a",
                           bytes([10, 20, 30, 40, 50]), {2: 10, 3: 20, 4: 30}),
    "twice the length": ("ldx len; txa; add x; ret a", b"", {1: 2, 3: 6, 4: 8}),
    "a borrow": ("ld #1; add #2; ldx #3; sub x; add #0xffffffff; mul #3; ret a", b"", {0: 0xFFFFFFFD}),
    "quotients": ("ld #8; div #2; tax; ld #0xffffffff; div x; tax; ld #0xffffffff; div #0x70000000;"
                  "add x; ret a",
                  b"", {0: 0x40000001}),
    "and, or, shift": ("ld #0xff; and #0xf0; lsh #27; tax; ld #0xf; or #0xf0; add x; ret a", b"",
                       {0: 0x800000FF, 1: 0x800000FF}),
    "zero is zero": ("ld #0; jeq #0, 1, 0; ret #0; ret #1", b"", {1: 1}),
    "before the packet": ("ldx len; ldh [x+0xffffffff]; ret #1", b"", {1: 0, 10: 0, 60: 0}),
    "behind the packet": ("ld [1000]; ret #1", b"", {1: 0, 10: 0, 60: 0}),
    "link header": (f"ldb [{LINK}]; tax; ldb [{LINK + 1}]; add x; ret a", bytes([1, 2, 3]), {1: 0, 2: 3}),
    "link header, by X": (f"ld #{LINK - 1}; ldx len; add x; tax; ldb [x+0]; ret a", bytes([1, 2, 3, 255]),
                          {1: 1, 3: 3, 4: 255}),
    "network header": (f"ldb [{NETWORK}]; tax; ldb [{NETWORK + 1}]; add x; ret a",
                       bytes(14) + bytes([1, 2, 3]), {15: 0, 16: 3}),
    "network header, by X": (f"ld #{NETWORK - 15}; ldx len; add x; tax; ldb [x+0]; ret a",
                             bytes(14) + bytes([1, 2, 3]), {14: 0, 15: 1, 17: 3}),
    "type": ("ld type; jeq #3, 1, 0; ret #1; ld type; jeq #3, 1, 0; ret #1; ret a", b"", {1: 3, 10: 3}),
    **{name: (f"ld {name}; ret a", b"", {1: value, 10: value}) for name, value in ABOUT.items()},
    "protocol, between loads": ("ldb [1]; jeq #20, 1, 0; ret #0; ld proto; tax; ldb [2];"
                                "jeq #30, 1, 0; ret #0;"
                                "txa; ret a", bytes([10, 20, 30]), {10: 0x800, 100: 0x800}),
    "the same processor": ("ld cpu; tax; ld cpu; sub x; ret a", b"", {1: 0, 10: 0}),
    "attribute": ("ldx #2; txa; ldx #3; ld nla;"
                  "ret a", bytes([255, 255, 4, 0, 2, 0, 4, 0, 3, 0]), {4: 0, 20: 6}),
    "nested attribute": ("ld #2; ldx #3;" + "ld nlan; ld #2;" * 7 + "ld nlan; ret a",
                         bytes([255, 255, 12, 0, 1, 0, 4, 0, 2, 0, 4, 0, 3, 0]), {4: 0, 20: 10}),
    "payload": ("ld poff;" * 5 + "ret a", PING, {30: 0, 100: 42}),
    "xor": ("ld #10; ldx #300; ld xor_x; ret a", b"", {4: 10 ^ 300, 20: 10 ^ 300}),
    "cells": ("ldx len; ld #2; rsh #1; xor x; st M[1]; xor #0x80000000; st M[2]; stx M[15];"
              "ldx M[1]; ld M[2];"
              "xor x; ldx M[15]; xor x; ret a", b"", {1: 0x80000001, 2: 0x80000002, 60: 0x80000000 ^ 60}),
    "jeq": (f"ldx len; ldb [2]; jeq x, 0, 1; ret #1; ret #{ALL}", bytes([3] * 5), {1: 0, 3: 1, 4: ALL}),
    "jgt": (f"ldx len; ldb [2]; jgt x, 0, 1; ret #1;"
            f"ret #{ALL}", bytes([4, 4, 4, 3, 3]), {2: 0, 3: 1, 4: ALL}),
    "jge": ("ldx len; ldb [x+0xffffffff]; jge #1, 1, 0; ret #10; jge #2, 1, 0; ret #20;"
            "jge #3, 1, 0; ret #30;"
            f"jge #4, 1, 0; ret #40; ret #{ALL}", bytes([1, 2, 3, 4, 5]), {1: 20, 3: 40, 5: ALL}),
    "jset": ("ja 0; ja 1; ja 0; ja 0; ldx len; txa; sub #4; tax; ld [x+0]; jset #1, 0, 1; ret #10;"
             "jset #0x80000000, 0, 1; ret #20;" + "jset #0xffffff, 1, 0; ret #30;" * 5 + f"ret #{ALL}",
             bytes([0, 0xAA, 0x55, 1]), {4: 10, 5: 20, 6: ALL}),
    "port 22": ("ldh [12]; jeq #0x86dd, 0, 8; ldb [20]; jeq #0x84, 2, 0; jeq #6, 1, 0;"
                "jeq #17, 0, 17; ldh [54];"
                "jeq #22, 14, 0; ldh [56]; jeq #22, 12, 13; jeq #0x800, 0, 12; ldb [23]; jeq #0x84, 2, 0;"
                "jeq #6, 1, 0; jeq #17, 0, 8; ldh [20]; jset #0x1fff, 6, 0; ldxb 4*([14]&0xf); ldh [x+14];"
                "jeq #22, 2, 0; ldh [x+16]; jeq #22, 0, 1; ret #0xffff;"
                "ret #0", SSH, {10: 0, 30: 0, 100: 65535}),
    "port 22 with data": ("ldh [12]; jeq #0x86dd, 30, 0; jeq #0x800, 0, 29; ldb [23];"
                          "jeq #6, 0, 27; ldh [20];"
                          "jset #0x1fff, 25, 0; ldxb 4*([14]&0xf); ldh [x+14]; jeq #22, 2, 0; ldh [x+16];"
                          "jeq #22, 0, 20; ldh [16]; st M[1]; ldb [14]; and #0xf; lsh #2; tax;"
                          "ld M[1]; sub x;"
                          "st M[5]; ldxb 4*([14]&0xf); ldb [x+26]; and #0xf0; rsh #2; tax; ld M[5];"
                          "jeq x, 4, 0;"
                          "ld len; jgt #0x73, 1, 0; jge #0xfc23ac00, 1, 0; ret #0xffff; ret #0",
                          SSH, {10: 0, 30: 0, 100: 65535}),
    "A and X are zero": ("txa; ret a", b"", {1: 0, 2: 0}),
    "jump over loads": ("ldh [0]; jge #0, 13, 15;" + "ldh [0];" * 13 + "jeq #0xffff, 0, 1; ret #7;"
                        "ret #0; ret #5",
                        b"\x01\x02", {10: 0, 1: 0}),
    **{f"{name} of X that is 0": (f"ld #0x66; {name} x; ret a", b"", {1: result}) for name, result in {
        "add": 0x66, "sub": 0x66, "mul": 0, "div": 0, "mod": 0, "and": 0, "or": 0x66, "xor": 0x66,
        "lsh": 0x66, "rsh": 0x66}.items()},
    **{f"{name} of A that is 0": (f"{name} #0x6; ret a", b"", {1: result}) for name, result in {
        "add": 6, "sub": 0xFFFFFFFA, "mul": 0, "div": 0, "mod": 0, "and": 0, "or": 6, "xor": 6, "lsh": 0,
        "rsh": 0}.items()},
    "jeq of X that is 0": ("ld #0; jeq x, 0, 1; ret #1; ret #2", b"", {1: 1}),
    "jeq of A that is 0": ("jeq #0, 0, 1; ret #1; ret #2", b"", {1: 1}),
    "A stays": ("ld #0xffeebbaa; ldxb 4*([0x3c]&0xf); ret a", PLACES, {0x40: 0xFFEEBBAA}),
    "A is another": ("ld #0x175e9d63; ldxb 4*([0x3c]&0xf); ld len; ldxb 4*([0x3e]&0xf); txa; ret a", PLACES,
                     {0x40: 0x24}),
    "header length": ("ld #0; ldxb 4*([0x3c]&0xf); txa; ret a", PLACES, {0x40: 0x14}),
    "header length at -1": ("ld #0x10; ldxb 4*([0xffffffff]&0xf); txa; ret a", PLACES, {0x40: 0}),
    "header length by the link": (f"ldxb 4*([{LINK + 0x3E}]&0xf); txa; ret a", PLACES, {0x40: 0x24, 0x3E: 0}),
    "header length behind": ("ld #0x10; ldxb 4*([0x40]&0xf); txa; ret a", PLACES, {0x40: 0}),
    **{f"{load} [{place:#x}]": (f"{load} [{place}]; ret a", PLACES, results) for load, place, results in [
        ("ldb", 0x20, {0x40: 0x82, 0x20: 0}), ("ldb", 0x3F, {0x40: 0x19, 0x3F: 0}),
        ("ldb", LINK + 0x3F, {0x40: 0x19, 0x3F: 0}), ("ldh", 0x22, {0x40: 0x2582}),
        ("ldh", 0x25, {0x40: 0x3600}),
        ("ldh", 0x3E, {0x40: 0x8919}), ("ldh", 0x3F, {0x40: 0, 0x41: 0x1900}),
        ("ldh", LINK + 0x3E, {0x40: 0x8919, 0x3F: 0}), ("ld", 0x20, {0x40: 0x82712582}),
        ("ld", 0x21, {0x40: 0x71258293}), ("ld", 0x22, {0x40: 0x25829336}), ("ld", 0x23, {0x40: 0x82933600}),
        ("ld", 0x3C, {0x40: 0x25058919}), ("ld", 0x3D, {0x40: 0}),
        ("ld", LINK + 0x3C, {0x40: 0x25058919, 0x3F: 0}),
    ]},
    **{f"{load} [x{k:+#x}], X = {x:#x}": (f"ldx #{x}; {load} [x+{k & ALL}]; ret a", PLACES, {0x40: result})
       for load, x, k, result in [
        ("ldb", 0x3E, 1, 0x19), ("ldb", 0x3E, -1, 5), ("ldb", 0x3E, -0x3F, 0), ("ldb", 0x3E, 2, 0),
        ("ldb", 0x3F, -0x1F, 0x82), ("ldh", 0x20, 2, 0x2582), ("ldh", 0x3E, -0x1C, 0x2582),
        ("ldh", 0x20, 5, 0x3600),
        ("ldh", 0x3E, 0, 0x8919), ("ldh", 0x3E, 1, 0), ("ldh", 0x3E, -0x3F, 0), ("ld", 0x20, 1, 0x71258293),
        ("ld", 0x20, 3, 0x82933600), ("ld", 0x3E, -2, 0x25058919), ("ld", 0x3E, -1, 0),
        ("ld", 0x3E, -0x3F, 0),
        ("ldb", ALL, 1, 0), ("ldb", ALL, 0, 0), ("ldb", ALL, 0x21, 0x82),
    ]},
    "by X, again and again": ("ldx #0x3b;" + "ldb [x+1]; ldb [x+2]; ldb [x+3];"
                              "ldb [x+4];" * 8 + "ret a", PLACES,
                              {0x40: 0x19}),
}  # fmt: skip


BY_X = ("link header, by X", "network header, by X")
"""Where X leads to a header, which a datagram does not have."""


def _everywhere(code: bytes, data: bytes, *, linux: bool) -> dict[str, int]:
    """Return what a filter gives for a packet, by engine."""
    found = {"classic": classic.run(code, data, ancillaries=ABOUT)}
    if linux and data and is_of_datagrams(code):
        found["linux"] = classic.run_in_linux(code, data)
    for type_ in (None, "socket_filter"):
        if type_ is None or len(data) >= 14:
            made = classic.to_ebpf(code, type_, ancillaries=ABOUT)
            found[f"{type_}, interpreted"] = made.run(data, engine="interpreter").return_value
            for optimize in (True, False):
                found[f"{type_}, optimize={optimize}"] = made.compile(optimize=optimize)(data)
    return found


@pytest.mark.parametrize("name", FILTERS)
def test_filters(name: str) -> None:
    text, data, results = FILTERS[name]
    code = classic.assemble(text.replace(";", "\n"))
    for size, result in results.items():
        found = _everywhere(code, (data + bytes(size))[:size], linux=name not in BY_X)
        assert set(found.values()) == {result}, (size, found)


MOST = 4096
RET, ADD, JA, JGT, LD, MSH, RET_A = 0x06, 0x04, 0x05, 0x25, 0x20, 0xB1, 0x16


def _gaps(length: int, piece: int) -> list[Any]:
    """Jumps to the ends of pieces of a program."""
    left = length % piece - 1
    whole = [(JA, 0, 0, piece - 1 - at) for at in range(piece)] * ((length - 1) // piece)
    return [*whole, *((JA, 0, 0, left - 1 - at) for at in range(left)), (RET, 0, 0, 0xABABCBAC)]


def _many(text: str, count: int) -> bytes:
    return classic.assemble(text) * count


LONG: dict[str, tuple[bytes, bytes, int]] = {
    "a constant after the other": (encode([(RET, 0, 0, ALL - at) for at in range(MOST)]), b"", ALL),
    "sums": (encode([*((ADD, 0, 0, 0x9E3779B9 * at & ALL) for at in range(MOST - 1)), (RET_A, 0, 0, 0)]), b"",
             0x9E3779B9 * (MOST - 1) * (MOST - 2) // 2 & ALL),
    "a long jump": (encode([(JA, 0, 0, MOST - 2), *[(RET, 0, 0, 1)] * (MOST - 2), (RET, 0, 0, 2)]), b"", 2),
    "a long jump over header lengths": (
        encode([(JA, 0, 0, MOST - 2), *[(MSH, 0, 0, 0)] * (MOST - 2), (RET, 0, 0, 2)]), b"", 2),
    "ancillary loads": (_many("ld vlan_avail", MOST - 1) + _many("ret a", 1), b"", 1),
    "processors": (_many("ld cpu", MOST - 4) + classic.assemble("tax\nld cpu\nsub x\nret a"), b"", 0),
    "branches": (encode([(0, 0, 0, ALL), *((JGT, min(MOST - 3 - at, 255), 0, ALL) for at in range(MOST - 2)),
                         (RET_A, 0, 0, 0)]), b"", ALL),
    "gaps": (encode(_gaps(12, 9)), b"", 0xABABCBAC),
    "many gaps": (encode(_gaps(MOST, 68)), b"", 0xABABCBAC),
    "header lengths": (_many("ldxb 4*([0]&0xf)", MOST - 3)
                       + classic.assemble("ld #0xabababab\nxor x\nret a"), b"\xfa", 0xABABAB83),
    "loads and processors": (_many("ldb [0]\nld cpu", MOST // 2 - 1) + _many("ret #0xbee", 1), b"\0", 0xBEE),
}  # fmt: skip


@pytest.mark.parametrize("name", LONG)
def test_long_filters(name: str) -> None:
    code, data, result = LONG[name]
    found = {"classic": classic.run(code, data, ancillaries=ABOUT)}
    made = classic.to_ebpf(code, None, ancillaries=ABOUT)
    found["interpreted"] = made.run(data, engine="interpreter").return_value
    found["baseline"] = made.compile(optimize=False)(data)
    assert set(found.values()) == {result}, found


REFUSED = {
    "no ret": encode([(0, 0, 0, 1)]),
    "a divisor of 0": classic.assemble("div #0\nret #0"),
    "seccomp's load": encode([(0x21, 0, 0, 0), (RET, 0, 0, 0)]),
    "M[16]": classic.assemble("stx M[16]\nret #0"),
    "a byte at -1": classic.assemble("ldb [0xffffffff]\nret a"),
    "a word at -1": classic.assemble("ld [0xffffffff]\nret a"),
    "too long": encode([(RET, 0, 0, 1)] * (MOST + 1)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_filters(name: str) -> None:
    for use in (classic.check, classic.to_ebpf, lambda code: classic.run(code, b"12")):
        with pytest.raises(VerifierError):
            use(REFUSED[name])
