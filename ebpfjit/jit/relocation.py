"""Listing -> Image -> bytes: places for all code, distances for jumps, slots for addresses.

    offset 0        code, in the listing's order
    aligned to 8    literal pool: a slot of 8 bytes for each symbol (helper addresses)

Jumps start in their short form and grow where the target is too far, to a fixed point.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

from ebpfjit.errors import TranslationError
from ebpfjit.jit.assembler import Key, Stencil, key_of
from ebpfjit.jit.compiler import Listing
from ebpfjit.translators.emitter import Item, Jump, Label, Line

#  x86-64 condition codes (Intel SDM, volume 2, appendix B): jcc rel8 is 70+cc, rel32 is 0f 80+cc
CONDITION_CODES = {
    "jo": 0, "jno": 1, "jb": 2, "jae": 3, "je": 4, "jne": 5, "jbe": 6, "ja": 7,
    "js": 8, "jns": 9, "jp": 10, "jnp": 11, "jl": 12, "jge": 13, "jle": 14, "jg": 15,
}  # fmt: skip
SHORT_FORMS: dict[str, bytes] = {"jmp": b"\xeb"} | {
    name: bytes([0x70 + code]) for name, code in CONDITION_CODES.items()
}
LONG_FORMS: dict[str, bytes] = {"jmp": b"\xe9", "call": b"\xe8"} | {
    name: bytes([0x0F, 0x80 + code]) for name, code in CONDITION_CODES.items()
}
#  the recommended sequences of 0 to 9 bytes (Intel SDM, volume 2, NOP); keystone gets some wrong
NOPS = tuple(
    bytes.fromhex(code)
    for code in (
        "", "90", "6690", "0f1f00", "0f1f4000", "0f1f440000", "660f1f440000", "0f1f8000000000",
        "0f1f840000000000", "660f1f840000000000",
    )
)  # fmt: skip
FULL_ROUNDS = 16
SLOT_SIZE = 8


@dataclass(frozen=True)
class Image:
    """Machine code in place, position-independent, its slots still to be filled.

    `slots` maps a symbol to the offset of its 8 bytes. `pc_starts` and `pc_owners` say which pc
    the code from an offset on belongs to (None: to none). `spans` gives for each item of the
    listing, in order, the offset where its bytes start, and the end. `callback` is the offset of
    the routine of that name, None where the program has none.
    """

    code: bytes
    entry: int
    slots: Mapping[str, int]
    pc_starts: tuple[int, ...]
    pc_owners: tuple[int | None, ...]
    spans: tuple[int, ...]
    callback: int | None = None

    def pc_at(self, offset: int) -> int | None:
        """Return the pc whose code holds the byte at `offset`."""
        return self.pc_owners[bisect_right(self.pc_starts, offset) - 1]


def layout(listing: Listing, stencils: Mapping[Key, Stencil]) -> Image:
    """Place every item, size every jump, and return the image.

    Raises TranslationError for a jump to a label that is nowhere.
    """
    items = [item for piece in listing.pieces for item in piece.items]
    sizes, jumps = _first_sizes(items, stencils)
    labels = {item.name: index for index, item in enumerate(items) if isinstance(item, Label)}
    targets = [_target(items[index], labels) for index in jumps]
    _grow(items, sizes, jumps, targets)
    offsets = _align(items, sizes)
    end = offsets[-1]
    pool = -(-end // SLOT_SIZE) * SLOT_SIZE
    symbols = dict.fromkeys(i.symbol for i in items if isinstance(i, Line) and i.symbol is not None)
    slots = {symbol: pool + SLOT_SIZE * index for index, symbol in enumerate(symbols)}
    where = dict(zip(jumps, targets, strict=True))
    chunks = [
        _encode_jump(item, sizes[index], offsets[where[index]] - offsets[index + 1])
        if isinstance(item, Jump)
        else _fill(item, stencils[key_of(item)], slots, offsets[index])
        if isinstance(item, Line)
        else _padding(offsets[index + 1] - offsets[index])
        for index, item in enumerate(items)
    ]
    code = b"".join(chunks).ljust(pool, b"\xcc") + bytes(SLOT_SIZE * len(slots))
    starts, owners = _pc_map(listing, offsets)
    callback = offsets[labels["callback"]] if "callback" in labels else None
    return Image(code, offsets[labels["entry"]], slots, starts, owners, tuple(offsets), callback)


def _first_sizes(items: list[Item], stencils: Mapping[Key, Stencil]) -> tuple[list[int], list[int]]:
    """Return the size of each item with every jump short, and the indices of the jumps."""
    sizes: list[int] = []
    jumps: list[int] = []
    for index, item in enumerate(items):
        if isinstance(item, Line):
            sizes.append(len(stencils[item.template, item.imm_bits, item.offset_bits].code))
        elif isinstance(item, Jump):
            jumps.append(index)
            short = SHORT_FORMS.get(item.mnemonic)
            sizes.append(len(short) + 1 if short else len(LONG_FORMS[item.mnemonic]) + 4)
        else:
            sizes.append(item.alignment - 1)  # the most it can take
    return sizes, jumps


def _target(item: Item, labels: Mapping[str, int]) -> int:
    assert isinstance(item, Jump)  # the caller picked the jumps
    try:
        return labels[item.label] + 1  # behind the label's padding
    except KeyError:
        raise TranslationError(f"{item.text}: there is no such label") from None


def _grow(items: list[Item], sizes: list[int], jumps: list[int], targets: list[int]) -> None:
    """Make long every jump that does not reach, in `sizes`, until all do.

    Growing one jump can only move targets away, so nothing ever shrinks and it ends. After a
    number of rounds all that are left grow at once, which keeps the worst case linear. Aligned
    labels count with the most that they can take, so that what reaches here reaches in the end.
    """
    short = [
        (index, target)
        for index, target in zip(jumps, targets, strict=True)
        if _mnemonic(items[index]) in SHORT_FORMS
    ]
    for round_ in range(FULL_ROUNDS + 1):
        offsets = list(accumulate(sizes, initial=0))
        kept = []
        for index, target in short:
            if round_ < FULL_ROUNDS and -128 <= offsets[target] - offsets[index + 1] <= 127:
                kept.append((index, target))
            else:
                sizes[index] = len(LONG_FORMS[_mnemonic(items[index])]) + 4
        if len(kept) == len(short):
            return
        short = kept


def _mnemonic(item: Item) -> str:
    assert isinstance(item, Jump)  # the caller picked the jumps
    return item.mnemonic


def _align(items: list[Item], sizes: list[int]) -> list[int]:
    """Return where each item starts, and the end; aligned labels take just what they need."""
    offsets = [0]
    here = 0
    for item, size in zip(items, sizes, strict=True):
        if isinstance(item, Label):
            size = -here % item.alignment
        here += size
        offsets.append(here)
    return offsets


def _padding(size: int) -> bytes:
    """Return `size` bytes that do nothing."""
    longest = len(NOPS) - 1
    return NOPS[longest] * (size // longest) + NOPS[size % longest] if size else b""


def _encode_jump(item: Jump, size: int, distance: int) -> bytes:
    short = SHORT_FORMS.get(item.mnemonic)
    if short is not None and size == len(short) + 1:
        return short + distance.to_bytes(1, "little", signed=True)
    return LONG_FORMS[item.mnemonic] + distance.to_bytes(4, "little", signed=True)


def _fill(line: Line, stencil: Stencil, slots: Mapping[str, int], start: int) -> bytes:
    """Return a line's bytes with its numbers patched in."""
    if line.imm is None and line.offset is None and line.symbol is None:
        return stencil.code
    code = bytearray(stencil.code)
    numbers = (
        (stencil.imm, line.imm),
        (stencil.offset, line.offset),
        (stencil.slot, slots[line.symbol] - start - len(code) if line.symbol is not None else None),
    )
    for hole, number in numbers:
        if hole is not None and number is not None:
            mask = (1 << 8 * hole.size) - 1
            code[hole.position : hole.position + hole.size] = (number & mask).to_bytes(hole.size, "little")
    return bytes(code)


def _pc_map(listing: Listing, offsets: list[int]) -> tuple[tuple[int, ...], tuple[int | None, ...]]:
    starts: list[int] = []
    owners: list[int | None] = []
    index = 0
    for piece in listing.pieces:
        starts.append(offsets[index])
        owners.append(piece.pc)
        index += len(piece.items)
    return tuple(starts), tuple(owners)


def relocate(image: Image, symbols: Mapping[str, int]) -> bytes:
    """Return the image's bytes with every slot filled.

    Slots are 8 bytes, little-endian; `symbols` maps a name to an absolute host address (u64).
    Raises TranslationError naming the first missing symbol.
    """
    code = bytearray(image.code)
    for symbol, offset in image.slots.items():
        if symbol not in symbols:
            raise TranslationError(f"nothing says where {symbol} is")
        code[offset : offset + SLOT_SIZE] = symbols[symbol].to_bytes(SLOT_SIZE, "little")
    return bytes(code)
