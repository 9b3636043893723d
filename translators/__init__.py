"""Translators: from one eBPF instruction to the assembly text of a machine.

registry.py     which function translates which operation, for each machine
block.py        what all machines' code shares with its host; labels.py, host.py
emitter.py      the text a translator writes, and the listing it becomes
x86_64/         a folder for each machine: target, alu, jump, memory, atomic, call
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ebpfjit.translators.machine import Machine

MACHINES = {"x86_64": "x86_64", "amd64": "x86_64"}
"""The folder of each machine there is, by the names that hosts have for it."""


FEATURES = {"x86_64": frozenset({"bmi2", "movbe"})}
"""The CPU features, by the kernel's names, that a machine's translators know to use."""


def machine_of(name: str) -> Machine:
    """Return a machine; its translators are imported with it. Raises KeyError where there is none."""
    import_module(f"ebpfjit.translators.{MACHINES[name]}")
    machine: Machine = import_module(f"ebpfjit.translators.{MACHINES[name]}.machine").MACHINE
    return machine
