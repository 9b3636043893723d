"""The instructions of classic BPF: one row for each operation, from which all else derives.

struct sock_filter   code (u16): class 3 bits | size or source, mode or operation     jt, jf (u8)     k (u32)

Source: Linux include/uapi/linux/filter.h, bpf_common.h; which codes there are: chk_code_allowed,
net/core/filter.c.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType
from typing import Literal, get_args

from ebpfjit.record import record

CELLS = 16
"""Cells of M[] (BPF_MEMWORDS)."""
MOST = 4096
"""Instructions of a program (BPF_MAXINSNS)."""
MOST_HEADER = 4 * 0xF
"""The longest header that 4*([k]&0xf) gives."""

Machine = Literal["linux", "libpcap"]
"""Whose meaning a program has. In libpcap's machine (bpf_filter) a shift by X of 32 or more gives 0; X plus a
number is a place of more than 32 bits where it is so large, and none counts from a header.
"""


def check_machine(machine: str) -> None:
    """Raise ValueError for a machine that is none of these."""
    if machine not in get_args(Machine):
        raise ValueError(f'machine is "linux" or "libpcap", not {machine!r}')


class Form(Enum):
    """What stands behind a mnemonic."""

    ABSOLUTE = "[k]"
    INDIRECT = "[x + k]"
    LENGTH = "#len"
    NUMBER = "#k"
    CELL = "M[k]"
    HEADER = "4*([k]&0xf)"
    INDEX = "x"
    ACCUMULATOR = "a"
    NOTHING = ""
    TARGET = "target"


class Kind(Enum):
    """What an operation is."""

    LOAD = "load"
    LOAD_INDEX = "load index"
    STORE = "store"
    ARITHMETIC = "arithmetic"
    JUMP = "jump"
    BRANCH = "branch"
    RETURN = "return"
    MOVE = "move"


@record
class Row:
    """One operation: its `code`, the mnemonic, what it is, what its operand is, bytes that it loads."""

    code: int
    name: str
    kind: Kind
    form: Form
    size: int = 0


_SIZES = {"": (0x00, 4), "h": (0x08, 2), "b": (0x10, 1)}
_ALU = ("add", "sub", "mul", "div", "or", "and", "lsh", "rsh", "neg", "mod", "xor")
_JUMPS = ("ja", "jeq", "jgt", "jge", "jset")
_X = 0x08

ROWS = (
    *(Row(0x20 | code, f"ld{name}", Kind.LOAD, Form.ABSOLUTE, size) for name, (code, size) in _SIZES.items()),
    *(Row(0x40 | code, f"ld{name}", Kind.LOAD, Form.INDIRECT, size) for name, (code, size) in _SIZES.items()),
    Row(0x80, "ld", Kind.LOAD, Form.LENGTH),
    Row(0x00, "ld", Kind.LOAD, Form.NUMBER),
    Row(0x60, "ld", Kind.LOAD, Form.CELL),
    Row(0x81, "ldx", Kind.LOAD_INDEX, Form.LENGTH),
    Row(0x01, "ldx", Kind.LOAD_INDEX, Form.NUMBER),
    Row(0x61, "ldx", Kind.LOAD_INDEX, Form.CELL),
    Row(0xB1, "ldxb", Kind.LOAD_INDEX, Form.HEADER, 1),
    Row(0x02, "st", Kind.STORE, Form.CELL),
    Row(0x03, "stx", Kind.STORE, Form.CELL),
    *(Row(0x04 | n << 4, name, Kind.ARITHMETIC, Form.NUMBER) for n, name in enumerate(_ALU) if name != "neg"),
    *(Row(0x0C | n << 4, name, Kind.ARITHMETIC, Form.INDEX) for n, name in enumerate(_ALU) if name != "neg"),
    Row(0x84, "neg", Kind.ARITHMETIC, Form.NOTHING),
    Row(0x05, "ja", Kind.JUMP, Form.TARGET),
    *(Row(0x05 | n << 4, name, Kind.BRANCH, Form.NUMBER) for n, name in enumerate(_JUMPS) if n),
    *(Row(0x05 | n << 4 | _X, name, Kind.BRANCH, Form.INDEX) for n, name in enumerate(_JUMPS) if n),
    Row(0x06, "ret", Kind.RETURN, Form.NUMBER),
    Row(0x16, "ret", Kind.RETURN, Form.ACCUMULATOR),
    Row(0x07, "tax", Kind.MOVE, Form.NOTHING),
    Row(0x87, "txa", Kind.MOVE, Form.NOTHING),
)

BY_CODE = MappingProxyType({row.code: row for row in ROWS})
BY_NAME = MappingProxyType({(row.name, row.form): row for row in ROWS})

LINK, NETWORK, ANCILLARY = -0x200000, -0x100000, -0x1000
"""From where on the offset of an absolute load counts from a header (SKF_LL_OFF, SKF_NET_OFF), or is none."""

ANCILLARIES = MappingProxyType(
    {
        "proto": 0, "type": 4, "ifidx": 8, "nla": 12, "nlan": 16, "mark": 20, "queue": 24, "hatype": 28,
        "rxhash": 32, "cpu": 36, "xor_x": 40, "vlan_tci": 44, "vlan_avail": 48, "poff": 52,
        "rand": 56, "vlan_tpid": 60,
    }
)  # fmt: skip
"""What absolute loads from ANCILLARY on give, by bpf_asm's names (SKF_AD_*)."""

ANCILLARY_NAMES = MappingProxyType({offset: name for name, offset in ANCILLARIES.items()})


def signed(k: int) -> int:
    """Return a u32 as the signed number that an absolute offset is."""
    return k - (1 << 32) if k >> 31 else k


def ancillary(row: Row, k: int) -> str | None:
    """Return the name of what an absolute load gives that is not of the packet, None where it is of that.

    "" where nothing is known of that offset.
    """
    if row.kind is not Kind.LOAD or row.form is not Form.ABSOLUTE or signed(k) < ANCILLARY or signed(k) >= 0:
        return None
    return ANCILLARY_NAMES.get(signed(k) - ANCILLARY, "")
