"""A program of classic BPF as C source of an XDP program, a statement for each instruction.

(000) ldh [12]              A = HALF(12);
(001) jeq #0x800 jt 2 jf 8  if (A == 0x800) goto at_2; else goto at_8;
"""

from __future__ import annotations

from collections.abc import Iterator

from ebpfjit.classic.check import check
from ebpfjit.classic.code import Instruction, decode
from ebpfjit.classic.table import Form, Kind, ancillary
from ebpfjit.classic.text import disassemble
from ebpfjit.classic.translate import LARGEST_OFFSET
from ebpfjit.errors import TranslationError

_HEAD = """\
// {expression} -- as tcpdump has it.
// Made by ebpfjit. To build and to load it:
//     clang -O2 -g -target bpf -I/usr/include/$(uname -m)-linux-gnu -c {name}.c -o {name}.o
//     ip link set dev eth0 xdp object {name}.o section xdp
#include <linux/bpf.h>

#define NUMBER(place, size, number) ({{ \\
    __u64 place_ = (place); \\
    const unsigned char *at; \\
    if (place_ > {most} - (size)) goto none; \\
    asm volatile("" : "+r"(place_)); \\
    at = data + place_; \\
    if (at + (size) > end) goto none; \\
    (__u32)(number); }})
#define BYTE(place) NUMBER(place, 1, at[0])
#define HALF(place) NUMBER(place, 2, at[0] << 8 | at[1])
#define WORD(place) NUMBER(place, 4, (__u32)at[0] << 24 | at[1] << 16 | at[2] << 8 | at[3])

__attribute__((section("license"), used)) char _license[] = "GPL";

__attribute__((section("xdp"), used)) int {name}(struct xdp_md *context)
{{
    const unsigned char *data = (const unsigned char *)(long)context->data;
    const unsigned char *end = (const unsigned char *)(long)context->data_end;
    __u32 A = 0, X __attribute__((unused)) = 0{cells};
"""
_TAIL = """\
none: __attribute__((unused));
    return {otherwise};
}}
"""
_LOADS = {4: "WORD", 2: "HALF", 1: "BYTE"}
_SIGNS = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "mod": "%", "and": "&", "or": "|", "xor": "^",
    "lsh": "<<", "rsh": ">>", "jeq": "==", "jgt": ">", "jge": ">=", "jset": "&",
}  # fmt: skip


KEYWORDS = frozenset({
    "auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum",
    "extern", "float", "for", "goto", "if", "inline", "int", "long", "register", "restrict", "return",
    "short", "signed", "sizeof", "static", "struct", "switch", "typedef", "union", "unsigned", "void",
    "volatile", "while", "asm", "typeof", "alignas", "alignof", "bool", "constexpr", "false", "nullptr",
    "static_assert", "thread_local", "true", "typeof_unqual",
})  # fmt: skip
"""Words that are no names in C23, or in GNU C."""
OTHERS = frozenset({"license", "_license", "memcpy", "memmove", "memset", "memcmp"})
"""Names that the file has, and functions that compilers know."""
RESERVED = ("__", "XDP_", "BPF_")
"""What names of the compiler, and of linux/bpf.h, begin with."""


def is_function_name(name: str) -> bool:
    """True where a function in the file can have that name."""
    is_word = isinstance(name, str) and name.isidentifier() and name.isascii()
    return is_word and name not in KEYWORDS | OTHERS and not name.startswith(RESERVED)


def to_source(code: bytes, expression: str, match: str, otherwise: str, name: str) -> str:
    """Return the source; results that are not 0 are the action `match`.

    Raises VerifierError for loops, TranslationError for what XDP does not have.
    """
    check(code, machine="libpcap")
    instructions = decode(code)
    used = sorted({each.k for each in instructions if each.row is not None and each.row.form is Form.CELL})
    cells = "".join(f", M{cell} = 0" for cell in used)
    said = " ".join(expression.split()) or "everything"
    head = _HEAD.format(expression=said, name=name, cells=cells, most=LARGEST_OFFSET)
    body, targets = [], set[int]()
    for each, text in zip(instructions, disassemble(code, "tcpdump").splitlines(), strict=True):
        statements = [*_statements(each, match, otherwise, targets)]
        label = f"at_{each.pc}:\n" if each.pc in targets else ""  # jumps go forward only
        shown = " ".join(text.split())
        body.append(
            f"{label}    {statements[0]:<44} // {shown}\n"
            + "".join(f"    {more}\n" for more in statements[1:])
        )
    return head + "".join(body) + _TAIL.format(otherwise=otherwise)


def _statements(this: Instruction, match: str, otherwise: str, targets: set[int]) -> Iterator[str]:
    """Yield the statements of an instruction; note where it goes."""
    row, k = this.row, this.k
    assert row is not None  # it was checked
    operand = "X" if row.form is Form.INDEX else f"{k:#x}u"
    match row.kind:
        case Kind.LOAD:
            yield f"A = {_loaded(this)};"
        case Kind.LOAD_INDEX:
            yield f"X = {_loaded(this)};"
        case Kind.STORE:
            yield f"M{k} = {'A' if row.name == 'st' else 'X'};"
        case Kind.ARITHMETIC if row.name == "neg":
            yield "A = -A;"
        case Kind.ARITHMETIC:
            if row.form is Form.INDEX and row.name in ("div", "mod"):
                yield "if (X == 0) goto none;"
            value = f"A {_SIGNS[row.name]} {operand}"
            is_shift = row.form is Form.INDEX and row.name in ("lsh", "rsh")
            yield f"A = X < 32 ? {value} : 0;" if is_shift else f"A = {value};"
        case Kind.JUMP:
            targets.add(this.pc + 1 + k)
            yield f"goto at_{this.pc + 1 + k};"
        case Kind.BRANCH:
            yes, no = this.pc + 1 + this.jt, this.pc + 1 + this.jf
            sign, falls_through = _SIGNS[row.name], this.pc + 1
            if no == falls_through:
                yield f"if (A {sign} {operand}) goto at_{yes};"
            elif yes == falls_through:
                yield f"if (!(A {sign} {operand})) goto at_{no};"
            else:
                yield f"if (A {sign} {operand}) goto at_{yes}; else goto at_{no};"
            targets |= {yes, no} - {falls_through} if yes != no else {yes}
        case Kind.RETURN:
            constant = match if k else otherwise
            result = constant if row.form is Form.NUMBER else f"A ? {match} : {otherwise}"
            yield f"return {result};"
        case Kind.MOVE:
            yield "X = A;" if row.name == "tax" else "A = X;"


def _loaded(this: Instruction) -> str:
    """Return what a load gives, as an expression."""
    row, k = this.row, this.k
    assert row is not None  # it was checked
    name = ancillary(row, k)
    if name == "xor_x":
        return "A ^ X"
    if name:
        raise TranslationError(f"instruction {this.pc}: an XDP program in C has nothing that gives {name!r}")
    match row.form:
        case Form.NUMBER:
            return f"{k:#x}u"
        case Form.CELL:
            return f"M{k}"
        case Form.LENGTH:
            return "end - data"
        case Form.INDIRECT:
            return f"{_LOADS[row.size]}((__u64)X + {k:#x}u)"
        case _:
            loaded = f"{_LOADS[row.size]}({k:#x}u)"
            return f"4 * ({loaded} & 0xf)" if row.form is Form.HEADER else loaded
