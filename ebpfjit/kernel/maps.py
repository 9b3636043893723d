"""A program's maps in the kernel for one run: made, filled from the Python side, read back after.

    program.maps -> BPF_MAP_CREATE -> filled -> BPF_PROG_LOAD -> run -> read back into program.maps

Per-CPU values: number n of the Python side is processor n of the kernel, and the run is pinned to
the processor whose values the Python side shows its programs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ebpfjit.errors import EbpfError, LoadError
from ebpfjit.isa.table import BY_NAME
from ebpfjit.kernel import of_maps, syscalls
from ebpfjit.kernel.arenas import KernelArena, definition_of
from ebpfjit.kernel.events import (
    RING_BUSY,
    RING_DISCARD,
    PerfBuffer,
    drained,
    ring_records,
    submit_samples,
)
from ebpfjit.kernel.loading import load_linked
from ebpfjit.kernel.objects import KernelMap, LoadedProgram
from ebpfjit.kernel.of_maps import OfMaps
from ebpfjit.kernel.types import loaded
from ebpfjit.program import SLOT_SIZE, Program
from ebpfjit.runtime.maps.definition import MapDefinition, MapType
from ebpfjit.runtime.maps.events import RecordState

_RDONLY_PROG = 1 << 7

_PERCPU = (MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH)
_ARRAYS = (MapType.ARRAY, MapType.PERCPU_ARRAY)
_KEYED = (MapType.HASH, MapType.ARRAY, MapType.LRU_HASH, MapType.LPM_TRIE, *_PERCPU)
_NUMBERS = (MapType.DEVMAP, MapType.DEVMAP_HASH, MapType.CPUMAP)
_QUEUES = (MapType.QUEUE, MapType.STACK)
_OF_MAPS = (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS)

_WITHOUT_TYPES = (
    MapType.PERF_EVENT_ARRAY, MapType.CGROUP_ARRAY, MapType.STACK_TRACE, *_OF_MAPS, *_NUMBERS,
    MapType.XSKMAP, MapType.SOCKMAP, MapType.SOCKHASH, MapType.REUSEPORT_SOCKARRAY, *_QUEUES, MapType.ARENA,
)  # fmt: skip
"""Maps whose BTF libbpf keeps to itself (bpf_object__create_map): the kernel has no use for it."""
_NO_TYPES = (0, 0, 0)

_HEADER_BITS = {
    RecordState.RESERVED: RING_BUSY,
    RecordState.DISCARDED: RING_DISCARD,
    RecordState.SUBMITTED: 0,
}
"""What a user ring buffer says of a sample, besides its size."""

_FD_FORMS = {"LDDW_MAP_IDX": "LDDW_MAP_FD", "LDDW_MAP_IDX_VALUE": "LDDW_MAP_VALUE"}


@cache
def possible_cpus() -> int:
    """Return how many values a per-CPU map has in this kernel."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().replace(",", "-").split("-")[-1]
    return int(last) + 1


def _attach_type(program: Program) -> int | None:
    """Return what the program arrays that a program uses belong to, None where nothing says it."""
    owners = [map_.owner for map_ in program.maps if map_.definition.type == MapType.PROG_ARRAY]
    return next((owner.attach_type for owner in owners if owner and owner.attach_type is not None), None)


def _types_of(definition: MapDefinition) -> tuple[int, int, int]:
    """Return the descriptor of a map's types, and the ids of its key and value, where Linux takes them."""
    types = definition.types
    if types is None or definition.type in _WITHOUT_TYPES:
        return _NO_TYPES
    btf = loaded(types.btf)
    return _NO_TYPES if btf is None else (btf.fd, types.key, types.value)


def _aligned(size: int) -> int:
    return (size + 7) // 8 * 8


class KernelMaps:
    """The kernel's counterparts of Python maps, and of the programs in them; closes all of them.

    `license` is what programs are loaded under, None: what each says. Programs are to run on processor `cpu`:
    perf events of that one are listened to.
    """

    def __init__(self, license: str | None = None, cpu: int = 0) -> None:
        self._cpu = cpu
        self._perf: dict[int, PerfBuffer] = {}
        self._arenas: dict[int, KernelArena] = {}
        self._license = license
        self._maps: dict[int, tuple[Any, KernelMap]] = {}
        self._programs: dict[int, LoadedProgram] = {}
        self._borrowed: list[OfMaps] = []
        self._owned = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owned.close()
        for kept in self._borrowed:
            of_maps.give_back(kept)

    # -- making ---------------------------------------------------------------------------------

    def load(self, program: Program, attach_type: int | None = None) -> LoadedProgram:
        """Load a program with its maps, which are made and filled first. Raises KernelVerifierError.

        `attach_type` is for one whose section says none.
        """
        known = self._programs.get(id(program))
        if known is not None:
            return known
        if attach_type is None:
            attach_type = _attach_type(program)
        fds = [self._made(map_).fd for map_ in program.maps]
        loaded = load_linked(program, with_descriptors(program, fds), self._license, attach_type)
        self._programs[id(program)] = self._owned.enter_context(loaded)
        return loaded

    def fill(self) -> None:
        """Put programs into program arrays: last, for each is loaded with maps of its own."""
        pending = True
        done: set[int] = set()
        while pending:
            arrays = [(map_, made) for address, (map_, made) in self._maps.items()
                      if map_.definition.type == MapType.PROG_ARRAY and address not in done]  # fmt: skip
            pending = bool(arrays)
            for map_, made in arrays:
                done.add(map_.address)
                for key, program in map_.items():
                    if program is not None:
                        syscalls.map_update(
                            made.fd, key, self.load(program, map_.owner.attach_type).fd.to_bytes(4, "little")
                        )

    def descriptor(self, map_: Any) -> int:
        """Return the descriptor of a map's counterpart, made and filled the first time. Raises LoadError."""
        return self._made(map_).fd

    def _made(self, map_: Any) -> KernelMap:
        """Return a map's counterpart, made and filled the first time."""
        if map_.address in self._maps:
            return self._maps[map_.address][1]
        definition: MapDefinition = map_.definition
        if definition.type == MapType.ARENA:
            definition = definition_of(map_)
        if definition.type in _OF_MAPS and not self._maps.keys() & {each.address for each in map_.inner_maps}:
            shape = of_maps.shape_of(map_)
            if shape is not None:
                return self._of_maps(map_, shape)
        made = self._owned.enter_context(self._create(definition))
        self._maps[map_.address] = map_, made
        if fill := _FILLS.get(MapType(definition.type)):
            fill(self, map_, made)
        if definition.is_readonly:
            syscalls.map_freeze(made.fd)
        return made

    def _create(self, definition: MapDefinition) -> KernelMap:
        inner = 0
        if definition.type in _OF_MAPS:
            if definition.inner is None:
                raise LoadError(f"map {definition.name!r}: the kernel wants to know what maps go into it")
            inner = self._owned.enter_context(self._create(definition.inner)).fd
        types = _types_of(definition)
        for given in (types, _NO_TYPES) if types != _NO_TYPES else (_NO_TYPES,):
            try:
                made = KernelMap(
                    definition.value_size,
                    max_entries=definition.max_entries,
                    key_size=definition.key_size,
                    map_type=definition.type,
                    flags=definition.flags | (_RDONLY_PROG if definition.is_readonly else 0),
                    inner_map_fd=inner,
                    extra=definition.extra,
                    name=definition.name,
                    types=given,
                )
            except syscalls.KernelUnavailable:
                raise
            except EbpfError as error:
                refusal = LoadError(f"map {definition.name!r}: {error}")
            else:
                return made
        raise refusal

    def _fill_plain(self, map_: Any, made: KernelMap) -> None:
        for key, value in map_.items():
            syscalls.map_update(made.fd, key, self._kernel_value(map_, value))

    def _kernel_value(self, map_: Any, value: Any) -> bytes:
        definition: MapDefinition = map_.definition
        if definition.type not in _PERCPU:
            return bytes(value)
        if len(value) > possible_cpus():
            raise LoadError(
                f"map {definition.name!r} has values for {len(value)} processors, "
                f"the kernel for {possible_cpus()}"
            )
        room = _aligned(definition.value_size)
        return b"".join(one.ljust(room, b"\0") for one in value).ljust(room * possible_cpus(), b"\0")

    def _fill_maps(self, map_: Any, made: KernelMap) -> None:
        for key, inner in map_.items():
            if inner is not None:
                syscalls.map_update(made.fd, key, self._made(inner).fd.to_bytes(4, "little"))

    def _of_maps(self, map_: Any, shape: of_maps.Shape) -> KernelMap:
        """Return a map of maps of this shape, which may be of an earlier run, the maps inside filled anew."""
        kept = of_maps.take(shape) or self._new_of_maps(map_, shape)
        self._borrowed.append(kept)
        self._maps[map_.address] = map_, kept.outer
        for key, inner in map_.items():
            made = kept.inside[key]
            self._maps[inner.address] = inner, made
            if inner.definition.type not in _ARRAYS:
                for old in list(_keys(made)):
                    syscalls.map_delete(made.fd, old)
            self._fill_plain(inner, made)
        return kept.outer

    def _new_of_maps(self, map_: Any, shape: of_maps.Shape) -> OfMaps:
        kept = OfMaps(shape, self._create(map_.definition), {})
        for key, inner in map_.items():
            kept.inside[key] = self._create(inner.definition)
            syscalls.map_update(kept.outer.fd, key, kept.inside[key].fd.to_bytes(4, "little"))
        return kept

    def _fill_queue(self, map_: Any, made: KernelMap) -> None:
        for value in _as_pushed(map_, list(map_)):
            syscalls.map_update(made.fd, b"", bytes(value))

    def _submit(self, map_: Any, made: KernelMap) -> None:
        submit_samples(made.fd, ((bytes(each.data), _HEADER_BITS[each.state]) for each in map_.samples))

    def _fill_arena(self, map_: Any, made: KernelMap) -> None:
        arena = KernelArena(map_, made.fd)
        self._owned.callback(arena.close)
        self._arenas[map_.address] = arena
        arena.fill()

    @staticmethod
    def _release_drained(map_: Any, made: KernelMap) -> None:
        left = drained(made.fd)
        for sample in map_.samples:
            if left < sample.length:
                break
            left -= sample.length
            map_.release(sample)

    def _listen(self, map_: Any, made: KernelMap) -> None:
        buffer = PerfBuffer(self._cpu)
        self._owned.callback(buffer.close)
        syscalls.map_update(made.fd, self._cpu.to_bytes(4, "little"), buffer.fd.to_bytes(4, "little"))
        self._perf[map_.address] = buffer

    # -- reading back -----------------------------------------------------------------------------

    def read_back(self) -> list[tuple[str, bytes]]:
        """Make the Python maps hold what the kernel's do now; return the events: (map name, bytes)."""
        events: list[tuple[str, bytes]] = []
        for map_, made in list(self._maps.values()):
            kind = map_.definition.type
            if kind in _KEYED and not map_.definition.is_readonly:
                self._read_plain(map_, made)
            elif kind in _QUEUES:
                self._read_queue(map_, made)
            elif kind == MapType.RINGBUF:
                events += [(map_.name, data) for data in ring_records(made.fd, made.max_entries)]
            elif kind == MapType.USER_RINGBUF:
                self._release_drained(map_, made)
            elif map_.address in self._arenas:
                self._arenas[map_.address].read_back()
            elif map_.address in self._perf:
                events += [(map_.name, data) for data in self._perf[map_.address].records()]
        return events

    @staticmethod
    def _read_queue(map_: Any, made: KernelMap) -> None:
        values = []
        while (value := syscalls.map_pop(made.fd, made.value_size)) is not None:
            values.append(value)
        map_.clear()
        for value in _as_pushed(map_, values):
            map_.push(value)

    def _read_plain(self, map_: Any, made: KernelMap) -> None:
        after = dict(self._items(map_.definition, made))
        for key in list(map_):
            if key not in after:
                map_.delete(key)
        cpus = getattr(map_, "cpus", 1)
        for key, value in after.items():
            if map_.definition.type in _PERCPU:
                size, room = map_.definition.value_size, _aligned(map_.definition.value_size)
                map_[key] = [value[cpu * room : cpu * room + size] for cpu in range(cpus)]
            else:
                map_.update(key, value)

    @staticmethod
    def _items(definition: MapDefinition, made: KernelMap) -> Iterator[tuple[bytes, bytes]]:
        size = definition.value_size
        if definition.type in _PERCPU:
            size = _aligned(size) * possible_cpus()
        for key in _keys(made):
            value = syscalls.map_lookup(made.fd, key, size)
            if value is not None:
                yield key, value


def _keys(made: KernelMap) -> Iterator[bytes]:
    """Yield the keys of a map."""
    key = syscalls.map_next_key(made.fd, None, made.key_size)
    while key is not None:
        yield key
        key = syscalls.map_next_key(made.fd, key, made.key_size)


_FILLS: Mapping[MapType, Callable[[KernelMaps, Any, KernelMap], None]] = {
    **dict.fromkeys(_KEYED + _NUMBERS, KernelMaps._fill_plain),
    **dict.fromkeys(_OF_MAPS, KernelMaps._fill_maps),
    **dict.fromkeys(_QUEUES, KernelMaps._fill_queue),
    MapType.PERF_EVENT_ARRAY: KernelMaps._listen,
    MapType.USER_RINGBUF: KernelMaps._submit,
    MapType.ARENA: KernelMaps._fill_arena,
}


def _as_pushed(map_: Any, values: list[bytes]) -> list[bytes]:
    """Return values, given in the order in which they come out, in the order in which they went in."""
    return values[::-1] if map_.definition.type == MapType.STACK else values


def with_descriptors(program: Program, fds: list[int]) -> bytes:
    """Return the bytecode with descriptors in place of the indices of maps."""
    code = bytearray(program.code)
    for insn in program.instructions:
        form = _FD_FORMS.get(insn.row.operation) if insn.row is not None else None
        if form is None:
            continue
        if not 0 <= insn.imm < len(fds):
            raise LoadError(f"pc {insn.pc}: map number {insn.imm}, and the program has {len(fds)}")
        start = insn.pc * SLOT_SIZE
        src = BY_NAME[form].src
        assert isinstance(src, int)  # what tells the forms apart
        code[start + 1] = insn.dst_reg | src << 4
        code[start + 4 : start + 8] = fds[insn.imm].to_bytes(4, "little")
    return bytes(code)


@contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """Keep this thread on one processor, where there is such a one."""
    before = os.sched_getaffinity(0)
    if cpu in before:
        os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
