"""x86-64: every translator, registered by importing this package."""

from ebpfjit.translators.x86_64 import (
    alu,
    atomic,
    call,
    counts,
    gate,
    host,
    jump,
    leaves,
    maps,
    memory,
    routine,
    target,
    values,
    vectors,
)

__all__ = [
    "alu",
    "atomic",
    "call",
    "counts",
    "gate",
    "host",
    "jump",
    "leaves",
    "maps",
    "memory",
    "routine",
    "target",
    "values",
    "vectors",
]
