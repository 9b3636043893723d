"""How many packets, and bytes, there are of each verdict."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from typing import Any

from ebpfjit.capture import routine

ROWS, ROW = 64, struct.Struct("<3Q")
"""struct row of routines.c: a verdict, packets, bytes."""

TALLY = struct.Struct("<5Q")
"""struct tally of routines.c in front of its rows: address, size, count, used, done."""

_COUNT = struct.Struct("<Q")
_FIRST = TALLY.size + ROWS * ROW.size


class Tally:
    """Counts of verdicts, over many batches. A verdict is a u64."""

    def __init__(self) -> None:
        self._work = bytearray(_FIRST)
        self._added = self._done = 0
        self._others: dict[int, tuple[int, int]] = {}

    def add(self, verdicts: array[int], lengths: memoryview) -> None:
        """Count packets. Raises ValueError where there are not as many lengths as verdicts."""
        count = len(verdicts)
        if len(lengths) != count:
            raise ValueError(f"{count} verdicts for {len(lengths)} packets")
        work, behind = self._work, _FIRST + 8 * count
        if len(work) < behind + count:
            work.extend(bytes(behind + count - len(work)))
        work[_FIRST:behind] = lengths.cast("B")
        _COUNT.pack_into(work, 16, count)
        done = self._done = routine.run("tally", memoryview(verdicts), work)
        self._added = count
        if done == count:
            return
        for verdict, length in zip(verdicts[done:], lengths[done:], strict=True):
            packets, size = self._others.get(verdict, (0, 0))
            self._others[verdict] = packets + 1, size + length

    @property
    def places(self) -> bytes | None:
        """For each packet that was added last the place of its verdict in `rows`, as a byte.

        None once there are more verdicts than bytes tell, or so many that they have no place there.
        """
        behind = _FIRST + 8 * self._added
        whole = self._done == self._added
        return bytes(memoryview(self._work)[behind : behind + self._added]) if whole else None

    def take_off(self, verdict: int, length: int) -> None:
        """Count a packet less."""
        for place, (value, packets, size) in enumerate(self._rows()):
            if value == verdict:
                ROW.pack_into(self._work, TALLY.size + ROW.size * place, value, packets - 1, size - length)
                return
        packets, size = self._others[verdict]
        self._others[verdict] = packets - 1, size - length

    def _rows(self) -> list[tuple[Any, ...]]:
        used = TALLY.unpack_from(self._work)[3]
        return [*ROW.iter_unpack(self._work[TALLY.size : TALLY.size + ROW.size * used])]

    @property
    def rows(self) -> list[int]:
        """The verdicts that bytes of `add` tell, by place."""
        return [value for value, _, _ in self._rows()]

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """Yield each verdict that was seen, in the order of the first of each, with packets and bytes."""
        counts = {value: (packets, size) for value, packets, size in self._rows()}
        for verdict, (packets, size) in self._others.items():  # behind a full table all are counted there
            before = counts.get(verdict, (0, 0))
            counts[verdict] = before[0] + packets, before[1] + size
        yield from ((verdict, *both) for verdict, both in counts.items() if both[0])
