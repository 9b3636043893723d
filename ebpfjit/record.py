"""Small values that are made by the hundred thousand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import field
from operator import attrgetter
from reprlib import recursive_repr
from typing import Any, Generic, TypeVar, dataclass_transform, overload

T = TypeVar("T")


class lazy(Generic[T]):  # noqa: N801 - it is used as `property` is
    """A property that is worked out when first asked for, and kept in the object's dictionary.

    `functools.cached_property` takes a lock for that up to Python 3.11: a microsecond, for each value of
    each program. Here two threads that ask at once may both work it out; one of the results stays.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self._name = make.__name__
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> lazy[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> lazy[T] | T:
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._make(instance)
        return value


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """Make a class a dataclass with slots whose values are not to be changed.

    The type checker holds everybody to that; at run time nothing does, because making a frozen
    dataclass takes three to five times as long (each field goes through `object.__setattr__`).
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)


@overload
def dataclass(cls: type[T], /) -> type[T]: ...
@overload
def dataclass(
    *,
    eq: bool = True,
    frozen: bool = False,
    unsafe_hash: bool = False,
    slots: bool = False,
    weakref_slot: bool = False,
) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(field_specifiers=(field,))
def dataclass(
    cls: type[T] | None = None, /, *, eq: bool = True, unsafe_hash: bool = False, **options: bool
) -> type[T] | Callable[[type[T]], type[T]]:
    """Make a class a dataclass, as `dataclasses.dataclass` does, in half the time.

    That one writes and compiles text for each method: a third of a millisecond for each class, of which a
    first run needs a hundred. Here what compares, hashes and shows values is no text.
    """

    def make(cls: type[T]) -> type[T]:
        made: Any = dataclasses.dataclass(eq=False, repr=False, **options)(cls)
        hashes = unsafe_hash or options.get("frozen", False)
        for name, method in _methods_of(dataclasses.fields(made), eq=eq, hashes=hashes).items():
            if name not in vars(cls):
                setattr(made, name, method)
        return made  # type: ignore[no-any-return] # the class, or one like it that has slots

    return make if cls is None else make(cls)


def _methods_of(fields: tuple[dataclasses.Field[Any], ...], *, eq: bool, hashes: bool) -> dict[str, Any]:
    """Return the methods of a dataclass with these fields."""
    shown = [each.name for each in fields if each.repr]

    @recursive_repr("...")
    def show(self: Any) -> str:
        values = ", ".join([f"{name}={getattr(self, name)!r}" for name in shown])
        return f"{type(self).__qualname__}({values})"

    if not eq:
        return {"__repr__": show}
    compared = _values([each for each in fields if each.compare])
    hashed = _values([each for each in fields if (each.compare if each.hash is None else each.hash)])

    def equals(self: Any, other: object) -> bool:
        return bool(compared(self) == compared(other)) if type(other) is type(self) else NotImplemented

    def hash_of(self: Any) -> int:
        return hash(hashed(self))

    return {"__repr__": show, "__eq__": equals, "__hash__": hash_of if hashes else None}


def _values(fields: list[dataclasses.Field[Any]]) -> Callable[[Any], Any]:
    """Return what gives the values of these fields."""
    return attrgetter(*(each.name for each in fields)) if fields else lambda _: ()
