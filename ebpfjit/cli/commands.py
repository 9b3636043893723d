"""The commands, in the order in which help lists them, and where each one's function is."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

from ebpfjit.cli.coverage import counted

COMMANDS = {
    #  command   module      function
    "run":     ("run",     "run"),
    "info":    ("info",    "info"),
    "filter":  ("filter",  "filter_"),
    "asm":     ("text",    "asm"),
    "disasm":  ("text",    "disasm"),
    "verify":  ("verify",  "verify"),
    "check":   ("check",   "check"),
    "listing": ("shown",   "listing"),
    "cost":    ("cost",    "cost"),
    "diff":    ("diff",    "diff"),
    "fuzz":    ("fuzz",    "fuzz"),
    "bench":   ("bench",   "bench"),
    "prove":   ("prove",   "prove"),
}  # fmt: skip
COUNTED = frozenset({"run", "diff", "fuzz"})
"""Those that take --cov besides."""


@cache
def function_of(command: str) -> Callable[..., Any]:
    """Return a command's function; its module is imported now."""
    module, name = COMMANDS[command]
    function: Callable[..., Any] = getattr(import_module(f"ebpfjit.cli.{module}"), name)
    return counted(function) if command in COUNTED else function
