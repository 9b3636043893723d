"""What functions take by name that hand it on to others: for the type checker alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from ebpfjit.arguments import Helpers, Kfuncs
    from ebpfjit.elf.btf import Btf
    from ebpfjit.elf.loader import Source
    from ebpfjit.fuzzing.predicate import Predicate
    from ebpfjit.fuzzing.samples import Sizes
    from ebpfjit.literals import EngineName, Types
    from ebpfjit.program import Program
    from ebpfjit.runtime.environment import Environment


class LoadOptions(TypedDict, total=False):
    """What `load` takes besides its source."""

    btf: Btf | Source | None
    environment: Environment | None
    types: Types
    kconfig: Mapping[str, Any] | None
    maps: Mapping[str, Any] | None
    pins: MutableMapping[str, Any] | None
    only: Iterable[str] | None
    strict: bool


class GivenOptions(TypedDict, total=False):
    """What `Program.run` and `Program.compile` take alike, but for how often."""

    limit: int | None
    context: Mapping[str, Any] | None
    environment: Environment | None
    helpers: Helpers | None
    kfuncs: Kfuncs | None


class RunOptions(GivenOptions, total=False):
    """What `Program.run` takes besides data."""

    engine: EngineName | None
    repeat: int


class CallOptions(TypedDict, total=False):
    """What `SeccompProgram.decide` takes besides the call: a filter has no context to set fields of."""

    engine: EngineName | None
    limit: int | None
    environment: Environment | None
    helpers: Helpers | None
    kfuncs: Kfuncs | None
    repeat: int


class FuzzOptions(TypedDict, total=False):
    """What `fuzz` takes besides a program, and `ebpf_fuzz` hands on."""

    check: str | Predicate | None
    against: Program | None
    seconds: float | None
    runs: int | None
    seed: int
    packets: Iterable[bytes]
    limit: int
    changes_maps: bool
    sizes: Sizes | None
    compare_engines: bool
