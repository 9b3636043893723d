"""A map in the kernel, for comparison: every operation's result as (negative error number or 0, value)."""

from __future__ import annotations

import ctypes
import struct

from ebpfjit.kernel import syscalls
from ebpfjit.kernel.objects import KernelMap
from ebpfjit.runtime.maps import MapDefinition, MapType

LOOKUP_AND_DELETE = 21
_CREATE = struct.Struct("=IIIIII40xQ")
_ELEMENT = struct.Struct("=IxxxxQQQ")
PERCPU = {MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH}

Answer = tuple[int, bytes | None]


def create(definition: MapDefinition, inner_fd: int = 0) -> int:
    """Return the file descriptor of a new map, or -errno."""
    d = definition
    result, _ = syscalls._call(
        syscalls.MAP_CREATE,
        _CREATE.pack(d.type, d.key_size, d.value_size, d.max_entries, d.flags, inner_fd, d.extra),
    )
    return result


class RawMap(KernelMap):
    """A map in the kernel whose refusals are numbers."""

    def __init__(self, definition: MapDefinition, cpus: int, inner_fd: int = 0) -> None:
        fd = create(definition, inner_fd)
        assert fd >= 0, syscalls.errno_name(-fd)
        super(KernelMap, self).__init__(fd)
        self.copied = definition.value_size
        if definition.type in PERCPU:
            self.copied = -(-definition.value_size // 8) * 8 * cpus

    def element(self, command: int, key: bytes, value: bytes | None = None, flags: int = 0) -> Answer:
        """Do one operation; the value as the kernel left it."""
        held = ctypes.create_string_buffer(key, max(len(key), 1))
        room = ctypes.create_string_buffer(value or b"", max(self.copied, len(value or b""), 1))
        key_at = ctypes.addressof(held) if key else 0
        result, _ = syscalls._call(
            command, _ELEMENT.pack(self.fd, key_at, 0 if command == 3 else ctypes.addressof(room), flags)
        )
        return result, room.raw[: self.copied] if result == 0 and value is None else None
