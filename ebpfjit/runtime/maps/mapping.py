"""Maps as Python mappings: bytes keys and values over the memory that programs see."""

from __future__ import annotations

import errno
import operator
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ebpfjit.errors import MapError
from ebpfjit.named import cut
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.maps.definition import Codec, MapDefinition, MapFlag

RDONLY, WRONLY = int(MapFlag.RDONLY), int(MapFlag.WRONLY)  # enum arithmetic would be the slowest part
INT_SIZES = (1, 2, 4, 8)
NUMBERS = {size: 1 << 8 * size for size in INT_SIZES}
"""How many numbers there are of a size."""
BUFFERS = (bytes, bytearray, memoryview)
_MISSING: Any = object()


def to_bytes(definition: MapDefinition, what: str, value: Any, size: int, codec: Codec | None) -> bytes:
    """Return a key or value (`what`) as its `size` bytes.

    Bytes-like objects are taken as they are, integers little-endian where there are 1, 2, 4 or 8
    bytes, anything else goes through the codec. Raises ValueError or TypeError where it does not fit.
    """
    if type(value) is int and 0 <= value < NUMBERS.get(size, 0):
        return value.to_bytes(size, "little")  # most are; what follows is for all others
    if isinstance(value, BUFFERS):
        data = bytes(value)
    elif size in INT_SIZES and hasattr(value, "__index__"):
        number = operator.index(value)
        if not -(1 << 8 * size - 1) <= number < 1 << 8 * size:
            raise ValueError(f"{definition}: {what} {number} does not fit in {size} bytes")
        data = (number & (1 << 8 * size) - 1).to_bytes(size, "little")
    elif codec is not None:
        try:
            data = codec.encode(value)
        except TypeError as error:
            raise TypeError(f"{definition}: {what}: {error}") from None
        except ValueError as error:
            raise ValueError(f"{definition}: {what}: {error}") from None
    else:
        ints = ", or an int" if size in INT_SIZES else ""
        raise TypeError(f"{definition}: a {what} is {size} bytes{ints}, not {type(value).__name__}")
    if len(data) != size:
        raise ValueError(f"{definition}: a {what} has {size} bytes, this one has {len(data)}")
    return data


class PythonMap(Map):
    """What all maps say to Python: the kernel's refusals as MapError, and who may read and write."""

    reasons: dict[int, str] = {}  # noqa: RUF012 - a table that subclasses replace, never changed

    def refuse(self, result: int, what: str) -> None:
        """Raise MapError where an operation came to a `result` below 0; `what` is what was tried."""
        if result >= 0:
            return
        reason = self.reasons.get(-result, GENERAL_REASONS.get(-result, "the kernel refuses it"))
        name = errno.errorcode.get(-result, str(-result))
        reason = reason.format(entries=self.definition.max_entries)
        raise MapError(f"{self.definition}: {what}: {reason} ({name})", -result)

    def check_mode(self, flag: int, what: str) -> None:
        """Raise MapError where the map was created with a flag that forbids it to Python."""
        if self.definition.flags & flag:
            self.refuse(-errno.EPERM, what)


GENERAL_REASONS = {
    errno.E2BIG: "the map is full with {entries} entries; delete some, or make max_entries larger",
    errno.ENOMEM: "more keys have the same hash than a map keeps",
    errno.EEXIST: "the key is there already, and the flag BPF_NOEXIST asks for a new one",
    errno.ENOENT: "the key is not there",
    errno.EINVAL: "these flags, or this operation, are not for this type of map",
    errno.EPERM: "map_flags (BPF_F_RDONLY, BPF_F_WRONLY) forbid it",
}


class KeyedMap(PythonMap):
    """A map with keys: what Python's mappings do, on bytes.

    Reading an absent key is KeyError, what the kernel would refuse is MapError, a key or value of
    the wrong size or type is ValueError or TypeError.
    """

    @abstractmethod
    def _keys(self) -> Iterator[bytes]:
        """Yield the keys; entries may come and go meanwhile."""

    @abstractmethod
    def _get(self, key: bytes) -> Any:
        """Return the value under `key`; raises KeyError (without text) where there is none."""

    @abstractmethod
    def _put(self, key: bytes, value: Any, flags: int) -> int:
        """Store a value as Python gives it; return 0 or a negative error number."""

    def encode_key(self, key: Any) -> bytes:
        """Return a key as its bytes: from bytes, an int, or what the key's type in BTF encodes."""
        definition = self.definition
        size: int = definition.key_size
        if type(key) is bytes and len(key) == size:
            return key
        if type(key) is int and 0 <= key < NUMBERS.get(size, 0):
            return key.to_bytes(size, "little")
        return to_bytes(definition, "key", key, size, definition.key_type)

    def encode_value(self, value: Any) -> bytes:
        """Return one value as its bytes; see `encode_key`."""
        definition = self.definition
        size: int = definition.value_size
        if type(value) is bytes and len(value) == size:
            return value
        if type(value) is int and 0 <= value < NUMBERS.get(size, 0):
            return value.to_bytes(size, "little")
        return to_bytes(definition, "value", value, size, definition.value_type)

    def __getitem__(self, key: Any) -> Any:
        if self.definition.flags & WRONLY:
            self.check_mode(WRONLY, "reading")
        encoded = self.encode_key(key)
        try:
            return self._get(encoded)
        except KeyError:
            raise KeyError(f"{self.definition}: nothing under {_shown(key)}") from None

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value under `key`, or `default`."""
        self.check_mode(WRONLY, "reading")
        try:
            return self._get(self.encode_key(key))
        except KeyError:
            return default

    def put(self, key: Any, value: Any, flags: int = 0) -> None:
        """Store a value with the flags of an update: BPF_ANY, BPF_NOEXIST or BPF_EXIST.

        Raises MapError with the kernel's error number where it refuses.
        """
        if self.definition.flags & RDONLY:
            self.check_mode(RDONLY, "storing")
        result = self._put(self.encode_key(key), value, flags)
        if result < 0:
            self.refuse(result, f"storing under {_shown(key)}")

    def __setitem__(self, key: Any, value: Any) -> None:
        if self.definition.flags & RDONLY:
            self.check_mode(RDONLY, "storing")
        if (result := self._put(self.encode_key(key), value, 0)) < 0:
            self.refuse(result, f"storing under {_shown(key)}")

    def __delitem__(self, key: Any) -> None:
        what = f"deleting {_shown(key)}"
        self.check_mode(RDONLY, what)
        result = self.delete(self.encode_key(key))
        if result == -errno.ENOENT:
            raise KeyError(f"{self.definition}: nothing under {_shown(key)}")
        self.refuse(result, what)

    def __contains__(self, key: Any) -> bool:
        return self.get(key, _MISSING) is not _MISSING

    def __iter__(self) -> Iterator[bytes]:
        return self._keys()

    def __len__(self) -> int:
        return sum(1 for _ in self._keys())

    def keys(self) -> Iterator[bytes]:
        """Yield the keys."""
        return iter(self)

    def items(self) -> Iterator[tuple[bytes, Any]]:
        """Yield (key, value); what is deleted meanwhile is left out."""
        for key in self:
            value = self.get(key, _MISSING)
            if value is not _MISSING:
                yield key, value

    def values(self) -> Iterator[Any]:
        """Yield the values."""
        for _, value in self.items():
            yield value

    def pop(self, key: Any, default: Any = _MISSING) -> Any:
        """Remove a key and return its value, or `default` where it is not there."""
        value = self.get(key, _MISSING)
        if value is not _MISSING:
            with suppress(KeyError):  # it went meanwhile: another had it
                del self[key]
                return value
        if default is _MISSING:
            raise KeyError(f"{self.definition}: nothing under {_shown(key)}")
        return default

    def clear(self) -> None:
        """Remove every key."""
        for key in list(self):
            self.pop(key, None)

    @property
    def typed(self) -> TypedView:
        """The same map with keys and values decoded by their types, where the object tells them."""
        return TypedView(self)

    def __repr__(self) -> str:
        d = self.definition
        return cut(f"<{d}: {d.max_entries} entries, keys of {d.key_size} and values of {d.value_size} bytes>")


def _shown(key: Any) -> str:
    return key.hex(" ") if isinstance(key, bytes | bytearray) else repr(key)


class TypedView:
    """A map (`target`) whose keys and values are read as Python values; what has no type stays bytes.

    Writing takes what the map itself takes: bytes, ints, and values of the types.
    """

    def __init__(self, target: KeyedMap) -> None:
        self.map = target

    def _key(self, key: bytes) -> Any:
        codec = self.map.definition.key_type
        return codec.decode(key) if codec is not None else key

    def _value(self, value: Any) -> Any:
        """Decode one value, or each of a per-CPU list; programs and maps are what they are."""
        codec = self.map.definition.value_type
        if codec is None:
            return value
        if isinstance(value, list):
            return [codec.decode(one) for one in value]
        return codec.decode(value) if isinstance(value, bytes) else value

    def __getitem__(self, key: Any) -> Any:
        return self._value(self.map[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        self.map[key] = value

    def __delitem__(self, key: Any) -> None:
        del self.map[key]

    def __contains__(self, key: Any) -> bool:
        return key in self.map

    def __iter__(self) -> Iterator[Any]:
        return map(self._key, self.map)

    def __len__(self) -> int:
        return len(self.map)

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value under `key`, or `default`."""
        value = self.map.get(key, _MISSING)
        return default if value is _MISSING else self._value(value)

    def put(self, key: Any, value: Any, flags: int = 0) -> None:
        """Store a value under a `key` with the `flags` of an update; it raises as `KeyedMap.put`."""
        self.map.put(key, value, flags)

    def keys(self) -> Iterator[Any]:
        """Yield the keys."""
        return iter(self)

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Yield (key, value)."""
        return ((self._key(key), self._value(value)) for key, value in self.map.items())

    def values(self) -> Iterator[Any]:
        """Yield the values."""
        return map(self._value, self.map.values())

    def pop(self, key: Any, default: Any = _MISSING) -> Any:
        """Remove a key and return its value, or `default` where it is not there."""
        value = self.map.pop(key, default)
        return value if value is default else self._value(value)

    def clear(self) -> None:
        """Remove every key."""
        self.map.clear()
