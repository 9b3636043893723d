"""Small values that are made by the hundred thousand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
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
