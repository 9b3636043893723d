"""Templates -> stencils: machine code with holes, from keystone, one batch for all that are new.

Keystone sees each template once, with sentinels where numbers go; the lines of a batch are
separated by a marker. It only ever sees text that our translators wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import filterfalse
from operator import attrgetter
from typing import Any

from ebpfjit.errors import JitUnavailable, TranslationError
from ebpfjit.jit.cpu import machine
from ebpfjit.memo import Memo
from ebpfjit.once import ForkLock
from ebpfjit.record import record, replace
from ebpfjit.translators.emitter import Jump, Label, Line, Part, SlotLine, Snippet

MARKER = 0x9E3779B97F4A7C15
IMM_SENTINELS = {8: 0x51, 16: 0x5A3C, 32: 0x5A3C6E71, 64: 0x5A3C6E7112345678}
OFFSET_SENTINELS = {8: 0x52, 32: 0x4B2D5F62}
SLOT_SENTINEL = 0x4C3E2F63


def _endings(sentinel: int, sizes: Iterable[int]) -> tuple[bytes, ...]:
    """Return how code ends whose last number is a sentinel, in as many bytes as it may have."""
    return tuple(sentinel.to_bytes(size, "little") for size in sizes if not sentinel >> 8 * size)


#  by bits; keystone may choose another size for an immediate than the one that was asked for
IMM_ENDINGS = {bits: _endings(it, (bits // 8, 4, 2, 1)) for bits, it in IMM_SENTINELS.items()}
OFFSET_ENDINGS = {bits: _endings(it, (bits // 8,)) for bits, it in OFFSET_SENTINELS.items()}
SLOT_ENDINGS = _endings(SLOT_SENTINEL, (4,))
IMM_TEXTS = {bits: hex(it) for bits, it in IMM_SENTINELS.items()}
OFFSET_TEXTS = {bits: hex(it) for bits, it in OFFSET_SENTINELS.items()}

# Keystone 0.9.2 leaves its default radix uninitialised (its issues 528 and 608): a number without
# a prefix may be read as hexadecimal, so it never sees one of two digits.
_DECIMAL = re.compile(r"(?<![\w$.])[1-9][0-9]+(?!\w)")


@record
class Hole:
    """Where a number goes: `size` bytes at `position`.

    The machine extends the sign of a number that is shorter than what it is used for; only where it
    `is_whole`, as long as the operand, may it also be read as unsigned: 0xffffffff in `mov eax`, but
    not in `mov rax`.
    """

    position: int
    size: int
    is_whole: bool = False

    def filled(self, number: int) -> bytes:
        """Return the bytes of a number. Raises TranslationError for one that the hole does not hold."""
        bits = 8 * self.size
        if not -(1 << (bits - 1)) <= number < 1 << (bits if self.is_whole else bits - 1):
            kind = "" if self.is_whole else "signed "
            raise TranslationError(f"{number:#x} does not fit the {kind}{bits} bits that are there for it")
        return (number & ((1 << bits) - 1)).to_bytes(self.size, "little")


@record
class Stencil:
    """The bytes of one template, and its holes."""

    code: bytes
    imm: Hole | None = None
    offset: Hole | None = None
    slot: Hole | None = None


Key = tuple[str, int, int]
"""A template and the sizes (bits) of its immediate and displacement; 0 where it has none."""

_stencils: Memo[Key, Stencil] = Memo()
_assembling = ForkLock(waits_at_fork=True)
"""Keystone has state of its own (LLVM's tables of targets) that two threads would fill at once."""
calls = 0
"""How often keystone was called in this process; tests and benchmarks look at it."""


def key_of(line: Line) -> Key:
    """Return what a line's stencil is found by."""
    return line.template, line.imm_bits, line.offset_bits


def stencils_for(lines: Iterable[Line]) -> dict[Key, Stencil]:
    """Return the table of stencils, in which each of `lines` now has one.

    Calls keystone at most once. Raises JitUnavailable where it is missing.
    """
    new = [key for key in dict.fromkeys(map(key_of, lines)) if key not in _stencils]
    if new:
        for key, code in zip(new, _assemble([_probe(key) for key in new]), strict=True):
            _stencils[key] = _find_holes(key, code)
    return _stencils


def assemble_parts(parts: Iterable[Part]) -> None:
    """Give every line and snippet its bytes. Calls keystone at most once.

    Where a line names a symbol they are `hollow`, its displacement still to be filled. Raises
    TranslationError, naming the line, for a number that does not fit where it goes.
    """
    lines: dict[Line, None] = {}
    snippets: list[Snippet] = []
    for part in filterfalse(attrgetter("code"), parts):  # most lines were met before
        if type(part) is Jump or type(part) is Label:
            continue
        if isinstance(part, Line):
            lines[part] = None
        elif isinstance(part, Snippet):
            snippets.append(part)
            lines.update(dict.fromkeys([line for line in part.lines if not line.code]))
    if lines:
        stencils = stencils_for(lines)
        for line in lines:
            code = _fill(line, stencils[line.template, line.imm_bits, line.offset_bits])
            if isinstance(line, SlotLine):
                line.hollow = code
            else:
                line.code = code
    for snippet in snippets:
        snippet.code = b"".join([line.code for line in snippet.lines])


def _fill(line: Line, stencil: Stencil) -> bytes:
    """Return a line's bytes with its numbers patched in.

    Raises TranslationError, naming the line, for a number that does not fit.
    """
    code = stencil.code
    for hole, number in ((stencil.imm, line.imm), (stencil.offset, line.offset)):
        if hole is not None and number is not None:
            start, stop = hole.position, hole.position + hole.size
            try:
                code = code[:start] + hole.filled(number) + code[stop:]
            except TranslationError as error:
                raise TranslationError(f"{line.text}: {error}") from None
    return code


def slot_hole(line: Line) -> Hole:
    """Return where a line's displacement to its symbol's slot goes."""
    hole = _stencils[key_of(line)].slot
    assert hole is not None  # the line names a symbol
    return hole


def _probe(key: Key) -> str:
    """Return the template as keystone is to see it: a number that is easy to find in each hole."""
    text, imm_bits, offset_bits = key
    if imm_bits:
        text = text.replace("$imm", IMM_TEXTS[imm_bits])
    if offset_bits:
        text = text.replace("$offset", OFFSET_TEXTS[offset_bits])
    return text


def _find_holes(key: Key, code: bytes) -> Stencil:
    """Find the sentinels: an immediate ends the instruction, a displacement stands before it."""
    template, imm_bits, offset_bits = key
    imm = offset = slot = None
    end = len(code)
    if imm_bits:
        found = _hole_at_end(template, code, end, IMM_ENDINGS[imm_bits])
        imm = replace(found, is_whole=8 * found.size == machine().operand_bits(template))
        end = imm.position
    if offset_bits:
        offset = _hole_at_end(template, code, end, OFFSET_ENDINGS[offset_bits])
    if "$symbol" in template:
        slot = _hole_at_end(template, code, end, SLOT_ENDINGS)
    return Stencil(code, imm, offset, slot)


def _hole_at_end(template: str, code: bytes, end: int, endings: tuple[bytes, ...]) -> Hole:
    for ending in endings:
        if code.endswith(ending, 0, end):
            return Hole(end - len(ending), len(ending))
    raise TranslationError(f"no hole for a number in {template!r}: {code.hex()}")


def _keystone() -> Any:
    try:
        import keystone
    except ImportError as error:
        raise JitUnavailable(
            f"keystone is not installed, which makes machine code ({error}): pip install keystone-engine; "
            f"the interpreter works without"
        ) from None
    return keystone


def _assemble(texts: list[str]) -> list[bytes]:
    """Assemble each text by itself, all in one call of keystone; `$symbol` is as good as a number."""
    global calls
    keystone = _keystone()
    text = f"\n.quad {MARKER:#x}\n".join(texts).replace("$symbol", hex(SLOT_SENTINEL))
    text = _DECIMAL.sub(lambda number: hex(int(number[0])), text)
    try:
        with _assembling.held:
            calls += 1
            code, _ = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64).asm(text, as_bytes=True)
    except keystone.KsError as error:
        raise TranslationError(f"keystone refused the text of a translator: {error}") from None
    parts: list[bytes] = (code or b"").split(MARKER.to_bytes(8, "little"))
    if len(parts) != len(texts):
        raise TranslationError(f"keystone assembled {len(parts)} of {len(texts)} lines")
    return parts
