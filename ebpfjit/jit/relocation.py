"""Listing -> Image -> bytes: places for all code, distances for jumps, slots for addresses.

    offset 0        code, in the listing's order
    aligned to 8    literal pool: a slot of 8 bytes for each symbol (helper addresses)

Jumps start in their short form and grow where the target is too far, to a fixed point.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import field
from itertools import accumulate
from struct import Struct

from ebpfjit.errors import OptimizationError, TranslationError
from ebpfjit.jit.assembler import Hole, slot_hole
from ebpfjit.jit.recipe import Listing
from ebpfjit.record import record
from ebpfjit.translators.emitter import NO_PC, Jump, Label, SlotLine, Snippet
from ebpfjit.translators.x86_64.target import Limit, resume_label, return_label

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
NEAR = {distance: distance.to_bytes(1, "little", signed=True) for distance in range(-128, 128)}
#  the recommended sequences of 0 to 9 bytes (Intel SDM, volume 2, NOP); keystone gets some wrong
NOPS = tuple(
    bytes.fromhex(code)
    for code in (
        "", "90", "6690", "0f1f00", "0f1f4000", "0f1f440000", "660f1f440000", "0f1f8000000000",
        "0f1f840000000000", "660f1f840000000000",
    )
)  # fmt: skip
DISTANCE = Struct("<i")
REACH = 1 << 31
FULL_ROUNDS = 16
SLOT_SIZE = 8
SLOT = Hole(0, SLOT_SIZE, is_whole=True)


@record
class Image:
    """Machine code in place, position-independent, its slots still to be filled.

    `entry` is the offset to call, `callback` that of the routine of this name, None where the
    program has none. `slots` maps a symbol to the offset of its 8 bytes. `pc_starts` and `pc_owners`
    say which pc the code from an offset on belongs to (NO_PC: to none). `limits` are the words that
    the host puts behind the block, in order. `resumes` are the offsets, by pc, where runs of baseline code go
    on, `returns` those where functions return to baseline code, by the pc that calls them; none where the
    image was loaded. `spans` gives for each part of the listing, in order,
    the offset where its bytes start, and the end; nothing where the image was loaded.
    """

    code: bytes
    entry: int
    callback: int | None
    slots: Mapping[str, int]
    limits: tuple[Limit, ...]
    pc_starts: array[int]
    pc_owners: array[int]
    spans: Sequence[int] = field(default=(), compare=False)
    resumes: Mapping[int, int] = field(default_factory=dict)
    returns: Mapping[int, int] = field(default_factory=dict)

    def pc_at(self, offset: int) -> int | None:
        """Return the pc whose code holds the byte at `offset`."""
        owner = self.pc_owners[bisect_right(self.pc_starts, offset) - 1]
        return None if owner == NO_PC else owner


def layout(listing: Listing, lead: int = 0) -> Image:
    """Place every part, size every jump, and return the image; the parts have their bytes.

    In front lie `lead` bytes that nothing runs: code elsewhere, for those who measure what that is worth.
    Raises TranslationError for a jump to a label that is nowhere, OptimizationError for one that is too far.
    """
    parts = listing.parts
    chunks = [part.code for part in parts]
    sizes = list(map(len, chunks))
    jumps: list[tuple[int, Jump]] = []
    aligned: list[tuple[int, int]] = []
    slotted: list[tuple[int, SlotLine]] = []
    labels: dict[str, int] = {}
    for index in [index for index, size in enumerate(sizes) if not size]:  # the others have their bytes
        part = parts[index]
        if isinstance(part, Jump):
            jumps.append((index, part))
            sizes[index] = SIZES[part.mnemonic]
        elif isinstance(part, Label):
            labels[part.name] = index + 1  # behind its padding
            if part.alignment > 1:
                aligned.append((index, part.alignment))
                sizes[index] = part.alignment - 1
        elif isinstance(part, SlotLine):
            slotted.append((index, part))
            sizes[index] = len(part.hollow)
    targets = _targets(jumps, labels)
    offsets = _grow(jumps, sizes, targets, lead)
    if aligned:
        _align(aligned, sizes, offsets)
        offsets = list(accumulate(sizes, initial=lead))
    pool = -(-offsets[-1] // SLOT_SIZE) * SLOT_SIZE
    symbols = dict.fromkeys(line.symbol for _, line in slotted if line.symbol is not None)
    slots = {symbol: pool + SLOT_SIZE * index for index, symbol in enumerate(symbols)}
    _fill_jumps(chunks, jumps, targets, sizes, offsets)
    for index, _ in aligned:
        chunks[index] = _padding(sizes[index])
    for index, line in slotted:
        assert line.symbol is not None  # that is why it is here
        chunks[index] = _point(line, slots[line.symbol] - offsets[index + 1])
    code = b"\xcc" * lead + b"".join(chunks)
    assert len(code) == offsets[-1], "parts are not where the jumps to them go"
    code = code.ljust(pool, b"\xcc") + bytes(SLOT_SIZE * len(slots))
    places = array("I", [offsets[start] for start in listing.text.starts])
    owners = array("i", listing.text.owners)
    callback = offsets[labels["callback"]] if "callback" in labels else None
    resumes = {pc: offsets[labels[resume_label(pc)]] for pc in listing.resumes}
    entry = offsets[labels["entry"]]
    returns = {pc: offsets[labels[return_label(pc)]] for pc in listing.returns}
    spans = array("I", offsets)
    return Image(code, entry, callback, slots, listing.limits, places, owners, spans, resumes, returns)


def item_spans(listing: Listing, image: Image) -> list[int]:
    """Return for each item of a listing, in order, the offset where its bytes start, and the end."""
    starts: list[int] = []
    for part, start in zip(listing.parts, image.spans, strict=False):
        lines = part.lines if isinstance(part, Snippet) else ()
        starts.append(start)
        starts.extend(start + size for size in accumulate(len(line.code) for line in lines[:-1]))
        if isinstance(part, Snippet) and not lines:
            starts.pop()
    return [*starts, image.spans[-1]]


def _targets(jumps: list[tuple[int, Jump]], labels: Mapping[str, int]) -> list[int]:
    """Return the number of the part that each jump goes to."""
    try:
        return [labels[jump.label] for _, jump in jumps]
    except KeyError:
        lost = next(jump for _, jump in jumps if jump.label not in labels)
        raise TranslationError(f"{lost.text}: there is no such label") from None


def _grow(jumps: list[tuple[int, Jump]], sizes: list[int], targets: list[int], lead: int) -> list[int]:
    """Make long every jump that does not reach, in `sizes`, until all do; return where each part starts.

    Growing one jump can only move targets away, so nothing ever shrinks and it ends. After a
    number of rounds all that are left grow at once, which keeps the worst case linear. Aligned
    labels count with the most that they can take, so that what reaches here reaches in the end.
    """
    short = [
        (index, index + 1, target, LONG_SIZES[jump.mnemonic])
        for (index, jump), target in zip(jumps, targets, strict=True)
        if sizes[index] == SHORT_SIZE
    ]
    offsets = list(accumulate(sizes, initial=lead))
    for round_ in range(FULL_ROUNDS + 1):
        far = [
            (index, size)
            for index, end, target, size in short
            if not -128 <= offsets[target] - offsets[end] <= 127 or round_ == FULL_ROUNDS
        ]
        if not far:
            break
        for index, size in far:
            sizes[index] = size
        short = [one for one in short if sizes[one[0]] == SHORT_SIZE]
        offsets = list(accumulate(sizes, initial=lead))
    return offsets


def _align(aligned: list[tuple[int, int]], sizes: list[int], offsets: list[int]) -> None:
    """Have aligned labels take just what they need; `offsets` are where parts start until then."""
    saved = 0
    for index, alignment in aligned:
        size = -(offsets[index] - saved) % alignment
        saved += sizes[index] - size
        sizes[index] = size


def _padding(size: int) -> bytes:
    """Return `size` bytes that do nothing."""
    longest = len(NOPS) - 1
    return NOPS[longest] * (size // longest) + NOPS[size % longest] if size else b""


def _fill_jumps(
    chunks: list[bytes],
    jumps: Sequence[tuple[int, Jump]],
    targets: Sequence[int],
    sizes: Sequence[int],
    offsets: Sequence[int],
) -> None:
    """Put the bytes of jumps into chunks. Raises OptimizationError where one is too far for its size."""
    for (index, jump), target in zip(jumps, targets, strict=True):
        distance, is_short = offsets[target] - offsets[index + 1], sizes[index] == SHORT_SIZE
        if is_short and -128 <= distance < 128:
            chunks[index] = SHORT_FORMS[jump.mnemonic] + NEAR[distance]
        elif is_short or not -REACH <= distance < REACH:
            raise OptimizationError(f"{jump.text}: {distance:#x} bytes are out of reach")
        else:
            chunks[index] = LONG_FORMS[jump.mnemonic] + DISTANCE.pack(distance)


def _point(line: SlotLine, distance: int) -> bytes:
    """Return a line's bytes with the distance to its symbol's slot patched in."""
    hole, code = slot_hole(line), line.hollow
    return code[: hole.position] + hole.filled(distance) + code[hole.position + hole.size :]


def relocate(image: Image, symbols: Mapping[str, int]) -> bytes:
    """Return the image's bytes with every slot filled.

    Slots are 8 bytes, little-endian; `symbols` maps a name to an absolute host address (u64).
    Raises TranslationError naming the first missing symbol.
    """
    code = bytearray(image.code)
    for symbol, offset in image.slots.items():
        if symbol not in symbols:
            raise TranslationError(f"nothing says where {symbol} is")
        code[offset : offset + SLOT_SIZE] = SLOT.filled(symbols[symbol])
    return bytes(code)
