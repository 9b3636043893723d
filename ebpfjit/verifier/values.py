"""What a register, or a word of a frame, may hold: a scalar, or a pointer of some kind.

Scalars remember what they were made of, so that those whose exact value mattered (a length, a bound, a branch
that went one way only) can be told, and those before them: states are compared by these alone (Linux:
precision marks).
"""

from __future__ import annotations

from itertools import count
from typing import Any

from ebpfjit.verifier.numbers import DOMAIN, Number

fresh = count(1).__next__
"""Gives a number that nothing else has."""


class Scalar:
    """A number, or what no pointer is known to be.

    `parents` are the scalars that it was made of. `precise` is True where its exact value mattered. Scalars
    of one `link` differ by their `delta`s: what a comparison says of one is so of all. Of one that `is_half`
    that holds for the low half, and the upper is zero.
    """

    __slots__ = ("delta", "is_half", "link", "number", "parents", "precise")

    def __init__(
        self,
        number: Number,
        parents: tuple[Scalar, ...] = (),
        link: int = 0,
        delta: int = 0,
        *,
        is_half: bool = False,
    ) -> None:
        self.number = number
        self.parents = parents
        self.precise = False
        self.link = link or fresh()
        self.delta = delta
        self.is_half = is_half

    def __repr__(self) -> str:
        number = self.number
        return f"<Scalar {number.value if number.is_known else number.fields()}>"


class Poison(Scalar):
    """What an instruction gives that was refused: whatever is done with it, nothing more is said."""

    __slots__ = ()


class Stale(Scalar):
    """What was a pointer until a call made it void: some number; `why` says more."""

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        super().__init__(DOMAIN.unknown)
        self.why = why


def known(number: int) -> Scalar:
    """Return the scalar that is `number`."""
    return Scalar(DOMAIN.known(number))


def unknown() -> Scalar:
    """Return a scalar of which nothing is known."""
    return Scalar(DOMAIN.unknown)


def poison() -> Poison:
    """Return what a refused instruction gives."""
    return Poison(DOMAIN.unknown)


def mark_precise(scalar: Scalar) -> None:
    """Say that the exact value of a scalar mattered, and so those that it was made of."""
    todo = [scalar]
    while todo:
        each = todo.pop()
        if not each.precise:
            each.precise = True
            todo.extend(each.parents)
            each.parents = ()


class Pointer:
    """A pointer; not to be changed.

    `kind` is Linux's type of it (PTR_TO_ in lower case): ctx, stack, packet, packet_meta, packet_end,
    map, map_key, map_value, mem, flow_keys, socket, sock_common, tcp_sock, xdp_sock, btf_id, func, arena,
    tp_buffer, buf. It points `off` + `var` bytes behind the start of `what`: a map, the number of a
    frame, the name of a struct, a slot of the program. `size` counts the bytes of a mem. `id` is that of
    all pointers with the same `var`, or that are null or not together (`null`: it may be). `range` is how
    many bytes of the packet, from `var` on, are there. `ref` is the reference that it holds (0: none).
    `flags` are rdonly, trusted, rcu, alloc, ringbuf, percpu.
    """

    __slots__ = ("flags", "id", "kind", "null", "off", "range", "ref", "size", "var", "what")

    def __init__(
        self,
        kind: str,
        what: Any = None,
        *,
        off: int = 0,
        var: Number | None = None,
        size: int = 0,
        id: int = 0,
        null: bool = False,
        range: int = 0,
        ref: int = 0,
        flags: frozenset[str] = frozenset(),
    ) -> None:
        self.kind = kind
        self.what = what
        self.off = off
        self.var = var
        self.size = size
        self.id = id
        self.null = null
        self.range = range
        self.ref = ref
        self.flags = flags

    def but(self, **changes: Any) -> Pointer:
        """Return a pointer that is this one but for `changes`."""
        made: Pointer = object.__new__(Pointer)
        for name in Pointer.__slots__:
            setattr(made, name, changes[name] if name in changes else getattr(self, name))
        return made

    @property
    def lowest(self) -> int:
        """The least distance from the start of what it points to."""
        return self.off + (self.var.smin if self.var is not None else 0)

    @property
    def highest(self) -> int:
        """The greatest distance from the start of what it points to."""
        return self.off + (self.var.umax if self.var is not None else 0)

    def __repr__(self) -> str:
        said = {name: getattr(self, name) for name in Pointer.__slots__ if name not in ("kind", "what")}
        return f"<Pointer {self.kind} {self.what!r} { {k: v for k, v in said.items() if v} }>"


Value = Scalar | Pointer | None
"""What a register holds; None: nothing was written to it."""


class Cell:
    """Eight bytes of a frame.

    `kinds` has a letter for each byte: `?` never written, `m` some number, `0` zero, `s` part of `value`,
    which lies from byte 0 on; `d` dynptr, `i` iterator, `q` saved interrupt flags, of which `value` says
    more. `read` is True where what it holds mattered; `parent` is the cell that it is a copy of.
    """

    __slots__ = ("kinds", "parent", "read", "value")

    def __init__(self, kinds: str, value: Any = None, parent: Cell | None = None) -> None:
        self.kinds = kinds
        self.value = value
        self.parent = parent
        self.read = False

    def mark_read(self) -> None:
        """Say that what it holds mattered, here and where it comes from."""
        cell: Cell | None = self
        while cell is not None and not cell.read:
            cell.read = True
            above, cell.parent = cell.parent, None
            cell = above

    @property
    def spilled(self) -> Value:
        """The register that it holds, None where it holds none."""
        return self.value if self.kinds[0] == "s" else None
