"""Which key an LRU map gives up: the oldest, whatever was deleted before; held against a model."""

from __future__ import annotations

import ctypes
import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest

from ebpfjit import address_of
from ebpfjit.bits import W64
from ebpfjit.jit.map_routines import native_routine
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.helpers.names import DELETE, LOOKUP, UPDATE
from ebpfjit.runtime.maps import BPF_ANY, BPF_EXIST, BPF_NOEXIST, MapDefinition, MapType, bytecode, create
from ebpfjit.runtime.maps.hash import MOST_PASSED

_NATIVE = ctypes.PYFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 4)
Operation = Callable[[Any, int, bytes, bytes, int], int]
KINDS = [MapType.LRU_HASH, MapType.LRU_PERCPU_HASH]


def in_python(m: Any, helper: int, key: bytes, value: bytes, flags: int) -> int:
    if helper == LOOKUP:
        return int(m.lookup(key))
    return W64.wrap(m.update(key, value, flags) if helper == UPDATE else m.delete(key))


def native(m: Any, helper: int, key: bytes, value: bytes, flags: int) -> int:
    name = bytecode.routine_of(m.definition, helper)
    return int(_NATIVE(native_routine(name).address)(m.address, address_of(key), address_of(value), flags))


WAYS = [in_python, native]


class Model:
    """Second chance: keys from the oldest to the youngest, and whether each was looked up."""

    def __init__(self, entries: int) -> None:
        self.entries = entries
        self.ages: OrderedDict[bytes, bool] = OrderedDict()

    def lookup(self, key: bytes) -> None:
        if key in self.ages:
            self.ages[key] = True

    def delete(self, key: bytes) -> None:
        self.ages.pop(key, None)

    def update(self, key: bytes, flags: int) -> None:
        known = key in self.ages
        if flags == (BPF_NOEXIST if known else BPF_EXIST):
            return
        if not known and len(self.ages) == self.entries:
            self._evict()
        self.ages[key] = known
        self.ages.move_to_end(key)

    def _evict(self) -> None:
        for _ in range(MOST_PASSED):
            oldest, looked_up = next(iter(self.ages.items()))
            if not looked_up:
                break
            self.ages[oldest] = False
            self.ages.move_to_end(oldest)
        self.ages.popitem(last=False)


def made(kind: MapType, entries: int) -> Any:
    return create(MapDefinition("m", kind, 4, 8, entries), environment=Environment(cpus=2))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("entries", [1, 2, 10, 300])
def test_an_lru_holds_what_the_model_holds(kind: MapType, entries: int, way: Operation) -> None:
    ours, model = made(kind, entries), Model(entries)
    rng = random.Random(f"{kind} {entries}")
    evictions = 0
    for _ in range(3000):
        key = rng.randrange(5 * entries).to_bytes(4, "little")
        helper = rng.choice((LOOKUP, *[UPDATE] * 8, DELETE))
        flags = rng.choice((BPF_ANY, BPF_ANY, BPF_ANY, BPF_NOEXIST, BPF_EXIST))
        way(ours, helper, key, bytes(8), flags)
        before = len(model.ages)
        if helper == LOOKUP:
            model.lookup(key)
        elif helper == DELETE:
            model.delete(key)
        else:
            is_new = key not in model.ages and flags != BPF_EXIST
            evictions += before == entries and is_new
            model.update(key, flags)
        if rng.random() < 0.002:
            ours.clear()
            model.ages.clear()
        assert sorted(ours) == sorted(model.ages)
        assert len(ours) == len(model.ages)
    assert evictions > 100


@pytest.mark.parametrize("kind", KINDS)
def test_after_clear_the_oldest_goes_first(kind: MapType) -> None:
    lru = made(kind, 10)
    for key in range(10):
        lru[key] = 0
    lru.clear()
    for key in range(14):
        lru[key] = key
    assert sorted(int.from_bytes(key, "little") for key in lru) == list(range(4, 14))


def test_what_python_reads_is_not_looked_up_but_what_it_stores_is_the_youngest() -> None:
    lru = made(MapType.LRU_HASH, 3)
    for key in range(3):
        lru[key] = key
    lru[0], lru[1]
    lru[2] = 7
    lru[3] = lru[4] = 0
    assert sorted(int.from_bytes(key, "little") for key in lru) == [2, 3, 4]


def test_a_refused_update_makes_nothing_younger() -> None:
    lru = made(MapType.LRU_HASH, 2)
    lru[0] = lru[1] = 0
    assert lru.update((0).to_bytes(4, "little"), bytes(8), BPF_NOEXIST) < 0
    assert lru.update((9).to_bytes(4, "little"), bytes(8), BPF_EXIST) < 0
    lru[2] = 0
    assert sorted(int.from_bytes(key, "little") for key in lru) == [1, 2]
