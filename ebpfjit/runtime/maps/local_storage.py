"""Local storage: a value for each socket, task, inode or cgroup, which programs find by the object's pointer.

    owner      Socket, Task, KernelPointer, int      what Python says, and programs point to
    number     u64                                   a kernel address as it is; a socket's is below 2**63
    value      an entry of a hash table that nobody sees, under that number

Linux keeps values with their owners, and has as many as it has memory for; here a map has room for
`capacity_of` owners, and another is refused as where there is no memory (ENOMEM).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

from ebpfjit.bits import U64_MASK
from ebpfjit.record import replace
from ebpfjit.runtime.environment import Environment, Task
from ebpfjit.runtime.foreign import KERNEL_START
from ebpfjit.runtime.maps.definition import BPF_NOEXIST, MapDefinition, MapType
from ebpfjit.runtime.maps.mapping import TypedView
from ebpfjit.runtime.maps.tabled import TabledMap, capacity_of
from ebpfjit.runtime.objects import KernelPointer
from ebpfjit.runtime.sockets import Socket

STRUCTS = {
    MapType.SK_STORAGE: "sock",
    MapType.TASK_STORAGE: "task_struct",
    MapType.INODE_STORAGE: "inode",
    MapType.CGRP_STORAGE: "cgroup",
}
"""What the values of each type belong to, by the name of the struct."""

_SOCKET_MASK = (1 << 63) - 1


def socket_number(socket: Socket | int) -> int:
    """Return the number of a socket, given itself or its cookie: sockets that are equal are the same one."""
    cookie = socket if isinstance(socket, int) else socket.cookie
    name: tuple[object, ...] = (cookie,)
    if isinstance(socket, Socket) and not cookie:
        s = socket
        name = (
            s.protocol, s.local, s.remote, s.interface, s.mark, s.priority, s.rx_queue, s.state,
            sorted(s.tcp.items()),
        )  # fmt: skip
    import hashlib  # it loads OpenSSL

    digest = hashlib.blake2b(repr(name).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") & _SOCKET_MASK


class LocalStorage(TabledMap):
    """sk_storage, task_storage, inode_storage, cgrp_storage.

    Python's keys are what the values belong to: a `Socket`, or the cookie of one (an int); a `Task`; the
    address of a struct that the environment describes (`environment.struct("inode", ...)`).
    """

    carried = (*TabledMap.carried, "_owners")
    reasons = {  # noqa: RUF012 - a table, never changed
        errno.ENOMEM: "there is no room for one more owner; delete some",
        errno.EEXIST: "there is a value already, and the flag BPF_NOEXIST asks for a new one",
        errno.ENOENT: "there is no value",
    }

    def __init__(self, definition: MapDefinition, environment: Environment) -> None:
        hidden = replace(definition, key_size=8, key_type=None, max_entries=capacity_of(definition))
        super().__init__(definition, hidden, environment)
        self._owners: dict[bytes, Any] = {}

    # -- what programs do -------------------------------------------------------------------------

    def number_of(self, owner: Any) -> int:
        """Return the number of an owner. Raises TypeError for what has no storage in this type of map."""
        kind, wanted = MapType(self.definition.type), STRUCTS[MapType(self.definition.type)]
        if kind is MapType.SK_STORAGE and isinstance(owner, Socket):
            return socket_number(owner)
        if kind is MapType.TASK_STORAGE and isinstance(owner, Task):
            return owner.pointer
        if isinstance(owner, int) and not isinstance(owner, bool) and 0 <= owner <= U64_MASK:
            struct = owner.struct if isinstance(owner, KernelPointer) else wanted
            if struct != wanted and struct in STRUCTS.values():
                raise TypeError(
                    f"{self.definition}: its values belong to a struct {wanted}, not to {owner!r}"
                )
            if owner >= KERNEL_START:
                return int(owner)
            if kind is MapType.SK_STORAGE:
                return socket_number(owner)
        takes = {MapType.SK_STORAGE: "a Socket, a socket's cookie", MapType.TASK_STORAGE: "a Task"}
        also = f"{takes[kind]}, or " if kind in takes else ""
        raise TypeError(
            f"{self.definition}: its values belong to {also}the address of a struct {wanted} "
            f"(environment.struct), not to {owner!r}"
        )

    def get_storage(self, owner: Any, initial: bytes | None) -> int:
        """Return the address of an owner's value; 0 where there is none, or no room for it.

        Where `initial` is given a value that is not there is made of it.
        """
        key = self.encode_key(owner)
        address = self._table.lookup(key)
        if not address and initial is not None:
            self._store(key, owner, initial, BPF_NOEXIST)
            address = self._table.lookup(key)
        return address

    def delete_storage(self, owner: Any) -> int:
        """Remove an owner's value; 0 or -ENOENT. Its memory stays as it is until it is used again."""
        return self.delete(self.encode_key(owner))

    def _store(self, key: bytes, owner: Any, value: bytes, flags: int) -> int:
        result = self._table.update(key, value, flags)
        if result == 0:
            self._owners.setdefault(key, owner)
        return -errno.ENOMEM if result == -errno.E2BIG else result

    def update(self, key: bytes, value: bytes, flags: int = 0) -> int:
        """Put a value in under a number (8 bytes); return 0 or a negative error number."""
        return self._store(key, int.from_bytes(key, "little"), value, flags)

    def delete(self, key: bytes) -> int:
        """Remove what is under a number (8 bytes); return 0 or -ENOENT."""
        result = self._table.delete(key)
        if result == 0:
            self._owners.pop(key, None)
        return result

    # -- what Python does -------------------------------------------------------------------------

    def encode_key(self, key: Any) -> bytes:
        """Return an owner as the number that it has here, in 8 bytes."""
        return self.number_of(key).to_bytes(8, "little")

    def __iter__(self) -> Iterator[Any]:
        """Yield the owners, as they were given where the values were made."""
        for key in self._keys():
            yield self._owners.get(key, int.from_bytes(key, "little"))

    def put(self, key: Any, value: Any, flags: int = 0) -> None:
        """Store the value of an owner with the flags of an update: BPF_ANY, BPF_NOEXIST or BPF_EXIST.

        Raises MapError with the kernel's error number where it refuses.
        """
        result = self._store(self.encode_key(key), key, self.encode_value(value), flags)
        self.refuse(result, f"storing for {key!r}")

    def __setitem__(self, key: Any, value: Any) -> None:
        self.put(key, value)  # which keeps the owner

    def _put(self, key: bytes, value: Any, flags: int) -> int:
        return self.update(key, self.encode_value(value), flags)

    @property
    def typed(self) -> TypedView:
        """The same map with values decoded by their type; owners are what they are."""
        return _TypedStorage(self)


class _TypedStorage(TypedView):
    """Local storage with typed values."""

    def _key(self, key: Any) -> Any:
        return key
