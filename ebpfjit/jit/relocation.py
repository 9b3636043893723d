"""Listing -> Image -> bytes: places for all code, distances for jumps, slots for addresses.

    offset 0        code, in the listing's order
    aligned to 8    literal pool: a slot of 8 bytes for each symbol (helper addresses)

Jumps start in their short form and grow where the target is too far, to a fixed point.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from ebpfjit.errors import TranslationError
from ebpfjit.jit.assembler import slot_hole
from ebpfjit.jit.compiler import Listing
from ebpfjit.translators.emitter import Jump, Line, Snippet
from ebpfjit.translators.x86_64.target import Limit, resume_label

#  x86-64 condition codes (Intel SDM, volume 2, appendix B): jcc rel8 is 70+cc, rel32 is 0f 80+cc
CONDITION_CODES = {
    "jo": 0, "jno": 1, "jb": 2, "jae": 3, "je": 4, "jne": 5, "jbe": 6, "ja": 7,
    "js": 8, "jns": 9, "jp": 10, "jnp": 11, "jl": 12, "jge": 13, "jle": 14, "jg": 15,
}  # fmt: skip
SHORT_FORMS: dict[str, bytes] = {"jmp": b"\xeb"} | {
    name: bytes([0x70 + code]) for name, code in CONDITION_CODES.items()
}
SHORT_SIZE = 2
LONG_FORMS: dict[str, bytes] = {"jmp": b"\xe9", "call": b"\xe8"} | {
    name: bytes([0x0F, 0x80 + code]) for name, code in CONDITION_CODES.items()
}
LONG_SIZES = {name: len(form) + 4 for name, form in LONG_FORMS.items()}
SIZES = LONG_SIZES | dict.fromkeys(SHORT_FORMS, SHORT_SIZE)
BYTES = [bytes([distance & 0xFF]) for distance in range(256)]
#  the recommended sequences of 0 to 9 bytes (Intel SDM, volume 2, NOP); keystone gets some wrong
NOPS = tuple(
    bytes.fromhex(code)
    for code in (
        "", "90", "6690", "0f1f00", "0f1f4000", "0f1f440000", "660f1f440000", "0f1f8000000000",
        "0f1f840000000000", "660f1f840000000000",
    )
)  # fmt: skip
FULL_ROUNDS = 16
NO_PC = -1
SLOT_SIZE = 8


@dataclass(frozen=True)
class Image:
    """Machine code in place, position-independent, its slots still to be filled.

    `entry` is the offset to call, `callback` that of the routine of this name, None where the
    program has none. `slots` maps a symbol to the offset of its 8 bytes. `pc_starts` and `pc_owners`
    say which pc the code from an offset on belongs to (NO_PC: to none). `limits` are the words that
    the host puts behind the block, in order. `resumes` are the offsets, by pc, where runs of baseline code go
    on; none where the image was loaded. `spans` gives for each item of the listing, in order,
    the offset where its bytes start, and the end; nothing where the image was loaded.
    """

    code: bytes
    entry: int
    callback: int | None
    slots: Mapping[str, int]
    limits: tuple[Limit, ...]
    pc_starts: array[int]
    pc_owners: array[int]
    spans: tuple[int, ...] = ()
    resumes: Mapping[int, int] = field(default_factory=dict)

    def pc_at(self, offset: int) -> int | None:
        """Return the pc whose code holds the byte at `offset`."""
        owner = self.pc_owners[bisect_right(self.pc_starts, offset) - 1]
        return None if owner == NO_PC else owner


@dataclass(slots=True)
class _Layout:
    """A listing's items side by side: their bytes (jumps and labels: none yet), and what is to be placed."""

    codes: list[bytes]
    jumps: list[tuple[int, Jump]]
    labels: dict[str, int]
    aligned: list[tuple[int, int]]
    slotted: list[tuple[int, Line]]
    piece_starts: list[int]


def layout(listing: Listing, codes: Mapping[Line, bytes]) -> Image:
    """Place every item, size every jump, and return the image; `codes` are the bytes of each line.

    Raises TranslationError for a jump to a label that is nowhere.
    """
    flat = _flatten(listing, codes)
    targets = [_target(jump, flat.labels) for _, jump in flat.jumps]
    sizes = _sizes(flat)
    _grow(flat.jumps, sizes, targets)
    offsets = _align(flat.aligned, sizes)
    pool = -(-offsets[-1] // SLOT_SIZE) * SLOT_SIZE
    symbols = dict.fromkeys(line.symbol for _, line in flat.slotted if line.symbol is not None)
    slots = {symbol: pool + SLOT_SIZE * index for index, symbol in enumerate(symbols)}
    chunks = flat.codes
    for (index, jump), target in zip(flat.jumps, targets, strict=True):
        chunks[index] = _encode_jump(jump, sizes[index], offsets[target] - offsets[index + 1])
    for index, _ in flat.aligned:
        chunks[index] = _padding(sizes[index])
    for index, line in flat.slotted:
        assert line.symbol is not None  # that is why it is here
        chunks[index] = _point(line, chunks[index], slots[line.symbol] - offsets[index + 1])
    code = b"".join(chunks).ljust(pool, b"\xcc") + bytes(SLOT_SIZE * len(slots))
    starts = array("I", [offsets[index] for index in flat.piece_starts])
    owners = array("i", [NO_PC if piece.pc is None else piece.pc for piece in listing.pieces])
    entry, callback = (_place(name, flat.labels, offsets) for name in ("entry", "callback"))
    assert entry is not None  # every listing starts with it
    resumes = {pc: offsets[flat.labels[resume_label(pc)]] for pc in listing.resumes}
    return Image(code, entry, callback, slots, listing.limits, starts, owners, tuple(offsets), resumes)


def _place(label: str, labels: Mapping[str, int], offsets: list[int]) -> int | None:
    """Return the offset of a label, None where there is none."""
    return offsets[labels[label]] if label in labels else None


def _flatten(listing: Listing, codes: Mapping[Line, bytes]) -> _Layout:
    """Put a listing's items side by side."""
    flat = _Layout([], [], {}, [], [], [])
    chunks = flat.codes
    for piece in listing.pieces:
        flat.piece_starts.append(len(chunks))
        for part in piece.parts:
            if isinstance(part, Snippet):
                chunks.extend(part.codes)
            elif isinstance(part, Line):
                if part.symbol is not None:
                    flat.slotted.append((len(chunks), part))
                chunks.append(codes[part])
            elif isinstance(part, Jump):
                flat.jumps.append((len(chunks), part))
                chunks.append(b"")
            else:
                flat.labels[part.name] = len(chunks)
                if part.alignment > 1:
                    flat.aligned.append((len(chunks), part.alignment))
                chunks.append(b"")
    return flat


def _sizes(flat: _Layout) -> list[int]:
    """Return the size of each item with every jump short; labels have the most they can take."""
    sizes = list(map(len, flat.codes))
    for index, jump in flat.jumps:
        sizes[index] = SIZES[jump.mnemonic]
    for index, alignment in flat.aligned:
        sizes[index] = alignment - 1
    return sizes


def _target(jump: Jump, labels: Mapping[str, int]) -> int:
    try:
        return labels[jump.label] + 1  # behind the label's padding
    except KeyError:
        raise TranslationError(f"{jump.text}: there is no such label") from None


def _grow(jumps: list[tuple[int, Jump]], sizes: list[int], targets: list[int]) -> None:
    """Make long every jump that does not reach, in `sizes`, until all do.

    Growing one jump can only move targets away, so nothing ever shrinks and it ends. After a
    number of rounds all that are left grow at once, which keeps the worst case linear. Aligned
    labels count with the most that they can take, so that what reaches here reaches in the end.
    """
    short = [
        (index, target, LONG_SIZES[jump.mnemonic])
        for (index, jump), target in zip(jumps, targets, strict=True)
        if jump.mnemonic in SHORT_FORMS
    ]
    for round_ in range(FULL_ROUNDS + 1):
        offsets = list(accumulate(sizes, initial=0))
        kept = []
        for one in short:
            index, target, long_size = one
            if round_ < FULL_ROUNDS and -128 <= offsets[target] - offsets[index + 1] <= 127:
                kept.append(one)
            else:
                sizes[index] = long_size
        if len(kept) == len(short):
            return
        short = kept


def _align(aligned: list[tuple[int, int]], sizes: list[int]) -> list[int]:
    """Return where each item starts, and the end; aligned labels take just what they need."""
    offsets = list(accumulate(sizes, initial=0))
    saved = 0
    for index, alignment in aligned:
        size = -(offsets[index] - saved) % alignment
        saved += sizes[index] - size
        sizes[index] = size
    return list(accumulate(sizes, initial=0)) if aligned else offsets


def _padding(size: int) -> bytes:
    """Return `size` bytes that do nothing."""
    longest = len(NOPS) - 1
    return NOPS[longest] * (size // longest) + NOPS[size % longest] if size else b""


def _encode_jump(jump: Jump, size: int, distance: int) -> bytes:
    if size == SHORT_SIZE:
        return SHORT_FORMS[jump.mnemonic] + BYTES[distance & 0xFF]
    return LONG_FORMS[jump.mnemonic] + distance.to_bytes(4, "little", signed=True)


def _point(line: Line, code: bytes, distance: int) -> bytes:
    """Return a line's bytes with the distance to its symbol's slot patched in."""
    hole = slot_hole(line)
    number = distance.to_bytes(hole.size, "little", signed=True)
    return code[: hole.position] + number + code[hole.position + hole.size :]


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
