"""Our dataclasses do as those of the standard library, but for what it takes to make one."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ebpfjit import record

CHECKOUT = Path(__file__).resolve().parents[2]


@record.dataclass(frozen=True, slots=True)
class Pair:
    first: int
    second: tuple[int, ...] = ()
    note: str = field(default="", compare=False, repr=False)


@record.dataclass(slots=True)
class Other:
    first: int
    second: tuple[Any, ...] = ()


def made_by(dataclass: Any, options: dict[str, bool]) -> Any:
    """The same class body, with one decorator or the other."""

    class Point:
        x: int
        y: tuple[int, ...] = ()
        hidden: int = field(default=0, repr=False, compare=False)

        def __str__(self) -> str:
            return f"{self.x}"

    return dataclass(**options)(Point)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"eq": False},
        {"slots": True},
        {"frozen": True},
        {"frozen": True, "slots": True},
        {"unsafe_hash": True},
        {"frozen": True, "eq": False},
    ],
    ids=str,
)
def test_values_are_shown_compared_and_hashed_alike(options: dict[str, bool]) -> None:
    seen = []
    for dataclass in (record.dataclass, dataclasses.dataclass):
        cls = made_by(dataclass, options)
        values = [cls(1), cls(1, (), 5), cls(2), cls(1, (3,))]
        equal = [[a == b for b in [*values, 1]] for a in values]
        hashes = None if cls.__hash__ is None else hash(values[0]) == hash(values[1])
        shape = (
            [each.name for each in dataclasses.fields(cls)],
            cls.__match_args__,
            hasattr(values[0], "__dict__"),
        )
        seen.append((list(map(repr, values)), list(map(str, values)), equal, hashes, shape))
    assert seen[0] == seen[1]


@record.dataclass(frozen=True, kw_only=True)
class Asked:
    known: ClassVar[int] = 3
    name: str
    sizes: list[int] = dataclasses.field(default_factory=list)
    place: Pair = record.field(default=Pair(1), repr=False)
    count: int = record.field(default=5, init=False)


@dataclasses.dataclass(frozen=True)
class More(Asked):
    """Somebody else's, of one of ours."""

    further: int = 0


class Plain(Asked):
    pass


@pytest.mark.parametrize("cls", [Asked, More, Plain])
def test_what_the_standard_library_does_with_dataclasses_it_does_with_ours(cls: Any) -> None:
    value = cls(name="a", sizes=[1])
    assert dataclasses.is_dataclass(cls)
    assert record.is_dataclass(value)
    names = ["name", "sizes", "place", "count", *(["further"] if cls is More else [])]
    assert [each.name for each in dataclasses.fields(value)] == names
    assert [each.name for each in record.fields(cls)] == names
    assert dataclasses.asdict(value)["place"] == {"first": 1, "second": (), "note": ""}
    for replace in (dataclasses.replace, record.replace, getattr(copy, "replace", record.replace)):
        other = replace(value, name="b")
        assert type(other) is cls
        assert (other.name, other.sizes is value.sizes, other.count) == ("b", True, 5)
        with pytest.raises(ValueError, match="count"):
            replace(value, count=6)
        with pytest.raises(TypeError):
            replace(value, nothing=6)
    default = dataclasses.fields(cls)[2]
    assert (default.default, default.repr, default.kw_only) == (Pair(1), False, True)
    assert cls(name="a").sizes is not cls(name="a").sizes


def test_dataclasses_are_made_and_used_without_their_module() -> None:
    source = (
        "import sys; from ebpfjit.record import dataclass, field, fields, replace\n"
        "@dataclass(frozen=True, slots=True)\n"
        "class A:\n    x: int = field(default=1)\n    y: tuple[int, ...] = ()\n"
        "assert replace(A(), y=(2,)) == A(1, (2,)) and len(fields(A)) == 2, repr(A())\n"
        "print([name for name in ('dataclasses', 'inspect') if name in sys.modules])"
    )
    child = subprocess.run(
        [sys.executable, "-S", "-c", source], capture_output=True, text=True, cwd=CHECKOUT, check=True
    )
    assert child.stdout == "[]\n"


def kept_by(dataclass: Any, options: dict[str, bool]) -> Any:
    """A class whose `__init__` has all that one can have, and one that inherits it."""

    class First:
        name: str
        count: int = field(init=False)
        rest: list[int] = field(default_factory=list)
        made: dict[str, int] = field(default_factory=dict, init=False)
        last: int = field(default=7, kw_only=True)

        def __post_init__(self) -> None:
            object.__setattr__(self, "count", len(self.name))

    first = dataclass(**options)(First)

    class Second(first):
        more: tuple[int, ...] = ()
        fixed: int = field(default=3, init=False)

    return first, dataclass(**options)(Second)


@pytest.mark.parametrize(
    "options", [{}, {"frozen": True}, {"slots": True, "frozen": True}, {"kw_only": True}], ids=str
)
def test_values_are_made_alike(options: dict[str, bool]) -> None:
    seen = []
    for dataclass in (record.dataclass, dataclasses.dataclass):
        found: list[Any] = []
        for cls in kept_by(dataclass, options):
            made = [cls(name="ab"), cls(name="abc", rest=[1], last=2)]
            made += [cls(name="ab") for _ in range(2 * record.FEW)]  # by a compiled `__init__` as well
            found += [
                str(inspect.signature(cls)),
                *map(dataclasses.astuple, made),
                made[0].rest is cls(name="x").rest,
            ]
            for wrong in ({}, {"name": "a", "count": 1}, {"name": "a", "nothing": 1}):
                with pytest.raises(TypeError) as error:
                    cls(**wrong)
                found.append(str(error.value))
        seen.append(found)
    assert seen[0] == seen[1]


def test_init_is_written_when_somebody_asks() -> None:
    made, _ = kept_by(record.dataclass, {})
    assert not inspect.isfunction(vars(made)["__init__"])
    few = [made("first") for _ in range(record.FEW)]
    assert not inspect.isfunction(vars(made)["__init__"])
    assert made("first") == few[0]
    assert inspect.isfunction(vars(made)["__init__"])
    assert made.__init__.__qualname__ == f"{made.__qualname__}.__init__"


def test_ctrl_c_while_init_is_written_can_be_handled() -> None:
    """CPython ends by SIGINT, whoever handles it, where it came in text that exec() compiles itself."""
    source = """
import signal, sys
from ebpfjit.record import dataclass

@dataclass
class Pair:
    first: int

def interrupt(frame, event, argument):
    if event == "call" and frame.f_code.co_name == "<module>":
        sys.setprofile(None)
        raise KeyboardInterrupt

sys.setprofile(interrupt)
try:
    Pair.__init__
except KeyboardInterrupt:
    print("handled")
"""
    child = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=CHECKOUT)
    assert (child.returncode, child.stdout) == (0, "handled\n")


def test_frozen_values_stay_and_travel() -> None:
    one = Pair(1, (2, 3), "seen")
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.first = 2  # type: ignore[misc] # what is refused
    assert pickle.loads(pickle.dumps(one)) == copy.deepcopy(one) == dataclasses.replace(one, note="x") == one
    assert one != Other(1, (2, 3))
    assert {one: "found"}[Pair(1, (2, 3))] == "found"
    assert repr(one) == "Pair(first=1, second=(2, 3))"


def test_what_holds_itself_can_be_shown() -> None:
    this = Other(1)
    this.second = (this,)
    assert repr(this) == "Other(first=1, second=(...,))"
