"""Every form an instruction may be written in: words, and C-like statements.

A form is a line of tokens with a blank between them. `{name}` is an operand, read by
`operands.READERS`; `r{dst}` is a register, and of which width. `$name` stands for something the
row says:

    $word      the row's mnemonic, and what other assemblers call it
    $symbol    the row's symbol                      $operator  the symbol of the same arithmetic
    $type      u8, s16, ... of the memory            $from      bits that are sign-extended
    $x         r or w, as the operation's width      $y         as $x, and r also where that is w
    $op        add, or, ... of an atomic             $64        "64" or nothing
    $32        "32" or nothing                       $bits      64 or 32

Forms become classes of tokens (see lexer), and those are the keys of one dictionary: finding the
row of a line is one look-up, and two rows can never share a key.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product

from ebpfjit.assembler.lexer import HELPER, INTEGER, LABEL, SIGNED, Classes
from ebpfjit.assembler.operands import READERS, Reader
from ebpfjit.bits import W64
from ebpfjit.isa.spec import Kind, Offset, Reference, Row
from ebpfjit.isa.table import TABLE
from ebpfjit.record import record

_BINARY_K = ("$word $y{dst} , {imm}", "$x{dst} $symbol {imm}")
_BINARY_X = ("$word $y{dst} , $y{src}", "$x{dst} $symbol $x{src}")
_REFERENCE = ("$word r{dst} , $reference", "r{dst} = $reference")
_FROM_MEMORY = "$word $y{dst} , [ r{src} {displacement} ]"
_TO_MEMORY = "$word [ r{dst} {displacement} ] , $y{src}"
_PLACE = "r{dst} {displacement}"
_POINTER = f"( $type * ) ( {_PLACE} )"

FORMS: dict[str, tuple[str, ...]] = {
    "binary imm":     _BINARY_K,
    "binary src":     _BINARY_X,
    "move imm":       _BINARY_K,
    "move src":       _BINARY_X,
    "sign-extend":    ("$word $y{dst} , $y{src}", "$x{dst} = ( s$from ) $x{src}"),
    "cast":           ("$word r{dst} , r{src} , {imm}",
                       "r{dst} = $symbol ( r{src} , {space_to} , {space_from} )"),
    "negate":         ("$word $y{dst}", "$x{dst} = - $x{dst}"),
    "swap":           ("$word r{dst}", "r{dst} = $symbol r{dst}"),
    "constant":       ("$word r{dst} , {imm64}", "r{dst} = {imm64} ll"),
    "reference":      _REFERENCE,
    "code":           (*_REFERENCE, "$word r{dst} , {label32}", "r{dst} = {label32} ll"),
    "load":           (_FROM_MEMORY, "$y{dst} = * ( $type * ) ( r{src} {displacement} )"),
    "load_acquire":   (_FROM_MEMORY, "$y{dst} = $symbol ( ( $type * ) ( r{src} {displacement} ) )"),
    "store imm":      ("$word [ r{dst} {displacement} ] , {imm}", f"* {_POINTER} = {{imm}}"),
    "store src":      (_TO_MEMORY, f"* {_POINTER} = $y{{src}}"),
    "store_release":  (_TO_MEMORY, f"$symbol ( {_POINTER} , $y{{src}} )"),
    "atomic":         (_TO_MEMORY, f"$symbol * {_POINTER} $operator $y{{src}}"),
    "atomic fetch":   (_TO_MEMORY,
                       f"$y{{src}} = atomic_fetch_$op ( {_POINTER} , $y{{src}} )",
                       f"$y{{src}} = atomic$64_fetch_$op ( {_POINTER} , $y{{src}} )"),
    "atomic xchg":    (_TO_MEMORY,
                       f"$y{{src}} = xchg$32_$bits ( {_PLACE} , $y{{src}} )",
                       f"$y{{src}} = atomic$64_xchg ( {_POINTER} , $y{{src}} )"),
    "atomic cmpxchg": (_TO_MEMORY,
                       f"$y{{r0}} = cmpxchg$32_$bits ( {_PLACE} , $y{{r0}} , $y{{src}} )",
                       f"$y{{r0}} = atomic$64_cmpxchg ( {_POINTER} , $y{{r0}} , $y{{src}} )"),
    "packet imm":     ("$word {imm}", "r{r0} = * ( $type * ) skb [ {imm} ]"),
    "packet src":     ("$word r{src} , {imm}",
                       "r{r0} = * ( $type * ) skb [ r{src} {+imm} ]",
                       "r{r0} = * ( $type * ) skb [ r{src} ]"),
    "jump":           ("$word {target}", "$symbol {target}"),
    "may_goto":       ("$word {target}",),
    "branch imm":     ("$word $y{dst} , {imm} , {target}", "if $x{dst} $symbol {imm} goto {target}"),
    "branch src":     ("$word $y{dst} , $y{src} , {target}", "if $x{dst} $symbol $x{src} goto {target}"),
    "call_helper":    ("$word {imm}", "call {helper}"),
    "call_local":     ("$word {target}", "callx {imm}", "call {label32}", "call pc {+imm}"),
    "call_kfunc":     ("$word {imm}", "$word {imm} , {btf_fd}"),
    "call_register":  ("$word r{dst}",),
    "exit":           ("$word",),
}  # fmt: skip
"""The forms of each family of rows: words first, C-like ones after."""

REFERENCES: dict[Reference, tuple[str, ...]] = {
    Reference.MAP_BY_FD:          ("map [ fd : {imm} ]",),
    Reference.MAP_VALUE_BY_FD:    ("map [ fd : {imm} ] [ {zero} ] {+next_imm}",
                                   "map [ fd : {imm} ] [ {zero} ]"),
    Reference.VARIABLE:           ("btf [ id : {imm} ] [ fd : {next_imm} ]", "btf [ id : {imm} ]"),
    Reference.CODE:               ("subprog [ {target} ]",),
    Reference.MAP_BY_INDEX:       ("map [ idx : {imm} ]",),
    Reference.MAP_VALUE_BY_INDEX: ("map [ idx : {imm} ] [ {zero} ] {+next_imm}",
                                   "map [ idx : {imm} ] [ {zero} ]"),
}  # fmt: skip
"""How LDDW's references are written, after bpftool (which writes the map's id)."""

OTHER_WORDS: dict[str, tuple[str, ...]] = {
    "ATOMIC_ADD32": ("stxxaddw",),
    "ATOMIC_ADD64": ("stxxadddw",),
    "BSWAP16": ("swap16",),
    "BSWAP32": ("swap32",),
    "BSWAP64": ("swap64",),
    "CALL": ("call helper",),
    "CALLX": ("call",),
    "CALL_KFUNC": ("call runtime",),
}
"""What else operations are called: rbpf's xadd, bpf_conformance's swap and calls."""

DATA_WORDS = (".8byte", ".quad")
"""Directives that write 64-bit words as they are."""

_OPERATOR = {row.meaning: row.symbol for row in TABLE if row.kind is Kind.BINARY}

#  placeholder     classes it may have; () for none, where it may be left out
_CLASSES: dict[str, tuple[tuple[str, ...], ...]] = {
    "imm": ((INTEGER,), (SIGNED,)),
    "imm64": ((INTEGER,), (SIGNED,)),
    "next_imm": ((INTEGER,), (SIGNED,)),
    "btf_fd": ((INTEGER,), (SIGNED,)),
    "space_to": ((INTEGER,),),
    "space_from": ((INTEGER,),),
    "zero": ((INTEGER,),),
    "+imm": ((SIGNED,),),
    "+next_imm": ((SIGNED,),),
    "displacement": ((SIGNED,), ()),
    "target16": ((INTEGER,), (SIGNED,), (LABEL,), ("pc", SIGNED)),
    "target32": ((INTEGER,), (SIGNED,), (LABEL,), ("pc", SIGNED)),
    "label32": ((LABEL,),),
    "helper": ((HELPER,),),
}


@record
class Form:
    """One way to write one row: what each token that is an operand does to the fields.

    `operands` are (index of the token, its reader); `fixed` are dst, src, offset, imm and
    next_imm as the row fixes them, 0 where an operand fills them in.
    """

    row: Row
    operands: tuple[tuple[int, Reader], ...]
    fixed: tuple[int, int, int, int, int | None]


def family(row: Row) -> str:
    """Return the key of FORMS under which the forms of `row` are listed."""
    operand = "src" if row.uses_src else "imm"
    match row.kind:
        case Kind.BINARY | Kind.BRANCH:
            return f"{row.kind.name.lower()} {operand}"
        case Kind.MOVE:
            return f"move {operand}" if row.offset == 0 else "sign-extend"
        case Kind.UNARY:
            return "negate" if row.symbol == "-" else "swap"
        case Kind.LOAD_IMM64:
            special = {None: "constant", Reference.CODE: "code"}
            return special.get(row.reference, "reference")
        case Kind.LOAD:
            return "load" if row.imm == 0 else row.symbol
        case Kind.STORE:
            return f"store {operand}" if row.imm == 0 or not row.uses_src else row.symbol
        case Kind.ATOMIC:
            if row.meaning in _OPERATOR:
                return "atomic fetch" if row.fetch else "atomic"
            return f"atomic {row.meaning.lower()}"
        case Kind.PACKET_LOAD:
            return f"packet {operand}"
        case _:
            return row.kind.name.lower()


def words(row: Row) -> tuple[str, ...]:
    """Return the words `row` is called by, its mnemonic first; 64-bit arithmetic may leave out the 64."""
    short: tuple[str, ...] = ()
    if family(row).startswith(("binary", "move", "sign", "negate")):
        short = (row.mnemonic.removesuffix("64"),)
    return tuple(dict.fromkeys((row.mnemonic, *short, *OTHER_WORDS.get(row.operation, ()))))


def _letters(row: Row, pattern: str) -> tuple[str, ...]:
    """Return what $x (and $y, in the same form) stands for."""
    if row.width is W64 or row.signed:
        return ("r",)
    return ("w",) if "$x" in pattern else ("r", "w")


def _instantiate(row: Row, pattern: str) -> Iterator[str]:
    """Replace every $name of `pattern` by what `row` says."""
    variants = {
        "$word": words(row),
        "$reference": REFERENCES[row.reference] if row.reference else (),
        "$letter": _letters(row, pattern),
    }
    pattern = pattern.replace("$x", "$letter").replace("$y", "$letter")
    used = [name for name in variants if name in pattern]
    if "$" in pattern:
        bits = str(row.width.bits)
        pattern = (
            pattern.replace("$symbol", row.symbol)
            .replace("$operator", _OPERATOR.get(row.meaning, ""))
            .replace("$type", f"{'s' if row.signed else 'u'}{8 * row.size}")
            .replace("$from", str(row.offset))
            .replace("$op", row.meaning.lower())
            .replace("$64", "64" if bits == "64" else "")
            .replace("$32", "32" if bits == "32" else "")
            .replace("$bits", bits)
        )
    target = "{target16}" if row.offset is Offset.TARGET else "{target32}"
    for values in product(*(variants[name] for name in used)):
        text = pattern
        for name, value in zip(used, values, strict=True):
            text = text.replace(name, value)
        yield text.replace("{target}", target)


def _fixed(value: object) -> int:
    return value if isinstance(value, int) else 0


def _expand(row: Row, text: str) -> Iterator[tuple[str, Form]]:
    """Return each key that the form `text` gives rise to, and the Form behind it."""
    fixed = (_fixed(row.dst), _fixed(row.src), _fixed(row.offset), _fixed(row.imm),
             None if row.next_imm is None else _fixed(row.next_imm))  # fmt: skip
    choices: list[tuple[tuple[str, ...], ...]] = []
    names: list[str] = []
    for element in text.split():
        before, brace, name = element.rstrip("}").partition("{")
        if not brace:
            choices.append(((element,),))
        elif before:
            choices.append(((before,),))
            name = f"same {name}" if name in names and name != "r0" else name
        else:
            choices.append(_CLASSES[name])
        names.append(name)
    for classes in product(*choices):
        key: list[str] = []
        operands: list[tuple[int, Reader]] = []
        for name, found in zip(names, classes, strict=True):
            key += found
            if name and found:
                operands.append((len(key) - 1, READERS[name]))
        yield " ".join(key), Form(row, tuple(operands), fixed)


@cache
def all_forms() -> dict[str, Form]:
    """Return every form by its key: the classes of its tokens, with blanks between."""
    forms: dict[str, Form] = {}
    for row in TABLE:
        for pattern in FORMS[family(row)]:
            for text in dict.fromkeys(_instantiate(row, pattern)):
                for key, form in _expand(row, text):
                    taken = forms.setdefault(key, form)
                    assert taken.row is row, f"{key!r} is both {taken.row.name} and {row.name}"
    return forms


@cache
def classes() -> Classes:
    """Return the class of every token that the forms name."""
    letters = {"r", "w", INTEGER, SIGNED, LABEL, HELPER}
    literals = {word for key in all_forms() for word in key.split()} - letters
    return Classes((*literals, *DATA_WORDS))
