"""What analysis and the runtime tell the translators: how accesses are checked, what is paid where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from ebpfjit.record import record


@record
class Check:
    """How an access is checked: the bytes from `low` to `high`, counted from its own address.

    `region` is what is tried first: "argument", "packet" or "stack" (the running function's frame,
    `frame_size` bytes). `behind` is, where analysis knows, how many bytes behind the start of the
    argument the span ends at most (it does not start before it), 0 where not. Where `merged`, the
    check stands for others too, and where it fails the program goes on in the copy that checks one
    by one.
    """

    region: str
    low: int
    high: int
    stores: bool
    frame_size: int
    behind: int
    merged: bool = False


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
    audits: tuple[tuple[int, int], ...] = ()
    address: int = 0


@dataclass(frozen=True, slots=True)
class Sweep:
    """Bytes that must be the program's before a loop is entered.

    The sum of `terms` (registers of the program, and what each is multiplied by: 1, 2, 4 or 8) plus `offset`
    is where `size` of them start; for each byte that the loop's counter gets further there are `factor` more,
    before them where it is negative. They are all in `region` ("argument" or "packet").
    """

    terms: tuple[tuple[int, int], ...]
    offset: int
    size: int
    factor: int
    stores: bool
    region: str


@dataclass(frozen=True, slots=True)
class Border:
    """`register` (of the program) + `offset` is to be at most, or at least, `number` (u64)."""

    register: int
    offset: int
    is_most: bool
    number: int


@dataclass(frozen=True, slots=True)
class Predicate:
    """What is asked where a loop is entered; where it does not hold, the loop checks one by one.

    `minuend` - `subtrahend` + `plus` (registers of the program, None for zero) is how far the counter
    gets, rounded down to a multiple of `unit`, a power of two; where it is `exact` it must be one. `border`
    must hold as well. `slots` are those of the loop's instructions: who comes from there does not ask again.
    """

    slots: frozenset[int]
    minuend: int | None
    subtrahend: int | None
    plus: int
    unit: int
    exact: bool
    border: Border | None
    sweeps: tuple[Sweep, ...]


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
    """What analysis found: how each access is checked, and which frames must be zeroed.

    `checks` holds the accesses (by pc) that are checked, `single` how they are in a copy that
    checks one by one. `zeroed` are functions, by pc. `doubtful` are basic
    blocks that rely on merged checks of earlier ones. `paid` are the instructions that each tested
    basic block (by pc) pays for at its start, `through` and `taken` those that are paid behind the
    last instruction of a block (by its pc), on the way to the next one or where it jumps. `writes` are
    the registers of r6 to r9 that a call of a function (by pc) changes, all where it is not there.
    Where `bounded` no call is too deep; `frameless` functions need no frame. `map_calls` are the calls
    of map helpers (by pc) that need no Python. `own` are the instructions that basic blocks pay for which are
    not tested, where each pays for itself. `predicates` are what is asked before loops, by the pc where
    they are entered. `relying` are those of the doubtful blocks that rely on more than such a question.
    Where it `is_called_back` something outside may call functions of the program.
    Where it `is_audited`, `audits` are accesses (by pc) that are checked once more, by themselves, in both
    copies; frames are counted where that seems needless, and filled with POISON where they are not zeroed.
    `kernel_loads` are loads (by pc) through pointers of the kernel's, whatever else is checked. `arena` is
    there where the program has pointers into one.
    `struct_rights` say what accesses there may be where r1 points at the start, by offset: loads of 1, 2, 4
    or 8 bytes in the low half of each byte, stores in the high one; empty where nothing is said.
    """

    checks: Mapping[int, Check]
    single: Mapping[int, Check]
    zeroed: frozenset[int]
    doubtful: frozenset[int]
    paid: Mapping[int, int]
    through: Mapping[int, int]
    taken: Mapping[int, int]
    writes: Mapping[int, frozenset[int]]
    bounded: bool
    frameless: frozenset[int]
    map_calls: Mapping[int, MapCall] = field(default_factory=dict)
    predicates: Mapping[int, Predicate] = field(default_factory=dict)
    own: Mapping[int, int] = field(default_factory=dict)
    relying: frozenset[int] = frozenset()
    is_called_back: bool = False
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
    function may end, are the runtime's constants. `trace` is the address of a trace's header (`trace.py`), 0
    for code that records nothing.
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
