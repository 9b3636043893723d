"""Modules that are large, imported by the tests that need them and not when tests are collected.

Each process that forks children pays for what it holds, at every fork: pd = Lazy("pandas").
"""

from __future__ import annotations

import importlib
from typing import Any


class Lazy:
    """A module that is imported when something of it is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # pytest, which looks at all that a file has
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self._name), attribute)
