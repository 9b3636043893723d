"""Dataclasses whose classes are cheap to make, and small values that are made by the hundred thousand.

The module `dataclasses` imports what reads source code, which takes longer than a short run: here it is
imported where somebody asks a class of ours for what the module has of it, `dataclasses.fields(result)`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, Generic, TypeVar, dataclass_transform, overload

T = TypeVar("T")

ABSENT: Any = type("_Absent", (), {"__repr__": lambda _: "<factory>"})()
"""What stands for a value that is made anew for each object; and for a default that there is none of."""


class Given:
    """What a dataclass says of one field: the attributes of `dataclasses.Field` that count here."""

    __slots__ = ("compare", "default", "default_factory", "hash", "init", "kw_only", "name", "repr", "type")

    def __init__(
        self,
        default: Any,
        default_factory: Any,
        init: bool,
        repr: bool,
        hash: bool | None,
        compare: bool,
        kw_only: bool | None,
    ) -> None:
        self.default, self.default_factory, self.init, self.repr = default, default_factory, init, repr
        self.hash, self.compare, self.kw_only = hash, compare, kw_only
        self.name, self.type = "", None


if TYPE_CHECKING:
    from dataclasses import field as field
    from dataclasses import fields as fields
    from dataclasses import is_dataclass as is_dataclass
    from dataclasses import replace as replace
else:

    def field(
        *,
        default=ABSENT,
        default_factory=ABSENT,
        init=True,
        repr=True,
        hash=None,
        compare=True,
        kw_only=None,
    ):
        """Say more of a field than its type and default, as `dataclasses.field` does."""
        return Given(default, default_factory, init, repr, hash, compare, kw_only)

    def fields(value):
        """Return the fields of a dataclass, or of an object of one, in order."""
        own = vars(value if isinstance(value, type) else type(value)).get("__record_fields__")
        if own is not None:
            return tuple(own.values())
        import dataclasses

        return dataclasses.fields(value)

    def is_dataclass(value):
        """True for dataclasses, and objects of them."""
        return hasattr(value, "__record_fields__") or hasattr(value, "__dataclass_fields__")

    def replace(value, /, **changes):
        """Return a copy of an object with some fields changed, as `dataclasses.replace` does."""
        own = vars(type(value)).get("__record_fields__")
        if own is None:  # somebody else's, or a class that inherits from ours
            import dataclasses

            return dataclasses.replace(value, **changes)
        for name, each in own.items():
            if not each.init:
                if name in changes:
                    raise ValueError(f"field {name} cannot be given: it is declared with init=False")
            elif name not in changes:
                changes[name] = getattr(value, name)
        return type(value)(**changes)


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
        found = _fields_of(cls, kw_only=options.get("kw_only", False))
        made: Any = cls
        if options.get("slots"):
            made = _with_slots(cls, found, weakref_slot=options.get("weakref_slot", False))
        made.__record_fields__ = {each.name: each for each in found}
        made.__dataclass_fields__ = _Late(made, _standard_fields)
        made.__dataclass_params__ = _Late(made, lambda _: _Params(frozen, repr, eq, unsafe_hash, options))
        methods: dict[str, Any] = {"__init__": _Init(made, found, frozen=frozen), "__replace__": replace}
        methods["__match_args__"] = tuple(each.name for each in found if each.init and not each.kw_only)
        methods |= _methods_of(found, shows=repr, eq=eq, hashes=unsafe_hash or frozen)
        if frozen:
            methods |= _protection_of(made, found)
        for name, method in methods.items():
            if name not in vars(cls):
                setattr(made, name, method)
        return made  # type: ignore[no-any-return] # the class, or one like it that has slots

    return make if cls is None else make(cls)


def _fields_of(cls: Any, *, kw_only: bool) -> tuple[Given, ...]:
    """Return the fields of a class that becomes a dataclass: those of its bases, and its own."""
    found: dict[str, Given] = {}
    for base in reversed(cls.__mro__[1:]):
        found |= vars(base).get("__record_fields__", {})
    for name, type_ in cls.__annotations__.items():
        if str(type_).startswith(("ClassVar", "typing.ClassVar")):
            continue
        said = vars(cls).get(name, ABSENT)
        if type(said).__module__ == "dataclasses":  # its own field()
            said = _taken(said)
            setattr(cls, name, said)
        each: Any = said if isinstance(said, Given) else field(default=said)
        each.name, each.type = name, type_
        each.kw_only = kw_only if each.kw_only is None else each.kw_only
        if each is said and each.default is ABSENT:
            delattr(cls, name)
        elif each is said:
            setattr(cls, name, each.default)
        found[name] = each
    return tuple(found.values())


def _taken(said: Any) -> Given:
    """Return what `dataclasses.field` gave, as `field` gives it."""
    from dataclasses import MISSING

    default, make, kw_only = (
        ABSENT if each is MISSING else each for each in (said.default, said.default_factory, said.kw_only)
    )
    named = None if kw_only is ABSENT else kw_only
    return Given(default, make, said.init, said.repr, said.hash, said.compare, named)


def _with_slots(cls: Any, found: tuple[Given, ...], *, weakref_slot: bool) -> Any:
    """Return a class like another one, with slots for its fields."""
    inherited = {slot for base in cls.__mro__[1:] for slot in _slots_of(base)}
    names = [each.name for each in found] + ["__weakref__"] * weakref_slot
    contents = {name: value for name, value in vars(cls).items() if name not in {*names, "__dict__"}}
    contents.pop("__weakref__", None)
    contents["__slots__"] = tuple(name for name in names if name not in inherited)
    made = type(cls)(cls.__name__, cls.__bases__, contents)
    made.__qualname__ = cls.__qualname__
    return made


def _slots_of(base: type) -> tuple[str, ...]:
    slots = vars(base).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


class _Late:
    """What the module `dataclasses` looks for in a class, made where it does."""

    def __init__(self, made: type, make: Callable[[type], Any]) -> None:
        self._made, self._make = made, make

    def __get__(self, instance: object | None, owner: type) -> Any:
        return self._make(self._made)


def _standard_fields(made: Any) -> Any:
    """Return a class's fields as `dataclasses` has them."""
    import dataclasses

    told = []
    for each in made.__record_fields__.values():
        asked = {name: getattr(each, name) for name in ("init", "repr", "hash", "compare", "kw_only")}
        for name in ("default", "default_factory"):
            if getattr(each, name) is not ABSENT:
                asked[name] = getattr(each, name)
        told.append((each.name, each.type, dataclasses.field(**asked)))
    like: Any = dataclasses.make_dataclass("_Like", told, kw_only=True, unsafe_hash=False, eq=False)
    made.__dataclass_fields__ = like.__dataclass_fields__
    return made.__dataclass_fields__


class _Params:
    """How a class was asked for, as `dataclasses` looks at it in a base."""

    def __init__(
        self, frozen: bool, repr: bool, eq: bool, unsafe_hash: bool, options: dict[str, bool]
    ) -> None:
        self.init, self.repr, self.eq, self.order = True, repr, eq, False
        self.unsafe_hash, self.frozen, self.match_args = unsafe_hash, frozen, True
        self.kw_only, self.slots = options.get("kw_only", False), options.get("slots", False)
        self.weakref_slot = options.get("weakref_slot", False)


FEW = 6
"""Objects of a class for which its `__init__` is not worth compiling: a tenth of a millisecond each."""


class _Init:
    """The `__init__` of a dataclass until somebody asks for it, or makes more than a few objects."""

    def __init__(self, made: type, fields: tuple[Given, ...], *, frozen: bool) -> None:
        self._made, self._fields, self._frozen = made, fields, frozen
        self._left = FEW

    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is not None and self._left:
            self._left -= 1
            return partial(self._fill, instance)
        return self._compiled().__get__(instance, owner)

    def _fill(self, instance: object, *values: Any, **named: Any) -> None:
        """Do what the compiled one does, to which wrong arguments are left."""
        asked = [each for each in self._fields if each.init]
        places = [each.name for each in asked if not each.kw_only]
        given = dict(zip(places, values, strict=False)) | named
        needed = {each.name for each in asked if each.default is ABSENT and each.default_factory is ABSENT}
        if len(given) < len(values) + len(named) or not needed <= given.keys() <= {e.name for e in asked}:
            self._compiled()(instance, *values, **named)  # which says what is wrong
            return
        put = object.__setattr__ if self._frozen else setattr
        for each in self._fields:
            if each.name in given:
                put(instance, each.name, given[each.name])
            elif each.default is not ABSENT:
                put(instance, each.name, each.default)
            elif each.default_factory is not ABSENT:
                put(instance, each.name, each.default_factory())
        if hasattr(instance, "__post_init__"):
            instance.__post_init__()

    def _compiled(self) -> Any:
        init = _init_of(self._made, self._fields, frozen=self._frozen)
        self._made.__init__ = init  # type: ignore[misc] # what it would have had from the start
        return init


def _init_of(made: type, fields: tuple[Given, ...], *, frozen: bool) -> Any:
    """Return a dataclass's `__init__`, from text: that is the fastest there is, once it is compiled.

    (self, a, b=default_b, *, c=absent) -> None: self.a = a; ...; self.c = make_c() if c is absent else c
    """
    scope: dict[str, Any] = {"absent_": ABSENT, "set_": object.__setattr__}
    asked = [each for each in fields if each.init]
    lines = []
    for each in fields:
        name, value = each.name, each.name
        if each.default is not ABSENT:
            scope[f"default_{name}_"] = each.default
            value = name if each.init else f"default_{name}_"
        elif each.default_factory is not ABSENT:
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


def _parameter(each: Given) -> str:
    if each.default is not ABSENT:
        return f"{each.name}=default_{each.name}_"
    return each.name if each.default_factory is ABSENT else f"{each.name}=absent_"


def _frozen(message: str) -> Exception:
    from dataclasses import FrozenInstanceError

    return FrozenInstanceError(message)


def _protection_of(made: Any, fields: tuple[Given, ...]) -> dict[str, Any]:
    """Return the methods that keep the values of a dataclass from being changed, and its pickles whole."""
    names = frozenset(each.name for each in fields)

    def set_value(self: Any, name: str, value: Any) -> None:
        if type(self) is made or name in names:
            raise _frozen(f"cannot assign to field {name!r}")
        super(made, self).__setattr__(name, value)

    def delete(self: Any, name: str) -> None:
        if type(self) is made or name in names:
            raise _frozen(f"cannot delete field {name!r}")
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


def _methods_of(fields: tuple[Given, ...], *, shows: bool, eq: bool, hashes: bool) -> dict[str, Any]:
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


def _values(fields: list[Given]) -> Callable[[Any], Any]:
    """Return what gives the values of these fields."""
    return attrgetter(*(each.name for each in fields)) if fields else lambda _: ()
