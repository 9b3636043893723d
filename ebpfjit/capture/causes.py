"""How many packets there are of each verdict, by the instruction that set it."""

from __future__ import annotations

import struct
from array import array
from collections import Counter
from collections.abc import Iterator

from ebpfjit.capture import routine
from ebpfjit.capture.tally import ROW, ROWS

CAUSES = struct.Struct("<4Q")
"""struct causes of routines.c in front of its rows: address, size, count, used."""

_COUNT = struct.Struct("<Q")
_FIRST = CAUSES.size + ROWS * ROW.size


class Causes:
    """Counts of verdicts (u64) by what set them (u64), over many batches."""

    def __init__(self) -> None:
        self._work = bytearray(_FIRST)
        self._others: Counter[tuple[int, int]] = Counter()

    def add(self, verdicts: array[int], pcs: array[int]) -> None:
        """Count packets. Raises ValueError where there are not as many of both."""
        count = len(verdicts)
        if len(pcs) != count:
            raise ValueError(f"{count} verdicts, and what set {len(pcs)}")
        work, behind = self._work, _FIRST + 8 * count
        if len(work) < behind:
            work.extend(bytes(behind - len(work)))
        work[_FIRST:behind] = memoryview(pcs).cast("B")
        _COUNT.pack_into(work, 16, count)
        done = routine.run("causes", memoryview(verdicts), work)
        self._others.update(zip(verdicts[done:], pcs[done:], strict=True))

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """Yield (verdict, what set it, packets)."""
        used = CAUSES.unpack_from(self._work)[3]
        counts = Counter(self._others)
        for verdict, pc, packets in ROW.iter_unpack(self._work[CAUSES.size : CAUSES.size + ROW.size * used]):
            counts[verdict, pc] += packets
        yield from ((*both, packets) for both, packets in counts.items())
