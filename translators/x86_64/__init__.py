"""x86-64: every translator, registered by importing this package."""

from ebpfjit.translators.x86_64 import (
    alu,
    atomic,
    call,
    fusions,
    gate,
    gather,
    host,
    jump,
    leaves,
    maps,
    memory,
    pairs,
    routine,
    target,
    values,
)

__all__ = [
    "alu",
    "atomic",
    "call",
    "fusions",
    "gate",
    "gather",
    "host",
    "jump",
    "leaves",
    "maps",
    "memory",
    "pairs",
    "routine",
    "target",
    "values",
]
