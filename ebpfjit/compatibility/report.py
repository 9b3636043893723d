"""What programs need, program by program: `Compatibility`, and that of an object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ebpfjit.compatibility.find import Needs, is_section, needs_of_map, needs_of_types
from ebpfjit.compatibility.lookup import latest
from ebpfjit.compatibility.need import Need
from ebpfjit.compatibility.release import Release
from ebpfjit.compatibility.target import Kernel, find_kernel
from ebpfjit.errors import EbpfError
from ebpfjit.named import absent, cut, few
from ebpfjit.program import Program

if TYPE_CHECKING:
    from ebpfjit.elf.btf import Btf
    from ebpfjit.elf.loader import Object, Source


@dataclass(frozen=True)
class Compatibility:
    """What a program, or all that an object has besides its programs, needs of Linux.

    `name` is the program's, `type` its program type, None where nothing tells. `needs` has each feature once,
    the latest release first; `needs[0]` is what keeps it from running on older kernels. It is iterated over
    as `needs` is; str() has a line for each.
    """

    name: str
    type: str | None
    needs: tuple[Need, ...]

    def __repr__(self) -> str:
        return cut(f"<compatibility of {self.name!r}: {self.summary}>")

    def __str__(self) -> str:
        return "\n".join([f"{self.name} ({self.type or 'no type'}): {self.summary}", *table(self.needs)])

    def __iter__(self) -> Iterator[Need]:
        return iter(self.needs)

    def __len__(self) -> int:
        return len(self.needs)

    @property
    def at_least(self) -> Release | None:
        """The latest of the releases that what is known to be needed came with, None where nothing is."""
        return latest(each.release for each in self.needs if each.is_needed)

    @property
    def minimum(self) -> Release | None:
        """The oldest release that has all that is needed; None where none has, or where that is not known.

        `obstacles` say why it is None.
        """
        return None if self.obstacles else self.at_least

    @property
    def obstacles(self) -> tuple[Need, ...]:
        """What no release has, what is not known, and what is gone again when the last thing needed comes."""
        least = self.at_least
        return tuple(
            each
            for each in self.needs
            if each.is_needed
            and not each.of_types
            and (
                each.release is None or (each.until is not None and least is not None and each.until < least)
            )
        )

    @property
    def summary(self) -> str:
        """The minimum in words."""
        least, obstacles = self.at_least, self.obstacles
        if not obstacles:
            return "any Linux with bpf(2)" if least is None else f"Linux {least} or later"
        if all(each.kind == "CO-RE" for each in obstacles):
            return "not the Linux whose types were given"
        unknown = all(not each.is_known for each in obstacles)
        return (
            f"not known, at least Linux {least}"
            if unknown and least
            else "not known"
            if unknown
            else "no Linux"
        )

    def missing(self, kernel: Kernel | Btf | Source) -> tuple[Need, ...]:
        """Return what a kernel lacks of what is needed, and of what it is not known to have.

        `kernel` is a release ("5.15"), "running", the BTF of one (a path, bytes, a Btf), or a Kernel. Raises
        EbpfError for a release that the tables do not have.
        """
        asked = find_kernel(kernel)
        return tuple(each for each in self.needs if each.is_needed and asked.has(each) is not True)

    def runs_on(self, kernel: Kernel | Btf | Source) -> bool:
        """Say whether a kernel is known to have all that is needed; see `missing`."""
        return not self.missing(kernel)

    def json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "type": self.type,
            "minimum": self.minimum,
            "at_least": self.at_least,
            "needs": [each.json() for each in self.needs],
        }


class ObjectCompatibility(Mapping[str, Compatibility]):
    """What an object needs of Linux.

    `programs` are the `Compatibility` of each program, by name, in the object's order. `rest` is what its
    maps that no program uses, and its types, need. `minimum` is the oldest release that has all of it, as
    `Compatibility.minimum`.
    """

    def __init__(self, name: str, programs: Mapping[str, Compatibility], rest: Compatibility) -> None:
        self.name = name
        self.rest = rest
        self._programs = dict(programs)

    def __getitem__(self, name: str) -> Compatibility:
        try:
            return self._programs[name]
        except KeyError:
            raise KeyError(absent(name, "program", self._programs)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._programs)

    def __len__(self) -> int:
        return len(self._programs)

    def __repr__(self) -> str:
        shown = few(f"{name}: {each.summary}" for name, each in self._programs.items())
        return cut(f"<compatibility of {self.name!r}: {shown or self.rest.summary}>")

    def __str__(self) -> str:
        parts = [str(each) for each in self._programs.values()]
        return "\n\n".join([*parts, str(self.rest)] if self.rest.needs else parts)

    @property
    def parts(self) -> tuple[Compatibility, ...]:
        """The programs, and the rest."""
        return (*self._programs.values(), self.rest)

    @property
    def whole(self) -> Compatibility:
        """All needs of the object as one."""
        return Compatibility(self.name, None, _ordered(need for part in self.parts for need in part.needs))

    @property
    def minimum(self) -> Release | None:
        """The oldest release that has all that is needed; None where none has, or where that is not known."""
        return self.whole.minimum

    def missing(self, kernel: Kernel | Btf | Source) -> dict[str, tuple[Need, ...]]:
        """Return what a kernel lacks, by the name of the program that needs it; "" for the rest.

        `kernel` is as for `Compatibility.missing`. What lacks nothing is left out.
        """
        asked = find_kernel(kernel)
        found = {name: each.missing(asked) for name, each in self._programs.items()}
        found[""] = self.rest.missing(asked)
        return {name: needs for name, needs in found.items() if needs}

    def json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "minimum": self.minimum,
            "programs": {name: each.json() for name, each in self._programs.items()},
            "rest": self.rest.json(),
        }


def _ordered(needs: Iterable[Need]) -> tuple[Need, ...]:
    """Return needs, what is not known or in no release first, then the latest release."""

    def rank(need: Need) -> tuple[int, int, int]:
        if need.release is None:
            return (0 if need.is_needed and not need.of_types else 2, 0, 0)
        major, minor = need.release.numbers
        return 1, -major, -minor

    return tuple(sorted(needs, key=rank))


def of_program(program: Program) -> Compatibility:
    """Return what a program needs of Linux."""
    return Compatibility(program.name or "program", program.type, _ordered(Needs(program).find()))


def of_object(obj: Object) -> ObjectCompatibility:
    """Return what the programs of an object, its other maps and its types need of Linux."""
    return of_programs(obj.programs, obj.name, obj)


def of_programs(programs: Mapping[str, Program], name: str, obj: Object | None = None) -> ObjectCompatibility:
    """Return what programs need of Linux, and what is left of their object, where there is one."""
    found = {each: of_program(program) for each, program in programs.items()}
    rest = _ordered(_rest(obj, programs)) if obj is not None else ()
    return ObjectCompatibility(name, found, Compatibility("the rest of the object", None, rest))


def _rest(obj: Object, programs: Mapping[str, Program]) -> list[Need]:
    """Return what maps of an object that no program uses need, and its types."""
    used = {id(map_.definition) for program in programs.values() for map_ in program.maps}
    rest: list[Need] = []
    for map_ in obj.maps.values():
        if id(map_.definition) not in used and not is_section(map_.definition):
            rest += needs_of_map(map_.definition)
    if obj.btf is not None:
        btf = obj.btf
        with suppress(EbpfError):  # damaged types are among the object's refusals
            rest += needs_of_types({btf.kind(id) for id in range(1, len(btf))})
    return rest


def table(needs: Iterable[Need]) -> list[str]:
    """Return needs as lines: release, feature and place, in columns."""
    rows = [(_release(each), each.feature + ("" if each.is_needed else " *"), _place(each)) for each in needs]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(2)]
    lines = [f"  {row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}".rstrip() for row in rows]
    optional = any(not each.is_needed for each in needs)
    return [*lines, "  * not needed where the kernel lacks it"] if optional else lines


def _release(need: Need) -> str:
    if not need.is_known:
        return "?"
    if need.release is None:
        return "types" if need.of_types else "none"
    return need.release if need.until is None else f"{need.release}-{need.until}"


def _place(need: Need) -> str:
    return "; ".join(text for text in (need.reason, need.where) if text)
