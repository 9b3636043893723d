"""The special fields of a map's value, found in its BTF as the kernel finds them (btf_parse_fields)."""

from __future__ import annotations

from collections.abc import Iterable

from ebpfjit.elf.btf import MAX_DEPTH, NO_MEMBER, Btf, Kind, Type
from ebpfjit.elf.budget import STEP
from ebpfjit.record import replace
from ebpfjit.runtime.maps.special import (
    HEADS,
    KINDS,
    MOST_FIELDS,
    NODES,
    POINTERS,
    ObjectLayout,
    Special,
    SpecialField,
    is_valid,
)

MOST_NESTED = 4
"""Structs in structs that are looked into (MAX_RESOLVE_DEPTH is more, but no value has so many)."""

FIELD_COST = 16
"""Bytes of the load's budget for each member that is looked at."""

Found = tuple[SpecialField, ...]


def special_fields(btf: Btf, id: int) -> Found:
    """Return the special fields of a type, by offset; none where it is no struct, or the kernel takes none.

    Raises LoadError where there is more to look through than the file may cost.
    """
    type_ = btf.resolve(id)
    if type_.kind is not Kind.STRUCT:
        return ()
    found = _Search(btf).struct(type_, MOST_NESTED)
    return found if is_valid(found) else ()


def fields_of_variables(btf: Btf, variables: Iterable[tuple[int, int]]) -> Found:
    """Return the special fields of a section's variables: the id of each VAR and where it is."""
    search, found = _Search(btf), list[SpecialField]()
    for id, start in variables:
        variable = btf.type(id)
        fields = search.contents(variable.target, MOST_NESTED, (id, NO_MEMBER))
        found += [search.inside(variable.name, start, field) for field in fields]
        if len(found) > MOST_FIELDS:
            return ()
    return tuple(sorted(found, key=lambda field: field.offset)) if is_valid(tuple(found)) else ()


class ObjectTypes:
    """The structs of a program's own BTF, as bpf_obj_new makes objects of them; each is looked at once."""

    def __init__(self, data: bytes) -> None:
        self._btf = Btf(data, "the object's BTF")
        self._known: dict[int, ObjectLayout | None] = {}
        self._scalars: dict[tuple[int, int], bool] = {}

    def __call__(self, id: int) -> ObjectLayout | None:
        """Return the layout of a type; None where there is no such struct. Raises LoadError for damage."""
        if id not in self._known and 0 < id < len(self._btf):
            type_ = self._btf.type(id)
            is_struct = type_.kind is Kind.STRUCT
            fields = _Search(self._btf, {**KINDS, **NODES}).struct(type_, MOST_NESTED) if is_struct else ()
            is_scalar = is_struct and not fields and self._is_scalar(type_, MOST_NESTED)
            made = ObjectLayout(type_.name, type_.size, fields if is_valid(fields) else (), is_scalar)
            self._known[id] = made if is_struct else None
        return self._known.get(id)

    def _is_scalar(self, type_: Type, depth: int) -> bool:
        """True for a struct of numbers, arrays of numbers and such structs (__btf_type_is_scalar_struct)."""
        known = self._scalars.get((type_.id, depth))
        if known is None:
            known = self._scalars[type_.id, depth] = depth > 0 and self._has_numbers_only(type_, depth)
        return known

    def _has_numbers_only(self, type_: Type, depth: int) -> bool:
        self._btf.budget.spend(FIELD_COST * len(type_.members), "the members of objects")
        for member in type_.members:
            inner = self._btf.resolve(member.type)
            if inner.is_composite:
                if not self._is_scalar(inner, depth - 1):
                    return False
                continue
            if inner.kind is Kind.ARRAY and inner.count:
                inner = self._btf.resolve(inner.target)
            if inner.kind is not Kind.INT and not inner.is_enum:
                return False
        return True


class _Search:
    """Looks through the members of structs, each struct's once."""

    def __init__(self, btf: Btf, kinds: dict[str, Special] | None = None) -> None:
        self.btf = btf
        self.kinds = kinds or KINDS
        self.known: dict[tuple[int, int], Found] = {}

    def struct(self, type_: Type, depth: int) -> Found:
        known = self.known.get((type_.id, depth))
        if known is None:
            known = self.known[type_.id, depth] = self._members(type_, depth)
        return known

    def _members(self, type_: Type, depth: int) -> Found:
        self.btf.budget.spend(FIELD_COST * len(type_.members), "the members of values")
        found: list[SpecialField] = []
        for number, member in enumerate(type_.members):
            if member.bit_size or member.bit_offset % 8:
                continue
            start = member.bit_offset // 8
            for field in self.contents(member.type, depth, (type_.id, number)):
                offset = start + field.offset
                kind = self.kinds[field.kind]
                if offset % kind.alignment == 0 and offset + kind.size <= type_.size:
                    found.append(self.inside(member.name, start, field))
            if len(found) > MOST_FIELDS:
                break
        return tuple(sorted(found, key=lambda field: field.offset))

    def inside(self, name: str, start: int, field: SpecialField) -> SpecialField:
        """Return a field of what is called `name` ("[3]": an element) and starts at byte `start`."""
        joint = "." if name and field.name and not field.name.startswith("[") else ""
        name += joint + field.name
        self.btf.budget.spend(STEP + len(name), "the special fields of values")
        return replace(field, offset=start + field.offset, name=name)

    def contents(self, id: int, depth: int, place: tuple[int, int]) -> Found:
        """Return the special fields of what a member or a variable is; `place` is how tags call it."""
        found = self._of(id, depth)
        self.btf.budget.spend(STEP * len(found), "the special fields of values")
        if place not in self.btf.contained:
            return found
        return tuple(  # the tag of an array is that of each of its heads
            replace(field, contains=self._contained(field.kind, place))
            if field.kind in HEADS and field.contains is None
            else field
            for field in found
        )

    def _contained(self, kind: str, place: tuple[int, int]) -> tuple[str, int] | None:
        """Return which struct hangs in a head, and at which offset; None where no tag says it."""
        struct, name = self.btf.contained.get(place, ("", ""))
        for id in self.btf.named(struct, {Kind.STRUCT}) if struct else ():
            members = self.btf.type(id).members
            self.btf.budget.spend(FIELD_COST * len(members), "what hangs in lists and trees")
            for member in members:
                if member.name == name and self.btf.resolve(member.type).name == HEADS[kind]:
                    return struct, member.bit_offset // 8
        return None

    def _of(self, id: int, depth: int, arrays: int = MAX_DEPTH) -> Found:
        """Return the special fields of a member's type, an array's elements one after the other.

        `arrays` is how many of them may be in each other.
        """
        type_ = self.btf.resolve(id)
        if type_.kind is Kind.ARRAY:
            return self._array(type_, depth, arrays - 1) if arrays else ()
        if type_.kind is Kind.PTR:
            tag = self.btf.type(type_.target)
            is_special = tag.kind is Kind.TYPE_TAG and tag.name in POINTERS
            if not is_special:
                return ()
            target = self.btf.resolve(tag.target)
            contains = (target.name, 0) if target.kind is Kind.STRUCT else None
            return (SpecialField(tag.name, 0, "", contains=contains),)
        if type_.kind is not Kind.STRUCT:
            return ()
        if type_.name in self.kinds and type_.name not in POINTERS:
            return (SpecialField(type_.name, 0, ""),) if type_.size == self.kinds[type_.name].size else ()
        return self.struct(type_, depth - 1) if depth else ()

    def _array(self, type_: Type, depth: int, arrays: int) -> Found:
        """Return those of an array: where there are more than MOST_FIELDS, some of them."""
        self.btf.budget.spend(STEP, "the special fields of values")
        element = self._of(type_.target, depth, arrays)
        if not element or not type_.count:
            return ()
        size = self.btf.size_of(type_.target)
        return tuple(
            self.inside(f"[{index}]", index * size, field)
            for index in range(min(type_.count, MOST_FIELDS // len(element) + 1))
            for field in element
        )
