"""What a program's text is made from, and that text: `Recipe`, `Listing`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.entries import Callers, Entries
from ebpfjit.analysis.verified import Verified
from ebpfjit.jit import cpu
from ebpfjit.options import DEFAULTS, Options
from ebpfjit.record import dataclass, field, lazy, replace
from ebpfjit.runtime.execution import CODE_ADDRESS, MAX_LOOPS
from ebpfjit.runtime.helpers.names import NAMES, NUMBERS

if TYPE_CHECKING:
    from ebpfjit.optimizer.remarks import Remark
    from ebpfjit.translators.block import Limit
    from ebpfjit.translators.emitter import Part, Piece, Text
    from ebpfjit.translators.plan import Settings

TAIL_CALL = NUMBERS["bpf_tail_call"]


@dataclass(frozen=True)
class Listing:
    """A program as assembly text, the cold pieces last.

    `limits` are the words that the host puts behind the block, in order. `notes` say of each access (by pc)
    why it is checked or not. `resumes` are the pcs where a run of baseline code can go on; at those of
    `returns` it calls functions. `why_baseline` is that of the recipe. From the piece `baseline_from` on it
    is baseline code, for side exits; of that `notes_below` say how its accesses are checked. From the piece
    `cold_from` on it is out of line, of baseline code from `cold_baseline_from` on. `remarks` are what passes
    left alone, `in_code` the calls (by pc) of helpers that machine code does by itself where it can.
    """

    verified: Verified
    text: Text
    limits: tuple[Limit, ...]
    notes: dict[int, str]
    harden: bool = False
    resumes: tuple[int, ...] = ()
    returns: tuple[int, ...] = ()
    why_baseline: str = ""
    baseline_from: int | None = None
    notes_below: dict[int, str] = field(default_factory=dict)
    remarks: tuple[Remark, ...] = ()
    cold_from: int = 0
    cold_baseline_from: int = 0
    in_code: frozenset[int] = frozenset()

    @property
    def parts(self) -> list[Part]:
        """What the text consists of."""
        return self.text.parts

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The text, piece by piece, for who reads it."""
        return self.text.pieces


@dataclass(frozen=True)
class Recipe:
    """All that a listing is made from.

    `helpers` and `kfuncs` are the numbers that are registered; True for native code, False for what the host
    must call. `why_baseline` says why the program is not optimised though that was asked for.
    """

    verified: Verified
    options: Options = DEFAULTS
    helpers: Mapping[int, bool] = field(default_factory=dict)
    kfuncs: Mapping[int, bool] = field(default_factory=dict)
    why_baseline: str = ""

    @lazy
    def promises(self) -> Promises:
        """What every run will have: where nothing says which helpers may call the program, all may."""
        promises = self.options.promises
        if promises.calling is not None:
            return promises
        return replace(promises, calling=frozenset(self.helpers))

    @property
    def features(self) -> frozenset[str]:
        """The CPU features that the code may use: those of this processor, where none are named."""
        return cpu.features() if self.options.features is None else self.options.features

    @lazy
    def settings(self) -> Settings:
        """What translators read, the runtime's constants filled in."""
        from ebpfjit.translators.plan import Settings  # an image is loaded without its text

        options, calling = self.options, self.promises.calling
        assert calling is not None  # it was filled in
        return Settings(
            self.features,
            options.harden,
            self.helpers,
            self.kfuncs,
            calling,
            MAX_LOOPS,
            CODE_ADDRESS,
            TAIL_CALL,
            options.trace,
            {number: NAMES[number].removeprefix("bpf_") for number in options.packet_helpers},
        )

    @property
    def is_optimized(self) -> bool:
        """True for code that the optimizer makes; traces and reasons want every instruction in its place."""
        options = self.options
        return bool(options.optimize and not options.trace and not options.reasons)

    @lazy
    def callers(self) -> Callers:
        """What calls the program's functions, as its helpers are: an image is loaded without its entries."""
        return Callers(self.verified.program, self.promises.calling)

    @lazy
    def entries(self) -> Entries:
        """The ways into the program, as its helpers are."""
        return self.verified.entries_with(self.promises.calling)

    def baseline(self, reason: str) -> Recipe:
        """Return the recipe of the same program's baseline code, which is taken for a reason."""
        options = replace(self.options, optimize=False, resumes=frozenset())
        return replace(self, options=options, why_baseline=reason)
