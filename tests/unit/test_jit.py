"""The stages of machine code: registry, translation, stencils, layout, relocation, code buffer."""

from __future__ import annotations

import ctypes
import gc
import random
import re

import pytest

from ebpfjit import Program, TranslationError
from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.verified import prepare
from ebpfjit.assembler import assemble
from ebpfjit.bits import U64_MASK
from ebpfjit.jit import assembler
from ebpfjit.jit.code_buffer import CodeBuffer
from ebpfjit.jit.compiler import listing_of
from ebpfjit.jit.entry import compile_program
from ebpfjit.jit.image import relocate
from ebpfjit.jit.recipe import Listing, Recipe
from ebpfjit.jit.relocation import item_spans
from ebpfjit.jit.translation import assemble as assemble_listing
from ebpfjit.options import Options
from ebpfjit.runtime.execution import Execution
from ebpfjit.translators import registry
from tests.support.mappings import rights_at
from tests.support.whole import WHOLE


def _execution() -> Execution:
    return Execution((0, 0), [])


def _listing(text: str, *helpers: int) -> Listing:
    verified = prepare(Program.from_bytes(assemble(text)))
    options = Options(promises=Promises(calling=frozenset()))
    return listing_of(Recipe(verified, options, dict.fromkeys(helpers, False)))


def test_every_operation_has_a_translator() -> None:
    assert registry.missing("x86_64") == []


def test_an_unknown_machine_misses_everything() -> None:
    assert "ADD64" in registry.missing("pdp11")


def test_keystone_is_called_once_for_a_program_and_not_again() -> None:
    text = "\n".join(f"add r{n % 10}, {n * 1000003}\nldxw r3, [r10-{n % 512}]" for n in range(100)) + "\nexit"
    before = assembler.calls
    first = compile_program(prepare(Program.from_bytes(assemble(text))))
    assert assembler.calls - before <= 1
    before = assembler.calls
    second = compile_program(prepare(Program.from_bytes(assemble(text))))
    assert assembler.calls == before
    assert first.image.code == second.image.code


@pytest.mark.parametrize("filler", [0, 20, 40, 41, 42, 43, 44, 60, 5000])
@pytest.mark.parametrize("backward", [False, True])
def test_jumps_of_any_length(filler: int, backward: bool) -> None:
    """The filler's 3-byte adds move the distance over the rel8 border, and far behind it."""
    body = "add r0, 1\n" * filler
    if backward:
        text = f"ja start\nback: {body}mov r1, 1\nexit\nstart: mov r0, 0\njeq r1, 0, back\nexit"
    else:
        text = f"mov r0, 0\njeq r1, 1, over\n{body}jne r1, 1, over\nadd r0, 9\nover: exit"
    compiled = compile_program(prepare(Program.from_bytes(assemble(text))))
    assert compiled.run(_execution()) == filler
    long_form = re.compile(rb"\x0f[\x84\x85]")
    assert bool(long_form.search(compiled.image.code)) or filler < 43


def test_growing_jumps_end_even_where_each_pushes_the_next() -> None:
    """Jumps nested so that one that grows makes the next one not reach: linear all the same."""
    count = 2000
    text = "\n".join(f"jeq r1, {n + 1}, l{n}" for n in range(count))
    text += "\nmov r0, 1\nexit\n" + "\n".join(f"l{n}: mov r0, 2" for n in range(count)) + "\nexit"
    assert compile_program(prepare(Program.from_bytes(assemble(text)))).run(_execution()) == 1


@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize(("filler", "span", "more"), [(4, 3, 1), (7, 2, 0), (7, 2, 1), (13, 1, 0)])
def test_jumps_that_grow_one_after_the_other(filler: int, span: int, more: int, optimize: bool) -> None:
    """Each comes to reach no more when the one before it in the chain has grown: for more rounds than are
    looked at one by one.
    """
    count = 90
    text = "r0 = 0\nr3 = *(u8 *)(r1 + 0)\n"
    for n in range(count):
        far = n + span >= count or n == count - 6
        text += f"if r3 > {n} goto {'end' if far else f't{n + span}'}\n" + "r0 += 1\n" * filler
        text += ("r0 ^= r3\n" if n % 4 < more else "") + f"t{n}: r0 *= 3\n"
    program = Program.from_bytes(assemble(text + "end: exit"))
    function = program.compile(optimize=optimize)
    for first in (*range(0, count, 7), 255):
        assert function(bytes([first])) == program.run(bytes([first]), engine="interpreter").return_value


def test_a_missing_symbol_is_named() -> None:
    image = assemble_listing(_listing("call 5\nexit", 5))
    names = ("slice", "next_slice", "call_python", "fault_illegal", "fault_depth")
    routines = {"counts": 9} | {f"host_{name}": number for number, name in enumerate(names)}
    assert set(image.slots) == {"helper_5", *routines}
    with pytest.raises(TranslationError, match="helper_5"):
        relocate(image, routines)
    code = relocate(image, routines | {"helper_5": 0x1122334455667788})
    offset = image.slots["helper_5"]
    assert offset % 8 == 0
    assert code[offset : offset + 8] == bytes.fromhex("8877665544332211")


def test_every_byte_of_an_instruction_belongs_to_its_pc() -> None:
    listing = _listing("mov r0, 1\nldxb r0, [r10-1]\ndiv r0, r1\nexit")
    image = assemble_listing(listing)
    index, spans = 0, item_spans(listing, image)
    for piece in listing.pieces:
        for _ in piece.items:
            if spans[index] < spans[index + 1]:
                assert image.pc_at(spans[index]) == piece.pc
                assert image.pc_at(spans[index + 1] - 1) == piece.pc
            index += 1


def test_code_is_executable_and_never_writable_then_gone() -> None:
    buffer = CodeBuffer(b"\xb8\x07\x00\x00\x00\xc3")  # mov eax, 7; ret
    address = buffer.address
    assert rights_at(address) == "r-xp"
    assert ctypes.CFUNCTYPE(ctypes.c_uint64)(address)() == 7
    assert address in buffer
    assert address + 6 not in buffer
    assert ctypes.string_at(address + 6, 10) == b"\xcc" * 10
    del buffer
    gc.collect()
    assert "x" not in rights_at(address)


def test_code_stays_mapped_while_someone_holds_it() -> None:
    function = Program.from_bytes(assemble("mov r0, 5\nexit")).compile()
    gc.collect()
    assert function() == 5


def test_the_text_of_a_large_program_is_not_kept_but_written_anew() -> None:
    loop = "mov r0, 0\nagain: ldxb r2, [r1]\nadd r0, r2\njlt r0, 9, again\n"
    compiled = compile_program(prepare(Program.from_bytes(assemble(loop + "add r0, 1\n" * 3000 + "exit"))))
    assert compiled.assembled is None
    assert assemble_listing(compiled.listing).code == compiled.image.code


def test_size_is_limited_by_memory_only() -> None:
    """100,000 instructions (10,000 in each run): decode, verify, assemble, disassemble, compile and run."""
    from ebpfjit.disassembler import disassemble
    from ebpfjit.verifier import check

    rng = random.Random(5)
    count, lines, expected = 100_000 if WHOLE else 10_000, [], 0
    for _ in range(count - 2):
        imm = rng.randrange(-(2**31), 2**31)
        expected = (expected + imm) & U64_MASK
        lines.append(f"add64 r0, {imm}")
    text = "\n".join(["mov64 r0, 0", *lines, "exit"])
    code = assemble(text)
    check(code)
    assert assemble(disassemble(code)) == code
    compiled = compile_program(prepare(Program.from_bytes(code)))
    assert compiled.run(_execution()) == expected
    assert len(compiled.image.code) > 6 * count


def test_bmi2_is_used_only_where_the_machine_has_it() -> None:
    verified = prepare(Program.from_bytes(assemble("mov r0, 1\nmov r1, 40\nlsh r0, r1\nexit")))
    for features, word in ((frozenset({"bmi2"}), "shlx"), (frozenset[str](), "shl rax, cl")):
        listing = listing_of(Recipe(verified, Options(features=features)))
        texts = [item.text for piece in listing.pieces for item in piece.items]
        assert any(word in text for text in texts)
