"""What analysis and the runtime tell the translators: how accesses are checked, what calls need no Python."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from ebpfjit.record import dataclass, field, record


@record
class Check:
    """How an access of `size` bytes is checked.

    `region` is what is tried first: "argument", "packet" or "stack" (the running function's frame,
    `frame_size` bytes).
    """

    region: str
    size: int
    stores: bool
    frame_size: int


@record
class Audit:
    """What audit builds check at an access besides: `size` bytes at its own address."""

    size: int
    stores: bool


class MapOperation(Enum):
    """What a helper does to a map."""

    LOOKUP = "lookup"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class MapCall:
    """One call, and the map it works on, whose address is in r1.

    `key_size` and `value_size` are bytes to check behind r2 and r3, 0 for none. `routine` is the
    routine's name, "" where none is needed. `values` is where an array's values are, 0 where the
    header knows (per-CPU values), `stride` the bytes from one to the next, `entries` how many there
    are. `frame_size` bytes below r10 are surely the program's (0: nothing is known). `busy` is where
    the header says (u32) that Python is changing the map, 0 where that does not matter. Of audit builds
    `audits` are arguments with the bytes that must be readable there, `address` is what r1 must be, 0 for
    anything.
    """

    operation: MapOperation
    key_size: int
    value_size: int
    routine: str
    values: int
    entries: int
    stride: int
    frame_size: int
    busy: int
    guard: int = 0
    lengths: int = 0
    bits: int = 0
    locks: bool = False
    only_reads: bool = False
    audits: tuple[tuple[int, int], ...] = ()
    address: int = 0


@record
class ArenaPlan:
    """A program's arena: where its descriptor is, and the upper half of a user's pointers (0: none).

    `accesses` are those to it (by pc), with whether they surely are, or perhaps are the program's memory's.
    """

    descriptor: int
    upper: int
    accesses: Mapping[int, bool]


@record
class Plan:
    """What is known of a program: how each access is checked, and which frames must be zeroed.

    `checks` holds the accesses (by pc) that are checked. `zeroed` are functions, by pc. Where `bounded` no
    call is too deep; `frameless` functions need no frame. `map_calls` are the calls of map helpers (by pc)
    that need no Python. Where it `is_called_back` something outside may call functions of the program.
    Where runs are counted, `segments` start at these slots, and `branches` count when they are not taken.
    `reasons` are registers, and words of the frame, that get a reason at a pc: that pc (None), or another's.
    Where it `is_audited`, `audits` are accesses (by pc) that are checked once more; frames are counted where
    that seems needless, and filled with POISON where they are not zeroed.
    `kernel_loads` are loads (by pc) through pointers of the kernel's, whatever else is checked. `arena` is
    there where the program has pointers into one.
    `struct_rights` say what accesses there may be where r1 points at the start, by offset: loads of 1, 2, 4
    or 8 bytes in the low half of each byte, stores in the high one; empty where nothing is said.
    """

    checks: Mapping[int, Check]
    zeroed: frozenset[int]
    bounded: bool = False
    frameless: frozenset[int] = frozenset()
    map_calls: Mapping[int, MapCall] = field(default_factory=dict)
    is_called_back: bool = False
    segments: frozenset[int] = frozenset()
    branches: frozenset[int] = frozenset()
    reasons: Mapping[int, tuple[tuple[int, int | None], ...]] = field(default_factory=dict)
    is_audited: bool = False
    audits: Mapping[int, Audit] = field(default_factory=dict)
    kernel_loads: frozenset[int] = frozenset()
    struct_rights: bytes = b""
    arena: ArenaPlan | None = None

    @property
    def counts_frames(self) -> bool:
        """True where local calls look whether there is a frame left."""
        return self.is_audited or not self.bounded

    @property
    def depth_fault(self) -> str:
        """The fault of a call that finds none."""
        return "audit_depth" if self.bounded else "depth"


@record
class Settings:
    """What the text depends on besides the program.

    `features` are CPU features by the kernel's names ("bmi2", "movbe"). With `harden` no immediate
    of the program's choosing appears in the code. `helpers` and `kfuncs` are the numbers that are
    registered; True for native code, False for what the host must call. `calling` are those helpers that may
    call functions of the program. `max_loops`, `code_address` and `tail_call`, the helper after which a
    function may end, are the runtime's constants. `packet_helpers` are the helpers (by number) of which a
    routine (`x86_64.packets`) is called first, by its name. `trace` is the address of a trace's header
    (`trace.py`), 0 for code that records nothing.
    """

    features: frozenset[str]
    harden: bool
    helpers: Mapping[int, bool]
    kfuncs: Mapping[int, bool]
    calling: frozenset[int]
    max_loops: int
    code_address: int
    tail_call: int
    trace: int = 0
    packet_helpers: Mapping[int, str] = field(default_factory=dict)
