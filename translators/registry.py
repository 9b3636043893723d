"""Which function translates which operation, for each machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ebpfjit.isa.spec import Row
from ebpfjit.isa.table import OPERATIONS
from ebpfjit.isa.unencoded import UNENCODED

Translator = Callable[[Any, Any], None]
"""translator(insn, cx): writes the text of one instruction; `cx` is the machine's emitter."""

KNOWN = (*OPERATIONS, *dict.fromkeys(row.operation for row in UNENCODED.values()))
"""The operations of the table, and those that only optimised code has."""

_TRANSLATORS: dict[str, dict[str, Translator]] = {}


def for_target(target: str) -> Callable[..., Callable[[Translator], Translator]]:
    """Return the `translates(*operations)` decorator of a machine."""
    table = _TRANSLATORS.setdefault(target, {})

    def translates(*operations: str) -> Callable[[Translator], Translator]:
        unknown = [name for name in operations if name not in KNOWN]
        assert not unknown, f"no such operation in the table: {unknown}"

        def register(translator: Translator) -> Translator:
            for operation in operations:
                assert operation not in table, f"{target} translates {operation} twice"
                table[operation] = translator
            return translator

        return register

    return translates


def translator_of(target: str, row: Row) -> Translator:
    """Return the translator of a row's operation. Raises KeyError where `missing` names it."""
    return _TRANSLATORS[target][row.operation]


def missing(target: str) -> list[str]:
    """Return the operations that a machine has no translator for; to be empty."""
    return [operation for operation in KNOWN if operation not in _TRANSLATORS.get(target, {})]
