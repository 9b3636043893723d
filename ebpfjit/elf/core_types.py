"""When CO-RE takes a type of the object and a type of the target for the same.

Three relations, from loose to strict, as libbpf has them (relo_core.c):

    fields_fit     a member found under the same name can be read as the local one
    types_fit      for BPF_CORE_TYPE_EXISTS and its like: names of what is behind do not matter
    types_match    for BPF_CORE_TYPE_MATCHES: members, values and sizes are compared too
"""

from __future__ import annotations

from ebpfjit.elf.btf import ENUMS, MAX_DEPTH, Btf, Kind, Type, essential_name
from ebpfjit.elf.budget import STEP, Budget
from ebpfjit.record import dataclass

SIGNED = 1
"""BTF_INT_SIGNED."""


def kinds_fit(local: Kind, target: Kind) -> bool:
    """True for the same kind; enums of 32 and of 64 bits count as one."""
    return local == target or (local in ENUMS and target in ENUMS)


MAX_STEPS = 1_000_000
"""Pairs of types compared for one relocation: types that nest wildly could keep it busy for ever."""
MEMBERS_OF_STEP = 8
"""How many members are looked at for the price of a step."""


class CoreError(Exception):
    """A relocation that cannot be made, said without the place."""


@dataclass(slots=True)
class Comparison:
    """Compares types of `local` with types of `target`, for one relocation.

    `budget` is that of the file with the relocations, of which there may be many.
    """

    local: Btf
    target: Btf
    steps_left: int = MAX_STEPS
    budget: Budget | None = None

    def step(self, count: int = 1) -> None:
        """Count comparisons; raises CoreError or LoadError where there were too many."""
        self.steps_left -= count
        if self.steps_left < 0:
            raise CoreError(f"comparing the types takes more than {MAX_STEPS} steps")
        if self.budget is not None:
            self.budget.spend(STEP * count, "the comparisons of types for CO-RE")

    def fields_fit(self, local_id: int, target_id: int, depth: int = MAX_DEPTH) -> bool:
        """True where a field of the target type can be read as one of the local type."""
        local, target = self.local.resolve(local_id), self.target.resolve(target_id)
        if local.is_composite and target.is_composite:
            return True
        if not depth or not kinds_fit(local.kind, target.kind):
            return False
        match local.kind:
            case Kind.FLOAT | Kind.PTR | Kind.INT:
                return True
            case Kind.FWD | Kind.ENUM | Kind.ENUM64:
                return not local.name or not target.name or _same_name(local.name, target.name)
            case Kind.ARRAY:
                return self.fields_fit(local.target, target.target, depth - 1)
            case _:
                return False

    def types_fit(self, local_id: int, target_id: int, depth: int = MAX_DEPTH) -> bool:
        """True where both are of one kind, all the way down pointers, arrays and parameters."""
        self.step()
        local, target = self.local.resolve(local_id), self.target.resolve(target_id)
        if not depth or not kinds_fit(local.kind, target.kind):
            return False
        match local.kind:
            case Kind.VOID | Kind.STRUCT | Kind.UNION | Kind.ENUM | Kind.ENUM64 | Kind.FWD | Kind.INT:
                return True
            case Kind.PTR | Kind.ARRAY:
                return self.types_fit(local.target, target.target, depth - 1)
            case Kind.FUNC_PROTO:
                pairs = _pairs_of_prototypes(local, target)
                return pairs is not None and all(self.types_fit(a, b, depth - 1) for a, b in pairs)
            case _:
                return False

    def types_match(
        self, local_id: int, target_id: int, behind_pointer: bool = False, depth: int = MAX_DEPTH
    ) -> bool:
        """True where the target has all that the local type says it has."""
        self.step()
        local, target = self.local.resolve(local_id), self.target.resolve(target_id)
        if not depth or not _same_name(local.name, target.name):
            return False
        same_kind = local.kind == target.kind
        match local.kind:
            case Kind.VOID:
                return same_kind
            case Kind.FWD | Kind.STRUCT | Kind.UNION if behind_pointer or local.kind is Kind.FWD:
                return (same_kind or behind_pointer) and _keyword(local) == _keyword(target)
            case Kind.STRUCT | Kind.UNION:
                return same_kind and self._composites_match(local, target, depth)
            case Kind.ENUM | Kind.ENUM64:
                self.step(len(local.enumerators) + len(target.enumerators))
                return target.is_enum and _enums_match(local, target)
            case Kind.INT:
                signs = {type_.encoding & SIGNED for type_ in (local, target)}
                return same_kind and local.size == target.size and len(signs) == 1
            case Kind.PTR:
                return same_kind and self.types_match(local.target, target.target, True, depth - 1)
            case Kind.ARRAY:
                same = same_kind and local.count == target.count
                return same and self.types_match(local.target, target.target, behind_pointer, depth - 1)
            case Kind.FUNC_PROTO:
                pairs = _pairs_of_prototypes(local, target) if same_kind else None
                return pairs is not None and all(
                    self.types_match(a, b, behind_pointer, depth - 1) for a, b in pairs
                )
            case _:
                return False

    def _composites_match(self, local: Type, target: Type, depth: int) -> bool:
        """True where each local member has one in the target of the same name that matches."""
        if len(local.members) > len(target.members):
            return False
        self.step(len(local.members) * len(target.members) // MEMBERS_OF_STEP)
        return all(
            any(
                _same_name(member.name, other.name)
                and self.types_match(member.type, other.type, False, depth - 1)
                for other in target.members
            )
            for member in local.members
        )


def _same_name(local: str, target: str) -> bool:
    return local == target or essential_name(local) == essential_name(target)


def _keyword(type_: Type) -> str:
    """Return "struct" or "union" for a type or its forward declaration, "" for another."""
    if type_.kind is Kind.FWD:
        return "union" if type_.is_flagged else "struct"
    return type_.kind.name.lower() if type_.is_composite else ""


def _enums_match(local: Type, target: Type) -> bool:
    names = {essential_name(name) for name, _ in target.enumerators}
    return len(local.enumerators) <= len(target.enumerators) and all(
        essential_name(name) in names for name, _ in local.enumerators
    )


def _pairs_of_prototypes(local: Type, target: Type) -> list[tuple[int, int]] | None:
    """Return parameters' and results' types side by side, None where their numbers differ."""
    if len(local.parameters) != len(target.parameters):
        return None
    pairs = [(a, b) for (_, a), (_, b) in zip(local.parameters, target.parameters, strict=True)]
    return [*pairs, (local.target, target.target)]
