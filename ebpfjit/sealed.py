"""Objects that machine code depends on, whose contents no attribute leads to.

A compiled function is such an object: what it holds is what keeps its code, its state and its helpers in
memory. So there is nothing to set or to delete by accident, by `object.__setattr__`, or by calling `__init__`
once more; only who imports this module gets there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebpfjit.record import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Callable

    from ebpfjit.jit.entry import Compiled
    from ebpfjit.jit.gate import Gate


@dataclass(slots=True)
class Entry:
    """What is inside of an object that is called: through its `gate`, or as `plain` does it.

    `plain` takes the calls that the gate does not understand, and all where there is none; its `compiled` is
    the code that it runs. `first` is the gate that it had at first. `keep` is what machine code points to for
    the object, beside its gate; it only grows. `resumed` are the gates of code in which long runs go on, by
    the pc where they do; None where that cannot be. `latest` is the last of that code; the next is not made
    before so many `slices` of runs have ended.
    """

    plain: Any
    gate: Gate | None = None
    first: Gate | None = None
    irregular: Callable[..., int] | None = None
    keep: tuple[Any, ...] = ()
    resumed: dict[int, Gate | None] = field(default_factory=dict)
    latest: Compiled | None = None
    slices: int = 0


class Sealed:
    """What has contents that are put in once, by `seal`, and read by `inside`."""

    __slots__ = ("__weakref__", "_contents")


_CONTENTS = Sealed.__dict__["_contents"]
del Sealed._contents  # type: ignore[attr-defined] # the place stays, in each object; the way there is ours alone


def seal(sealed: Sealed, contents: Any) -> None:
    """Put an object's contents in. Raises TypeError where it has some: it is not made twice."""
    try:
        _CONTENTS.__get__(sealed)
    except AttributeError:
        _CONTENTS.__set__(sealed, contents)
        return
    raise TypeError(f"{type(sealed).__name__} is made already; it cannot become another one")


def inside(sealed: Sealed) -> Any:
    """Return an object's contents. Raises TypeError for one that was never made, only allocated."""
    try:
        return _CONTENTS.__get__(sealed)
    except AttributeError:
        name = type(sealed).__name__
        raise TypeError(f"this {name} was not made by the library, but by {name}.__new__") from None
