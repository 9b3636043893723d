"""From a definition to a map: which class stands for each of the kernel's types."""

from __future__ import annotations

from collections.abc import Callable

from ebpfjit.record import replace
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps import rules
from ebpfjit.runtime.maps.arena import Arena
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.maps.cgroup_storage import CgroupStorage
from ebpfjit.runtime.maps.definition import MapDefinition, MapType
from ebpfjit.runtime.maps.events import PerfEventArray, RingBuffer, StackTraceMap
from ebpfjit.runtime.maps.flat import ArrayMap
from ebpfjit.runtime.maps.hash import HashMap
from ebpfjit.runtime.maps.local_storage import LocalStorage
from ebpfjit.runtime.maps.lpm import LpmTrie
from ebpfjit.runtime.maps.queues import BloomFilter, QueueMap
from ebpfjit.runtime.maps.references import ArrayOfMaps, HashOfMaps, ProgArray
from ebpfjit.runtime.maps.slots import SlotArray, SlotHash, SocketArray, SocketHash
from ebpfjit.runtime.maps.user_ring import UserRingBuffer

KINDS: dict[MapType, Callable[[MapDefinition, Environment], Map]] = {
    MapType.HASH: HashMap,
    MapType.ARRAY: ArrayMap,
    MapType.PROG_ARRAY: ProgArray,
    MapType.PERF_EVENT_ARRAY: PerfEventArray,
    MapType.PERCPU_HASH: HashMap,
    MapType.PERCPU_ARRAY: ArrayMap,
    MapType.STACK_TRACE: StackTraceMap,
    MapType.CGROUP_ARRAY: SlotArray,
    MapType.LRU_HASH: HashMap,
    MapType.LRU_PERCPU_HASH: HashMap,
    MapType.LPM_TRIE: LpmTrie,
    MapType.ARRAY_OF_MAPS: ArrayOfMaps,
    MapType.HASH_OF_MAPS: HashOfMaps,
    MapType.DEVMAP: SlotArray,
    MapType.SOCKMAP: SocketArray,
    MapType.REUSEPORT_SOCKARRAY: SlotArray,
    MapType.CPUMAP: SlotArray,
    MapType.XSKMAP: SlotArray,
    MapType.SOCKHASH: SocketHash,
    MapType.QUEUE: QueueMap,
    MapType.STACK: QueueMap,
    MapType.DEVMAP_HASH: SlotHash,
    MapType.RINGBUF: RingBuffer,
    MapType.BLOOM_FILTER: BloomFilter,
    MapType.USER_RINGBUF: UserRingBuffer,
    MapType.SK_STORAGE: LocalStorage,
    MapType.INODE_STORAGE: LocalStorage,
    MapType.TASK_STORAGE: LocalStorage,
    MapType.CGRP_STORAGE: LocalStorage,
    MapType.CGROUP_STORAGE: CgroupStorage,
    MapType.PERCPU_CGROUP_STORAGE: CgroupStorage,
    MapType.ARENA: Arena,
}


def create(definition: MapDefinition, *, environment: Environment | None = None) -> Map:
    """Make the map of a `definition`, empty or zeroed.

    Its per-CPU values are those of the processors of `environment`. A perf_event_array of no entries gets one
    for each processor, as libbpf makes it. Raises MapRefused (a LoadError), with the kernel's error number,
    for a type that is not there and for sizes and flags that the kernel refuses.
    """
    environment = environment if environment is not None else Environment()
    if definition.type == MapType.PERF_EVENT_ARRAY and definition.max_entries == 0:
        definition = replace(definition, max_entries=environment.cpus)
    if type(definition.flags) is not int:
        definition = replace(definition, flags=int(definition.flags))
    rules.check(definition)
    return KINDS[MapType(definition.type)](definition, environment)
