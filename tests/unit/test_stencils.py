"""Every piece of machine code, decoded by capstone and compared with the text that was meant.

Keystone has wrong encodings; what it made of each template is looked at here: with the numbers it
was probed with, with numbers at the borders of each hole, and in place in whole programs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache

import capstone
import pytest
from support.machines import MACHINE_CODE, constant, machine_code, word
from support.vectors import all_vectors

from ebpfjit.errors import TranslationError
from ebpfjit.isa.spec import Kind, Reg, Row
from ebpfjit.isa.table import TABLE
from ebpfjit.jit import assembler
from ebpfjit.jit.assembler import Hole, Stencil, key_of, stencils_for
from ebpfjit.jit.entry import Compiled
from ebpfjit.jit.recipe import Listing
from ebpfjit.jit.relocation import CONDITION_CODES, LONG_FORMS, SHORT_FORMS, item_spans, layout
from ebpfjit.jit.routine_text import nothing
from ebpfjit.jit.routines import Routines, routines
from ebpfjit.translators.emitter import NO_PC, Emitter, Jump, Label, Line
from tests.support.rows import over
from tests.support.whole import WHOLE, part

# What is compiled for all of its tests is compiled once.
pytestmark = pytest.mark.xdist_group("stencils")

DECODER = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
IMMEDIATES = (0, 1, -1, 5, 31, 63, 127, 128, -128, -129, 0x7FFFFFFF, -0x80000000)
OFFSETS = (0, 1, -1, 127, 128, -128, -129, 255, 32767, -32768)
CONSTANTS = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 64) - 1, 1 << 63, 0xFFFFFFFF_80000000)
WIDTHS = {"byte": 8, "word": 16, "dword": 32, "qword": 64, "xmmword": 128}


# --- one instruction as text, in one spelling ---


def decode(code: bytes, address: int = 0) -> str:
    """Return the only instruction in `code`, as text; all of its bytes belong to it."""
    found = list(DECODER.disasm(code, address))
    assert [insn.size for insn in found] == [len(code)], f"{code.hex()} is not one instruction: {found}"
    return f"{found[0].mnemonic} {found[0].op_str}".strip()


REGISTER_WIDTHS = {
    64: r"r(ax|bx|cx|dx|si|di|bp|sp|[89]|1[0-5])",
    32: r"e(ax|bx|cx|dx|si|di|bp|sp)|r([89]|1[0-5])d",
    16: r"[abcd]x|si|di|bp|sp|r([89]|1[0-5])w",
    8: r"[abcd]l|sil|dil|bpl|spl|r([89]|1[0-5])b",
    128: r"xmm\d+",
}


@cache
def width_of(operand: str) -> int:
    """The width in bits of a register's name, or of `dword ptr [...]`; 64 for an address alone."""
    name = operand.split()[0]
    if name.startswith("["):
        return 64
    if name in WIDTHS:
        return WIDTHS[name]
    (width,) = [width for width, names in REGISTER_WIDTHS.items() if re.fullmatch(names, name)]
    return width


def canonical_memory(inside: str) -> str:
    """Base, index and displacement of `[...]`: terms in order, the numbers added up."""
    terms = re.findall(r"[+-]?[^+-]+", inside.replace(" ", "").replace("+-", "-"))
    numbers = [int(term, 0) for term in terms if re.fullmatch(r"[+-]?(0x[0-9a-f]+|\d+)", term)]
    names = [term.lstrip("+") for term in terms if not re.fullmatch(r"[+-]?(0x[0-9a-f]+|\d+)", term)]
    return f"[{'+'.join(names)}{sum(numbers):+d}]"


@cache
def canonical(text: str) -> str:
    """Return an instruction in one spelling: numbers in decimal, without a sign, at their width."""
    text = re.sub(r"\s+", " ", text.strip().lower())
    prefix, text = ("lock ", text[5:]) if text.startswith("lock ") else ("", text)
    mnemonic, _, rest = text.partition(" ")
    operands = [part.strip() for part in re.split(r",(?![^\[]*\])", rest)] if rest else []
    width = width_of(operands[0]) if operands and not re.match(r"[-0-9]", operands[0]) else 64
    shown = []
    for operand in operands:
        if re.fullmatch(r"-?(0x[0-9a-f]+|\d+)", operand):
            shown.append(str(int(operand, 0) % 2**width))
        else:
            shown.append(re.sub(r"\[(.*)\]", lambda found: canonical_memory(found[1]), operand))
    return f"{prefix}{mnemonic} {', '.join(shown)}".strip()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("mov qword ptr [r12+0x10], -1", "mov qword ptr [r12 + 0x10], 0xffffffffffffffff"),
        ("lea r11, [rbp+-0x10]", "lea r11, [rbp - 0x10]"),
        ("cmp r10d, -1", "cmp r10d, 0xffffffff"),
        ("mov word ptr [r11], 0x8000", "mov word ptr [r11], -0x8000"),
        ("lock  cmpxchg [r11], r9", "lock cmpxchg [r11 + 0], r9"),
    ],
)
def test_spellings_that_are_the_same(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("mov eax, ecx", "mov rax, rcx"),
        ("mov al, 0x51", "mov al, 0x52"),
        ("add rax, 0x51", "sub rax, 0x51"),
        ("mov dword ptr [r11], eax", "mov qword ptr [r11], rax"),
        ("mov eax, dword ptr [rcx + 8]", "mov eax, dword ptr [rcx - 8]"),
        ("lock add dword ptr [r11], eax", "add dword ptr [r11], eax"),
        ("cmp eax, 1", "cmp eax, -1"),
        ("movzx eax, al", "movzx eax, ax"),
    ],
)
def test_spellings_that_are_not(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


# --- the programs ---


def some(values: Sequence[int], start: int, count: int) -> Sequence[int]:
    """Return so many of the values, spread out, others for the next start; all where all is asked for."""
    if WHOLE or count >= len(values):
        return values
    return [values[(start + n * len(values) // count) % len(values)] for n in range(count)]


def choices(row: Row) -> Iterator[bytes]:
    """Yield instructions of a row: each register in each place, each size of imm and offset."""
    dsts = [0] if isinstance(row.dst, int) else range(11 if row.dst is Reg.READ else 10)
    srcs = [0] if isinstance(row.src, int) else range(11 if row.src is Reg.READ else 10)
    at = TABLE.index(row)
    if row.kind is Kind.LOAD_IMM64:
        yield from (constant(dst, value) for dst in dsts for value in some(CONSTANTS, dst, 3))
        return
    has_imm = row.kind in (Kind.BINARY, Kind.MOVE, Kind.STORE, Kind.BRANCH, Kind.PACKET_LOAD) and row.imm != 0
    for dst in dsts:
        for src in some(srcs, dst + at, 2):
            yield word(row.name, dst, src)
        if dst in srcs:
            yield word(row.name, dst, dst)
        for offset in some(OFFSETS, dst + at, 3) if row.size and row.kind is not Kind.PACKET_LOAD else ():
            yield word(row.name, dst, srcs[-1], offset)
        for imm in some(IMMEDIATES, dst + at, 3) if has_imm else ():
            yield word(row.name, dst, srcs[-1], imm=imm)
    for src in srcs:
        for offset in some(OFFSETS, src + at, 3) if row.kind is Kind.LOAD else ():
            yield word(row.name, dsts[-1], src, offset)


CALLS = b"".join(
    [
        word("CALL", imm=1), word("CALL", imm=5), word("CALL", imm=9), word("CALL", imm=77),
        word("CALL_KFUNC", imm=70001), word("CALL_KFUNC", imm=70002),
        *(word("LDDW_CODE", dst, imm=-2 * dst - 7) for dst in range(10)),
        *(word("CALLX", dst) for dst in range(10)),
        word("MAY_GOTO", offset=1), word("CALL_LOCAL", imm=1), word("EXIT"),
        word("MOV64_K", 0, imm=1), word("EXIT"),
    ]
)  # fmt: skip


@cache
def programs() -> tuple[tuple[str, bytes, tuple[tuple[int, int], ...]], ...]:
    """Name, bytecode and references: a program a row, calls, and every vector, a case that is accepted."""
    found: list[tuple[str, bytes, tuple[tuple[int, int], ...]]] = []
    for row in TABLE:
        if row.kind in (Kind.CALL_HELPER, Kind.CALL_LOCAL, Kind.CALL_KFUNC, Kind.CALL_REGISTER):
            continue
        if row.reference is None:
            code = b"".join(choices(row)) + word("MOV64_K", 0) + word("EXIT")
            found.append((row.name, code, ()))
        elif row.name != "LDDW_CODE":
            code = b"".join(word(row.name, dst) for dst in range(10)) * len(CONSTANTS) + word("EXIT")
            found.append(
                (row.name, code, tuple((2 * n, CONSTANTS[n // 10]) for n in range(10 * len(CONSTANTS))))
            )
    found.append(("calls", CALLS, ()))
    for vector in all_vectors():
        accepted = [case for case in vector.cases if case.error not in ("VerifierError", "LoadError")]
        for case in part(accepted, len(vector.cases)):
            numbers = {pc: value if isinstance(value, int) else 4096 for pc, value in case.references.items()}
            found.append((case.name, case.code, tuple(numbers.items())))
    return tuple(found)


@cache
def compiled(engine: str) -> tuple[tuple[str, Compiled], ...]:
    return tuple(
        (name, machine_code(code, engine, dict(references))) for name, code, references in programs()
    )


def items_of(program: Compiled | Routines) -> list[Line | Jump | Label]:
    return [item for piece in program.listing.pieces for item in piece.items]


@cache
def lines() -> tuple[Line, ...]:
    """Every line of every program, on every variant of machine code, and of what they share."""
    images = [program for engine in MACHINE_CODE for _, program in compiled(engine)]
    found = (item for image in (*images, routines()) for item in items_of(image))
    return tuple(dict.fromkeys(item for item in found if isinstance(item, Line)))


# --- whole programs: what is in the image is what the listing says ---


def complaints(program: Compiled | Routines) -> Iterator[str]:
    """Yield what capstone reads otherwise than the listing has it."""
    image, items = program.image, items_of(program)
    spans = item_spans(program.listing, image)
    # A label is behind the padding that aligns it.
    places = {item.name: spans[index + 1] for index, item in enumerate(items) if isinstance(item, Label)}
    for index, item in enumerate(items):
        start, end = spans[index], spans[index + 1]
        code = image.code[start:end]
        if isinstance(item, Label):
            wanted, got = "nop" if code else "", " ".join(sorted(mnemonics(code)))
        elif isinstance(item, Jump):
            wanted, got = f"{item.mnemonic} {places[item.label]}", jump_as_read(code, start)
        else:
            text = item.text
            if item.symbol is not None:
                text = text.replace(item.symbol, hex(image.slots[item.symbol] - end))
            wanted, got = canonical(text), as_read(code)
        if wanted != got:
            yield f"{item.text!r} became {code.hex()}, which is {got!r}, not {wanted!r}"


@cache
def mnemonics(code: bytes) -> set[str]:
    found = list(DECODER.disasm(code, 0))
    assert sum(insn.size for insn in found) == len(code), code.hex()
    return {insn.mnemonic for insn in found}


@cache
def as_read(code: bytes) -> str:
    return canonical(decode(code))


def jump_as_read(code: bytes, address: int) -> str:
    mnemonic, distance = read_jump(code)
    return f"{mnemonic} {address + len(code) + distance}"


@cache
def read_jump(code: bytes) -> tuple[str, int]:
    """Return the mnemonic of a jump, and how far from its end it leads."""
    address = 1 << 40
    mnemonic, _, target = decode(code, address).partition(" ")
    return mnemonic, int(target, 0) - address - len(code)


@pytest.mark.parametrize("engine", MACHINE_CODE)
def test_images_hold_what_the_listings_say(engine: str) -> None:
    wrong = [f"{name}: {text}" for name, program in compiled(engine) for text in complaints(program)]
    assert not wrong, "\n".join(wrong[:20])
    assert len(compiled(engine)) > 182
    jumps = {
        item.mnemonic
        for _, program in compiled(engine)
        for item in items_of(program)
        if isinstance(item, Jump)
    }
    assert jumps <= set(LONG_FORMS)


def test_the_shared_routines_are_what_their_listing_says() -> None:
    assert not list(complaints(routines()))


def test_all_rows_are_translated_with_all_their_registers() -> None:
    for name, program in compiled("checked"):
        owners = {piece.pc for piece in program.listing.pieces}
        assert owners >= {insn.pc for insn in program.verified.program.instructions}, name
    rows = {
        insn.row.name
        for _, program in compiled("checked")
        for insn in program.verified.program.instructions
        if insn.row
    }
    assert rows == {row.name for row in TABLE}


# --- stencils: with what they were probed, and at the borders of their holes ---


def with_numbers(line: Line, imm: int, offset: int, slot: int) -> str:
    """The template with these numbers, or without what it does not have."""
    text = line.template.replace("$imm", hex(imm)).replace("$symbol", hex(slot))
    return text.replace("+$offset", f"{offset:+#x}")


def probed(line: Line) -> str:
    imm = assembler.IMM_SENTINELS.get(line.imm_bits, 0)
    return with_numbers(
        line, imm, assembler.OFFSET_SENTINELS.get(line.offset_bits, 0), assembler.SLOT_SENTINEL
    )


def test_stencils_are_what_was_meant() -> None:
    table = stencils_for(lines())
    wrong = [
        f"{line.template!r} became {code.hex()}, which is {as_read(code)!r}"
        for line in lines()
        if as_read(code := table[key_of(line)].code) != canonical(probed(line))
    ]
    assert not wrong, "\n".join(dict.fromkeys(wrong))
    assert len({key_of(line) for line in lines()}) > 500


def patched(stencil: Stencil, numbers: tuple[tuple[Hole | None, int], ...]) -> bytes:
    code = bytearray(stencil.code)
    for hole, number in numbers:
        if hole is not None:
            code[hole.position : hole.position + hole.size] = (number % 2 ** (8 * hole.size)).to_bytes(
                hole.size, "little"
            )
    return bytes(code)


def borders(hole: Hole | None) -> list[int]:
    if hole is None:
        return [0]
    top = 1 << (8 * hole.size - 1)
    return [-top, -1, 0, 1, 5, top - 1]


def is_shift(line: Line) -> bool:
    return line.template.split()[0] in ("shl", "shr", "sar", "rol", "ror", "rorx")


def test_holes_hold_every_number_of_their_size() -> None:
    table = stencils_for(lines())
    wrong = []
    unique = {key_of(line): line for line in lines()}
    for key, line in unique.items():
        stencil = table[key]
        assert (stencil.imm is not None, stencil.offset is not None, stencil.slot is not None) == (
            line.imm is not None, line.offset is not None, line.symbol is not None
        ), line.template  # fmt: skip
        for imm in borders(stencil.imm):
            for offset in borders(stencil.offset):
                for slot in borders(stencil.slot):
                    if is_shift(line) and not 0 < imm < 64:
                        continue
                    code = patched(
                        stencil, ((stencil.imm, imm), (stencil.offset, offset), (stencil.slot, slot))
                    )
                    wanted = canonical(with_numbers(line, imm, offset, slot))
                    if as_read(code) != wanted:
                        wrong.append(f"{wanted!r} became {code.hex()}, which is {as_read(code)!r}")
    assert not wrong, "\n".join(wrong[:20])


def test_holes_do_not_overlap() -> None:
    for key, stencil in stencils_for(lines()).items():
        taken: set[int] = set()
        for hole in (stencil.imm, stencil.offset, stencil.slot):
            if hole is not None:
                place = set(range(hole.position, hole.position + hole.size))
                assert not place & taken, key
                assert max(place) < len(stencil.code), key
                taken |= place


# --- jumps ---


@over("mnemonic", SHORT_FORMS)
@over("distance", [-128, -2, 0, 127])
def test_short_jumps(mnemonic: str, distance: int) -> None:
    code = SHORT_FORMS[mnemonic] + distance.to_bytes(1, "little", signed=True)
    assert jump_as_read(code, 0x1000) == f"{mnemonic} {0x1000 + len(code) + distance}"


@over("mnemonic", LONG_FORMS)
@over("distance", [-(1 << 31), -129, 0, 128, (1 << 31) - 1])
def test_long_jumps(mnemonic: str, distance: int) -> None:
    code = LONG_FORMS[mnemonic] + distance.to_bytes(4, "little", signed=True)
    address = 1 << 40
    assert jump_as_read(code, address) == f"{mnemonic} {address + len(code) + distance}"


def test_jumps_have_a_form_for_each_condition() -> None:
    assert set(SHORT_FORMS) == {"jmp", *CONDITION_CODES}
    assert set(LONG_FORMS) == {"jmp", "call", *CONDITION_CODES}
    assert len(CONDITION_CODES) == 16


@pytest.mark.parametrize("is_out_of_line", [False, True])
def test_a_label_at_two_places_is_refused(is_out_of_line: bool) -> None:
    emitter = Emitter()
    emitter.begin(NO_PC)
    emitter.label("entry")
    emitter.label(".on1")
    emitter.jump("jmp", ".on1")
    if is_out_of_line:
        with emitter.out_of_line(".on1"):
            emitter.jump("jmp", "entry")
    else:
        emitter.label(".on1")
    with pytest.raises(TranslationError, match=r"\.on1: this label is at two places"):
        layout(Listing(nothing(), emitter.text(), (), {}))
