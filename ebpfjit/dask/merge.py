"""How what parts of the work left in a map is put together: a rule for each name that users give."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ebpfjit.program import Program
from ebpfjit.record import dataclass
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.maps.queues import QueueMap
from ebpfjit.runtime.maps.references import ProgArray

Items = dict[bytes, Any]


def _add(one: Any, other: Any, sign: int = 1) -> Any:
    """Return the sum of two values of a map: numbers, also inside of structs and lists."""
    return _combined(lambda a, b: a + sign * b, one, other)


def _combined(how: Callable[[Any, Any], Any], one: Any, other: Any) -> Any:
    if isinstance(one, dict):
        return {name: _combined(how, one[name], other[name]) for name in one}
    if isinstance(one, list):
        return [_combined(how, a, b) for a, b in zip(one, other, strict=True)]
    if isinstance(one, (int, float)):
        return how(one, other)
    raise TypeError(f"values of {type(one).__name__} cannot be put together number by number")


def items(map_: Any) -> Items:
    """Return a map's values by their keys' bytes, as its types read them; bytes of 1, 2, 4, 8 are numbers."""
    found = zip(map_.items(), map_.typed.items(), strict=True)
    return {raw: _number(value) for (raw, _), (_, value) in found}


def _number(value: Any) -> Any:
    if isinstance(value, list):
        return [_number(one) for one in value]
    is_number = isinstance(value, bytes) and len(value) in (1, 2, 4, 8)
    return int.from_bytes(value, "little") if is_number else value


@dataclass(frozen=True, slots=True)
class Rule:
    """How what parts left in a map is put together: what is `left` of one part, and how more is `added`."""

    left: Callable[[Any, Items], Any]
    added: Callable[[Any, Any], Any]


def _merged(how: Callable[[Any, Any], Any]) -> Callable[[Items, Items], Items]:
    def added(all_: Items, more: Items) -> Items:
        return all_ | {key: how(all_[key], value) if key in all_ else value for key, value in more.items()}

    return added


def _change(map_: Any, before: Items) -> Items:
    """Return by how much numbers have changed."""
    return {key: _add(now, before[key], -1) if key in before else now for key, now in items(map_).items()}


class _Gone:
    """Stands where a key was deleted; there is one in each process."""

    def __reduce__(self) -> str:
        return "GONE"


GONE = _Gone()


def _new(map_: Any, before: Items) -> Items:
    now = items(map_)
    deleted = dict.fromkeys(before.keys() - now.keys(), GONE)
    return {key: value for key, value in now.items() if value != before.get(key)} | deleted


def _records(map_: Any, before: Items) -> list[Any]:
    if isinstance(map_, QueueMap):
        return list(map_)
    return list(map_.consume()) if hasattr(map_, "consume") else [shown(map_, items(map_))]


RULES = {
    "sum": Rule(_change, _merged(_add)),
    "max": Rule(lambda map_, _: items(map_), _merged(lambda one, other: _combined(max, one, other))),
    "min": Rule(lambda map_, _: items(map_), _merged(lambda one, other: _combined(min, one, other))),
    "last": Rule(_new, lambda all_, more: all_ | more),
    "list": Rule(_records, lambda all_, more: all_ + more),
    "drop": Rule(lambda map_, _: None, lambda all_, more: None),
}


@contextmanager
def naming(map_: Map, rule: str) -> Iterator[None]:
    """Have a TypeError of a rule say which map's values it is about."""
    try:
        yield
    except TypeError as error:
        raise TypeError(f"{map_.definition}: merge rule {rule!r}: {error}") from None


def rules_of(map_: Any) -> tuple[str, ...]:
    """Return the rules that a map can have: sums and the like need values by their keys."""
    if hasattr(map_, "items") and hasattr(map_, "typed"):
        return tuple(RULES)
    return ("list", "drop") if hasattr(map_, "consume") or isinstance(map_, QueueMap) else ("drop",)


def shown(map_: Any, items: Items) -> dict[Any, Any]:
    """Return items by their keys as Python values, where these hash."""
    shown = {}
    for raw, value in items.items():
        key = map_.typed._key(raw)
        if isinstance(key, bytes) and len(key) in (1, 2, 4, 8):
            key = int.from_bytes(key, "little")
        shown[raw if isinstance(key, (dict, list)) else key] = value
    return shown


def checked(program: Program, merge: Mapping[str, str]) -> dict[str, str]:
    """Return the rules that a user gives.

    Raises TypeError for what is no mapping, KeyError for a map that is not there, ValueError for an unknown
    rule, for one that a map of its type cannot have, and for a name that several maps have.
    """
    if not isinstance(merge, Mapping):
        raise TypeError(f'merge names a rule for each map, as {{"counters": "sum"}}, not {merge!r}')
    named: dict[str, list[Map]] = defaultdict(list)
    for map_ in maps_of(program):
        named[map_.name].append(map_)
    for name, rule in merge.items():
        if not isinstance(rule, str) or rule not in RULES:
            raise ValueError(f"merge rule {rule!r} of map {name!r}: there are {', '.join(RULES)}")
        if name not in named:
            there = f"it has {', '.join(sorted(named))}" if named else "it has none"
            raise KeyError(f"program {program.name!r} has no map {name!r}; {there}")
        map_, *others = named[name]
        if others:
            raise ValueError(f"{len(others) + 1} maps have the name {name!r}: a rule has to name one")
        if rule not in rules_of(map_):
            rest = ", ".join(rules_of(map_))
            raise ValueError(
                f"{map_.definition}: merge rule {rule!r} is for values by their keys; this map has {rest}"
            )
    return dict(merge)


def maps_of(program: Program) -> Iterator[Map]:
    """Yield the maps that a run can write, those inside of others and of programs that it jumps to too."""
    waiting: list[Map] = list(program.maps)
    seen: dict[int, Map] = {}
    while waiting:
        map_ = waiting.pop()
        if map_.address not in seen:
            seen[map_.address] = map_
            waiting += map_.inner_maps
            if isinstance(map_, ProgArray):
                waiting += [each for held in map_.programs() for each in held.maps]
    return iter(seen.values())
