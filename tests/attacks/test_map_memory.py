"""The memory of all maps together: limited before any is taken, given back, never a MemoryError."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import resource
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import ebpfjit
from ebpfjit import EbpfError, Environment, MapRefused, set_map_memory_limit
from ebpfjit.difftest.children import run_forked
from ebpfjit.runtime.maps import Map, MapDefinition, MapType, create
from ebpfjit.runtime.maps import account as accounts
from ebpfjit.runtime.maps.account import account
from tests.support.limits import limit_memory

MIB = 1 << 20
#                               key, value, entries that take some MiB
SHAPES: dict[MapType, tuple[int, int, int]] = {
    MapType.HASH: (4, 1, 1 << 20),
    MapType.ARRAY: (4, 8, 1 << 20),
    MapType.PROG_ARRAY: (4, 4, 1 << 20),
    MapType.PERCPU_HASH: (4, 1, 1 << 18),
    MapType.PERCPU_ARRAY: (4, 8, 1 << 18),
    MapType.CGROUP_ARRAY: (4, 4, 1 << 20),
    MapType.LRU_HASH: (4, 1, 1 << 20),
    MapType.LRU_PERCPU_HASH: (4, 1, 1 << 18),
    MapType.LPM_TRIE: (8, 1, 1 << 20),
    MapType.ARRAY_OF_MAPS: (4, 4, 1 << 20),
    MapType.HASH_OF_MAPS: (4, 4, 1 << 20),
    MapType.DEVMAP: (4, 4, 1 << 20),
    MapType.SOCKMAP: (4, 4, 1 << 20),
    MapType.XSKMAP: (4, 4, 1 << 20),
    MapType.SOCKHASH: (4, 4, 1 << 20),
    MapType.QUEUE: (0, 8, 1 << 20),
    MapType.STACK: (0, 8, 1 << 20),
    MapType.DEVMAP_HASH: (4, 4, 1 << 20),
    MapType.RINGBUF: (0, 0, 1 << 22),
    MapType.BLOOM_FILTER: (0, 8, 1 << 24),
}
ENTRIES = (1, 1 << 16, 1 << 24, 1 << 31, (1 << 32) - 1)
VALUES = (0, 1, 8, 1 << 15, 1 << 22, (1 << 32) - 1)
INNER = MapDefinition("inner", MapType.ARRAY, 4, 8, 1)


def definition(kind: MapType, entries: int | None = None) -> MapDefinition:
    key, value, most = SHAPES[kind]
    flags = 1 if kind is MapType.LPM_TRIE else 0
    inner = INNER if kind in (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS) else None
    return MapDefinition("m", kind, key, value, entries or most, flags, inner=inner)


@pytest.fixture(autouse=True)
def _default_limit() -> Iterator[None]:
    yield
    set_map_memory_limit(None)


@pytest.mark.parametrize("kind", SHAPES, ids=lambda kind: kind.name.lower())
def test_each_kind_is_counted_and_given_back(kind: MapType) -> None:
    gc.collect()
    before = account.used
    made: Map | None = create(definition(kind), environment=Environment(cpus=4))
    taken = account.used - before
    assert taken >= MIB
    set_map_memory_limit(before + taken)
    with pytest.raises(MapRefused, match=r"map .m. .*there are no \d+ bytes .*may have.*ENOMEM") as refused:
        create(definition(kind), environment=Environment(cpus=4))
    assert refused.value.errno == errno.ENOMEM
    del made
    gc.collect()
    assert account.used == before
    create(definition(kind), environment=Environment(cpus=4))


@pytest.mark.parametrize("kind", SHAPES, ids=lambda kind: kind.name.lower())
def test_the_largest_of_each_kind_is_refused_or_there(kind: MapType) -> None:
    """No size takes memory that the process does not have, or raises anything but the library's own."""

    def job() -> str:
        limit_memory()
        kept = []
        for entries, value, key in itertools.product(ENTRIES, VALUES, (0, 4, 512)):
            asked = definition(kind, entries)
            try:
                kept.append(
                    create(replace(asked, value_size=value, key_size=key), environment=Environment(cpus=64))
                )
            except EbpfError:
                continue
            except BaseException as error:
                return f"{asked} of {entries} entries: {type(error).__name__}"
        return "fine" if account.used <= accounts.default_limit() else f"{account.used} bytes"

    assert run_forked(job, 20).value == "fine"


def test_maps_that_hold_each_other_are_collected_before_one_is_refused() -> None:
    gc.collect()
    set_map_memory_limit(account.used + 20 * MIB)
    for _ in range(10):
        made: Any = create(definition(MapType.ARRAY))
        made.itself = made
        del made


def test_views_keep_the_memory_counted() -> None:
    gc.collect()
    before = account.used
    view = create(definition(MapType.ARRAY)).regions[0].view
    gc.collect()
    assert account.used > before
    del view
    gc.collect()
    assert account.used == before


def test_the_number_of_maps_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()  # maps of other tests, which would go in between
    monkeypatch.setattr(accounts, "MAX_MAPS", account.count + 3)
    kept = [create(INNER) for _ in range(3)]
    with pytest.raises(MapRefused, match="maps already"):
        create(INNER)
    assert len(kept) == 3


def test_the_default_follows_from_what_the_process_may_have() -> None:
    assert 0 < accounts.default_limit() <= 4 << 30
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert accounts.default_limit() <= physical // 2

    def limited() -> int:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        return accounts.default_limit()

    assert run_forked(limited, 10).value == 1 << 28


def test_a_limit_is_a_size() -> None:
    with pytest.raises(ValueError, match="-1 bytes"):
        ebpfjit.set_map_memory_limit(-1)


def test_a_full_ring_of_tiny_records_is_full() -> None:
    """A record costs Python more than its 8 bytes in the ring."""
    from ebpfjit.runtime.maps import events

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "MAX_RECORDS", 100)
        ring: Any = create(definition(MapType.RINGBUF))
        assert [ring.output(b"") for _ in range(101)] == [0] * 100 + [-errno.EAGAIN]
        assert len(ring.consume()) == 100
        assert ring.output(b"") == 0
