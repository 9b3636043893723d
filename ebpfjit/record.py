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
    repr: bool = True,
    eq: bool = True,
    frozen: bool = False,
    unsafe_hash: bool = False,
    kw_only: bool = False,
    slots: bool = False,
    weakref_slot: bool = False,
) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(field_specifiers=(field,))
def dataclass(
    cls: type[T] | None = None,
    /,
    *,
    repr: bool = True,
    eq: bool = True,
    frozen: bool = False,
    unsafe_hash: bool = False,
    **options: bool,
) -> type[T] | Callable[[type[T]], type[T]]:
    """Make a class a dataclass, as `dataclasses.dataclass` does, in a fifth of the time.

    That one writes and compiles text for each method: a third of a millisecond for each class, of which a
    first run needs a hundred and calls forty. Here what compares, hashes, shows and protects values is no
    text, and `__init__` is written when it is first asked for. Fields of the kinds InitVar and KW_ONLY are
    not known.
    """

    def make(cls: type[T]) -> type[T]:
        cls.__doc__ = cls.__doc__ or cls.__name__  # the signature would be looked for, to stand there
        made: Any = dataclasses.dataclass(init=False, eq=False, repr=False, **options)(cls)
        fields = dataclasses.fields(made)
        methods: dict[str, Any] = {"__init__": _Init(made, fields, frozen=frozen)}
        methods |= _methods_of(fields, shows=repr, eq=eq, hashes=unsafe_hash or frozen)
        if frozen:
            methods |= _protection_of(made, fields)
        for name, method in methods.items():
            if name not in vars(cls):
                setattr(made, name, method)
        return made  # type: ignore[no-any-return] # the class, or one like it that has slots

    return make if cls is None else make(cls)


class _Init:
    """The `__init__` of a dataclass until somebody asks for it."""

    def __init__(self, made: type, fields: tuple[dataclasses.Field[Any], ...], *, frozen: bool) -> None:
        self._made, self._fields, self._frozen = made, fields, frozen

    def __get__(self, instance: object | None, owner: type) -> Any:
        init = _init_of(self._made, self._fields, frozen=self._frozen)
        self._made.__init__ = init  # type: ignore[misc] # what it would have had from the start
        return init.__get__(instance, owner)


def _init_of(made: type, fields: tuple[dataclasses.Field[Any], ...], *, frozen: bool) -> Any:
    """Return a dataclass's `__init__`, from text: that is the fastest there is, once it is compiled.

    (self, a, b=default_b, *, c=absent) -> None: self.a = a; ...; self.c = make_c() if c is absent else c
    """
    scope: dict[str, Any] = {"absent_": _ABSENT, "set_": object.__setattr__}
    asked = [each for each in fields if each.init]
    lines = []
    for each in fields:
        name, value = each.name, each.name
        if each.default is not dataclasses.MISSING:
            scope[f"default_{name}_"] = each.default
            value = name if each.init else f"default_{name}_"
        elif each.default_factory is not dataclasses.MISSING:
            scope[f"make_{name}_"] = each.default_factory
            value = f"make_{name}_() if {name} is absent_ else {name}" if each.init else f"make_{name}_()"
        elif not each.init:
            continue
        lines.append(f"set_(self, {name!r}, {value})" if frozen else f"self.{name} = {value}")
    if hasattr(made, "__post_init__"):
        lines.append("self.__post_init__()")
    named = [_parameter(each) for each in asked if each.kw_only]
    parameters = [
        "self",
        *(_parameter(each) for each in asked if not each.kw_only),
        *(named and ["*", *named]),
    ]
    text = f"def __init__({', '.join(parameters)}):\n " + "\n ".join(lines or ["pass"])
    # a Ctrl-C in text that exec() compiles itself ends CPython 3.11 by SIGINT, though it was handled
    exec(compile(text, f"<__init__ of {made.__qualname__}>", "exec"), scope)
    init = scope["__init__"]
    init.__annotations__ = {each.name: each.type for each in asked} | {"return": None}
    init.__qualname__, init.__module__ = f"{made.__qualname__}.__init__", made.__module__
    return init


_ABSENT: Any = type("_Absent", (), {"__repr__": lambda _: "<factory>"})()
"""What stands for a value that is made anew for each object."""


def _parameter(each: dataclasses.Field[Any]) -> str:
    if each.default is not dataclasses.MISSING:
        return f"{each.name}=default_{each.name}_"
    return each.name if each.default_factory is dataclasses.MISSING else f"{each.name}=absent_"


def _protection_of(made: Any, fields: tuple[dataclasses.Field[Any], ...]) -> dict[str, Any]:
    """Return the methods that keep the values of a dataclass from being changed, and its pickles whole."""
    names = frozenset(each.name for each in fields)

    def set_value(self: Any, name: str, value: Any) -> None:
        if type(self) is made or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        super(made, self).__setattr__(name, value)

    def delete(self: Any, name: str) -> None:
        if type(self) is made or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
        super(made, self).__delattr__(name)

    methods: dict[str, Any] = {"__setattr__": set_value, "__delattr__": delete}
    if "__slots__" in vars(made):  # pickle would set what is not to be set

        def get_state(self: Any) -> list[Any]:
            return [getattr(self, each.name) for each in fields]

        def set_state(self: Any, state: list[Any]) -> None:
            for each, value in zip(fields, state, strict=True):
                object.__setattr__(self, each.name, value)

        methods |= {"__getstate__": get_state, "__setstate__": set_state}
    return methods


def _methods_of(
    fields: tuple[dataclasses.Field[Any], ...], *, shows: bool, eq: bool, hashes: bool
) -> dict[str, Any]:
    """Return what shows, compares and hashes a dataclass with these fields."""
    shown = [each.name for each in fields if each.repr]

    @recursive_repr("...")
    def show(self: Any) -> str:
        values = ", ".join([f"{name}={getattr(self, name)!r}" for name in shown])
        return f"{type(self).__qualname__}({values})"

    methods: dict[str, Any] = {"__repr__": show} if shows else {}
    if not eq:
        return methods
    compared = _values([each for each in fields if each.compare])
    hashed = _values([each for each in fields if (each.compare if each.hash is None else each.hash)])

    def equals(self: Any, other: object) -> bool:
        return bool(compared(self) == compared(other)) if type(other) is type(self) else NotImplemented

    def hash_of(self: Any) -> int:
        return hash(hashed(self))

    return methods | {"__eq__": equals, "__hash__": hash_of if hashes else None}


def _values(fields: list[dataclasses.Field[Any]]) -> Callable[[Any], Any]:
    """Return what gives the values of these fields."""
    return attrgetter(*(each.name for each in fields)) if fields else lambda _: ()
