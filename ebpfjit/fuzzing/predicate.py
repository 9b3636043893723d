"""What must hold of a run, as text that a user writes: `action != XDP_ABORTED and len(packet) > 13`.

Comparisons, arithmetic, `and`, `or`, `not`, `in`, subscripts and some functions, over these names:

    action          the verdict's name ("XDP_PASS"), None where it has none
    return_value    r0
    packet, data    the packet before and after the run, bytes
    maps            the maps by name, values of their types: maps["counters"][0] (None: nothing is there)
    globals         the variables by name: globals["drops"]
    context         fields of the context after the run, by name
    output, events  lines that were printed; what went to ring buffers: (map name, bytes)
    XDP_DROP, ...   names of verdicts

len, sum, min, max, any, all, abs as in Python; keys(maps["m"]), values(maps["m"]); u8, u16, u32(packet, 12)
are numbers of a packet in network order.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ebpfjit.errors import EbpfError, InputError
from ebpfjit.fuzzing.contexts import without_metadata
from ebpfjit.fuzzing.observed import state_of
from ebpfjit.named import absent
from ebpfjit.program import Program
from ebpfjit.runtime.contexts.types import TYPES

NAMES = ("action", "return_value", "packet", "data", "maps", "globals", "context", "output", "events")
CHEAP = frozenset({"action", "return_value"})
"""Names that a verdict alone tells."""
VERDICTS = frozenset(name for type_ in TYPES.values() for name in type_.actions.values())
"""Names of verdicts, of all types: a name misspelt would hold of no run, or of each."""
OF_RESULT = frozenset({"data", "context", "output", "events"})
OF_STATE = OF_RESULT | {"maps", "globals"}
"""Names that mean something else after the next run."""


def _network(size: int) -> Callable[[bytes, int], int]:
    def number(data: bytes, offset: int) -> int:
        if not 0 <= offset <= len(data) - size:
            raise IndexError(f"no {size} bytes at {offset} of {len(data)}")
        return int.from_bytes(data[offset : offset + size], "big")

    return number


_FUNCTIONS: Mapping[str, tuple[int, Callable[..., Any]]] = {
    "len": (1, len),
    "sum": (1, sum),
    "min": (1, min),
    "max": (1, max),
    "any": (1, any),
    "all": (1, all),
    "abs": (1, abs),
    "keys": (1, list),
    "values": (1, lambda map_: list(map_.values())),
    "u8": (2, _network(1)),
    "u16": (2, _network(2)),
    "u32": (2, _network(4)),
}
"""Functions by name: how many arguments, and what they do."""
_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.RShift: operator.rshift,
}
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda one, other: one in other,
    ast.NotIn: lambda one, other: one not in other,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
}
_ERRORS = (
    TypeError, ValueError, LookupError, ArithmeticError, RecursionError, MemoryError, AttributeError,
    EbpfError,
)  # fmt: skip
MOST = 1000
"""Characters of a predicate."""


def _alike(name: str) -> list[str]:
    """Return the verdicts that a name may have meant: those that begin as it does, else all."""
    begins = name.split("_")[0] + "_"
    return sorted(each for each in VERDICTS if each.startswith(begins)) or sorted(VERDICTS)


class Predicate:
    """What must hold of each run. Raises InputError for a text that is none, naming the place."""

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > MOST:
            raise InputError(f"a predicate has at most {MOST} characters, this one {len(text)}")
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._wrong(getattr(error, "msg", str(error)), getattr(error, "offset", None)) from None
        names: set[str] = set()
        called = {id(node.func) for node in ast.walk(self._tree) if isinstance(node, ast.Call)}
        for node in ast.walk(self._tree):
            if not (id(node) in called and isinstance(node, ast.Name) and node.id in _FUNCTIONS):
                self._check(node, names)
        self.maps = frozenset(
            node.slice.value
            for node in ast.walk(self._tree)
            if isinstance(node, ast.Subscript)
            and isinstance(node.value, ast.Name)
            and node.value.id == "maps"
            and isinstance(node.slice, ast.Constant)
            and isinstance(node.slice.value, str)
        )
        """Names of the maps that it is about."""
        self.verdicts = names & VERDICTS
        """Names of the verdicts that it is about."""
        names -= VERDICTS
        self.is_cheap = names <= CHEAP
        self.needs_state = bool(names & OF_STATE)
        self.needs_result = bool(names & OF_RESULT)

    def _wrong(self, why: str, column: int | None) -> InputError:
        caret = "" if column is None else f"\n  {self.text.strip()}\n  {' ' * (column - 1)}^"
        return InputError(f"the predicate {self.text!r}: {why}{caret}")

    def _check(self, node: ast.AST, names: set[str]) -> None:
        """Raise InputError for what is not said in predicates."""
        column = getattr(node, "col_offset", -1) + 1 or None
        match node:
            case ast.Name(id=name) if name in NAMES or name in VERDICTS:
                names.add(name)
            case ast.Name(id=name) if name.isupper():
                raise self._wrong(absent(name, "verdict", _alike(name)), column)
            case ast.Name(id=name):
                raise self._wrong(f"no name {name!r}; there are {', '.join((*NAMES, *_FUNCTIONS))}", column)
            case ast.Call(func=ast.Name(id=name), args=given, keywords=[]) if name in _FUNCTIONS:
                if len(given) != _FUNCTIONS[name][0] or any(isinstance(each, ast.Starred) for each in given):
                    raise self._wrong(f"{name} takes {_FUNCTIONS[name][0]} arguments", column)
            case ast.Constant(value=value) if not isinstance(value, int | str | bytes | None):
                raise self._wrong(f"{value!r} is no number, text or bytes", column)
            case (
                ast.BoolOp() | ast.Compare() | ast.Subscript() | ast.Slice() | ast.Name() | ast.Constant()
                | ast.IfExp() | ast.Tuple() | ast.List() | ast.expr_context() | ast.boolop()
            ):  # fmt: skip
                pass
            case ast.BinOp(op=op) if type(op) in _BINARY:
                pass
            case ast.UnaryOp(op=op) if type(op) in _UNARY:
                pass
            case ast.operator() | ast.cmpop() | ast.unaryop():
                pass
            case _:
                raise self._wrong(f"{type(node).__name__.lower()} is not said in predicates", column)

    def check_verdicts(self, actions: Collection[str], type_name: str | None) -> None:
        """Raise InputError for verdicts that a type's programs never have.

        `actions` are the names that they have, and `type_name` is for the message: None without a type.
        """
        for name in sorted(self.verdicts.difference(actions)):
            of = "programs without a type" if type_name is None else f"{type_name} programs"
            known = f"they have {', '.join(actions)}" if actions else "they have none: ask return_value"
            raise self._wrong(f"{name} is no verdict of {of}; {known}", None)

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Return whether it holds; `values` are by NAMES. Raises InputError where it cannot be told."""
        try:
            return bool(self._value(self._tree, values))
        except _ERRORS as error:
            raise InputError(
                f"the predicate {self.text!r} cannot be told: {type(error).__name__}: {error}"
            ) from None

    def of_result(
        self, result: Any, packet: bytes, program: Program, context: Mapping[str, Any] | None = None
    ) -> bool:
        """Return whether it holds of a run, by its `result` and its program's maps as they are.

        `packet` and `context` are what it was given.

        Raises InputError where it cannot be told.
        """
        told = {name: getattr(result, name) for name in ("action", "return_value", *OF_RESULT)}
        packet = without_metadata(packet, context)
        return self.holds({**told, "packet": packet, **state_of(program)})

    def _value(self, node: ast.expr | None, values: Mapping[str, Any]) -> Any:
        match node:
            case None:
                return None
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return values[name] if name in NAMES else name
            case ast.BoolOp(op=op, values=parts):
                found: Any = isinstance(op, ast.And)
                for part in parts:
                    found = self._value(part, values)
                    if bool(found) is not isinstance(op, ast.And):
                        break
                return found
            case ast.Compare(left=left, ops=ops, comparators=others):
                one = self._value(left, values)
                for relation, other in zip(ops, others, strict=True):
                    two = self._value(other, values)
                    if not _COMPARE[type(relation)](one, two):
                        return False
                    one = two
                return True
            case ast.BinOp(left=left, op=op, right=right):
                return _BINARY[type(op)](self._value(left, values), self._value(right, values))
            case ast.UnaryOp(op=op, operand=operand):
                return _UNARY[type(op)](self._value(operand, values))
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self._value(body if self._value(test, values) else orelse, values)
            case ast.Call(func=ast.Name(id=name), args=given):
                return _FUNCTIONS[name][1](*(self._value(each, values) for each in given))
            case ast.Subscript(value=of, slice=index):
                return self._value(of, values)[self._value(index, values)]
            case ast.Slice(lower=lower, upper=upper, step=step):
                return slice(*(self._value(each, values) for each in (lower, upper, step)))
            case ast.Tuple(elts=elements) | ast.List(elts=elements):
                return tuple(self._value(each, values) for each in elements)
        raise AssertionError(node)  # nothing else was let through
