"""What a program is compiled with: made where that is asked for, and carried as it is to whoever reads it.

Program.compile, a machine   what its user chose         Options(checked, harden, release_gil, ...)
ready, vm, compiling         and what every run has      replace(options, promises=..., map_helpers=...)
compile_program -> Recipe    read by analysis, translators, the cache's key, the gate, pickles
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ebpfjit.analysis.accesses import Promises
from ebpfjit.record import record, replace

if TYPE_CHECKING:
    from ebpfjit.jit.image import Image
    from ebpfjit.jit.recipe import Recipe


NOTHING_PROMISED = Promises()


class Cache(Protocol):
    """Where images are kept."""

    def find(self, recipe: Recipe) -> Image | None:
        """Return the image that a recipe makes, None where it is not here."""

    def keep(self, recipe: Recipe, image: Image) -> None:
        """Keep an image, or do not."""


CHOSEN = ("checked", "harden", "release_gil", "optimize", "audit")
"""The options that users choose; the library says the others."""


@record
class Options:
    """What a program is compiled with.

    Without `checked` memory accesses are not checked: a wrong program can crash the process. `harden` blinds
    constants (two more instructions for each immediate) and puts guard pages around the code (two pages of
    address space). With `release_gil` Python's other threads run meanwhile. Without `optimize` the program is
    translated as it stands, which takes a fraction of the time; None leaves it open: so at first,
    and optimised one day (`jit/tiers.py`). With `audit` what analysis found is looked at when it is relied
    on, and AuditFailure raised where it does not hold.

    `promises` are what every run will have. `map_helpers` are those of 1, 2 and 3 that are Linux's, which
    machine code does by itself on maps that it knows, `packet_helpers` those of Linux's that it does where
    nothing is unusual. Where the program `is_sound`, the structural verifier
    is asked before it is translated: then control does not fall off the end. At the tested blocks `resumes`,
    by pc, runs of other code of the program may go on in this; `limits` are those of that code, which stay
    where they are. `features` are CPU features to use, by Linux's
    names ("bmi2", "movbe"), None for those that the processor has. `trace` is the address of a trace's
    header: such code records every step there (`ebpfjit/difftest/trace.py`). `counted` code counts what is
    executed (`ebpfjit/runtime/counters.py`). With `reasons` baseline code remembers which instruction set the
    result (`ebpfjit/analysis/reasons.py`). `cache` is where the image is
    looked for first, and kept; with `keeps_text` the text that it is made of stays beside it, whatever its
    size. Optimised code is made by these `passes` of the optimizer, None for all, of which "slots" are one.
    `why_unproven` says why nothing is relied on of a verdict that was given, "" where there was none.

    Raises ValueError for an audit of checks that are not there.
    """

    checked: bool = True
    harden: bool = False
    release_gil: bool = False
    optimize: bool | None = True
    audit: bool = False
    promises: Promises = NOTHING_PROMISED
    map_helpers: frozenset[int] = frozenset()
    packet_helpers: frozenset[int] = frozenset()
    is_sound: bool = False
    resumes: frozenset[int] = frozenset()
    limits: tuple[Any, ...] = ()
    features: frozenset[str] | None = None
    trace: int = 0
    counted: bool = False
    reasons: bool = False
    passes: frozenset[str] | None = None
    cache: Cache | None = None
    keeps_text: bool = False
    why_unproven: str = ""

    def __post_init__(self) -> None:
        if self.audit and not self.checked:
            raise ValueError("audit=True is about checks that fall: with checked=False there are none")

    @property
    def better(self) -> Options:
        """What a program is compiled with that has become hot."""
        return replace(self, optimize=True)

    @property
    def chosen(self) -> dict[str, Any]:
        """What its user chose, by name."""
        return {name: getattr(self, name) for name in CHOSEN}


DEFAULTS = Options()
