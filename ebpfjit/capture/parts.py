"""Parts of a capture, for several readers: starts are guessed, and held against where the part before ended.

|header|record|record|rec:ord|record|rec:ord|       ":" every `size` bytes
                     ^ likely       ^ likely        the first place from there on at which records may stand
part 1 is read up to "likely", and ends at the start of a record: where that is "likely", part 2 was right
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ebpfjit.capture.reader import PACKETS, Reader, State, first_state
from ebpfjit.capture.walk import LARGEST_PACKET, NEVER
from ebpfjit.capture.windows import FileWindows, opened
from ebpfjit.record import dataclass

SIZE = 1 << 28
"""Bytes of a part, where nothing else is said."""

CHAIN, SEARCHED = 8, 1 << 18
"""Records behind each other that make a place likely; bytes that are looked through for one."""

LONGEST_SEARCHED = 1 << 17
"""Bytes of a record that a guess takes for usual: a chain of longer ones may not be found."""

LONGEST_PAUSE = 86_400
"""Seconds between two packets that a guess takes for possible."""


HEAD = 1 << 12
"""Bytes at the start of a file by which it is known again."""


@dataclass(frozen=True, slots=True)
class Part:
    """The records of a capture from a state on, up to the first at the byte `stop` or behind it.

    `size` is how many bytes the file had when its parts were made, `head` a digest of its first: where the
    part is read there may be another file of that name.
    """

    path: str
    start: State
    stop: int = NEVER
    size: int = 0
    head: bytes = b""


def parts(path: str | os.PathLike[str], size: int = SIZE) -> list[Part]:
    """Return the parts of a capture, of some `size` bytes each; all but the first start where a guess says.

    A compressed one is one part. Raises CaptureError for what is no capture, OSError, ValueError for what can
    be read only once and for a `size` below 1.
    """
    name = os.fspath(path)
    if not isinstance(size, int):
        raise TypeError(f"the size of a part is a number of bytes, not {type(size).__name__}")
    if size < 1:
        raise ValueError(f"a part has at least 1 byte, not {size}")
    if name == "-" or stat.S_IFMT(os.stat(name).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
        raise ValueError(f"{name}: a pipe, or a device, can be read once and here; parts are those of a file")
    whole, head = _identity(name)
    with opened(name) as (windows, _):
        states = [first_state(windows, name)]
        if isinstance(windows, FileWindows):
            known = Reader(windows, name, states[0], 1)
            next(known.batches(), None)  # what interfaces there are
            for at in range(size, whole, size):
                window = windows.at(at, SEARCHED + CHAIN * LONGEST_SEARCHED)
                found = next(_likely(window.view, at - window.start, known.state), None)
                if found is not None and window.start + found > states[-1].position:
                    states.append(replace(known.state, position=window.start + found, packets=0))
            end = whole  # what is written behind that meanwhile is not of these parts
        else:
            end = NEVER
    stops = [*(state.position for state in states[1:]), end]
    return [Part(name, state, stop, whole, head) for state, stop in zip(states, stops, strict=True)]


def _identity(path: str, first: int = HEAD) -> tuple[int, bytes]:
    """Return by what a file is known again: its size, a digest of its first bytes."""
    with open(path, "rb", buffering=0) as file:
        return os.fstat(file.fileno()).st_size, hashlib.blake2b(file.read(first), digest_size=16).digest()


@contextmanager
def reading(part: Part, packets: int = PACKETS) -> Iterator[Reader]:
    """Yield the reader of a part; behind its last batch its state says where the next part has to start.

    Raises OSError: ESTALE where the file is another than when the parts were made (it may have grown).
    """
    if part.head:
        size, head = _identity(part.path, min(HEAD, part.size))
        if size < part.size or (size > part.size and part.stop == NEVER):
            said = f"it has {size} bytes, and had {part.size} when its parts were made"
            raise OSError(errno.ESTALE, said, part.path)
        if head != part.head:
            raise OSError(errno.ESTALE, "it begins otherwise than when its parts were made", part.path)
    with opened(part.path) as (windows, name):
        yield Reader(windows, name, part.start, packets, part.stop)


def follows(end: State, start: State) -> bool:
    """True where a part that starts in a state goes on where another ended."""
    what = ("form", "order", "interfaces", "position")
    return all(getattr(end, each) == getattr(start, each) for each in what)


def _likely(view: memoryview, start: int, state: State) -> Iterator[int]:
    """Yield places, from a byte of a window on, at which a chain of records may start."""
    behind = _behind_record if state.form == "pcap" else _behind_block
    for at in range(start, min(start + SEARCHED, len(view)), 1 if state.form == "pcap" else 4):
        place: int | None = at
        for _ in range(CHAIN):
            if place is None or place == len(view):
                break
            place = behind(view, place, state)
        if place is not None:
            yield at


def _behind_record(view: memoryview, at: int, state: State) -> int | None:
    """Return where the record ends that may stand at a place of a pcap file, None where none does."""
    if at + 32 > len(view):
        return None
    seconds, fraction, size, wire = struct.unpack_from(f"{state.order}4I", view, at)
    end = at + 16 + size
    if fraction >= state.interfaces[0].units or not size <= wire <= LARGEST_PACKET or end + 16 > len(view):
        return end if end == len(view) else None
    following = struct.unpack_from(f"{state.order}I", view, end)[0]
    return end if abs(following - seconds) < LONGEST_PAUSE else None


def _behind_block(view: memoryview, at: int, state: State) -> int | None:
    """Return where the block ends that may stand at a place of a pcapng file, None where none does."""
    if at + 12 > len(view):
        return None
    kind, size = struct.unpack_from(f"{state.order}2I", view, at)
    end = at + size
    if not 0 < kind < 1 << 16 or size < 12 or size % 4 or end > len(view):
        return None
    return end if struct.unpack_from(f"{state.order}I", view, end - 4)[0] == size else None
