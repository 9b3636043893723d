"""What passes, lowering and the host ask of a machine, whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from ebpfjit.program import Program
from ebpfjit.record import record
from ebpfjit.translators.context import Context
from ebpfjit.translators.emitter import Emitter
from ebpfjit.translators.host import Layout
from ebpfjit.translators.plan import Plan, Settings

SPILLED = 32
"""Places of values from here on are words of the machine's stack."""


@record
class Registers:
    """The registers for values, by number: so many (`count`), of which 0 to 10 are the homes of r0 to r10.

    `scratch` is one that moves may use in between. `kept` (a mask) are those that helpers keep; `extra` are
    those that are no register's home, which some operations need for themselves. `spare` is never a home: it
    is for the address of a call. Those that are `reserved` (a mask) get no values but where a function or
    a call has them.
    """

    count: int
    scratch: int
    kept: int
    extra: int
    spare: int
    reserved: int = 0


class Routine(Protocol):
    """What stands around a bare function."""

    def enter(self, cx: Context) -> None:
        """Emit its entry."""

    def leave(self, cx: Context) -> None:
        """Emit what comes before an exit."""


@record
class Machine:
    """A machine that programs are translated for.

    `homes` are the names of the registers of r0 to r10; `others` says what the rest is for. `block` is the
    register that points to the run's block. `values` are the registers for values, `audited` those of audit
    builds. `features` are CPU features, by the kernel's names, that translators know to use.
    `context(program, frame_sizes, plan, settings)` is what they write to; `routine(written, depth)` stands
    around a bare function that writes these registers and touches so many bytes below r10. `emit_routines`
    writes what all programs share, of which they reach `shared` through stubs, and `gate_size` bytes are
    what it keeps of a call; `emit_clock` writes what tells the time of a clock. `operand_bits(template)`
    is the width of a line's first operand.
    """

    name: str
    homes: tuple[str, ...]
    others: Mapping[str, str]
    block: str
    values: Registers
    audited: Registers
    features: frozenset[str]
    context: Callable[[Program, Mapping[int, int], Plan, Settings], Context]
    routine: Callable[[Collection[int], int], Routine]
    emit_routines: Callable[[Emitter, Layout], None]
    emit_clock: Callable[[Emitter, int], None]
    operand_bits: Callable[[str], int]
    shared: tuple[str, ...]
    gate_size: int
