"""What machine code may rely on of a verdict: which accesses need no check there.

    Verdict       must be an acceptance of this very program, its maps, and the values in them that stay
    Ready         must have what the verdict took for granted: Linux's helpers, a context made by the runtime
    Proven.reaches -> the slots of accesses that lie in memory which every run has

What a verdict is not about raises ValueError. Programs of which our runtime does not vouch for all that the
verifier takes for granted (results of some helpers, kernel functions, contexts that callers lay out) rely on
nothing, and keep their checks: `Relied.why`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ebpfjit.once import import_alone, load_package
from ebpfjit.program import Program
from ebpfjit.ready import Ready, called_by
from ebpfjit.record import dataclass, fields
from ebpfjit.runtime.helpers import table
from ebpfjit.runtime.helpers.names import NAMES
from ebpfjit.runtime.maps.definition import MapFlag, MapType

if TYPE_CHECKING:
    from ebpfjit.runtime.environment import Environment
    from ebpfjit.verifier.proven import Proven, Reach
    from ebpfjit.verifier.verdict import Verdict

APART: Mapping[str, str] = {
    "name": "for messages",
    "lines": "for messages",
    "origin": "for messages",
    "environment": "what helpers see: that their results are any number, `_why_not` sees to",
    "refusals": "programs with any are not compiled",
    "unmet": "programs with any are not compiled, or kernel functions are given, and nothing is relied on",
    "maps": "each is to be the same object",
}
"""Fields in which a program may differ from the one that was verified, and why."""

SAME = frozenset({"types", "kernel_types"})
"""Fields that are to be the same objects."""

VALUES = frozenset({
    MapType.ARRAY, MapType.HASH, MapType.LRU_HASH, MapType.PERCPU_ARRAY, MapType.PERCPU_HASH,
    MapType.LRU_PERCPU_HASH, MapType.LPM_TRIE,
})  # fmt: skip
"""Maps whose values lie in memory that is there as long as the machine code."""

WITHOUT_TYPE = "a program without a type is given memory of any size"

LOOKING = frozenset({"bpf_map_lookup_elem"})
"""Helpers that give pointers to values of these maps, to all of a value and to nothing else."""

CALLING = frozenset({"bpf_loop"})
"""Helpers that call functions of the program with what the verifier says, and with nothing else."""


@dataclass(frozen=True, slots=True)
class Relied:
    """The slots of accesses that need no check; where there are none, `why`."""

    pcs: frozenset[int]
    why: str = ""


def relied_on(program: Program, start: Ready, verdict: Verdict, environment: Environment) -> Relied:
    """Return what the machine code of a program may rely on of a verdict on it.

    `start` is the program as it is about to be compiled, `environment` that of its runs. Raises TypeError for
    what is no verdict, and ValueError for one on something else.
    """
    proven = proven_by(verdict, program)
    called = called_by(program)
    own = table.ours(start.helpers, *called)
    for number in sorted(called - own):
        raise ValueError(
            f"the verdict is about Linux's {NAMES.get(number, f'helper {number}')}, and a function of yours "
            f"takes its place: compile without verdict=, or without the helper"
        )
    why = _why_not(start, proven, environment, called)
    if why:
        return Relied(frozenset(), why)
    pcs = frozenset(pc for pc, reach in proven.reaches.items() if _holds(start, reach))
    if any(proven.constants):
        for map_, constant in zip(program.maps, proven.constants, strict=True):
            if constant:
                map_.is_relied_on = True
        if _constants_of(program) != proven.constants:  # set meanwhile by another thread
            raise _other(program, "values of its read-only maps, which were set since then")
    return Relied(pcs)


def proven_by(verdict: Verdict, program: Program) -> Proven:
    """Return what a verdict on a program has proven.

    Raises TypeError for what is no verdict, and ValueError for one that does not accept this very program.
    """
    load_package("ebpfjit.verifier")
    import_alone("ebpfjit.verifier.verdict")
    from ebpfjit.verifier.verdict import Verdict

    if not isinstance(verdict, Verdict):
        raise TypeError(f"verdict= is what program.verify() returned, and not a {type(verdict).__name__}")
    name = program.name or "<unnamed>"
    if not verdict.is_accepted:
        raise ValueError(
            f"machine code relies on acceptances only, and the verdict on {name} is {verdict.status}: "
            f"compile without verdict="
        )
    proven: Proven | None = verdict.proven
    if proven is None:
        raise ValueError(f"the verdict on {name} has no proofs: take what program.verify() returned")
    differing = _differing(proven.program, program)
    if differing:
        raise _other(program, differing)
    if _constants_of(program) != proven.constants:
        raise _other(program, "values of its read-only maps, which were set since then")
    return proven


def _other(program: Program, differing: str) -> ValueError:
    name = program.name or "<unnamed>"
    return ValueError(f"the verdict is not on {name} as it is now: other {differing}; verify it again")


def _constants_of(program: Program) -> tuple[bytes, ...]:
    from ebpfjit.verifier.proven import constants_of

    return constants_of(program)


def _differing(verified: Program, program: Program) -> str:
    """Return in what a program differs from the one that was verified, "" where it is the same."""
    if verified is program:
        return ""
    maps = verified.maps, program.maps
    if len(maps[0]) != len(maps[1]) or any(a is not b for a, b in zip(*maps, strict=True)):
        return "maps"
    for each in fields(Program):
        if each.name in APART:
            continue
        a, b = getattr(verified, each.name), getattr(program, each.name)
        if (a is not b) if each.name in SAME else (_plain(a) != _plain(b)):
            return {"code": "instructions"}.get(each.name, each.name)
    return "" if dict(verified.functions) == dict(program.functions) else "functions"


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _why_not(start: Ready, proven: Proven, environment: Environment, called: set[int]) -> str:
    """Return why nothing is relied on, "" where all holds that the verifier takes for granted."""
    type_, program = start.type, start.program
    if type_ is None or proven.context_size is not None:
        return WITHOUT_TYPE
    if not (type_.has_packet and type_.has_lane):
        return f"what contexts of {type_.name} programs lead to is for their callers to say"
    if program.kfuncs or program.weak_kfuncs or program.kernel_symbols:
        return "it refers to the kernel's functions or variables"
    if not start.verified.knows_all or start.map_structs is not None:
        return "it reads the kernel's memory, or an arena"
    if start.has_kptrs or start.has_timers:
        return "it has kptrs or timers"
    import_alone("ebpfjit.verifier.prototypes")
    from ebpfjit.verifier.prototypes import prototype

    known = table.helpers()
    for number in sorted(called):
        takes = prototype(number, type_.name)
        name = NAMES.get(number, f"helper {number}")
        if takes is None:
            return f"nothing says what {name} gives"
        in_range = takes.result_range is None or (
            name == "bpf_get_smp_processor_id" and environment.cpus <= takes.result_range[1] + 1
        )
        is_known = takes.returns in ("integer", "void") or takes.returns_null or name in LOOKING
        if not in_range or takes.at_most is not None or not is_known:
            return f"what {name} gives is within bounds that are Linux's"
        if takes.returns == "ptr_to_map_value" and name not in LOOKING:
            return f"the memory that {name} gives is not known to be there as a whole"
        if known[number].calls_functions and name not in CALLING:
            return f"what {name} calls functions with is not vouched for"
    return ""


def _holds(start: Ready, reach: Reach) -> bool:
    """True where an access lies, in all states, in memory that every run has, and may be made there."""
    type_, least = start.type, min(start.verified.frame_sizes.values())
    assert type_ is not None  # `_why_not` saw to that
    rights = type_.rights
    return (
        not reach.others
        and reach.depth <= least
        and not (reach.fields and rights is None)
        and all(rights.allows(at, reach.size, store=reach.stores) for at in reach.fields if rights)
        and (not reach.in_packet or (type_.reads_packet and (type_.writes_packet or not reach.stores)))
        and all(_is_memory(start.program, map_, stores=reach.stores) for map_ in reach.maps)
    )


def _is_memory(program: Program, map_: Any, *, stores: bool) -> bool:
    """True where all of a map's values are memory that the program may touch so, for good."""
    definition = map_.definition
    return (
        any(each is map_ for each in program.maps)
        and definition.type in VALUES
        and not definition.flags & MapFlag.INNER_MAP
        and map_.value_is_stable
        and all(region.size >= definition.value_size for region in map_.regions)
        and not (stores and (map_.is_readonly or not all(region.writable for region in map_.regions)))
    )
