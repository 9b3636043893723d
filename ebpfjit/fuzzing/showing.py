"""What was met once is shown again: alone, again and again, or behind others; and made small.

Maps hold what they held at first, or what they held then: both are put back before each try.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

from ebpfjit.fuzzing.batches import Batch
from ebpfjit.fuzzing.finding import Entries
from ebpfjit.fuzzing.samples import Inputs, Sample
from ebpfjit.fuzzing.shrink import MOST_TRIES, shrunk, shrunk_list, shrunk_sequence, without_fields
from ebpfjit.fuzzing.side import ROWS, Side
from ebpfjit.fuzzing.state import Contents, Entry

MOST_AGAIN = 1024
"""How often the same sample is run until it shows something."""
TRIES_BEHIND = 400
"""How often a sample is made smaller, where a try takes long."""

Shows = Callable[[Side, Sample], bool]


class Shown(NamedTuple):
    """Samples, one after the other on maps with these contents: the last of them shows something."""

    samples: list[Sample]
    contents: Contents


class Showing:
    """Runs samples once more on a side, and on the `other` version where there is one."""

    def __init__(self, side: Side, other: Side | None, inputs: Inputs) -> None:
        self.side, self.other, self.inputs = side, other, inputs
        self.snapshot: Contents = side.start
        """What maps held when the batches began that are in `since`."""
        self.since: list[Batch] = []

    def begin(self, snapshot: Contents) -> None:
        """Have what is tried from now on begin with these contents, which maps have."""
        self.snapshot, self.since = snapshot, []
        if self.other is not None and self.other.maps:
            self.other.maps.put_back(self._translated(snapshot))

    def _translated(self, contents: Contents) -> Contents:
        """Return contents for the other version's maps, by their names."""
        assert self.other is not None  # it was looked at
        by_name = {map_.definition.name: entries for map_, entries in contents}
        return [(map_, by_name.get(map_.definition.name, entries)) for map_, entries in self.other.start]

    def shows_on(self, contents: Contents, samples: Sequence[Sample], shows: Shows) -> bool:
        """Return whether the last of some samples shows it, run one after the other on these maps."""
        self.side.maps.put_back(contents)
        if self.other is not None:
            self.other.maps.put_back(self._translated(contents))
        for _, part in groupby(samples[:-1], lambda each: bool(each.fields)):
            first = Batch.of([*part])
            for side in (self.side, self.other):
                if side is not None:
                    side.verdicts(first, [])
        return shows(self.side, samples[-1])

    def reproduced(self, batch: Batch, index: int, shows: Shows) -> Shown | None:
        """Return what can be shown again: one sample on maps as they were at first, on maps as they were
        then, or behind others; made small. None where it does not come again.
        """
        shown = self.alone(batch.sample(index), shows)
        if shown is not None:
            return shown
        behind = self.behind(batch, index, shows)
        return None if behind is None else self.fewest(behind, shows)

    def alone(self, sample: Sample, shows: Shows) -> Shown | None:
        """Return what one sample shows that is behind no others, made small; None where it does not."""
        for contents in self._states():
            if self.shows_on(contents, [sample], shows):
                contents = self._fewer(contents, sample, shows)
                return Shown([self.small(contents, [], sample, shows, MOST_TRIES)], contents)
        return None

    def behind(self, batch: Batch, index: int, shows: Shows) -> Shown | None:
        """Return one of a batch behind all those before it, None where it shows nothing there."""
        sequence = [each.sample(i) for each in self.since[:-1] for i in range(len(each))]
        sequence += [batch.sample(i) for i in range(index + 1)]
        return Shown(sequence, self.snapshot) if self.shows_on(self.snapshot, sequence, shows) else None

    def again(self, contents: Contents, sample: Sample, shows: Shows) -> Shown | None:
        """Return one sample as often as it takes, made small: what counts does. None: it never shows it."""

        def shows_after(count: int) -> bool:
            return self.shows_on(contents, [sample] * count, shows)

        most = next(
            (1 << power for power in range(1, MOST_AGAIN.bit_length()) if shows_after(1 << power)), None
        )
        if most is None:
            return None
        possible = range(most // 2 + 1, most)
        count = possible.start + bisect_left(possible, True, key=shows_after)

        def is_still(data: bytes) -> bool:
            return self.shows_on(contents, [sample.with_data(data)] * count, shows)

        small = sample.with_data(shrunk(sample.data, is_still, self.inputs.least, TRIES_BEHIND))
        return Shown([small] * count, contents)

    def fewest(self, shown: Shown, shows: Shows) -> Shown:
        """Return a sequence of samples made small."""
        contents, samples = shown.contents, shown.samples
        again = self.again(contents, samples[-1], shows)
        if again is not None:
            return again
        *first, last = samples
        plain = [*(each for each in first if not each.fields), last]  # those with fields take long
        if len(plain) < len(samples) and self.shows_on(contents, plain, shows):
            samples = plain
        *first, last = shrunk_sequence(samples, lambda each: self.shows_on(contents, each, shows))
        return Shown([*first, self.small(contents, first, last, shows, TRIES_BEHIND)], contents)

    def small(
        self, contents: Contents, first: list[Sample], sample: Sample, shows: Shows, tries: int
    ) -> Sample:
        """Return a sample without what is not needed to show it, behind others."""

        def is_still(each: Sample) -> bool:
            return self.shows_on(contents, [*first, each], shows)

        is_fast = self.side.rows(with_fields=bool(sample.fields)) == ROWS
        tries = tries if is_fast else min(tries, TRIES_BEHIND)
        sample = without_fields(sample, is_still)
        return sample.with_data(
            shrunk(sample.data, lambda data: is_still(sample.with_data(data)), self.inputs.least, tries)
        )

    def _states(self) -> Iterator[Contents]:
        """Yield what maps may hold when it is shown."""
        yield self.side.start
        if self.snapshot is not self.side.start:
            yield self.snapshot

    def _fewer(self, contents: Contents, sample: Sample, shows: Shows) -> Contents:
        """Return contents that are as at the start, but for the entries that a finding needs."""
        if contents is self.side.start:
            return contents
        kept = [(map_, [*entries]) for map_, entries in contents]

        def shows_with(entries: list[Entry], now: list[Entry]) -> bool:
            before, entries[:] = [*entries], now
            if self.shows_on(kept, [sample], shows):
                return True
            entries[:] = before
            return False

        different = [
            (map_, entries)
            for (map_, entries), (_, usual) in zip(kept, self.side.start, strict=True)
            if entries != usual and not shows_with(entries, usual)
        ]
        for map_, entries in different:
            if map_ in self.side.maps.keyed:
                shrunk_list([*entries], partial(shows_with, entries))
        return kept

    def named(self, contents: Contents) -> tuple[Entries, list[str]]:
        """Return what has to be put into maps, by name, and which are to be made empty before."""
        entries, cleared = Entries(), list[str]()
        for (map_, now), (_, usual) in zip(contents, self.side.start, strict=True):
            name, keys = map_.definition.name, {key for key, _ in now}
            if any(key not in keys for key, _ in usual):
                cleared.append(name)
                entries[name] = now
            else:
                there = set(usual)
                entries[name] = [each for each in now if each not in there]
        return {name: each for name, each in entries.items() if each}, cleared
