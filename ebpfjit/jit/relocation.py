"""Listing -> Image -> bytes: places for all code, distances for jumps, slots for addresses.

    offset 0        code, in the listing's order
    aligned to 8    literal pool: a slot of 8 bytes for each symbol (helper addresses)

Jumps start in their short form and grow where the target is too far, to a fixed point.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from itertools import accumulate
from struct import Struct

from ebpfjit.errors import OptimizationError, TranslationError
from ebpfjit.jit.assembler import slot_hole
from ebpfjit.jit.image import SLOT_SIZE, Image
from ebpfjit.jit.recipe import Listing
from ebpfjit.translators.emitter import Jump, Label, SlotLine, Snippet
from ebpfjit.translators.labels import resume_label, return_label

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
SHORT = {name: form + bytes(1) for name, form in SHORT_FORMS.items()}
LONG = {name: form + bytes(4) for name, form in LONG_FORMS.items()}
FIRST = LONG | SHORT
"""Jumps whose distance is still to be filled in; FIRST are those that are tried first."""
SHORT_SIZE = 2
SIZES = {form[0]: len(form) for form in (*SHORT.values(), *LONG.values())}
"""What a jump takes, by its first byte."""
SURE = 128 // 3
"""Bytes up to a target that is reached whatever grows: where all jumps are long they are thrice as many."""
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


def layout(listing: Listing, lead: int = 0) -> Image:
    """Place every part, size every jump, and return the image; the parts have their bytes.

    In front lie `lead` bytes that nothing runs: code elsewhere, for those who measure what that is worth.
    Raises TranslationError for a label that is at two places, or that a jump goes to and is nowhere,
    OptimizationError for a jump that is too far.
    """
    parts = listing.parts
    chunks = [part.code for part in parts]
    sizes = list(map(len, chunks))
    places: list[int] = []
    jumps: list[Jump] = []
    aligned: list[tuple[int, int]] = []
    slotted: list[tuple[int, SlotLine]] = []
    labels: dict[str, int] = {}
    for index in [index for index, size in enumerate(sizes) if not size]:  # the others have their bytes
        part = parts[index]
        if isinstance(part, Jump):
            places.append(index)
            jumps.append(part)
            chunks[index] = form = FIRST[part.mnemonic]
            sizes[index] = len(form)
        elif isinstance(part, Label):
            if part.name in labels:  # jumps that meant the other place would come to this one
                raise TranslationError(f"{part.name}: this label is at two places")
            labels[part.name] = index + 1  # behind its padding
            if part.alignment > 1:
                aligned.append((index, part.alignment))
                sizes[index] = part.alignment - 1
        elif isinstance(part, SlotLine):
            slotted.append((index, part))
            sizes[index] = len(part.hollow)
    targets = _targets(jumps, labels)
    _grow(places, jumps, targets, chunks, sizes, lead)
    offsets = list(accumulate(sizes, initial=lead))
    if aligned:
        _align(aligned, sizes, offsets)
        offsets = list(accumulate(sizes, initial=lead))
    pool = -(-offsets[-1] // SLOT_SIZE) * SLOT_SIZE
    symbols = dict.fromkeys(line.symbol for _, line in slotted if line.symbol is not None)
    slots = {symbol: pool + SLOT_SIZE * index for index, symbol in enumerate(symbols)}
    for index, _ in aligned:
        chunks[index] = _padding(sizes[index])
    for index, line in slotted:
        assert line.symbol is not None  # that is why it is here
        chunks[index] = _point(line, slots[line.symbol] - offsets[index + 1])
    code = bytearray(b"\xcc" * lead + b"".join(chunks))
    assert len(code) == offsets[-1], "parts are not where the jumps to them go"
    _fill_jumps(code, places, jumps, targets, sizes, offsets)
    whole = bytes(code.ljust(pool, b"\xcc")) + bytes(SLOT_SIZE * len(slots))
    starts = array("I", [offsets[start] for start in listing.text.starts])
    owners = array("i", listing.text.owners)
    callback = offsets[labels["callback"]] if "callback" in labels else None
    resumes = {pc: offsets[labels[resume_label(pc)]] for pc in listing.resumes}
    entry = offsets[labels["entry"]]
    returns = {pc: offsets[labels[return_label(pc)]] for pc in listing.returns}
    return Image(whole, entry, callback, slots, listing.limits, starts, owners, resumes, returns)


def item_spans(listing: Listing, image: Image) -> list[int]:
    """Return for each item of a listing, in order, the offset where its bytes start, and the end.

    The lines have their bytes; what those of a jump are is read in the image.
    """
    starts, code = [image.pc_starts[0]], image.code
    for part in listing.parts:
        here = starts[-1]
        if isinstance(part, Snippet):
            starts.extend([here + size for size in accumulate(len(line.code) for line in part.lines)])
        elif isinstance(part, Jump):
            starts.append(here + SIZES[code[here]])
        elif isinstance(part, Label):
            starts.append(here + -here % part.alignment)
        else:
            starts.append(here + len(part.hollow if isinstance(part, SlotLine) else part.code))
    return starts


def _targets(jumps: Sequence[Jump], labels: Mapping[str, int]) -> list[int]:
    """Return the number of the part that each jump goes to."""
    try:
        return [labels[jump.label] for jump in jumps]
    except KeyError:
        lost = next(jump for jump in jumps if jump.label not in labels)
        raise TranslationError(f"{lost.text}: there is no such label") from None


def _grow(
    places: Sequence[int],
    jumps: Sequence[Jump],
    targets: Sequence[int],
    chunks: list[bytes],
    sizes: list[int],
    lead: int,
) -> None:
    """Make long every jump that does not reach, in `chunks` and `sizes`, until all do.

    Growing one jump can only move targets away, so nothing ever shrinks and it ends. After a
    number of rounds all that are left grow at once, which keeps the worst case linear. Aligned
    labels count with the most that they can take, so that what reaches here reaches in the end.
    """
    offsets = list(accumulate(sizes, initial=lead))
    close: list[tuple[int, str, int, int, int]] = []
    """Of jumps that reach so far: the parts between them and their targets, and how long these may be."""
    for place, jump, target in zip(places, jumps, targets, strict=True):
        distance = offsets[target] - offsets[place + 1]
        if not -128 <= distance <= 127:  # most, as exits are out of line
            chunks[place] = form = LONG[jump.mnemonic]
            sizes[place] = len(form)
        elif -SURE <= distance <= SURE or sizes[place] != SHORT_SIZE:
            continue
        elif distance > 0:
            close.append((place, jump.mnemonic, place + 1, target, 127))
        else:
            close.append((place, jump.mnemonic, target, place + 1, 128))
    for round_ in range(1, FULL_ROUNDS + 1):
        far = [
            (place, mnemonic)
            for place, mnemonic, start, stop, reach in close
            if (sum(sizes[start:stop]) > reach or round_ == FULL_ROUNDS) and sizes[place] == SHORT_SIZE
        ]
        if not far:
            break
        for place, mnemonic in far:
            chunks[place] = form = LONG[mnemonic]
            sizes[place] = len(form)


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
    code: bytearray,
    places: Sequence[int],
    jumps: Sequence[Jump],
    targets: Sequence[int],
    sizes: Sequence[int],
    offsets: Sequence[int],
) -> None:
    """Put the distances of jumps into code. Raises OptimizationError where one is too far for its size."""
    fill = DISTANCE.pack_into
    for place, jump, target in zip(places, jumps, targets, strict=True):
        end = offsets[place + 1]
        distance, is_short = offsets[target] - end, sizes[place] == SHORT_SIZE
        if is_short and -128 <= distance < 128:
            code[end - 1] = distance & 0xFF
        elif is_short or not -REACH <= distance < REACH:
            raise OptimizationError(f"{jump.text}: {distance:#x} bytes are out of reach")
        else:
            fill(code, end - DISTANCE.size, distance)


def _point(line: SlotLine, distance: int) -> bytes:
    """Return a line's bytes with the distance to its symbol's slot patched in."""
    hole, code = slot_hole(line), line.hollow
    return code[: hole.position] + hole.filled(distance) + code[hole.position + hole.size :]
