"""The maps of a program while it is fuzzed: what they hold, put back, and changed."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Collection, Iterable, Sequence
from enum import IntEnum
from typing import Any

from ebpfjit.errors import EbpfError
from ebpfjit.fuzzing.samples import Sample
from ebpfjit.fuzzing.values import value_bytes
from ebpfjit.mocks import typed
from ebpfjit.program import Program
from ebpfjit.runtime.maps.definition import MapDefinition, MapType

KEYED = frozenset(
    {MapType.HASH, MapType.LRU_HASH, MapType.LPM_TRIE, MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH}
)
FLAT = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})
MOST_ENTRIES = 4096
"""Entries of an array that is put back; a larger one stays as runs leave it."""
FILLED = 8
"""Entries that are put into a map at once."""
MOST_FILLED = 1024
"""Entries of a map that is made full."""
MOST_ASKED, MOST_STEPS = 256, 20_000
_PREFIX = 4
"""Bytes of an LPM key that say how long its prefix is."""

Held = bytes | tuple[bytes, ...]
"""A value; of a per-CPU map one for each processor."""
Entry = tuple[bytes, Held]
Contents = list[tuple[Any, list[Entry]]]


class _Change(IntEnum):
    """What is done to a keyed map."""

    ASKED = 0
    NOTHING = 1
    FULL = 2


_USUAL_CHANGES = (*[_Change.ASKED] * 5, *[_Change.NOTHING] * 2, _Change.FULL)
"""Those that are made behind one of each, as often as that; filling a map takes longest."""


class Maps:
    """The maps of a program whose contents runs may change, and that a fuzzer may: its own unless told."""

    def __init__(self, program: Program, maps: Iterable[Any] | None = None) -> None:
        self.program = program
        maps = [*(program.maps if maps is None else maps)]
        self.asked: dict[int, dict[bytes, None]] = {}
        """By map the keys that were looked up."""
        self.keyed = [each for each in maps if each.definition.type in KEYED]
        self.flat = [
            each
            for each in maps
            if each.definition.type in FLAT and each.definition.max_entries <= MOST_ENTRIES
        ]
        self.left = {id(each) for each in self.flat if each.is_frozen or each.definition.variables}
        """Those that are not changed."""

    def leave(self, names: Collection[str]) -> None:
        """Change maps of these names no more: only runs do."""
        self.left |= {id(each) for each in (*self.keyed, *self.flat) if each.definition.name in names}

    def __bool__(self) -> bool:
        return bool(self.keyed or self.flat)

    def contents(self) -> Contents:
        """Return what all of them hold."""
        return [(map_, [(bytes(k), _held(v)) for k, v in map_.items()]) for map_ in (*self.keyed, *self.flat)]

    def put_back(self, contents: Contents) -> None:
        """Make them hold that again."""
        for map_, entries in contents:
            if map_ in self.keyed:
                map_.clear()
            for key, value in entries:
                with contextlib.suppress(EbpfError):
                    map_[key] = value

    def observe(self, sample: Sample) -> None:
        """Note the keys that a run makes the program look up."""

        def lookup(map_: Any, key: Any) -> int:
            if isinstance(key, memoryview) and map_ in self.keyed:
                asked = self.asked.setdefault(id(map_), {})
                if len(asked) < MOST_ASKED:
                    asked[bytes(key)] = None
                return int(map_.lookup(bytes(key)))
            return 0 if isinstance(map_, int) else int(map_.lookup(bytes(key)))

        if self.keyed:
            with contextlib.suppress(EbpfError):
                helpers = typed({"bpf_map_lookup_elem": lookup})
                self.program.run(
                    sample.data,
                    engine="interpreter",
                    limit=MOST_STEPS,
                    context=sample.context,
                    helpers=helpers,
                )

    def change(self, rng: random.Random, packets: Sequence[bytes], number: int) -> None:
        """Have keyed maps hold something else, by the number of the change: entries whose keys programs ask
        for or may ask for, nothing, as many as there is room for, or one of these for each of them. Values
        are of all kinds, those of arrays too.
        """
        for map_ in (each for each in self.keyed if id(each) not in self.left):
            kind = _Change(number) if number < len(_Change) else rng.choice(_USUAL_CHANGES)
            if kind is _Change.NOTHING:
                map_.clear()
            elif kind is _Change.ASKED:
                for key in _keys(rng, map_, packets, [*self.asked.get(id(map_), ())]):
                    with contextlib.suppress(EbpfError):
                        map_[key] = _value(rng, map_.definition)
            elif map_.definition.max_entries <= MOST_FILLED:
                _fill(rng, map_)
        for map_ in self.flat:
            if id(map_) not in self.left and rng.random() < 0.3:
                index = rng.randrange(min(map_.definition.max_entries, 16))
                with contextlib.suppress(EbpfError):
                    map_[index.to_bytes(4, "little")] = _value(rng, map_.definition)


def _held(value: Any) -> Held:
    return tuple(map(bytes, value)) if isinstance(value, list | tuple) else bytes(value)


def _fill(rng: random.Random, map_: Any) -> None:
    """Put entries in until there is room for no more."""
    definition = map_.definition
    is_trie = definition.type == MapType.LPM_TRIE
    longest = 8 * (definition.key_size - _PREFIX)
    for _ in range(definition.max_entries):
        key = rng.randbytes(definition.key_size)
        if is_trie:
            key = rng.randrange(longest + 1).to_bytes(_PREFIX, "little") + key[_PREFIX:]
        with contextlib.suppress(EbpfError):
            map_[key] = _value(rng, definition)


def _value(rng: random.Random, definition: MapDefinition) -> bytes:
    return value_bytes(rng, definition.value_type, definition.value_size)


def _keys(rng: random.Random, map_: Any, packets: Sequence[bytes], asked: Sequence[bytes]) -> Iterable[bytes]:
    """Yield keys as programs make them of packets: what was asked for, one of the key's type, or bytes of a
    packet.
    """
    size, is_trie = map_.definition.key_size, map_.definition.type == MapType.LPM_TRIE
    length = size - _PREFIX if is_trie else size
    for _ in range(FILLED):
        if asked and rng.random() < 0.7:
            key = rng.choice(asked)[size - length :]
        elif not is_trie and rng.random() < 0.3:
            key = value_bytes(rng, map_.definition.key_type, size)
        else:
            packet = rng.choice(packets) if packets else b""
            at = rng.randrange(max(len(packet) - length, 0) + 1)
            key = packet[at : at + length].ljust(length, b"\0")
            key = key[::-1] if rng.random() < 0.4 else key
        prefix = rng.choice((0, 8, 16, 24, 8 * length, 8 * length)).to_bytes(_PREFIX, "little")
        yield prefix + key if is_trie else key
