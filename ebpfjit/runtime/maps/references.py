"""Maps whose values are programs or other maps."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from typing import Any, Protocol
from weakref import WeakSet

from ebpfjit.errors import MapError, MapRefused
from ebpfjit.literals import named_type
from ebpfjit.once import ForkLock
from ebpfjit.program import Program
from ebpfjit.record import dataclass, replace
from ebpfjit.runtime.attach import XDP_FRAGS, attachment
from ebpfjit.runtime.contexts.types import TYPES
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps import rules
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.maps.definition import BPF_ANY, MapDefinition, MapFlag, MapType
from ebpfjit.runtime.maps.flat import ArrayMap, FlatMap
from ebpfjit.runtime.maps.hash import HashMap
from ebpfjit.runtime.maps.storage import changing

POINTER_SIZE = 8
_POINTER = struct.Struct("<Q")

_ARRAY_REASONS = {
    errno.E2BIG: "the index is outside of an array of {entries} entries",
    errno.EINVAL: "the only flag of an update is BPF_ANY, and a map inside has the template's type and sizes",
}


@dataclass(frozen=True, slots=True)
class Owner:
    """What all programs of a prog_array have in common (struct bpf_map_owner of Linux).

    `type` is the name of their type, None for those without one, which are promised nothing and get plain
    memory: a type of its own. `has_frags` is true for XDP programs that take packets in pieces. `attach_type`
    is what they are loaded for (enum bpf_attach_type), None where the section of none of them says it.
    """

    type: str | None
    has_frags: bool
    attach_type: int | None = None

    @classmethod
    def of(cls, program: Program) -> Owner:
        """Return what a program is to the arrays that it uses, or is put into."""
        name = program.type
        known = TYPES.get(name) if name is not None else None
        kind = known.name if known is not None else name
        what = attachment(kind, program.section)
        kind = "xdp" if kind == FRAGS else kind
        said = what.type if kind is not None and what.is_said else None
        return cls(kind, bool(what.flags & XDP_FRAGS), said)

    def fits(self, other: Owner) -> bool:
        """True for programs that may be in the arrays of this one's."""
        same = (self.type, self.has_frags) == (other.type, other.has_frags)
        return same and (
            None in (self.attach_type, other.attach_type) or self.attach_type == other.attach_type
        )

    def told_by(self, other: Owner) -> Owner:
        """Return what is known of both, which fit."""
        return self if self.attach_type is not None else replace(self, attach_type=other.attach_type)

    def __str__(self) -> str:
        if self.type is None:
            return "programs without a type"
        what = f"{FRAGS if self.has_frags else self.type} programs"
        return what if not self.attach_type else f"{what} of attach type {self.attach_type}"


FRAGS = "xdp.frags"

_owning = ForkLock()


def _named(program: Program) -> str:
    return repr(program.name) if program.name is not None else "<unnamed>"


def _use_maps(*programs: Program) -> None:
    """Note that programs refer to their maps. Raises MapError as `Map.used_by`."""
    for program in programs:
        for map_ in program.maps:
            map_.used_by(program)


class Watcher(Protocol):
    """Who has to know what a prog_array holds."""

    def renew(self, map_: Any, index: int | None = None) -> None:
        """Be told that an index, or that all hold something else."""


class ProgArray(ArrayMap):
    """prog_array: what tail calls jump to. An index holds a Program, or None where it is empty.

    `m[index] = program`, `m[index] = None` or `del m[index]` to empty it. Iteration, `len` and `in`
    count what is filled. Programs cannot look it up. The first program that uses the array, or is
    put into it, decides for good which kind of programs both are: its `owner`.
    """

    carried = ("_programs", "owner", "_typed")
    reasons = _ARRAY_REASONS

    def __init__(self, definition: MapDefinition, environment: Environment) -> None:
        super().__init__(definition, environment, shares_values=False)
        self._programs: dict[int, Program] = {}
        self.owner: Owner | None = None
        self._typed: Program | None = None  # the first of those from the start that has a type
        self.watchers: WeakSet[Watcher] = WeakSet()

    def used_by(self, program: Program) -> None:
        """Own the array, as Linux has it where it loads a program (bpf_prog_map_compatible)."""
        self._own(program, f"using it in program {_named(program)}")

    def _own(self, program: Program, what: str) -> None:
        """Make a program's kind the array's owner where it has none. Raises MapError where it has another."""
        kind = Owner.of(program)
        with _owning.held:
            if self.owner is None:
                self._programs = {index: self._as(kind, held, what) for index, held in self._programs.items()}
                self._tell()
                self.owner = kind
                _use_maps(*self._programs.values())
            elif not self.owner.fits(kind):
                raise self._refusal(f"it belongs to {self.owner}", kind, what)
            else:
                self.owner = self.owner.told_by(kind)

    def _as(self, kind: Owner, held: Program, what: str) -> Program:
        """Return a program that an object put in as one of `kind`. Raises MapError where that cannot be.

        Sections are conventions, and the user may have said better: no type, or another type of the same
        context, becomes that of the program that uses it.
        """
        own = Owner.of(held)
        if own.fits(kind):
            return held
        before, after = (TYPES.get(each.type or "") for each in (own, kind))
        is_other = before is not None and (after is None or before.context is not after.context)
        if is_other or own.type == kind.type or (before is not None and not before.has_packet):
            raise self._refusal(f"it holds program {_named(held)}, one of {own}", kind, what)
        return replace(held, type=named_type(FRAGS if kind.has_frags else kind.type))

    def _refusal(self, reason: str, kind: Owner, what: str) -> MapError:
        return MapError(
            f"{self.definition}: {what}: {reason}, and this is one of {kind}; all programs of a "
            f"prog_array, and all that use it, have one type and are attached alike: load(..., types=) "
            f"says the type, the section how (EINVAL)",
            errno.EINVAL,
        )

    def fill(self, index: int, program: Program) -> None:
        """Store a program that an object has there from the start; who uses the array first then owns it.

        Raises MapError for an index outside, and for programs of two types.
        """
        kind = Owner.of(program)
        held = self._typed if self._typed is not None else program
        if kind.type is not None and not (own := Owner.of(held)).fits(kind):
            what = f"storing program {_named(program)} under {index}"
            raise self._refusal(f"it holds program {_named(held)}, one of {own}", kind, what)
        if index >= self.definition.max_entries:
            self.refuse(-errno.E2BIG, f"storing under {index}")
        self._programs[index] = program
        self._tell(index)
        if kind.type is not None:
            self._typed = held

    def program_at(self, index: int) -> Program | None:
        """Return the program at an index, None where it is empty or outside."""
        return self._programs.get(index)

    def lookup(self, key: bytes) -> int:
        """Return 0: the kernel's verifier refuses programs that look a prog_array up."""
        return 0

    def update(self, key: bytes, value: bytes, flags: int = 0) -> int:
        """Refuse: programs cannot write it."""
        return -errno.EINVAL

    def delete(self, key: bytes) -> int:
        """Empty an index; return 0, -E2BIG outside, -ENOENT where it is empty."""
        index = self.find(key)
        if index < 0:
            return -errno.E2BIG
        was = self._programs.pop(index, None)
        self._tell(index)
        return 0 if was is not None else -errno.ENOENT

    def programs(self) -> list[Program]:
        """Return what the array holds."""
        return list(self._programs.values())

    def indices_of(self, program: Program) -> list[int]:
        """Return where the array holds a program."""
        return [index for index, held in self._programs.items() if held is program]

    def take_contents(self, contents: dict[str, Any]) -> None:
        """Hold the programs that another held."""
        super().take_contents(contents)
        self._tell()

    def _tell(self, index: int | None = None) -> None:
        """Say that what an index holds is another now, or that all are."""
        for watcher in list(self.watchers):
            watcher.renew(self, index)

    def _get(self, key: bytes) -> Program | None:
        index = self.find(key)
        if index < 0:
            raise KeyError
        return self._programs.get(index)

    def _put(self, key: bytes, value: Any, flags: int) -> int:
        if value is not None and not isinstance(value, Program):
            raise TypeError(f"{self.definition}: a value is a Program or None, not {type(value).__name__}")
        if flags != BPF_ANY:
            return -errno.EINVAL
        index = self.find(key)
        if index < 0:
            return -errno.E2BIG
        if value is None:
            self._programs.pop(index, None)
        else:
            self._own(value, f"storing program {_named(value)} under {index}")
            _use_maps(value)  # in Linux it would be loaded by now
            self._programs[index] = value
        self._tell(index)
        return 0

    def entries(self) -> Iterator[tuple[bytes, int]]:
        """Yield nothing: there are no values that a program could see."""
        return iter(())

    def _keys(self) -> Iterator[bytes]:
        return (index.to_bytes(4, "little") for index in sorted(self._programs))

    def __contains__(self, key: Any) -> bool:
        return self.find(self.encode_key(key)) in self._programs

    def __len__(self) -> int:
        return len(self._programs)

    def clear(self) -> None:
        """Empty every index."""
        self._programs.clear()
        self._tell()


def _checked_inner(definition: MapDefinition) -> MapDefinition:
    """Return the template of a map of maps; raises MapRefused where there is none that the kernel takes."""
    inner = definition.inner
    if inner is None:
        raise MapRefused(f"{definition}: there is no template of the maps inside (EBADF)", errno.EBADF)
    if inner.type in (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS):
        raise MapRefused(f"{definition}: a map inside holds maps itself (EINVAL)", errno.EINVAL)
    if inner.type == MapType.PROG_ARRAY:
        raise MapRefused(f"{definition}: a prog_array cannot be inside (ENOTSUPP)", rules.ENOTSUPP)
    rules.check(inner)
    return inner


def _fits(template: MapDefinition, given: MapDefinition) -> bool:
    """True where a map may stand for the template (bpf_map_meta_equal, array_map_meta_equal)."""
    same = (given.type, given.key_size, given.value_size, given.flags) == (
        template.type, template.key_size, template.value_size, template.flags,
    )  # fmt: skip
    any_size = template.type != MapType.ARRAY or template.flags & MapFlag.INNER_MAP
    return same and (bool(any_size) or given.max_entries == template.max_entries)


class _OfMaps(FlatMap):
    """What the two kinds whose values are maps share: which one each entry holds."""

    value_is_stable = False

    def __init__(self, definition: MapDefinition, environment: Environment) -> None:
        self._template = _checked_inner(definition)
        super().__init__(definition, environment, stride=POINTER_SIZE, shares_values=False)
        self._inner: dict[int, Map] = {}

    def take_contents(self, contents: dict[str, Any]) -> None:
        """Hold the maps that another held; what a lookup gives is where they are here."""
        super().take_contents(contents)
        for entry, inner in self._inner.items():
            self.storage.write(self.offset_of(entry, 0), _POINTER.pack(inner.address))

    @property
    def inner_maps(self) -> tuple[Map, ...]:
        """The maps inside."""
        return tuple(self._inner.values())

    def lookup(self, key: bytes) -> int:
        """Return the address of the map under `key`, 0 where there is none."""
        inner = self._inner.get(self.find(key))
        return inner.address if inner is not None else 0

    def update(self, key: bytes, value: bytes, flags: int = 0) -> int:
        """Refuse: programs cannot write it."""
        return -errno.EINVAL

    def entries(self) -> Iterator[tuple[bytes, int]]:
        """Yield nothing: bpf_for_each_map_elem does not take maps of maps."""
        return iter(())


class ArrayOfMaps(_OfMaps, ArrayMap):
    """array_of_maps: an index holds a map, or None; a program's lookup gives the map's address."""

    carried = ("_inner",)
    reasons = _ARRAY_REASONS

    def delete(self, key: bytes) -> int:
        """Empty an index; return 0, -E2BIG outside, -ENOENT where it is empty."""
        index = self.find(key)
        if index < 0:
            return -errno.E2BIG
        self._set(index, None)
        return 0 if self._inner.pop(index, None) is not None else -errno.ENOENT

    def _set(self, index: int, inner: Map | None) -> None:
        self.storage.write(self.offset_of(index, 0), _POINTER.pack(inner.address if inner is not None else 0))

    def _get(self, key: bytes) -> Map | None:
        index = self.find(key)
        if index < 0:
            raise KeyError
        return self._inner.get(index)

    def _put(self, key: bytes, value: Any, flags: int) -> int:
        _check_is_map(self.definition, value)
        if flags != BPF_ANY:
            return -errno.EINVAL
        index = self.find(key)
        if index < 0:
            return -errno.E2BIG
        if value is None:
            self._inner.pop(index, None)
        elif _fits(self._template, value.definition):
            self._inner[index] = value
        else:
            return -errno.EINVAL
        self._set(index, value)
        return 0

    def _keys(self) -> Iterator[bytes]:
        return (index.to_bytes(4, "little") for index in sorted(self._inner))

    def __contains__(self, key: Any) -> bool:
        return self.find(self.encode_key(key)) in self._inner

    def __len__(self) -> int:
        return len(self._inner)

    def clear(self) -> None:
        """Empty every index."""
        for index in list(self._inner):
            self.delete(index.to_bytes(4, "little"))


def _check_is_map(definition: MapDefinition, value: Any) -> None:
    if value is not None and not isinstance(value, Map):
        raise TypeError(f"{definition}: a value is a Map or None, not {type(value).__name__}")


class HashOfMaps(_OfMaps, HashMap):
    """hash_of_maps: a key's value is a map; a program's lookup gives the map's address."""

    carried = (*HashMap.carried, "_inner")
    reasons = {  # noqa: RUF012 - a table, never changed
        errno.EINVAL: "the flags are none of an update's, or the map is not of the template's type and sizes",
    }

    def free(self, entry: int) -> None:
        """Take an entry out, and let go of its map."""
        super().free(entry)
        self._inner.pop(entry, None)

    def _get(self, key: bytes) -> Map:
        return self._inner[self.find(key)]

    def _put(self, key: bytes, value: Any, flags: int) -> int:
        if value is None:
            return self.delete(key)
        _check_is_map(self.definition, value)
        if not _fits(self._template, value.definition):
            return -errno.EINVAL
        with changing.held, self._change:
            entry = self.claim(key, flags)
            if entry < 0:
                return entry
            self._inner[entry] = value
            self.storage.write(self.offset_of(entry, 0), _POINTER.pack(value.address))
        return 0
