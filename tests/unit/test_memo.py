"""Tables of what was worked out before: bounded, and emptied all at once."""

from __future__ import annotations

import pytest

from ebpfjit import memo
from ebpfjit.memo import Memo, forget


def test_a_table_that_is_too_large_is_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memo, "MOST", 3)
    table: Memo[int, str] = Memo()
    for number in range(8):
        assert len(table.trim(1)) == number
        table[number] = str(number)
    assert table.trim(2) is table
    assert table, "a program of two instructions may be what left it"
    assert table.trim(1) is table
    assert not table


def test_all_tables_are_forgotten_at_once() -> None:
    tables: list[Memo[int, int]] = [Memo(), Memo()]
    for table in tables:
        table[1] = 2
    forget()
    assert tables == [{}, {}]
