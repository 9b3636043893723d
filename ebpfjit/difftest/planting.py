"""Ways to plant a bug: put something else in the place of what translators, analysis and runtime do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from ebpfjit.difftest.exchange import exchange
from ebpfjit.program import Instruction
from ebpfjit.record import dataclass
from ebpfjit.translators import registry, x86_64
from ebpfjit.translators.registry import Translator
from ebpfjit.translators.x86_64.target import Context

Plant = Callable[[], None]
_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class PlantedBug:
    """A bug by name, in one sentence, and what puts it in.

    `engines` are those that it makes differ, `sources` those of programs that are likely to (none: all).
    """

    name: str
    what: str
    plant: Plant
    engines: tuple[str, ...] = ("interpreter", "jit")
    sources: tuple[str, ...] = ()


@contextmanager
def replaced(cx: Context, name: str, method: Any) -> Iterator[None]:
    """Let a context have another method for a while."""
    vars(cx)[name] = method
    try:
        yield
    finally:
        del vars(cx)[name]


def translators_table() -> dict[str, Translator]:
    """The translators, by operation."""
    return registry._TRANSLATORS[x86_64.target.NAME]


def wrapped(operations: Iterable[str], wrap: Callable[[Translator], Translator]) -> Plant:
    """Put something around the translators of some operations."""

    def plant() -> None:
        table = translators_table()
        for operation in operations:
            table[operation] = wrap(table[operation])

    return plant


def only(operations: str, condition: Callable[[Instruction], bool], translator: Translator) -> Plant:
    """Translate instructions of some operations in another way where a condition holds."""

    def wrap(original: Translator) -> Translator:
        return lambda insn, cx: translator(insn, cx) if condition(insn) else original(insn, cx)

    return wrapped(operations.split(), wrap)


def text(
    operations: str, pattern: str, new: str, condition: Callable[[Instruction], bool] | None = None
) -> Plant:
    """Rewrite the lines of some operations; a line that becomes empty is left out."""

    def wrap(original: Translator) -> Translator:
        def translate(insn: Instruction, cx: Context) -> None:
            if condition is not None and not condition(insn):
                original(insn, cx)
                return
            emit = cx.emit

            def changed(template: str, **numbers: Any) -> None:
                text = re.sub(pattern, new, template)
                if text:
                    emit(text, **{k: v for k, v in numbers.items() if f"${k}" in text or k == "imm_sizes"})

            with replaced(cx, "emit", changed):
                original(insn, cx)

        return translate

    return wrapped(operations.split(), wrap)


def jumps(operations: str, old: str, new: str) -> Plant:
    """Make conditional jumps of some operations jump on another condition."""

    def wrap(original: Translator) -> Translator:
        def translate(insn: Instruction, cx: Context) -> None:
            goto = cx.goto
            with replaced(cx, "goto", lambda mnemonic, pc: goto(new if mnemonic == old else mnemonic, pc)):
                original(insn, cx)

        return translate

    return wrapped(operations.split(), wrap)


def numbers(operations: str, change: Callable[[Instruction], Instruction]) -> Plant:
    """Translate other fields than the instruction has."""

    def wrap(original: Translator) -> Translator:
        def translate(insn: Instruction, cx: Context) -> None:
            changed = change(insn)
            cx.start(changed)
            original(changed, cx)
            cx.start(insn)

        return translate

    return wrapped(operations.split(), wrap)


class _Altered:
    """An operation of Code with other fields, for translators."""

    def __init__(self, insn: Any, fields: dict[str, Any]) -> None:
        self._insn, self._fields = insn, fields

    def __getattr__(self, name: str) -> Any:
        return self._fields[name] if name in self._fields else getattr(self._insn, name)


def altered(insn: Any, **fields: Any) -> Any:
    """Return an instruction, or an operation of Code, with other fields."""
    return replace(insn, **fields) if isinstance(insn, Instruction) else _Altered(insn, fields)


def method(owner: type, name: str, around: Callable[[Any], Any]) -> Plant:
    """Put something around a method of a class."""
    return lambda: setattr(owner, name, around(getattr(owner, name)))


def function(old: Any, around: Callable[[Any], Any]) -> Plant:
    """Put something around a function, wherever it is named."""
    return lambda: exchange(old, around(old))


def mapped(mapping: dict[_Key, Any], key: _Key, value: Any) -> Plant:
    """Exchange an entry of a table."""
    return lambda: mapping.__setitem__(key, value)
