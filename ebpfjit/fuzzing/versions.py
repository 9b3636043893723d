"""Two versions of a program, and how they differ: in how runs end, or in the packets that they leave."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

from ebpfjit.errors import ExecutionError, InputError
from ebpfjit.fuzzing.batches import Batch
from ebpfjit.fuzzing.samples import Sample
from ebpfjit.fuzzing.side import Side


class Versions:
    """The other version beside the one that is fuzzed; `said` is how they differed, where that was looked at
    last. `actions` are the names of verdicts.
    """

    def __init__(self, other: Side, actions: Mapping[int, str]) -> None:
        self.other, self.actions = other, actions
        self.said = ""

    def first_difference(self, batch: Batch, verdicts: array[int]) -> int | None:
        """Return the first run of a batch that ends otherwise in the other version, None where none does."""
        others = self.other.verdicts(batch, [])
        if others == verdicts:
            return None
        return next(
            (at for at, (one, two) in enumerate(zip(verdicts, others, strict=True)) if one != two), None
        )

    def end_differently(self, side: Side, sample: Sample) -> bool:
        """Return whether runs of a sample end differently, and note how."""
        one, two = self._ending(side, sample), self._ending(self.other, sample)
        self.said = f"{one} here, {two} in the other"
        return one != two

    def leave_different_packets(self, side: Side, sample: Sample) -> bool:
        """Return whether runs of a sample leave different packets, and note how."""
        try:
            if side.frame_after(sample) == self.other.frame_after(sample):
                return False
            one, two = side.run(sample).data, self.other.run(sample).data
        except (ExecutionError, InputError):
            return False
        at = next((at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), None)
        if at is not None:
            self.said = f"byte {at} of the packet is {one[at]:#04x} here, {two[at]:#04x} in the other"
        else:
            self.said = f"{len(one)} bytes of packet here, {len(two)} in the other"
        return one != two

    def _ending(self, side: Side, sample: Sample) -> str:
        """Return how a run ends: its verdict, or the kind of error."""
        try:
            value = side.verdict(sample)
        except (ExecutionError, InputError) as error:
            return type(error).__name__
        return str(self.actions.get(value & 0xFFFFFFFF) or value)
