"""The text of the machine code that all programs share, and its bytes: that of `host.py` and `gate.py`."""

from __future__ import annotations

import time

from ebpfjit.analysis.verified import Verified, prepare
from ebpfjit.jit.assembler import assemble_parts
from ebpfjit.jit.cpu import machine
from ebpfjit.jit.image import Image
from ebpfjit.jit.recipe import Listing
from ebpfjit.jit.relocation import item_spans, layout
from ebpfjit.jit.routines import BYTEARRAY_EXPORTS, BYTEARRAY_START, BYTES_DATA, INTS, SIZE, STATE_OFFSET
from ebpfjit.once import once
from ebpfjit.program import Program
from ebpfjit.runtime.contexts import xdp
from ebpfjit.runtime.contexts.fields import Struct
from ebpfjit.runtime.contexts.skb import SOCK_AT
from ebpfjit.runtime.contexts.structs import SK_BUFF, SOCK, XDP_MD
from ebpfjit.runtime.execution import SLICE
from ebpfjit.runtime.maps.flat import HEADER
from ebpfjit.runtime.memory import MAX_FRAMES
from ebpfjit.translators.emitter import NO_PC, Emitter, Label
from ebpfjit.translators.host import Layout, Room, Structs


def _offsets(struct: Struct) -> dict[str, int]:
    return {field.name: field.offset for field in struct.fields}


STRUCTS = Structs(_offsets(XDP_MD), _offsets(SK_BUFF), _offsets(SOCK), SOCK_AT)
ROOM = Room(
    headroom=xdp.HEADROOM,
    head=xdp.HEADROOM - xdp.XDP_FRAME_SIZE,
    tail=xdp.FRAME_SIZE - xdp.HEADROOM - xdp.SHARED_INFO_SIZE,
    metadata=xdp.LARGEST_METADATA,
)

_EXIT = bytes.fromhex("9500000000000000")


@once
def listing() -> Listing:
    """Return the text of all routines."""
    cx = Emitter()
    cx.begin(NO_PC)
    cx.label("entry")
    machine().emit_routines(
        cx,
        Layout(
            bytes_data=BYTES_DATA,
            size=SIZE,
            bytearray_start=BYTEARRAY_START,
            bytearray_exports=BYTEARRAY_EXPORTS,
            state=STATE_OFFSET,
            max_frames=MAX_FRAMES,
            slice_length=SLICE,
            clock=time.CLOCK_MONOTONIC,
            ints=INTS,
            lock=HEADER["lock"],
            structs=STRUCTS,
            room=ROOM,
        ),
    )
    return Listing(nothing(), cx.text(), (), {})


def nothing() -> Verified:
    """Return the program that text belongs to which is no program's."""
    return prepare(Program.from_bytes(_EXIT))


def assembled() -> tuple[Image, dict[str, int]]:
    """Return the routines' machine code, and where each label is in it. Raises JitUnavailable."""
    assemble_parts(listing().parts)
    image = layout(listing())
    items = [item for piece in listing().pieces for item in piece.items]
    places = zip(items, item_spans(listing(), image)[1:], strict=True)  # a label is behind its padding
    return image, {item.name: place for item, place in places if isinstance(item, Label)}


def clock_image() -> Image:
    """Return the machine code of a helper that tells the time of one clock. Raises JitUnavailable."""
    cx = Emitter()
    machine().emit_clock(cx, time.CLOCK_MONOTONIC)
    made = Listing(nothing(), cx.text(), (), {})
    assemble_parts(made.parts)
    return layout(made)
